r"""The optax skeleton of the line-search transforms: a Line becomes a Transformation.

An update runs the machine of core/descent.py to the end of one search:

    while not done:  measure . evaluate . aim                               (1)

with one copy of the objective in the program. `value` and `grad` that come with the call are the
evaluation at `params`; without them the first trip of the loop makes it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import descent, errors, method, objective, tree
from hesskit.core.derivatives import Evaluation, value_and_grad
from hesskit.core.descent import Course, Line
from hesskit.core.method import State
from hesskit.core.status import Status
from hesskit.core.types import Array, Params
from hesskit.transforms import _optax
from hesskit.transforms._optax import Call, Transformation


class _Loop(NamedTuple):
    state: State
    num: Array
    going: Array


def _rested(state: State) -> State:
    """The state between updates: the memory alone, no direction and no search."""
    course = state.model
    return state._replace(model=Course(course.history, course.table, None, None))


def _show(line: Line, state: State, call: Call) -> State:
    """The inverse of `_rested`, before a first direction."""
    shown = _optax.show(state, call.params, call.point)
    fresh = descent.start(line, call.point)
    kept = state.model
    return shown._replace(
        model=fresh.model._replace(history=kept.history, table=kept.table),
        step=fresh.step,
        modeled=jnp.array(False),
        fresh=jnp.array(call.value is None),
        info=shown.info._replace(status=jnp.zeros_like(shown.info.status), accepted=fresh.fresh),
    )


def _given(state: State, call: Call) -> tuple[State, float]:
    """The state with the value and gradient that came, and the rounding of that value."""
    if call.value is None:
        return state, 0.0
    value = call.value.astype(state.level.dtype)
    same = call.value.astype(state.value.dtype) == state.value
    grad = call.updates if call.grad is None else call.grad
    norm = tree.norm(grad)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    status = jnp.where(finite, state.info.status, Status.NONFINITE_START)
    state = state._replace(
        grad=grad,
        level=value,
        reference=jnp.where(same, state.reference, value),
        info=state.info._replace(grad_norm=norm, status=status.astype(jnp.int32)),
    )
    return state, float(jnp.finfo(call.value.dtype).eps)


def _run(line: Line, state: State, call: Call, coarse: float) -> _Loop:
    """(1), to the end of the search."""
    rhs = _optax.right_hand_side(call.updates, call.grad)

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

    def init(params: Params) -> State:
        params = errors.check_params(jax.tree.map(tree.zeros_of, params), allow_empty=True)
        state = _rested(descent.start(line, objective.split(params)))
        return _optax.own_buffers(_optax.hide(state, params))

    @_optax.keep_positional
    def update(
        updates: Params,
        state: State,
        params: Params | None = None,
        *,
        value_fn: Callable[..., Any],
        **extra: Any,
    ) -> tuple[Params, State]:
        call = _optax.arrive(name, has_aux, updates, state, params, value_fn=value_fn, **extra)
        ready, coarse = _given(_show(line, state, call), call)
        out = _run(line, ready, call, coarse)
        after = _finished(out, ready, state)
        moved = after.info.accepted
        step = tree.where(moved, out.state.step.step, tree.zeros_like(call.point))
        return _optax.leave(step, _rested(after), state, call)

    return Transformation(
        init, update, method=descent.machine(line), name=name, has_aux=has_aux
    )
