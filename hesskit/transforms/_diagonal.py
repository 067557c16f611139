r"""What the transforms with a diagonal of curvature share: state, period, devices, decay.

At step t, with gradient g,

    m  <-  b1 m + (1 - b1) g                                                (1)
    v  <-  learn(v, an estimate at x)       every `update_interval` steps
    x  <-  x - lr (direct(m, v) + weight_decay x)

The estimate is made in a loop of one trip or none, since under `vmap` a `lax.cond` would make it in
every step. Across devices that hold parts of a batch each makes its own, from signs of its own,
and all use the mean: under `jit` the program is one and its data are whole, and nothing is needed.

m and v are kept in at least float32: in bfloat16 b2 = 0.999 would round to 1. A batch that is not
finite leaves them as they were, so that a run is that of its good batches.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import errors, method, objective, select, tree
from hesskit.core.derivatives import linearized
from hesskit.core.keys import as_key
from hesskit.core.status import Status
from hesskit.core.types import Array, Params
from hesskit.curvature import diagonal
from hesskit.transforms import _optax
from hesskit.transforms._optax import Call, Transformation


class DiagonalInfo(NamedTuple):
    """What the last update did. For people; the next update never reads it."""

    status: Array  # (), int32, 0 while going on
    accepted: Array  # (), bool: something moved
    step_norm: Array  # (), |s|
    ratio: Array  # (), 0: nothing is compared
    grad_norm: Array  # (), of what came as updates
    num_values: Array  # (), int32, evaluations of this update
    num_grads: Array  # (), int32
    num_products: Array  # (), int32
    value_mismatch: Array  # (), 0: nothing is compared
    renewed: Array  # (), bool: the curvature was estimated anew
    unclipped: Array  # (), share of the entries whose step no clip shortened


class DiagonalState(NamedTuple):
    """What the next update needs; moments are real and of at least float32.

    Attributes:
      count: steps, () int32; a batch that is not finite is none.
      mu: m of (1).
      nu: v of (1).
      num_estimates: in v, () int32.
      key: of the next estimate, its uint32 words: optax casts what a state holds.
      info: what the last update did.
    """

    count: Array
    mu: Params
    nu: Params
    num_estimates: Array
    key: Array
    info: DiagonalInfo


class Diagonal(NamedTuple):
    """What two methods differ in.

    Attributes:
      estimate: `(fn, point, key) -> diagonal`.
      cost: of an estimate, in values, gradients and products.
      learn: `(v, estimate) -> v`.
      direct: `(m, v, steps, estimates) -> (direction, share of it that no clip shortened)`.
    """

    estimate: Callable[[Any, Params, Array], Params]
    cost: tuple[Any, Any, Any]
    learn: Callable[[Params, Params], Params]
    direct: Callable[[Params, Params, Array, Array], tuple[Params, Array]]


class Options(NamedTuple):
    """The arguments that all factories share."""

    name: str
    b1: Any
    weight_decay: Any
    weight_decay_mask: Any
    update_interval: Any
    key: Any
    axis_name: Any
    has_aux: bool


def hutchinson(fn: Any, point: Params, key: Array, *, num_samples: Any) -> Params:
    """The diagonal of the Hessian, from products."""
    product = linearized(fn, point).product
    assert product is not None
    return diagonal.hutchinson(product, point, key, num_samples=num_samples)


def mix(decay: Any, mean: Params, new: Params) -> Params:
    """`decay mean + (1 - decay) new`."""

    def leaf(a: Array, b: Array) -> Array:
        c = jnp.asarray(decay, a.dtype)
        return c * a + (1 - c) * b.astype(a.dtype)

    return jax.tree.map(leaf, mean, new)


def _check(options: Options, learning_rate: Any) -> None:
    if learning_rate is None:
        raise TypeError(
            f"{options.name} does not choose the length of its steps: pass learning_rate, a number "
            f"or a schedule, such as {options.name}(1e-3)"
        )
    errors.check_number(learning_rate, name="learning_rate", schedule=True)
    errors.check_number(options.b1, name="b1", high=1.0, none=False)
    errors.check_number(options.weight_decay, name="weight_decay", none=False)
    errors.check_count(options.update_interval, name="update_interval")
    as_key(options.key)


def _impl(key: Any) -> Any:
    """How a key given as one of `jax.random.key` is made; None for the default."""
    known = jnp.issubdtype(getattr(key, "dtype", jnp.uint32), jax.dtypes.prng_key)
    return jax.random.key_impl(key) if known else None


def _varying(point: Params, axis: Any) -> Params:
    """The point as a number of each device's own: `shard_map` sums derivatives of a shared one."""
    nothing = 0 * jax.lax.axis_index(axis)
    return jax.tree.map(lambda a: a + nothing.astype(a.dtype), point)


def _everywhere(condition: Array, axis: Any) -> Array:
    """Whether it holds on all devices: a loop in which they meet must turn on all or on none."""
    return condition if axis is None else jax.lax.pmin(condition.astype(jnp.int32), axis) > 0


def _renewed(
    rule: Diagonal, options: Options, state: DiagonalState, fn: Any, point: Params
) -> tuple[Params, Array, Array]:
    """v, its number of estimates and the next key, with one estimate more if it is finite."""
    key, now = jax.random.split(jax.random.wrap_key_data(state.key, impl=_impl(options.key)))
    axis = options.axis_name
    if axis is None:
        new = rule.estimate(fn, point, now)
    else:
        own = jax.random.fold_in(now, jax.lax.axis_index(axis))
        new = jax.lax.pmean(rule.estimate(fn, _varying(point, axis), own), axis)
    finite = tree.all_finite(new)
    nu = tree.where(finite, rule.learn(state.nu, new), state.nu)
    num = state.num_estimates + finite.astype(state.num_estimates.dtype)
    return nu, num, jax.random.key_data(key)


