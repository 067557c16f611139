r"""What kfac and scale_by_kfac share: the update of a direction, its length, and its trial.

With the direction d = -M^{-1} g of the factors M and the step s_0 before, the step a d + b s_0 has
the least

    g.s + s.Gs / 2 + lambda |s|^2 / 2                                       (1)

of the whole Gauss-Newton matrix G, from two pushes forward. Every few updates factors, inverses and
lambda are renewed.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import acceptance, blocks, errors, method, objective, tree
from hesskit.core.method import State
from hesskit.core.penalty import l2
from hesskit.core.status import Status
from hesskit.core.structured import Structured
from hesskit.core.types import Array, Params
from hesskit.curvature.other_data import Apart, takes_curvature_args
from hesskit.linalg import kronecker as factors
from hesskit.linalg import kronecker_basis, kronecker_reading
from hesskit.linalg.kronecker_reading import Known, Reading
from hesskit.linalg.subspace import plane_minimizer
from hesskit.transforms import _kfac_layout, _optax
from hesskit.transforms._kfac_renewal import (
    Memory,
    Options,
    check,
    empty,
    inverses_of,
    renewed,
)
from hesskit.transforms._optax import Call, Transformation

RETREAT = 4.0
"""What a rejected step makes of the damping."""


class KFACInfo(NamedTuple):
    """What the last update did. For people; the next update never reads it."""

    status: Array  # (), int32, 0 while going on
    accepted: Array  # (), bool: the step was taken
    step_norm: Array  # (), |s|
    ratio: Array  # (), actual over predicted decrease; 0 where nothing is compared
    grad_norm: Array  # (), of the objective
    num_values: Array  # (), int32, evaluations of this update
    num_grads: Array  # (), int32
    num_products: Array  # (), int32: each half a product, a push forward
    value_mismatch: Array  # (), |value given - value found|; 0 where the given one is taken
    damping: Array  # (), lambda of this update
    length: Array  # (), a of (1)
    momentum: Array  # (), b of (1)
    renewed: Array  # (), bool: factors and inverses are new


class Found(NamedTuple):
    """A step, with the numbers of Info and the predicted decrease; `last` is the next s_0."""

    step: Params
    last: Params
    length: Array
    momentum: Array
    predicted: Array


def _judged_step(at: Reading, d: Params, before: Params, damping: Array) -> Found:
    """The step of (1)."""
    push, held = at.push(d), at.push(before)
    bends = (at.bend(push, push), at.bend(push, held), at.bend(held, held))
    norms = (tree.vdot(d, d), tree.vdot(d, before), tree.vdot(before, before))
    a, b, c = (x.astype(y.dtype) + damping * y for x, y in zip(bends, norms, strict=True))
    p, q = -tree.vdot(at.grad, d), -tree.vdot(at.grad, before)
    x, y = plane_minimizer(a, b, c, p, q)
    bend = x * x * bends[0] + 2 * x * y * bends[1] + y * y * bends[2]
    step = tree.add(tree.scale(x, d), tree.scale(y, before))
    return Found(step, step, x, y, x * p + y * q - bend / 2)


def _scaled_step(
    options: Options, grad: Params, d: Params, before: Params, rate: Any, sign: float
) -> Found:
    """The multiple of the direction with heavy-ball momentum, of bounded length in the metric G."""
    dtype = tree.result_dtype(d)
    momentum = jnp.asarray(0.0 if options.momentum is None else options.momentum, dtype)
    rate = jnp.asarray(rate, dtype)
    length = jnp.ones_like(rate)
    if options.norm_constraint is not None:
        size = rate * rate * jnp.abs(tree.vdot(d, grad)).astype(dtype)
        most = jnp.asarray(options.norm_constraint, dtype)
        length = jnp.minimum(jnp.sqrt(most / jnp.where(size > 0, size, most)), 1)
    last = tree.axpy(momentum, before, tree.scale(length, d))
    step = tree.scale(sign * rate, last)
    return Found(step, last, rate * length, momentum, jnp.zeros((), dtype))


def _begin(options: Options, point: Params, params: Params) -> State:
    """The first state."""
    memory = empty(options, point, _kfac_layout.layout(options, point, params))

    def info(**common: Array) -> KFACInfo:
        zero = jnp.zeros((), tree.result_dtype(point))
        return KFACInfo(
            **common, damping=zero, length=zero, momentum=zero, renewed=jnp.array(False)
        )

    return _optax.hide(method.first_state(point, memory, info), params)


def _known(
    call: Call, of: Structured, plan: blocks.Plan, accepting: bool
) -> tuple[Known, Reading | None]:
    """Value and gradient: the caller's, if both are given, real, and nothing is judged by them."""
    value, grad = call.value, call.grad
    real = not objective.is_complex(call.params)
    if not accepting and real and value is not None and grad is not None:
        return kronecker_reading.told(of, call.point, plan, value, grad), None
    at = kronecker_reading.read(of, call.point, plan)
    if of is not call.fn:
        value, grad = jax.value_and_grad(call.fn)(call.point)
        at = at._replace(value=value, grad=grad)
    return Known(at.value, at.grad, lambda _: at), at


