r"""K-FAC: steps in the metric of Kronecker factors of the Gauss-Newton matrix, for any model.

At parameters x with gradient g, factors M of the Gauss-Newton matrix G as in
linalg/kronecker_factors.py, the direction d = -M^{-1} g and the step before s_0, each update takes

    s  =  argmin over a, b  of  g.s + s.Gs / 2 + lambda |s|^2 / 2,   s = a d + b s_0        (1)

with G itself, and keeps it if f falls. The model is read as it stands: no layer is registered.

Source: Martens & Grosse (2015), "Optimizing neural networks with Kronecker-factored approximate
curvature", sections 5 to 7.
"""

from typing import Any

from hesskit.transforms._kfac import build
from hesskit.transforms._kfac_layout import by_shapes
from hesskit.transforms._kfac_renewal import DECAY, Options
from hesskit.transforms._optax import Transformation, memoize


@by_shapes
@memoize
def kfac(
    learning_rate: Any = None,
    *,
    damping: Any = None,
    momentum: Any = None,
    norm_constraint: Any = None,
    weight_decay: Any = None,
    period: Any = None,
    decay: float = DECAY,
    estimator: str = "sampled",
    eigenvalue_correction: bool = False,
    sharing: str = "expand",
    shared: str = "sum",
    key: Any = 0,
    inverses: str = "replicated",
    max_factor_dim: Any = None,
    objective: Any = None,
    example: Any = None,
    has_aux: bool = False,
) -> Transformation:
    r"""Kronecker-factored steps for deep nets, read from the model with no registration.

    For any pytree and any forward function inside `hesskit.composite(loss, model)`: every product,
    convolution and look-up that a leaf enters has factors of its inputs and of the slopes of its
    outputs; a bias joins its weight, other vectors have a diagonal block, other matrices factors of
    their own slopes, drawn 16 times at first and 4 times later. f never increases.

    Args:
      learning_rate: None for steps of the best length and momentum, which are judged. A number or
        a schedule multiplies the direction, with heavy-ball momentum, and nothing is rejected.
      damping: the first lambda, in the unit of G; with a learning rate that of every renewal, and
        maybe a schedule. None means 0.03 of the mean curvature tr(G) / n.
      momentum: of the heavy ball, in [0, 1], with a learning rate. None means 0.
      norm_constraint: bound on lr^2 d.Md, for a Fisher matrix about twice the divergence of the
        outputs' distribution, of the direction before momentum, with a learning rate; None for
        none. 1e-3 as published.
      weight_decay: `hesskit.l2(weight_decay)` is added to `value_fn`; None for none. Value and
        gradient are handed to `update` without it.
      period: updates between renewals of factors, inverses and lambda; the first ones are renewed
        at each. None means 5; without a learning rate more and more, to 20.
      decay: of the factors' running means, by renewal.
      estimator: of the outputs' curvature in the factors: "sampled", one random vector; or "exact",
        a pass back for each entry of the last axis of the outputs, which leaves no chance where an
        output depends on no other row's.
      eigenvalue_correction: whether a block has the diagonal of the curvature in the eigenvectors
        of its factors (George et al. 2018), in place of the factors' own eigenvalues. Eigenvectors
        take some ten times as long as inverses.
      sharing: of positions that share a weight, pixels, places in a sequence or steps of a scan:
        "expand" takes them for examples; "reduce" sums over them first, and takes the first axis
        for that of the examples, and steps that hand nothing on for more of these.
      shared: of a leaf in several products, such as a tied embedding: "sum" of their factors, or
        "sampled", factors of its own slopes.
      key: an int or a key, of the random slopes.
      inverses: of factors, and eigenvectors: "replicated", found on every device; or
        "distributed", a part on each device of the mesh (that of params, or of `jax.set_mesh`), and
        gathered.
      max_factor_dim: a factor of more rows is a diagonal. None means 2048.
      objective: the `value_fn` of the updates to come, for params as `init` gets them (so not in
        `hesskit.masked`, `freeze` or `partition`, which hand `init` a part of them). With it,
        leaves of layers stacked for a `jax.lax.scan` have factors for each layer, where by their
        shape alone they have those of their own slopes, as some kernels of few channels have too;
        and a vector of weights to one output has the matrix of its inputs, where by its shape it
        has the diagonal of that. `hesskit.kronecker_table` says which.
      example: data of `objective`, a tuple or a dict as in `args=`, of arrays or
        `jax.ShapeDtypeStruct`: only shapes are looked at. Both are `static_args` of
        `optax.inject_hyperparams`.
      has_aux: ignored: a structured objective says itself whether it has an aux.

    Returns:
      A `Transformation`. Its `update` needs `value_fn` to be `hesskit.composite(...)`,
      `hesskit.least_squares_loss(...)` or a sum of such with `hesskit.l2`. `update(...,
      curvature_args=data)` takes the curvature from other data, a tuple or dict like `args`.

    Raises:
      ValueError: an argument is out of its range, or is only for a learning rate.
      TypeError: a number was expected; in `update`, the objective has no structure.

    For mini-batches: yes, with a learning rate; large ones without.

    Cost of an update in gradients: 1 and two pushes forward and a value, about 2.2 in all; with a
    learning rate 1, and none beside the caller's where `value` and `grad` are given; a renewal 1.5
    and the inverses ("exact": 1 more for each entry, corrected eigenvalues as much again). Memory:
    2 (a^2 + b^2) for an (a, b) leaf, and a b if corrected; at a renewal the inputs and slopes of
    all examples.

    Example:
      >>> import jax, jax.numpy as jnp, optax, hesskit
      >>> model = lambda p, x: jnp.tanh(x @ p["w"] + p["b"]) @ p["v"]
      >>> loss = hesskit.composite(hesskit.losses.squared_error(), model)
      >>> params = {"w": jnp.eye(2), "b": jnp.zeros(2), "v": jnp.ones((2, 1))}
      >>> x = jnp.array([[0.0, 1.0], [1.0, 1.0], [2.0, 0.0]])
      >>> opt, data = hesskit.kfac(), {"x": x, "targets": jnp.array([[1.0], [0.0], [1.0]])}
      >>> @jax.jit
      ... def step(params, state):
      ...     value, grads = jax.value_and_grad(loss)(params, **data)
      ...     updates, state = opt.update(
      ...         grads, state, params, value=value, grad=grads, value_fn=loss, **data)
      ...     return optax.apply_updates(params, updates), state
      >>> state = opt.init(params)
      >>> for _ in range(20):
      ...     params, state = step(params, state)
      >>> print(bool(loss(params, **data) < 1e-2))
      True

    References:
      Martens & Grosse (2015), ICML. Grosse & Martens (2016), ICML. George et al. (2018), NeurIPS.
      Eschenhagen et al. (2023), NeurIPS.
    """
    options = Options(
        name="kfac",
        damping=damping,
        momentum=momentum,
        norm_constraint=norm_constraint,
        period=period,
        decay=decay,
        estimator=estimator,
        eigenvalue_correction=eigenvalue_correction,
        sharing=sharing,
        shared=shared,
        key=key,
        inverses=inverses,
        max_factor_dim=max_factor_dim,
        weight_decay=weight_decay,
        objective=objective,
        example=example,
    )
    return build(options, learning_rate=learning_rate, has_aux=has_aux, sign=1.0)


