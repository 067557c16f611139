"""Two engines under one loop: a machine asked and told, or an optax transformation updated.

A driver is two pure functions, `start(params) -> carry` and `advance(carry, looking) ->
(carry, Report)`. The first `advance` evaluates the start itself; every later one is a step, unless
it is to look for negative curvature where it is, as if the gradient were zero there.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from hesskit.core import errors, objective, tree
from hesskit.core.acceptance import rounding_floor
from hesskit.core.derivatives import value_and_grad
from hesskit.core.method import Method, State, is_at_rest, unbounded
from hesskit.core.status import Status
from hesskit.core.types import Array, Params
from hesskit.solvers.states import counts, with_tolerance, word


class Point(NamedTuple):
    """A point and what is known there: `value` and `grad_norm` are ()."""

    params: Params
    value: Array
    grad_norm: Array


class Report(NamedTuple):
    """What one `advance` did; all but points and `aux` are ()."""

    best: Point  # the answer if the run stopped here
    now: Point  # where the optimizer is; the same for a machine
    aux: Any  # at `best`
    step_norm: Array
    accepted: Array
    status: Array  # int32
    at_rest: Array  # |grad| at `best` is within the tolerance
    indefinite: Array  # negative curvature is known
    at_floor: Array  # a full step promises less than the rounding of the value
    num_values: Array
    num_grads: Array
    num_products: Array


def blank(params: Params, aux: Any) -> Report:
    """A Report of the right shapes, for the loop before its first step."""
    zero = jnp.zeros((), tree.result_dtype(params))
    count, no = jnp.zeros((), jnp.int32), jnp.array(False)
    point = Point(tree.zeros_like(params), zero, zero)
    return Report(point, point, aux, zero, no, count, no, no, no, count, count, count)


class Driver(NamedTuple):
    """`start(params) -> carry`, `resume(carry, params)`, `advance(carry, looking=False)`.

    `leaves` says that it goes on where negative curvature is known, `looks` that it looks for some
    where the gradient is zero, or when told to.
    """

    start: Callable[[Params], Any]
    resume: Callable[[Any, Params], Any]
    advance: Callable[..., tuple[Any, Report]]
    leaves: bool = False
    looks: bool = False


class Problem(NamedTuple):
    """What a driver needs: `fn(params) -> (value, aux)` on real params, and the tolerance.

    `tolerance` is (), for |grad|; `aux` has the shapes of aux.
    """

    fn: Callable[[Params], tuple[Array, Any]]
    tolerance: Array
    aux: Any


def _at_rest(point: Point, tolerance: Array) -> Array:
    return is_at_rest(point.grad_norm, point.value, tolerance)


class _Machine(NamedTuple):
    state: State
    aux: Any


def _to_look(state: State, tolerance: Array, looking: Array) -> State:
    """The state at whose tolerance the kept point is at rest, so that its model is made anew."""
    rest = jnp.maximum(tolerance, state.info.grad_norm)
    status = jnp.where(looking, Status.RUNNING, state.info.status).astype(jnp.int32)
    return state._replace(
        info=state.info._replace(status=status),
        fresh=state.fresh | looking,
        modeled=state.modeled & ~looking,
        tolerance=jnp.where(looking, rest, tolerance),
    )


def machine(run: Method, problem: Problem) -> Driver:
    """Runs a `Method`: one evaluation a step, one copy of the objective in the program."""

    def start(params: Params) -> _Machine:
        state = run.start(params)
        return _Machine(state._replace(tolerance=problem.tolerance), problem.aux)

    def resume(carry: _Machine, params: Params) -> _Machine:
        state = carry.state
        # A model judged rest, or looked for negative curvature, by the tolerance of its time.
        unseen = problem.tolerance != state.tolerance
        again = state._replace(
            params=params,
            fresh=jnp.array(True),
            modeled=state.modeled & tree.equal(params, state.params) & ~unseen,
            tolerance=problem.tolerance,
            info=state.info._replace(status=jnp.zeros((), jnp.int32)),
        )
        return _Machine(again, problem.aux)

    def advance(carry: _Machine, looking: Array | bool = False) -> tuple[_Machine, Report]:
        before = carry.state
        if run.looks_at_rest:
            before = _to_look(before, problem.tolerance, jnp.asarray(looking))
        assert before.step is not None
        evaluation = run.evaluate(problem.fn, run.ask(before), has_aux=True)
        state = run.tell(before, evaluation)
        info = state.info
        aux = tree.where(info.accepted, evaluation.aux, carry.aux)
        step = before.step
        full = ~before.fresh & ~step.on_boundary & (step.norm > 0) & ~state.indefinite
        lost = info.status == Status.NONFINITE_START  # nothing was committed: say what was met
        here = Point(
            state.params,
            jnp.where(lost, evaluation.value.astype(state.level.dtype), state.level),
            jnp.where(lost, tree.norm(evaluation.grad), info.grad_norm),
        )
        report = Report(
            best=here,
            now=here,
            aux=aux,
            step_norm=info.step_norm,
            accepted=info.accepted,
            status=info.status,
            at_rest=state.at_rest if run.judges_rest else _at_rest(here, problem.tolerance),
            indefinite=state.indefinite,
            at_floor=full & (info.status == Status.ROUNDOFF_LIMITED),
            num_values=info.num_values,
            num_grads=info.num_grads,
            num_products=info.num_products,
        )
        return _Machine(state, aux), report

    return Driver(start, resume, advance, run.leaves_saddles, run.looks_at_rest)


class _Updated(NamedTuple):
    now: Point
    grad: Params
    inner: Any  # the optimizer's state
    fresh: Array
    best: Point
    aux: Any  # at `best`


def _arrive(problem: Problem, carry: _Updated, params: Params) -> tuple[_Updated, Report]:
    """Evaluates `params`, where the last update led, and keeps the best point."""
    evaluation = value_and_grad(problem.fn, params, has_aux=True)
    dtype = carry.now.value.dtype
    value = evaluation.value.astype(dtype)
    now = Point(params, value, tree.norm(evaluation.grad).astype(dtype))
    finite = jnp.isfinite(value) & jnp.isfinite(now.grad_norm)
    eps = max(float(jnp.finfo(v.dtype).eps) for v in (evaluation.value, value))
    # A resumed run evaluates the last point again: another value, another objective.
    stale = carry.fresh & (value != carry.now.value)
    lowest = jnp.where(stale, jnp.inf, carry.best.value)
    floor = rounding_floor(lowest, lowest, eps)
    close = _at_rest(now, problem.tolerance) & (value <= lowest + floor)
    better = stale | (finite & ((value < lowest) | close))
    best = tree.where(better, now, carry.best)
    aux = tree.where(better, evaluation.aux, carry.aux)
    at_rest = _at_rest(best, problem.tolerance)
    failed = jnp.where(carry.fresh, Status.NONFINITE_START, Status.NONFINITE_TRIALS)
    status = jnp.where(finite, word(carry.inner, at_rest, carry.fresh), failed)
    status = jnp.where(unbounded(value, eps), Status.UNBOUNDED, status)
    one = jnp.ones((), jnp.int32)
    more = [jnp.where(carry.fresh, 0, count) for count in counts(carry.inner)]
    report = Report(
        best=best,
        now=now,
        aux=aux,
        step_norm=tree.norm(tree.sub(params, carry.now.params)),
        accepted=better | carry.fresh,
        status=status.astype(jnp.int32),
        at_rest=at_rest,
        indefinite=status == Status.SADDLE,
        at_floor=jnp.array(False),
        num_values=one + more[0],
        num_grads=one + more[1],
        num_products=more[2],
    )
    return _Updated(now, evaluation.grad, carry.inner, jnp.array(False), best, aux), report


def updated(
    optimizer: optax.GradientTransformationExtraArgs, problem: Problem, like: Params
) -> Driver:
    """Runs any optax transformation; value and gradient are evaluated after each update.

    Nothing is judged here, so the best point so far is kept beside the last one.

    Args:
      optimizer: the transformation.
      problem: what to minimize.
      like: the start in the user's dtypes, in which the optimizer works.

    Returns:
      The driver.
    """
    dtype = tree.result_dtype(like)
    inf = jnp.full((), jnp.inf, dtype)
    takes_pair = getattr(optimizer, "has_aux", False)
    fn = problem.fn if takes_pair else objective.drop_aux(problem.fn)

    def start(params: Params) -> _Updated:
        unknown = Point(params, inf, inf)
        return _Updated(
            now=unknown,
            grad=tree.zeros_like(params),
            inner=with_tolerance(optimizer.init(objective.join(params, like)), problem.tolerance),
            fresh=jnp.array(True),
            best=unknown,
            aux=problem.aux,
        )

    def resume(carry: _Updated, params: Params) -> _Updated:
        goes_on = tree.equal(params, carry.best.params) & jnp.isfinite(carry.now.value)
        other = Point(params, inf, inf)
        known = errors.same_shapes(carry.aux, problem.aux)
        return carry._replace(
            now=tree.where(goes_on, carry.now, other),
            best=tree.where(goes_on & known, carry.best, other),
            aux=carry.aux if known else problem.aux,
            inner=with_tolerance(carry.inner, problem.tolerance),
            fresh=jnp.array(True),
        )

    def update(carry: _Updated) -> tuple[Params, Any]:
        point = objective.join(carry.now.params, like)
        grad = objective.join(carry.grad, like)  # conjugated: the direction of steepest ascent
        updates, inner = optimizer.update(
            grad,
            carry.inner,
            point,
            value=carry.now.value,
            grad=grad,
            value_fn=objective.precompose(fn, objective.split),
        )
        new = objective.split(optax.apply_updates(point, updates))
        return new, tree.cast_like(inner, carry.inner)

    def advance(carry: _Updated, looking: Array | bool = False) -> tuple[_Updated, Report]:
        del looking
        params, inner = tree.while_once(
            ~carry.fresh, lambda: update(carry), (carry.now.params, carry.inner)
        )
        return _arrive(problem, carry._replace(inner=inner), params)

    return Driver(start, resume, advance)