def _length(x: Params) -> Array:
    """The norm in one pass, without the care of `tree.norm` for extremes."""
    return jnp.sqrt(tree.vdot(x, x))


def _decay(direction: Params, options: Options, call: Call) -> Params:
    """The direction with `weight_decay` times the chosen entries of params."""
    weight = options.weight_decay
    if isinstance(weight, (int, float)) and weight == 0:
        return direction
    chosen = _decaying(options, call.params)
    rest, mine = select.split(direction, chosen)
    _, point = select.split(tree.cast_like(call.point, direction), chosen)
    return select.merge(rest, tree.axpy(weight, point, mine))


def _decaying(options: Options, params: Params) -> tuple[bool, ...]:
    mask = True if options.weight_decay_mask is None else options.weight_decay_mask
    return select.select(mask, params, name="weight_decay_mask")


def _advance(
    rule: Diagonal, options: Options, rate: Any, state: DiagonalState, call: Call
) -> tuple[Params, DiagonalState]:
    """The step and the next state; all real."""
    norm = _length(call.updates)
    finite = tree.all_finite(call.updates)
    if call.value is not None:
        finite &= jnp.isfinite(call.value)
    finite = _everywhere(finite, options.axis_name)
    interval = jnp.asarray(options.update_interval, state.count.dtype)
    renewed = finite & (state.count % interval == 0)
    nu, num, key = tree.while_once(
        renewed,
        lambda: _renewed(rule, options, state, call.fn, call.point),
        (state.nu, state.num_estimates, state.key),
    )
    mu = mix(options.b1, state.mu, call.updates)
    direction, unclipped = rule.direct(mu, nu, state.count + 1, num)
    rate = rate(state.count) if callable(rate) else rate
    step = tree.scale(-jnp.asarray(rate, norm.dtype), _decay(direction, options, call))
    moved = _length(step)
    good = finite & (num > 0) & jnp.isfinite(moved)
    rest = method.is_at_rest(norm, norm, jnp.asarray(tree.coarsest_eps(call.point), norm.dtype))
    status = jnp.where(rest, Status.GRADIENT_TOL, Status.RUNNING)
    values, grads, products = (
        jnp.where(renewed, jnp.asarray(cost, jnp.int32), 0) for cost in rule.cost
    )
    info = state.info._replace(
        status=jnp.where(good, status, Status.NONFINITE_START).astype(jnp.int32),
        accepted=good & (moved > 0),
        step_norm=jnp.where(good, moved, 0),
        grad_norm=jnp.where(finite, norm, state.info.grad_norm),
        num_values=values,
        num_grads=grads,
        num_products=products,
        renewed=renewed,
        unclipped=jnp.where(good, unclipped.astype(norm.dtype), state.info.unclipped),
    )
    after = DiagonalState(
        count=jnp.where(good, state.count + 1, state.count),
        mu=tree.where(good, mu, state.mu),
        nu=nu,
        num_estimates=num,
        key=key,
        info=info,
    )
    return tree.where(good, step, tree.zeros_like(step)), after


def _start(options: Options, point: Params, params: Params) -> DiagonalState:
    """The first state: nothing is known."""
    if jax.tree.leaves(params):  # none in what optax.tree.map_params calls
        _decaying(options, params)
    zero, no = jnp.zeros((), tree.result_dtype(point)), jnp.array(False)
    none = jnp.zeros((), jnp.int32)
    wide = tree.widen(tree.zeros_like(point))
    return DiagonalState(
        count=none,
        mu=wide,
        nu=jax.tree.map(jnp.copy, wide),
        num_estimates=none,
        key=jax.random.key_data(as_key(options.key)),
        info=DiagonalInfo(none, no, zero, zero, zero, none, none, none, zero, no, zero),
    )


def build(
    rule: Diagonal, options: Options, *, learning_rate: Any, sign: float = 1.0
) -> Transformation:
    """The transformation of `rule`.

    Args:
      rule: the method.
      options: the arguments of its factory.
      learning_rate: a number or a schedule.
      sign: -1 gives the un-negated step of a `scale_by_*` transform.

    Returns:
      A `Transformation`. Its `update` needs `value_fn`, or `obj_fn` as in `optax.contrib`.
    """
    _check(options, learning_rate)
    name, has_aux = options.name, options.has_aux

    @_optax.keep_positional
    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        value_fn: Any = None,
        obj_fn: Any = None,
        value: Any = None,
        grad: Any = None,
        args: Any = (),
        **data: Any,
    ) -> tuple[Params, DiagonalState]:
        del grad
        either = obj_fn if value_fn is None else value_fn
        given = objective.required(either, data, caller=f"{name}.update")
        call = _optax.arrive_alone(name, updates, params, value)
        if not isinstance(state, DiagonalState):
            raise TypeError(f"{name}.update got a {type(state).__name__}; call its init(params)")
        errors.check_like(state.mu, call.point, name="state.mu")
        fn, _ = objective.real(
            given, call.params, args=args, data=data, has_aux=has_aux, caller=f"{name}.update"
        )
        step, after = _advance(rule, options, learning_rate, state, call._replace(fn=fn))
        step = objective.join(tree.scale(sign, step), call.params)
        return tree.cast_like(step, call.params), tree.cast_like(after, state)

    init = _optax.initializer(functools.partial(_start, options))
    return Transformation(init, update, method=None, name=name, has_aux=has_aux, judges=False)
