r"""The line-search machine: a direction, then a length along it, one evaluation a `tell`.

    tell  =  aim . measure                                                  (1)

`measure` hands the evaluation to the line search (core/line_search.py) and, when that is content,
moves there and lets the method's memory learn the pair (s, y) of the step and the change of the
gradient, both of the same objective, so that a stream of mini-batches never mixes two. `aim` asks
the memory for the next direction, if the point moved, and gives the next length.

A search that finds nothing costs the memory its pairs and begins again along -grad; one that
finds nothing even there ends the run. What distinguishes one method from another is its `Line`.

Source: Nocedal & Wright (2006), Algorithms 6.1 and 7.5; Hager & Zhang (2005) for the search.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import line_search, method, tree
from hesskit.core.acceptance import rounding_floor
from hesskit.core.bounds import parse
from hesskit.core.course import Line, describe, start
from hesskit.core.derivatives import Evaluation, value_and_grad
from hesskit.core.line_search import LineSearch
from hesskit.core.method import Method, State, Step, context, is_small, unbounded
from hesskit.core.pair import Point, learned
from hesskit.core.status import Status
from hesskit.core.types import Array, Params

LIMITED_TRIALS = 6  # for a step that promises less than the rounding of f


class _Trial(NamedTuple):
    """An evaluation, measured; slopes are along the direction, `noise` is the rounding of values.

    All inner products but those of the memory are here: on many devices they are one reduction.
    """

    value: Array
    grad: Params
    point: Params
    step: Params
    slope: Array
    start_slope: Array
    step_norm: Array
    grad_norm: Array
    finite: Array
    noise: Array
    eps: float


def _weigh(line: Line, state: State, evaluation: Evaluation, coarse: float) -> _Trial:
    assert state.step is not None
    value = evaluation.value.astype(state.level.dtype)
    # The value was rounded to its own dtype, then to that of the levels.
    eps = max(coarse, *(float(jnp.finfo(v.dtype).eps) for v in (evaluation.value, value)))
    point = method.moved(state.params, state.step.step, line.bounds)
    step = tree.sub(point, state.params)  # as it was rounded
    direction = state.model.direction
    here = tree.where(state.fresh, state.params, point)
    grad_norm = method.grad_norm(evaluation.grad, here, line.bounds)
    return _Trial(
        value=value,
        grad=evaluation.grad,
        point=point,
        step=step,
        slope=tree.vdot(evaluation.grad, direction),
        start_slope=tree.vdot(state.grad, direction),
        step_norm=state.model.search.length * tree.norm(direction),
        grad_norm=grad_norm,
        finite=jnp.isfinite(value) & jnp.isfinite(grad_norm),
        noise=rounding_floor(state.level, state.reference, eps),
        eps=eps,
    )


def _search(line: Line, state: State, trial: _Trial) -> tuple[LineSearch, Array]:
    """The search told of the trial, if it is one; whether a whole step promises but rounding."""
    scaled, down = state.model.table.num_pairs > 0, trial.start_slope < 0
    limited = scaled & down & (-trial.start_slope / 2 <= trial.noise)
    most = line.rules.max_trials
    most = jnp.where(limited, jnp.minimum(LIMITED_TRIALS, most), most)
    told = tree.while_once(
        ~state.fresh,
        lambda: line_search.tell(
            line_search.sloped(state.model.search, trial.start_slope),
            trial.value,
            trial.slope,
            finite=trial.finite,
            calmer=trial.grad_norm <= state.info.grad_norm,
            ceiling=state.reference + trial.noise,
            noise=trial.noise,
            lowest=state.reference,
            rules=line.rules._replace(max_trials=most),
        ),
        state.model.search,
    )
    return told, limited


def _code(state: State, trial: _Trial, walled: Array, limited: Array, failed: Array) -> Array:
    """The status after a trial; 0 while the run goes on."""
    norm = state.info.grad_norm
    # Beside a kink a step may promise little under a large gradient: that is no floor.
    floor = limited & (norm <= trial.eps**0.5 * state.model.largest)
    floor |= is_small(norm, trial.eps)
    why = jnp.where(floor, Status.ROUNDOFF_LIMITED, Status.LINE_SEARCH_FAILED)
    code = jnp.where(failed, jnp.where(walled, Status.NONFINITE_TRIALS, why), Status.RUNNING)
    code = jnp.where(unbounded(trial.value, trial.eps), Status.UNBOUNDED, code)
    return jnp.where(state.fresh & ~trial.finite, Status.NONFINITE_START, code).astype(jnp.int32)


def measure(line: Line, state: State, evaluation: Evaluation, coarse: float = 0.0) -> State:
    """The search told; where it is content, the point moved and the memory taught.

    Args:
      line: the method.
      state: the state that asked.
      evaluation: value and gradient at `ask(state)`.
      coarse: the rounding of the value at the kept point, if it came in a coarser dtype.

    Returns:
      The state; `modeled` is False where a new direction is needed.
    """
    course, info = state.model, state.info
    trial = _weigh(line, state, evaluation, coarse)
    told, limited = _search(line, state, trial)
    is_trial = ~state.fresh
    falls = trial.finite & unbounded(trial.value, trial.eps)
    down, length = trial.start_slope < 0, course.search.length
    kept = is_trial & down & (told.accepted | falls)
    lost = is_trial & (told.exhausted | ~down)
    retries = lost & ~limited & ~course.steepest & (~down | (course.table.num_pairs > 0))
    pair = learned(
        Point(state.level, state.grad, length * trial.start_slope),
        Point(trial.value, trial.grad, length * trial.slope),
        trial.step,
        norm=trial.step_norm,
        length=length,
        noise=trial.noise,
    )
    history, table = line.learn(course.history, course.table, pair, kept)
    known = kept | (state.fresh & trial.finite)
    same = trial.value == state.level
    course = course._replace(
        history=history,
        table=table._replace(num_pairs=jnp.where(retries, 0, table.num_pairs)),
        steepest=(course.steepest | retries) & ~kept,
        largest=jnp.maximum(course.largest, jnp.where(trial.finite, trial.grad_norm, 0)),
        search=told,
    )
    parabola = -trial.start_slope * pair.length / 2
    info = info._replace(
        status=_code(state, trial, line_search.walled(told), limited, lost & ~retries),
        accepted=kept | state.fresh,
        step_norm=jnp.where(kept, trial.step_norm, 0),
        ratio=jnp.where(
            is_trial & trial.finite, (state.level - trial.value) / parabola, info.ratio
        ),
        grad_norm=jnp.where(known, trial.grad_norm, info.grad_norm),
        **describe(course),
    )
    lower = jnp.where(state.fresh & ~same, trial.value, jnp.minimum(trial.value, state.reference))
    return state._replace(
        count=state.count + kept.astype(state.count.dtype),
        value=jnp.where(known, trial.value, state.level).astype(state.value.dtype),
        grad=tree.where(known, trial.grad, state.grad),
        level=jnp.where(known, trial.value, state.level),
        reference=jnp.where(known, lower, state.reference),
        fresh=state.fresh & ~trial.finite,
        modeled=state.modeled & ~kept & ~retries & (is_trial | same),
        model=course,
        params=tree.where(kept, trial.point, state.params),
        info=info,
    )


def _turn(line: Line, state: State, rhs: Params) -> tuple[Any, Params, LineSearch]:
    """The next direction, and the search along it, whose first trial will tell the slope."""
    course, norm = state.model, state.info.grad_norm
    if line.bounds is not None:
        return _turn_in_box(line, state)
    table, direction = line.direct(course.history, course.table, rhs)
    direction = tree.cast_like(direction, state.grad)
    direction = tree.where(course.steepest, tree.negative(state.grad), direction)
    # Without pairs it has no scale: made about 1 long, it keeps g.d within the dtype.
    bare = course.steepest | ((table.num_pairs == 0) & line.shortened)
    unit = 1 / tree.power_of_two(norm)
    direction = tree.where(bare, tree.scale(unit, direction), direction)
    first = line_search.first_step(state.params, norm) / jnp.where(norm > 0, norm * unit, 1)
    length = jnp.where(bare, first, 1)
    search = line_search.begin(state.level, -jnp.ones_like(norm), length, line.longest)
    return table, direction, search


def _turn_in_box(line: Line, state: State) -> tuple[Any, Params, LineSearch]:
    """The next direction to a point of the box, which a length of 1 reaches."""
    course, norm = state.model, state.info.grad_norm
    assert line.boxed is not None
    table = course.table._replace(num_pairs=jnp.where(course.steepest, 0, course.table.num_pairs))
    first = line_search.first_step(state.params, norm) / jnp.where(norm > 0, norm, 1)
    box = parse(line.bounds, state.params)
    direction, longest = line.boxed(course.history, table, state.grad, state.params, box, first)
    search = line_search.begin(state.level, -jnp.ones_like(norm), jnp.ones_like(norm), longest)
    return course.table, direction, search


def aim(line: Line, state: State, rhs: Callable[[Params], Params] = lambda grad: grad) -> State:
    """A new direction unless `state.modeled`, and the next step along it."""
    course, needed = state.model, ~state.modeled & ~state.fresh
    table, direction, search = tree.while_once(
        needed,
        lambda: _turn(line, state, rhs(state.grad)),
        (course.table, course.direction, course.search),
    )
    course = course._replace(table=table, direction=direction, search=search)
    # A loop of one trip, always: the product must be rounded, as the caller's will be, before it is
    # added to params, and in one piece the compiler would fuse both into one instruction.
    step = tree.while_once(
        search.length > 0,
        lambda: tree.scale(search.length, tree.widen(direction)),
        tree.zeros_like(state.grad),
    )
    rest = ~state.fresh & context(state).at_rest
    status = jnp.where(rest, Status.GRADIENT_TOL, state.info.status).astype(jnp.int32)
    return state._replace(
        modeled=state.modeled | needed,
        size=search.length,
        model=course,
        step=Step(step, None, search.length, jnp.array(False)),
        info=state.info._replace(status=status),
    )


def tell(line: Line, state: State, evaluation: Evaluation) -> State:
    """The next state, from the evaluation at `ask(state)`: (1)."""
    state = aim(line, measure(line, state, evaluation))
    one = jnp.ones((), jnp.int32)
    return state._replace(info=state.info._replace(num_values=one, num_grads=one))


def machine(line: Line) -> Method:
    """The machine of `line`: gradients only, and it cannot leave a saddle it meets exactly."""
    return Method(
        start=functools.partial(start, line),
        ask=functools.partial(method.ask, bounds=line.bounds),
        tell=functools.partial(tell, line),
        evaluate=value_and_grad,
        leaves_saddles=False,
    )
