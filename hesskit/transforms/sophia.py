r"""Sophia: a mean gradient over a mean diagonal of the curvature, clipped by entry.

At step t, with gradient g and an estimate d of the diagonal,

    m  <-  b1 m + (1 - b1) g
    h  <-  b2 h + (1 - b2) d              every `update_interval` steps
    x  <-  x - lr weight_decay x
    x  <-  x - lr clip(m / max(gamma h, eps), clip_threshold)               (1)

Where the curvature is small, negative, or not yet known, the clip makes it a step by signs; where
it is large, a Newton step by entry. d is an unbiased estimate (curvature/diagonal.py): of the
Hessian's diagonal from one product, or of that of the Gauss-Newton matrix from one reverse pass
with targets drawn from the model's own distribution, never the squared gradient of the batch.

Source: Liu, Li, Hall, Liang & Ma (2023), "Sophia: a scalable stochastic second-order optimizer for
language model pre-training", algorithms 1 to 3; ICLR 2024.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import errors, tree
from hesskit.core.structured import Outer
from hesskit.core.types import Array, Params
from hesskit.curvature import diagonal
from hesskit.curvature.fisher import with_fisher
from hesskit.transforms import _diagonal
from hesskit.transforms._diagonal import Diagonal, Options
from hesskit.transforms._optax import Transformation, memoize

ESTIMATORS = ("hutchinson", "gnb")
GAMMA = {"hutchinson": 0.01, "gnb": 0.05}
"""As published, section 3.1: 10 to 50 % of the entries are then not clipped."""


def _bartlett(fn: Any, point: Params, key: Array, *, num_samples: Any, name: str) -> Params:
    """The diagonal of the Gauss-Newton matrix, from targets of the model's own distribution."""
    whole = with_fisher(fn, "exact", None, centered=False, caller=f'{name}(estimator="gnb")')
    scored = whole.outer.scored
    assert scored is not None

    def drawn(key: Array) -> Outer:
        return scored(key, False)

    return diagonal.bartlett(whole.inner, point, drawn, key, num_samples=num_samples)


def _direct(
    mu: Params,
    nu: Params,
    steps: Array,
    estimates: Array,
    *,
    eps: Any,
    gamma: Any,
    clip_threshold: Any,
) -> tuple[Params, Array]:
    """The quotient of (1), and the share of it that is not clipped."""
    del steps, estimates

    def divide(m: Array, h: Array) -> Array:
        return m / jnp.maximum(jnp.asarray(gamma, h.dtype) * h, jnp.asarray(eps, h.dtype))

    whole = jax.tree.map(divide, mu, nu)
    dtype = tree.result_dtype(whole)
    if clip_threshold is None:
        return whole, jnp.ones((), dtype)

    def clip(a: Array) -> Array:
        most = jnp.asarray(clip_threshold, a.dtype)
        return jnp.clip(a, -most, most)

    clipped = jax.tree.map(clip, whole)
    same = jax.tree.map(lambda a, b: jnp.sum((a == b).astype(dtype)), whole, clipped)
    number = functools.reduce(jnp.add, jax.tree.leaves(same), jnp.zeros((), dtype))
    return clipped, number / max(tree.size(whole), 1)


def _rule(
    name: str,
    estimator: str,
    num_samples: Any,
    b2: Any,
    eps: Any,
    gamma: Any,
    clip_threshold: Any,
) -> Diagonal:
    errors.check_choice(estimator, ESTIMATORS, name="estimator")
    errors.check_count(num_samples, name="num_samples")
    errors.check_number(b2, name="b2", high=1.0, none=False)
    errors.check_number(eps, name="eps", open_low=True, none=False)
    errors.check_number(gamma, name="gamma", open_low=True)
    errors.check_number(clip_threshold, name="clip_threshold", open_low=True)
    if estimator == "gnb":
        estimate = functools.partial(_bartlett, num_samples=num_samples, name=name)
        cost = (1, num_samples, 0)
    else:
        estimate = functools.partial(_diagonal.hutchinson, num_samples=num_samples)
        cost = (1, 1, num_samples)
    return Diagonal(
        estimate=estimate,
        cost=cost,
        learn=functools.partial(_diagonal.mix, b2),
        direct=functools.partial(
            _direct,
            eps=eps,
            gamma=GAMMA[estimator] if gamma is None else gamma,
            clip_threshold=clip_threshold,
        ),
    )