@by_shapes
@memoize
def scale_by_kfac(
    *,
    damping: Any = None,
    momentum: Any = None,
    period: Any = None,
    decay: float = DECAY,
    estimator: str = "sampled",
    eigenvalue_correction: bool = False,
    sharing: str = "expand",
    shared: str = "sum",
    key: Any = 0,
    inverses: str = "replicated",
    max_factor_dim: Any = None,
    objective: Any = None,
    example: Any = None,
    has_aux: bool = False,
) -> Transformation:
    r"""The direction M^{-1} g of Kronecker factors, for chains.

    `kfac(lr)` without a norm constraint is
    `optax.chain(scale_by_kfac(), scale_by_learning_rate(lr))`.

    Args:
      damping: lambda, in the unit of G, or a schedule; None means 0.03 of the mean curvature.
      momentum: of the heavy ball, in [0, 1]. None means 0.
      period: updates between renewals of the factors; None means 5.
      decay: of the factors' running means, by renewal.
      estimator: "sampled" or "exact", as in `kfac`.
      eigenvalue_correction: as in `kfac`.
      sharing: "expand" or "reduce", as in `kfac`.
      shared: "sum" or "sampled", as in `kfac`.
      key: an int or a key, of the random slopes.
      inverses: of factors, and eigenvectors: "replicated", found on every device; or
        "distributed", a part on each device of the mesh (that of params, or of `jax.set_mesh`), and
        gathered.
      max_factor_dim: a factor of more rows is a diagonal. None means 2048.
      objective: the `value_fn` of the updates, as in `kfac`.
      example: data of `objective`, as in `kfac`.
      has_aux: ignored: a structured objective says itself whether it has an aux.

    Returns:
      A `Transformation` whose updates point uphill; its `update` needs a structured `value_fn`.

    For mini-batches: yes. Cost of an update in gradients: 1; a renewal 1.5 and the inverses.

    Example:
      >>> import functools, jax, jax.numpy as jnp, hesskit
      >>> loss = hesskit.least_squares_loss(lambda p: 2.0 * (p - 3.0))
      >>> scaled = hesskit.scale_by_kfac(damping=1e-6)
      >>> update = jax.jit(functools.partial(scaled.update, value_fn=loss))
      >>> x = jnp.array([1.0])
      >>> print(update(jax.grad(loss)(x), scaled.init(x), x)[0].round(4))
      [-2.]

    References:
      Martens & Grosse (2015), ICML.
    """
    options = Options(
        name="scale_by_kfac",
        damping=damping,
        momentum=momentum,
        norm_constraint=None,
        period=period,
        decay=decay,
        estimator=estimator,
        eigenvalue_correction=eigenvalue_correction,
        sharing=sharing,
        shared=shared,
        key=key,
        inverses=inverses,
        max_factor_dim=max_factor_dim,
        objective=objective,
        example=example,
    )
    return build(options, learning_rate=1.0, has_aux=has_aux, sign=-1.0)