def _decayed(update: Any, strength: Any) -> Any:
    """`update` of the objective with `l2(strength)`, called with that of the objective alone."""
    penalty = l2(strength)

    @functools.wraps(update)
    def call(
        updates: Params,
        state: State,
        params: Params | None = None,
        *,
        value_fn: Any = None,
        value: Any = None,
        grad: Params | None = None,
        **extra: Any,
    ) -> tuple[Params, State]:
        value_fn = objective.required(value_fn, extra, caller=update.__qualname__)
        if params is None:
            return update(updates, state, params, value_fn=value_fn, **extra)
        errors.check_like(updates, params, name="updates")
        pull = tree.scale(strength, objective.conjugate(params))
        given = None if value is None else jnp.asarray(value)
        return update(
            tree.add(updates, pull),
            state,
            params,
            value_fn=value_fn + penalty,
            value=None if given is None else given + penalty(params).astype(given.dtype),
            grad=None if grad is None else tree.add(grad, pull),
            **extra,
        )

    return call


def _solved(
    options: Options, plan: blocks.Plan, memory: Memory, rhs: Params, damping: Array
) -> Params:
    """M^{-1} times the right-hand side."""
    inverses = inverses_of(options, memory, jax.tree.structure(rhs))
    if options.eigenvalue_correction:
        return kronecker_basis.solve(inverses, plan.blocks, rhs, damping)
    return factors.apply(inverses, plan.blocks, rhs)


def build(options: Options, *, learning_rate: Any, has_aux: bool, sign: float) -> Transformation:
    """The transformation of these arguments; see `kfac`."""
    errors.check_number(learning_rate, name="learning_rate", schedule=True)
    accepting = learning_rate is None
    check(options, accepting=accepting)
    _kfac_layout.check(options)
    options = options._replace(
        max_factor_dim=blocks.MAX_DIM if options.max_factor_dim is None else options.max_factor_dim,
    )

    def advance(state: State, call: Call) -> tuple[Params, State]:
        old = _optax.show(state, call.params, call.point)
        of = call.fn.other if isinstance(call.fn, Apart) else call.fn
        plan = _kfac_layout.plan(options, of, call.point)
        _kfac_layout.check_fit(options, plan, call.point, old.model.means)
        at, whole = _known(call, of, plan, accepting)
        norm = tree.norm(at.grad).astype(old.level.dtype)
        finite = jnp.isfinite(at.value) & jnp.isfinite(norm)
        memory, damping, due = renewed(options, old, at, plan, accepting, finite)
        rhs = _optax.right_hand_side(call.updates, call.grad)(at.grad)
        d = tree.negative(_solved(options, plan, memory, rhs, damping))
        if whole is not None and accepting:
            found = _judged_step(whole, d, memory.step, damping)
        else:
            rate = learning_rate(old.count) if callable(learning_rate) else learning_rate
            found = _scaled_step(options, at.grad, d, memory.step, rate, sign)
        zero = tree.zeros_like(call.point)
        step = tree.cast_like(found.step, zero)
        length = tree.norm(step).astype(norm.dtype)
        sound = finite & jnp.isfinite(length)
        found = found._replace(step=tree.where(sound, step, zero))
        trial = call.fn(tree.add(call.point, found.step)) if accepting else None
        norms = norm, length
        new = _told(old, call, at, found, trial, sound, damping, due, norms)
        new = _counted(new, memory.num - old.model.num, told=whole is None)
        kept = new.info.accepted
        # Where nothing is left to gain a rejection says nothing of the damping.
        refused = ~kept & (new.info.status == Status.RUNNING)
        step = tree.where(kept, found.step, zero)
        last = step if accepting else found.last
        memory = memory._replace(
            step=tree.where(sound, last, memory.step),
            good=jnp.where(kept & accepting, new.info.ratio, memory.good),
            stale=jnp.where(sound, refused, memory.stale),
        )
        size = jnp.where(refused, RETREAT * damping, damping)
        size = jnp.where(sound, size, old.size)
        return step, new._replace(model=memory, size=size, count=old.count + 1)

    def begin(point: Params, params: Params) -> State:
        return _begin(options, point, params)

    init, update = _optax.initializer(begin), _optax.updater(options.name, has_aux, advance)
    update = takes_curvature_args(update)
    if options.weight_decay is not None:
        update = _decayed(update, options.weight_decay)
    return Transformation(
        init, update, method=None, name=options.name, has_aux=has_aux, judges=accepting
    )