@memoize
def scale_by_sophia(
    *,
    b1: Any = 0.96,
    b2: Any = 0.99,
    eps: Any = 1e-12,
    gamma: Any = None,
    clip_threshold: Any = 1.0,
    update_interval: Any = 10,
    estimator: str = "hutchinson",
    num_samples: Any = 1,
    key: Any = 0,
    axis_name: Any = None,
    has_aux: bool = False,
) -> Transformation:
    r"""The clipped quotient of Sophia with its sign unchanged, for chains.

    `sophia(lr)` is `optax.chain(scale_by_sophia(), optax.scale_by_learning_rate(lr))`.

    Args:
      b1: as in `sophia`.
      b2: likewise, of the curvature.
      eps: the least denominator.
      gamma: the factor of the curvature. None means the published one.
      clip_threshold: the largest entry. None means no clip.
      update_interval: steps from one estimate to the next.
      estimator: "hutchinson" or "gnb".
      num_samples: averaged in an estimate.
      key: an int or a key, of the estimates.
      axis_name: over which the estimates are averaged.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation` whose updates point uphill; its `update` needs `value_fn`.

    For mini-batches: yes. Cost of an update in gradients: as `sophia`.

    Example:
      >>> import jax, jax.numpy as jnp, hesskit
      >>> f, x = lambda x: jnp.sum(x**2), jnp.array([3.0, -0.001])
      >>> uphill = hesskit.scale_by_sophia(b1=0.0, b2=0.0)
      >>> print(uphill.update(jax.grad(f)(x), uphill.init(x), x, value_fn=f)[0].round(3))
      [ 1.  -0.1]

    References:
      Liu et al. (2023), algorithm 3.
    """
    name = "scale_by_sophia"
    rule = _rule(name, estimator, num_samples, b2, eps, gamma, clip_threshold)
    options = Options(name, b1, 0.0, None, update_interval, key, axis_name, has_aux)
    return _diagonal.build(rule, options, learning_rate=1.0, sign=-1.0)


@memoize
def sophia(
    learning_rate: Any,
    *,
    b1: Any = 0.96,
    b2: Any = 0.99,
    eps: Any = 1e-12,
    gamma: Any = None,
    clip_threshold: Any = 1.0,
    weight_decay: Any = 0.0,
    weight_decay_mask: Any = None,
    update_interval: Any = 10,
    estimator: str = "hutchinson",
    num_samples: Any = 1,
    key: Any = 0,
    axis_name: Any = None,
    has_aux: bool = False,
) -> Transformation:
    r"""Sophia: for mini-batches, steps by signs that become Newton steps where curvature is large.

    x <- x - lr clip(m / max(gamma h, eps), 1), with m the mean gradient and h the mean of unbiased
    estimates of the curvature's diagonal, one every 10 steps. Nothing is judged; a batch that is
    not finite is a zero update. With Gauss-Newton-Bartlett estimates (`estimator="gnb"`, Sophia-G,
    the authors' choice) the loss must know its distribution; Hutchinson's (Sophia-H) take any.

    Tune the rate first, then gamma until `hesskit.last_info(state).unclipped` is 0.1 to 0.5, as
    published. The published decay for language models is 0.2; here none is the default.

    Args:
      learning_rate: a number or a schedule; no entry moves farther than this times the clip.
      b1: decay of the mean gradient.
      b2: decay of the mean curvature, by estimate.
      eps: the least denominator.
      gamma: the factor of the curvature. None means the published one: 0.01, of "gnb" 0.05.
      clip_threshold: the largest entry of the quotient. None means no clip.
      weight_decay: lr times this part of params is taken off, beside the clip.
      weight_decay_mask: which leaves decay: a prefix tree of bools, a path or list of paths, or
        `f(path, leaf) -> bool`. None means all.
      update_interval: steps from one estimate to the next; may be traced.
      estimator: "hutchinson", of the Hessian; or "gnb", of the Gauss-Newton matrix, for a
        `hesskit.composite` of a loss of `hesskit.losses` or a `least_squares_loss`.
      num_samples: averaged in an estimate; may be traced.
      key: an int or a key, of the estimates.
      axis_name: of the `pmap` or `shard_map` whose devices hold parts of the batch: each estimates
        from its own, and the mean is used by all. Under `jit` with sharded data leave it None.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation`. Its `update` needs `value_fn` (or `obj_fn`, as in `optax.contrib.sophia`)
      with the data of this batch.

    Raises:
      ValueError: a number is out of its range, or `estimator` is neither; in `init`: the mask fits
        no leaf.
      TypeError: there is no learning rate, or a number or a key was expected; in `update`: "gnb"
        met a loss without a distribution.

    For mini-batches: yes, that is what it is for. It compares no values.

    Cost of an update in gradients: every tenth costs 2 to 3 more with "hutchinson", 1 with "gnb".

    Example:
      >>> import jax, jax.numpy as jnp, optax, hesskit
      >>> loss = hesskit.composite(hesskit.losses.sigmoid_cross_entropy(), lambda w, x: x @ w)
      >>> x, t = jnp.array([[1.0, 0.0], [1.0, 2.0], [1.0, 1.0]]), jnp.array([0, 1, 1])
      >>> opt, w = hesskit.sophia(0.05, estimator="gnb"), jnp.zeros(2)
      >>> @jax.jit
      ... def step(w, state):
      ...     grad = jax.grad(loss)(w, x, t)
      ...     updates, state = opt.update(grad, state, w, value_fn=loss, args=(x, t))
      ...     return optax.apply_updates(w, updates), state
      >>> state = opt.init(w)
      >>> for _ in range(60):
      ...     w, state = step(w, state)
      >>> print(bool(loss(w, x, t) < 0.3), hesskit.last_info(state).num_products)
      True 0

    References:
      Liu, Li, Hall, Liang & Ma (2023), arXiv 2305.14342; ICLR 2024.
    """
    rule = _rule("sophia", estimator, num_samples, b2, eps, gamma, clip_threshold)
    options = Options(
        "sophia", b1, weight_decay, weight_decay_mask, update_interval, key, axis_name, has_aux
    )
    return _diagonal.build(rule, options, learning_rate=learning_rate)
