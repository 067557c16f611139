r"""Hessian-free optimization: long conjugate-gradient steps on a damped Gauss-Newton matrix.

At parameters x, with gradient g and Gauss-Newton matrix G, each new point takes

    (G + lambda) s  =  -g                                                   (1)

by conjugate gradients whose first direction is the solution before, in the norm of Kronecker
factors of each leaf, until a product earns less than the average so far. One trial per update: the
last iterate first; after a rejection one that was passed (CG backtracking, which spends no
product), or the last one shortened. lambda follows the ratio of what f fell by to what the undamped
model promised (Nielsen 1999), and a rejection multiplies it by 2 to 4. The curvature may come from
other data than the gradient, such as a part of them.

Source: Martens (2010), "Deep learning via Hessian-free optimization"; Martens & Sutskever (2012),
"Training deep and recurrent networks with Hessian-free optimization", sections 7 to 13; Martens &
Grosse (2015) and Gupta, Koren & Singer (2018) for the factors (curvature/leafwise.py).
"""

from typing import Any

from hesskit.linalg.operator import Preconditioner
from hesskit.transforms._hessian_free import build
from hesskit.transforms._optax import Transformation, memoize


@memoize
def hessian_free(
    learning_rate: Any = None,
    *,
    damping: Any = None,
    max_products: Any = None,
    warm_start: Any = None,
    preconditioner: Preconditioner | str | None = "leafwise",
    has_aux: bool = False,
) -> Transformation:
    r"""Damped Gauss-Newton steps by long conjugate gradients, for models with outputs.

    (G + lambda) s = -g from products G v alone, for any pytree and any forward function. One trial
    per update; a rejected one is a zero update without products, and f never increases.

    Args:
      learning_rate: None for steps that the method accepts or rejects itself. A number or schedule
        multiplies the step, and lambda stays what it was at first.
      damping: the first lambda, in the unit of G, or a schedule. None means the mean curvature
        tr(G) / n, estimated by one product.
      max_products: of CG at a new point; may be traced. None means min(2 n, 250), the 250 of
        Martens (2010): CG ends by its own profit long before. Nine vectors are kept.
      warm_start: in [0, 1]; where not 0, the first direction of CG is the last solution, at its
        best length, so that no part of it has to be chosen. None means 1.
      preconditioner: a `Preconditioner`; None means none. By default
        `hesskit.leafwise_preconditioner()`: without one, CG on a deep net spends most of its
        products on the scales of the layers (on a digits autoencoder the error after 5 s was seven
        times as large).
      has_aux: ignored: a structured objective says itself whether it has an aux.

    Returns:
      A `Transformation`. Its `update` needs `value_fn` to be `hesskit.composite(...)`,
      `hesskit.least_squares_loss(...)` or a sum of such. `update(..., curvature_args=data)` takes
      the curvature from other data, a tuple or dict like `args`: a quarter of the batch costs a
      quarter, and noise in G does less harm than noise in g.

    Raises:
      ValueError: an argument is out of its range.
      TypeError: a number was expected; in `update`, the objective has no structure.

    For mini-batches: large ones; value and gradient of one update belong to one batch.

    Cost of an update in gradients: 2 for each product, on the curvature data, and 2; the
    preconditioner takes one product. A rejected one 1.5 with `value`.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> x = jnp.linspace(-1.0, 1.0, 30)
      >>> loss = hesskit.composite(
      ...     hesskit.losses.squared_error(), lambda p, x: p["b"] * jnp.tanh(p["a"] * x))
      >>> start = {"a": jnp.array(1.0), "b": jnp.array(0.5)}
      >>> found = hesskit.minimize(
      ...     loss, start, hesskit.hessian_free(), args=(x, 2.0 * jnp.tanh(3.0 * x)))
      >>> print(found.success, found.params["a"].round(2), found.params["b"].round(2))
      True 3.0 2.0

    References:
      Martens (2010), ICML. Martens & Sutskever (2012), Neural Networks: Tricks of the Trade, LNCS
      7700, 479-535.
    """
    return build(
        "hessian_free",
        damping,
        max_products,
        warm_start,
        preconditioner,
        learning_rate=learning_rate,
        has_aux=has_aux,
    )


@memoize
def scale_by_hessian_free(
    *,
    damping: Any = None,
    max_products: Any = None,
    warm_start: Any = None,
    preconditioner: Preconditioner | str | None = "leafwise",
    has_aux: bool = False,
) -> Transformation:
    r"""The step of Hessian-free optimization with its sign changed, for chains.

    Args:
      damping: lambda, in the unit of G, or a schedule; it stays what it was at first.
      max_products: of CG. None means min(2 n, 250).
      warm_start: as in `hessian_free`.
      preconditioner: as in `hessian_free`.
      has_aux: ignored: a structured objective says itself whether it has an aux.

    Returns:
      A `Transformation` whose updates point uphill; its `update` needs a structured `value_fn`.

    For mini-batches: yes. Cost of an update in gradients: 1, and 2 for each product.

    Example:
      >>> import jax, jax.numpy as jnp, hesskit
      >>> loss = hesskit.least_squares_loss(lambda p: 2.0 * (p - 3.0))
      >>> scaled = hesskit.scale_by_hessian_free(damping=1e-3)
      >>> x = jnp.array([1.0])
      >>> print(scaled.update(jax.grad(loss)(x), scaled.init(x), x, value_fn=loss)[0].round(2))
      [-2.]

    References:
      Martens (2010), ICML.
    """
    return build(
        "scale_by_hessian_free",
        damping,
        max_products,
        warm_start,
        preconditioner,
        learning_rate=1.0,
        has_aux=has_aux,
        sign=-1.0,
    )
