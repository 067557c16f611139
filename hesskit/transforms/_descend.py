r"""The optax skeleton of the line-search transforms: a Line becomes a Transformation.

An update runs the machine of core/descent.py to the end of one search:

    while not done:  measure . evaluate . aim                               (1)

with one copy of the objective in the program. `value` and `grad` that come with the call are the
evaluation at `params`; without them the first trip of the loop makes it.

With a learning rate nothing is searched and nothing evaluated: the pair of a step is the
difference between two calls.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import course, descent, method, objective, tree
from hesskit.core.bounds import Bounds
from hesskit.core.course import Course, Line
from hesskit.core.derivatives import value_and_grad
from hesskit.core.line_search import LineSearchInfo
from hesskit.core.method import Method, State
from hesskit.core.pair import Pair, between
from hesskit.core.status import Status
from hesskit.core.types import Array, Params
from hesskit.transforms import _optax
from hesskit.transforms._optax import Call, Transformation


class _Loop(NamedTuple):
    state: State
    num: Array
    going: Array


def _rested(state: State) -> State:
    """The state between updates: the memory and the levels, no direction and no search."""
    kept = state.model
    return state._replace(
        model=Course(kept.history, kept.table, None, None, None, None),
        size=None,
        modeled=None,
        indefinite=None,
        at_rest=None,
    )


def _show(line: Line, state: State, call: Call) -> State:
    """The inverse of `_rested`, before a first direction."""
    shown = _optax.show(state, call.params, call.point)
    no = jnp.array(False)
    return shown._replace(
        model=course.begin(state.model.history, state.model.table, call.point),
        step=method.no_step(call.point),
        size=jnp.zeros_like(shown.level),
        modeled=no,
        indefinite=no,
        at_rest=no,
        fresh=jnp.array(not _knows(line, call)),
        info=shown.info._replace(status=jnp.zeros_like(shown.info.status)),
    )


def _knows(line: Line, call: Call) -> bool:
    """Whether value and gradient at params came with the call."""
    if call.value is None or (line.given and call.grad is None):
        return False
    return not objective.is_complex(call.params)  # of either convention: evaluated anew


def _given(line: Line, state: State, call: Call) -> tuple[State, float]:
    """The state with the value and gradient that came, and the rounding of that value."""
    if not _knows(line, call) or call.value is None:
        return state, 0.0
    value = call.value.astype(state.level.dtype)
    same = call.value.astype(state.value.dtype) == state.value
    grad = call.updates if call.grad is None else call.grad
    norm = tree.norm(grad)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    status = jnp.where(finite, state.info.status, Status.NONFINITE_START)
    known = state._replace(
        value=value.astype(state.value.dtype),
        grad=grad,
        level=value,
        reference=jnp.where(same, state.reference, value),
        info=state.info._replace(grad_norm=norm),
    )
    state = tree.where(finite, known, state)
    state = state._replace(info=state.info._replace(status=status.astype(jnp.int32)))
    return state, float(jnp.finfo(call.value.dtype).eps)


def _run(line: Line, state: State, call: Call, coarse: float) -> _Loop:
    """(1), to the end of the search."""
    rhs = _optax.right_hand_side(call.updates, call.grad)
    if line.given:
        rhs = functools.partial(tree.cast_like, call.updates)

    def body(loop: _Loop) -> _Loop:
        before = descent.aim(line, loop.state, rhs)
        evaluation = value_and_grad(call.fn, method.ask(before))
        after = descent.measure(line, before, evaluation, coarse)
        return _Loop(
            tree.cast_like(after, loop.state),
            loop.num + 1,
            (after.info.status == 0) & (before.fresh | ~after.info.accepted) & ~_rests(after),
        )

    start = _Loop(state, jnp.zeros((), jnp.int32), (state.info.status == 0) & ~_rests(state))
    return jax.lax.while_loop(lambda loop: loop.going, body, start)


def _rests(state: State) -> Array:
    return ~state.fresh & method.context(state).at_rest


def _finished(loop: _Loop, ready: State, before: State) -> State:
    """The state after the search, counted; not accepted where nothing moved."""
    after = loop.state
    info = after.info
    rest = (info.status == 0) & _rests(ready)
    info = info._replace(
        status=jnp.where(rest, Status.GRADIENT_TOL, info.status).astype(jnp.int32),
        accepted=after.count > before.count,
        num_values=loop.num,
        num_grads=loop.num,
    )
    return after._replace(count=before.count + 1, info=info)


def build(line: Line, *, name: str, has_aux: bool = False) -> Transformation:
    """The transformation of `line`.

    Args:
      line: the method.
      name: the factory's name, for messages.
      has_aux: whether `value_fn` returns (value, aux); aux is dropped.

    Returns:
      A `Transformation`.
    """

    def begin(point: Params, params: Params) -> State:
        return _optax.hide(_rested(course.start(line, point)), params)

    def advance(state: State, call: Call) -> tuple[Params, State]:
        ready, coarse = _given(line, _show(line, state, call), call)
        out = _run(line, ready, call, coarse)
        after = _finished(out, ready, state)
        assert out.state.step is not None
        none = tree.zeros_like(call.point)
        return tree.where(after.info.accepted, out.state.step.step, none), _rested(after)

    def special(bounds: Bounds | None, num_outputs: int | None) -> Method:
        del num_outputs
        return descent.machine(line._replace(bounds=bounds))

    return Transformation(
        _optax.initializer(begin),
        _optax.updater(name, has_aux, advance),
        method=descent.machine(line),
        name=name,
        has_aux=has_aux,
        special=None if line.boxed is None else special,
    )


class UnsearchedState(NamedTuple):
    """What the next update needs where nothing is searched.

    Attributes:
      count: updates, () int32.
      known: there was a finite one, () bool.
      params: where the last update was asked for, real.
      updates: what came there: the gradient, or what an upstream transform made of it, real.
      history: the memory's arrays.
      table: the memory's small rest.
      info: what the last update did.
    """

    count: Array
    known: Array
    params: Params
    updates: Params
    history: Any
    table: Any
    info: LineSearchInfo


def _advanced(
    line: Line, state: UnsearchedState, call: _optax.Call, rate: Array, sign: float
) -> tuple[Params, UnsearchedState]:
    """The direction times `rate` and `sign`, and the state that remembers this call; all real."""
    point, updates, norm = call.point, call.updates, tree.norm(call.updates)
    gap = tree.sub(point, state.params)
    pair = between(state.updates, updates, gap, length=state.info.learning_rate)
    finite = jnp.isfinite(norm) & jnp.isfinite(pair.unit)
    if call.value is not None:
        finite &= jnp.isfinite(call.value)
    known = state.known.astype(bool)  # a wrapper may have made it a number
    history, table, direction = _directed(line, state, pair, finite & known, updates)
    # Without pairs it is -g, shortened to a step of length 1 at most, as optax does.
    short = (table.num_pairs == 0) & line.shortened
    length = jnp.where(short, 1 / jnp.maximum(norm, 1), 1)
    step = tree.scale(sign * rate * length, direction)
    moved = tree.norm(step)
    sound = finite & jnp.isfinite(moved)
    rest = method.is_at_rest(norm, norm, jnp.asarray(tree.coarsest_eps(point), norm.dtype))
    status = jnp.where(rest, Status.GRADIENT_TOL, Status.RUNNING)
    status = jnp.where(sound, status, Status.NONFINITE_START).astype(jnp.int32)
    info = state.info._replace(
        status=status,
        accepted=sound & (moved > 0),
        step_norm=jnp.where(sound, moved, 0),
        grad_norm=jnp.where(finite, norm, state.info.grad_norm),
        learning_rate=rate,
        num_pairs=table.num_pairs,
    )
    new = UnsearchedState(
        count=state.count + 1,
        known=known | finite,
        params=tree.where(finite, point, state.params),
        updates=tree.where(finite, updates, state.updates),
        history=history,
        table=tree.where(finite, table, state.table),
        info=info,
    )
    # A branch, no select: where nothing is wrong it costs no pass over the step.
    return jax.lax.cond(sound, lambda s: s, tree.zeros_like, step), new


def _directed(
    line: Line, state: UnsearchedState, pair: Pair, kept: Array, rhs: Params
) -> tuple[Any, Any, Params]:
    """History and table with the pair in them, and the direction."""
    if line.follow is not None:
        return line.follow(state.history, state.table, pair, kept, rhs)
    history, table = line.learn(state.history, state.table, pair, kept)
    table, direction = line.direct(history, table, rhs)
    return history, table, direction


def build_unsearched(
    line: Line, *, name: str, learning_rate: Any, sign: float = 1.0
) -> Transformation:
    """The transformation that takes `learning_rate` times the direction of `line`.

    Args:
      line: the method.
      name: the factory's name, for messages.
      learning_rate: a number or a schedule.
      sign: -1 gives the un-negated step of a `scale_by_*` transform.

    Returns:
      A `Transformation`. Its `update` takes any keywords and evaluates nothing.
    """

    def begin(point: Params, params: Params) -> UnsearchedState:
        del params
        state = course.start(line, point)
        return UnsearchedState(
            count=state.count,
            known=jnp.array(False),
            params=tree.zeros_like(state.params),
            updates=state.grad,
            history=state.model.history,
            table=state.model.table,
            info=state.info,
        )

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        value: Any = None,
        **extra: Any,
    ) -> tuple[Params, Any]:
        del extra
        call = _optax.arrive_alone(name, updates, params, value)
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
        rate = jnp.asarray(rate, state.info.ratio.dtype)
        step, after = _advanced(line, state, call, rate, sign)
        step = objective.join(step, call.params)
        return tree.cast_like(step, call.params), tree.cast_like(after, state)

    init = _optax.initializer(begin)
    return Transformation(init, update, method=None, name=name, judges=False)
