r"""Natural gradient: the gradient in the metric of the model's outputs.

With the Fisher matrix F = A'A of the outputs at parameters x, the gradient g and the direction of
the update before, each update takes -lr phi with

    phi  =  argmin  phi.F phi / 2 - g.phi + damping |phi - momentum phi_before|^2 / 2       (1)

from the samples, (A A' + damping)^{-1}, where they are fewer than the parameters; from a QR
factorization of A; or by conjugate gradients on products F v, which form no matrix. Where F came
from few samples, momentum keeps what earlier ones said of directions that these do not see.

Source: Amari (1998); Martens (2020); Goldshlager, Abrahamsen & Lin (2024), "A Kaczmarz-inspired
approach to accelerate the optimization of neural network wavefunctions", algorithm 1 (SPRING).
"""

from typing import Any

from hesskit.linalg.operator import Preconditioner
from hesskit.transforms._natural_gradient import DAMPING, Options, build
from hesskit.transforms._optax import Transformation, memoize


@memoize
def natural_gradient(
    learning_rate: Any = None,
    *,
    damping: Any = DAMPING,
    fisher: str = "exact",
    key: Any = 0,
    momentum: Any = 0.0,
    norm_constraint: Any = None,
    linear_solver: str = "auto",
    max_products: Any = None,
    preconditioner: Preconditioner | None = None,
    has_aux: bool = False,
) -> Transformation:
    r"""Steps along (F + damping)^{-1} g, with F the Fisher matrix of the model's outputs.

    For any pytree and any forward function: `value_fn` says what the outputs are. The exact F is
    the Gauss-Newton matrix, which serves any convex loss of outputs. Nothing is compared, so it
    takes a learning rate; an update that is not finite is zero. With `momentum` it is SPRING, for
    wavefunctions sampled anew at each update.

    Args:
      learning_rate: the multiple of the step, or a schedule. None means 1, the minimizer of the
        damped model.
      damping: added to the eigenvalues of F, in their unit (that of the loss's curvature: a mean
        over examples is smaller than a sum); a number or a schedule. In float32 it counts for at
        least max(m, n) eps of the trace.
      fisher: "exact", "sampled" (targets drawn with `key`) or "empirical" (the targets of the data,
        not the Fisher matrix; one row for each example), as in `hesskit.fisher_operator`.
      key: an int or a key.
      momentum: the part of the direction before from which the damping pulls, in [0, 1]; 0.9 to
        0.99 as published, 0 for none.
      norm_constraint: bound on the squared length of an update; None for none. 1e-3 as published.
      linear_solver: "sample" factors an m x m matrix, m examples times their outputs (or examples,
        of "sampled" and "empirical"); "dense" an n x n one; "cg" takes products alone. "auto" takes
        the smaller of both while it is at most 2,000 and A has at most 2^27 entries, else "cg".
      max_products: of CG in one update. None means 20.
      preconditioner: of CG: a `Preconditioner`, such as `hesskit.kronecker_preconditioner()`. None
        means none; with one "auto" is "cg".
      has_aux: ignored: a structured objective says itself whether it has an aux.

    Returns:
      A `Transformation`. Its `update` needs `value_fn` to be `hesskit.composite(...)`,
      `hesskit.least_squares_loss(...)`, `hesskit.score_objective(...)`, or a sum of such with
      `hesskit.l2`; with "sampled" and "empirical" the outer loss is one of `hesskit.losses`.

    Raises:
      ValueError: an argument is out of its range.
      TypeError: a number was expected; in `update`, the objective has no structure, or no
        distribution of outputs where one is needed.

    For mini-batches: yes.

    Cost of an update in gradients: 1, and min(m, n) passes for the rows (one mapped pass with
    `hesskit.per_example`) or 2 for each product of CG. Memory m n, or 5 vectors.

    Example:
      >>> import jax, jax.numpy as jnp, optax, hesskit
      >>> loss = hesskit.composite(hesskit.losses.sigmoid_cross_entropy(), lambda w, x: x @ w)
      >>> x, t = jnp.array([[1.0, 0.0], [1.0, 2.0], [1.0, 1.0]]), jnp.array([0, 1, 0])
      >>> opt, w = hesskit.natural_gradient(0.5), jnp.zeros(2)
      >>> state = opt.init(w)
      >>> for _ in range(5):
      ...     grads = jax.grad(loss)(w, x, t)
      ...     updates, state = opt.update(grads, state, w, value_fn=loss, args=(x, t))
      ...     w = optax.apply_updates(w, updates)
      >>> print(bool(loss(w, x, t) < 0.3))
      True

    References:
      Amari (1998), Neural Computation 10, 251-276. Martens (2020), JMLR 21, 146.
      Goldshlager, Abrahamsen & Lin (2024), J. Comput. Phys. 516, 113351, algorithm 1.
    """
    name = "natural_gradient"
    options = Options(
        name,
        damping,
        fisher,
        key,
        momentum,
        norm_constraint,
        linear_solver,
        max_products,
        preconditioner,
    )
    return build(options, learning_rate=learning_rate, has_aux=has_aux, sign=1.0)


@memoize
def scale_by_natural_gradient(
    *,
    damping: Any = DAMPING,
    fisher: str = "exact",
    key: Any = 0,
    momentum: Any = 0.0,
    linear_solver: str = "auto",
    max_products: Any = None,
    preconditioner: Preconditioner | None = None,
    has_aux: bool = False,
) -> Transformation:
    r"""The direction (F + damping)^{-1} g, for chains.

    `natural_gradient(lr)` without a norm constraint is
    `optax.chain(scale_by_natural_gradient(), scale_by_learning_rate(lr))`.

    Args:
      damping: added to the eigenvalues of F; a number or a schedule.
      fisher: "exact", "sampled" or "empirical".
      key: an int or a key.
      momentum: as in `natural_gradient`.
      linear_solver: as in `natural_gradient`.
      max_products: of CG in one update. None means 20.
      preconditioner: of CG: a `Preconditioner`, such as `hesskit.kronecker_preconditioner()`. None
        means none; with one "auto" is "cg".
      has_aux: ignored: a structured objective says itself whether it has an aux.

    Returns:
      A `Transformation` whose updates point uphill; its `update` needs a structured `value_fn`.

    For mini-batches: yes. Cost of an update: as `natural_gradient`.

    Example:
      >>> import jax, jax.numpy as jnp, hesskit
      >>> loss = hesskit.least_squares_loss(lambda p: 2.0 * (p - 3.0))
      >>> scaled = hesskit.scale_by_natural_gradient(damping=0.0)
      >>> x = jnp.array([1.0])
      >>> print(scaled.update(jax.grad(loss)(x), scaled.init(x), x, value_fn=loss)[0].round(4))
      [-2.]

    References:
      Martens (2020), JMLR 21, 146.
    """
    name = "scale_by_natural_gradient"
    options = Options(
        name, damping, fisher, key, momentum, None, linear_solver, max_products, preconditioner
    )
    return build(options, learning_rate=None, has_aux=has_aux, sign=-1.0)
