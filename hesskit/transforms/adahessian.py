r"""AdaHessian: Adam with the diagonal of the Hessian in place of the gradient's own size.

At step t, with gradient g and Hutchinson's estimate d of the Hessian's diagonal,

    m  <-  b1 m + (1 - b1) g
    v  <-  b2 v + (1 - b2) d_s^2          every `update_interval` steps
    D  =   sqrt(v / (1 - b2^estimates))
    x  <-  x - lr (m / (1 - b1^t) / (D^hessian_power + eps) + weight_decay x)        (1)

where d_s is |d|, or its mean over the entries of a filter that see the same kind of input: spatial
averaging, the authors' means against the noise of a single product. v counts estimates, not steps.

Source: Yao, Gholami, Shen, Mustafa, Keutzer & Mahoney (2021), "AdaHessian: an adaptive second order
optimizer for machine learning", algorithm 1 and (7) to (11); AAAI 35.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import errors, select, tree
from hesskit.core.types import Array, Params
from hesskit.transforms import _diagonal
from hesskit.transforms._diagonal import Diagonal, Options
from hesskit.transforms._optax import Transformation, memoize


def _averaged(new: Params, spatial_axes: Any) -> Params:
    """d_s: the mean of |d| over the axes named for a leaf."""
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.abs, new))
    for path, axes in (spatial_axes or {}).items():
        for i, chosen in enumerate(select.select(path, new, name="spatial_axes")):
            if chosen:
                leaves[i] = jnp.broadcast_to(
                    jnp.mean(leaves[i], axis=axes, keepdims=True), leaves[i].shape
                )
    return jax.tree.unflatten(structure, leaves)


def _learn(nu: Params, new: Params, *, b2: Any, spatial_axes: Any) -> Params:
    return _diagonal.mix(b2, nu, jax.tree.map(jnp.square, _averaged(new, spatial_axes)))


def _unbiased(mean: Params, decay: Any, number: Array) -> Params:
    def leaf(a: Array) -> Array:
        return a / (1 - jnp.asarray(decay, a.dtype) ** number.astype(a.dtype))

    return jax.tree.map(leaf, mean)


def _direct(
    mu: Params,
    nu: Params,
    steps: Array,
    estimates: Array,
    *,
    b1: Any,
    b2: Any,
    eps: Any,
    hessian_power: Any,
) -> tuple[Params, Array]:
    """The quotient of (1)."""

    def divide(m: Array, v: Array) -> Array:
        power = jnp.asarray(hessian_power, v.dtype) / 2
        return m / (v**power + jnp.asarray(eps, v.dtype))

    v = _unbiased(nu, b2, jnp.maximum(estimates, 1))
    u = jax.tree.map(divide, _unbiased(mu, b1, steps), v)
    return u, jnp.ones((), tree.result_dtype(u))


def _rule(
    num_samples: Any, b1: Any, b2: Any, eps: Any, hessian_power: Any, spatial_axes: Any
) -> Diagonal:
    errors.check_count(num_samples, name="num_samples")
    errors.check_number(b2, name="b2", high=1.0, none=False)
    errors.check_number(eps, name="eps", open_low=True, none=False)
    errors.check_number(hessian_power, name="hessian_power", high=1.0, none=False)
    if spatial_axes is not None and not isinstance(spatial_axes, Mapping):
        raise TypeError(
            "spatial_axes must map paths to axes, such as {'conv*/kernel': (0, 1)}; got "
            f"{spatial_axes!r}"
        )
    return Diagonal(
        estimate=functools.partial(_diagonal.hutchinson, num_samples=num_samples),
        cost=(1, 1, num_samples),
        learn=functools.partial(_learn, b2=b2, spatial_axes=spatial_axes),
        direct=functools.partial(_direct, b1=b1, b2=b2, eps=eps, hessian_power=hessian_power),
    )


@memoize
def scale_by_adahessian(
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-4,
    hessian_power: Any = 1.0,
    spatial_axes: Any = None,
    update_interval: Any = 1,
    num_samples: Any = 1,
    key: Any = 0,
    axis_name: Any = None,
    has_aux: bool = False,
) -> Transformation:
    r"""The direction of AdaHessian with its sign unchanged, for chains.

    `adahessian(lr)` is `optax.chain(scale_by_adahessian(), optax.scale_by_learning_rate(lr))`.

    Args:
      b1: as in `adahessian`.
      b2: likewise, of the squared curvature.
      eps: added to the denominator.
      hessian_power: of D.
      spatial_axes: the axes of averages, by path.
      update_interval: steps from one estimate to the next.
      num_samples: products averaged in an estimate.
      key: an int or a key, of the estimates.
      axis_name: over which the estimates are averaged.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation` whose updates point uphill; its `update` needs `value_fn`.

    For mini-batches: yes. Cost of an update in gradients: 3.

    Example:
      >>> import jax, jax.numpy as jnp, hesskit
      >>> f, x = lambda x: jnp.sum(jnp.array([1.0, 100.0]) * x**2), jnp.array([3.0, -2.0])
      >>> uphill = hesskit.scale_by_adahessian(eps=1e-12)
      >>> u, _ = uphill.update(jax.grad(f)(x), uphill.init(x), x, value_fn=f)
      >>> print(jnp.allclose(u, x))
      True

    References:
      Yao et al. (2021), algorithm 1.
    """
    rule = _rule(num_samples, b1, b2, eps, hessian_power, spatial_axes)
    options = Options(
        "scale_by_adahessian", b1, 0.0, None, update_interval, key, axis_name, has_aux
    )
    return _diagonal.build(rule, options, learning_rate=1.0, sign=-1.0)


@memoize
def adahessian(
    learning_rate: Any,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-4,
    hessian_power: Any = 1.0,
    spatial_axes: Any = None,
    weight_decay: Any = 0.0,
    weight_decay_mask: Any = None,
    update_interval: Any = 1,
    num_samples: Any = 1,
    key: Any = 0,
    axis_name: Any = None,
    has_aux: bool = False,
) -> Transformation:
    r"""AdaHessian: for mini-batches, Adam that divides by curvature in place of gradients.

    x <- x - lr m / (D^hessian_power + eps), with m the mean gradient and D the root of the mean
    square of Hutchinson's estimates of the Hessian's diagonal, both without bias. Nothing is
    judged; a batch that is not finite is a zero update. Steps do not change when the loss is
    scaled, nor when a parameter is.

    Args:
      learning_rate: a number or a schedule: the part of a Newton step, published 0.15.
      b1: decay of the mean gradient.
      b2: decay of the mean squared curvature, by estimate.
      eps: added to the denominator, in the unit of D^hessian_power.
      hessian_power: from 0, plain momentum, to 1.
      spatial_axes: where the curvature of a filter is averaged: axes by path, such as
        {"conv*/kernel": (0, 1)} for kernels of height and width first. None means nowhere; the
        authors' code averages over height and width of each 4-d array.
      weight_decay: lr times this part of params is taken off.
      weight_decay_mask: which leaves decay: a prefix tree of bools, a path or list of paths, or
        `f(path, leaf) -> bool`. None means all.
      update_interval: steps from one estimate to the next; may be traced.
      num_samples: products averaged in an estimate; may be traced.
      key: an int or a key, of the estimates.
      axis_name: of the `pmap` or `shard_map` whose devices hold parts of the batch: each estimates
        from its own, and the mean is used by all. Under `jit` with sharded data leave it None.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation`. Its `update` needs `value_fn` (or `obj_fn`, as in `optax.contrib`) with
      the data of this batch.

    Raises:
      ValueError: a number is out of its range; in `init`: the mask fits no leaf; in `update`: a
        path of `spatial_axes` fits none.
      TypeError: there is no learning rate, or a number, a key or a mapping was expected.

    For mini-batches: yes, that is what it is for. It compares no values.

    Cost of an update in gradients: 3 with an estimate (value, gradient and a product from one
    linearization), 0 without.

    Example:
      >>> import jax, jax.numpy as jnp, optax, hesskit
      >>> scales = jnp.logspace(0.0, 4.0, 5)
      >>> f = lambda x: jnp.sum(scales * (x - 1.0) ** 2)
      >>> opt, x = hesskit.adahessian(0.2), jnp.zeros(5)
      >>> @jax.jit
      ... def step(x, state):
      ...     updates, state = opt.update(jax.grad(f)(x), state, x, value_fn=f)
      ...     return optax.apply_updates(x, updates), state
      >>> state = opt.init(x)
      >>> for _ in range(100):
      ...     x, state = step(x, state)
      >>> print(x.round(2))
      [1. 1. 1. 1. 1.]

    References:
      Yao et al. (2021), AAAI 35, 10665-10673, arXiv 2006.00719.
    """
    rule = _rule(num_samples, b1, b2, eps, hessian_power, spatial_axes)
    options = Options(
        "adahessian",
        b1,
        weight_decay,
        weight_decay_mask,
        update_interval,
        key,
        axis_name,
        has_aux,
    )
    return _diagonal.build(rule, options, learning_rate=learning_rate)