def _counted(state: State, taken: Array, *, told: bool) -> State:
    """The state with the evaluations of this update, `taken` of them for factors."""
    values = taken if told else state.info.num_values
    grads = taken if told else 1 + taken
    return state._replace(info=state.info._replace(num_values=values, num_grads=grads))


def _told(
    old: State,
    call: Call,
    at: Known,
    found: Found,
    trial: Array | None,
    sound: Array,
    damping: Array,
    due: Array,
    norms: tuple[Array, Array],
) -> State:
    """The state after a step was judged, or taken unseen; `norms` of gradient and step."""
    dtype = old.level.dtype
    value, (norm, length) = at.value.astype(dtype), norms
    given = value if call.value is None else call.value.astype(dtype)
    reference = jnp.where(value == old.level, jnp.minimum(old.reference, value), value)
    rest = method.is_at_rest(norm, value, old.tolerance)
    status = jnp.where(rest, Status.GRADIENT_TOL, Status.RUNNING)
    level, ratio, kept = value, jnp.zeros((), dtype), sound
    if trial is not None:
        trial = trial.astype(dtype)
        eps = max(float(jnp.finfo(v.dtype).eps) for v in (at.value, value))
        floor = acceptance.rounding_floor(value, reference, eps)
        positive = found.predicted > 0
        ratio = (value - trial) / jnp.where(positive, found.predicted, 1)
        ratio = jnp.where(positive & jnp.isfinite(trial), ratio, -jnp.inf).astype(dtype)
        kept = sound & (trial <= reference + floor) & (ratio >= acceptance.ACCEPT_RATIO)
        limited = ~kept & sound & positive & (found.predicted <= floor)
        status = jnp.where(limited & ~rest, Status.ROUNDOFF_LIMITED, status)
        status = jnp.where(kept & method.unbounded(trial, eps), Status.UNBOUNDED, status)
        level = jnp.where(kept, trial, value)
        reference = jnp.minimum(reference, level)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    status = jnp.where(finite, jnp.where(sound, status, Status.SINGULAR), Status.NONFINITE_START)
    one = jnp.ones((), jnp.int32)
    info = old.info._replace(
        status=status.astype(jnp.int32),
        accepted=kept,
        step_norm=jnp.where(kept, length, 0),
        ratio=ratio,
        grad_norm=jnp.where(finite, norm, old.info.grad_norm),
        num_values=one if trial is None else one + 1,
        num_grads=one,
        num_products=jnp.zeros_like(one) if trial is None else one + 1,
        value_mismatch=jnp.abs(given - value),
        damping=damping.astype(dtype),
        length=found.length.astype(dtype),
        momentum=found.momentum.astype(dtype),
        renewed=due,
    )
    return old._replace(
        grad=tree.where(finite, at.grad, old.grad),
        level=jnp.where(finite, level, old.level),
        reference=jnp.where(finite, reference, old.reference),
        params=None,
        info=info,
    )
