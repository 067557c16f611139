"""Two engines under one loop: a machine asked and told, or an optax transformation updated.

A driver is two pure functions, `start(params) -> carry` and `advance(carry) -> (carry, Report)`.
The first `advance` evaluates the start itself; every later one is a step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hesskit.core import method, objective, tree
from hesskit.core.acceptance import rounding_floor
from hesskit.core.derivatives import linearized, value_and_grad
from hesskit.core.method import INFO_FIELDS, UNBOUNDED_BELOW, Method, State
from hesskit.core.status import Status
from hesskit.core.types import Array, Params


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
    at_rest: Array  # |grad| is within the tolerance
    indefinite: Array  # negative curvature is known
    at_floor: Array  # a full step promises less than the rounding of the value
    num_values: Array
    num_grads: Array
    num_products: Array


class Driver(NamedTuple):
    """`start(params) -> carry`, `resume(carry, params)`, `advance(carry) -> (carry, Report)`."""

    start: Callable[[Params], Any]
    resume: Callable[[Any, Params], Any]
    advance: Callable[[Any], tuple[Any, Report]]


class Problem(NamedTuple):
    """What a driver needs: `fn(params) -> (value, aux)` on real params, and the tolerance.

    `tolerance` is (2,): |grad| <= tolerance[0] + tolerance[1] |value| is at rest. `aux` has the
    shapes of aux.
    """

    fn: Callable[[Params], tuple[Array, Any]]
    tolerance: Array
    aux: Any


class _Machine(NamedTuple):
    state: State
    aux: Any


def machine(run: Method, problem: Problem) -> Driver:
    """Runs a `Method`: one evaluation a step, one copy of the objective in the program."""

    def start(params: Params) -> _Machine:
        state = run.start(params)
        return _Machine(state._replace(tolerance=problem.tolerance), problem.aux)

    def resume(carry: _Machine, params: Params) -> _Machine:
        state = carry.state
        again = state._replace(
            params=params,
            fresh=jnp.array(True),
            modeled=state.modeled & tree.equal(params, state.params),
            tolerance=problem.tolerance,
            info=state.info._replace(status=jnp.zeros((), jnp.int32)),
        )
        return carry._replace(state=again)

    def advance(carry: _Machine) -> tuple[_Machine, Report]:
        before = carry.state
        assert before.step is not None
        evaluation = linearized(problem.fn, run.ask(before), has_aux=True)
        state = run.tell(before, evaluation)
        info = state.info
        aux = tree.where(info.accepted, evaluation.aux, carry.aux)
        full = ~before.fresh & ~before.step.on_boundary & ~state.indefinite
        here = Point(state.params, state.level, info.grad_norm)
        report = Report(
            best=here,
            now=here,
            aux=aux,
            step_norm=info.step_norm,
            accepted=info.accepted,
            status=info.status,
            at_rest=info.grad_norm <= method.grad_tolerance(state),
            indefinite=state.indefinite,
            at_floor=full & (info.status == Status.ROUNDOFF_LIMITED),
            num_values=info.num_values,
            num_grads=info.num_grads,
            num_products=info.num_products,
        )
        return _Machine(state, aux), report

    return Driver(start, resume, advance)


class _Updated(NamedTuple):
    now: Point
    grad: Params
    inner: Any  # the optimizer's state
    fresh: Array
    best: Point
    aux: Any  # at `best`


def updated(
    optimizer: optax.GradientTransformationExtraArgs, problem: Problem, like: Params
) -> Driver:
    """Runs any optax transformation; value and gradient are evaluated after each update.

    `like` is the start in the user's dtypes, in which the optimizer works. Nothing is judged, so
    the best point so far is kept beside the last one.
    """
    dtype = tree.result_dtype(like)

    def start(params: Params) -> _Updated:
        unknown = Point(params, jnp.full((), jnp.inf, dtype), jnp.full((), jnp.inf, dtype))
        return _Updated(
            now=unknown,
            grad=tree.zeros_like(params),
            inner=optimizer.init(objective.join(params, like)),
            fresh=jnp.array(True),
            best=unknown,
            aux=problem.aux,
        )

    def resume(carry: _Updated, params: Params) -> _Updated:
        goes_on = tree.equal(params, carry.best.params)
        point = tree.where(goes_on, carry.now.params, params)
        unknown = carry.best._replace(params=params, value=jnp.full((), jnp.inf, dtype))
        return carry._replace(
            now=carry.now._replace(params=point), best=unknown, fresh=jnp.array(True)
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
            value_fn=objective.precompose(objective.drop_aux(problem.fn), objective.split),
        )
        new = objective.split(optax.apply_updates(point, updates))
        return new, tree.cast_like(inner, carry.inner)

    def advance(carry: _Updated) -> tuple[_Updated, Report]:
        params, inner = tree.while_once(
            ~carry.fresh, lambda: update(carry), (carry.now.params, carry.inner)
        )
        evaluation = value_and_grad(problem.fn, params, has_aux=True)
        value = evaluation.value.astype(dtype)
        now = Point(params, value, tree.norm(evaluation.grad).astype(dtype))
        finite = jnp.isfinite(value) & jnp.isfinite(now.grad_norm)
        at_rest = now.grad_norm <= problem.tolerance[0] + problem.tolerance[1] * jnp.abs(value)
        eps = float(jnp.finfo(evaluation.value.dtype).eps)
        floor = rounding_floor(carry.best.value, carry.best.value, eps)
        close = at_rest & (value <= carry.best.value + floor)
        better = finite & ((value < carry.best.value) | close)
        best = tree.where(better, now, carry.best)
        aux = tree.where(better, evaluation.aux, carry.aux)
        failed = jnp.where(carry.fresh, Status.NONFINITE_START, Status.NONFINITE_TRIALS)
        status = jnp.where(finite, jnp.where(at_rest, Status.GRADIENT_TOL, 0), failed)
        status = jnp.where(value < UNBOUNDED_BELOW / eps**2, Status.UNBOUNDED, status)
        spent = counts(inner)
        one = jnp.ones((), jnp.int32)
        more = [jnp.where(carry.fresh, 0, count) for count in spent]
        report = Report(
            best=best,
            now=now,
            aux=aux,
            step_norm=tree.norm(tree.sub(params, carry.now.params)),
            accepted=better | carry.fresh,
            status=status.astype(jnp.int32),
            at_rest=at_rest,
            indefinite=jnp.array(False),
            at_floor=jnp.array(False),
            num_values=one + more[0],
            num_grads=one + more[1],
            num_products=more[2],
        )
        return _Updated(now, evaluation.grad, inner, jnp.array(False), best, aux), report

    return Driver(start, resume, advance)


def counts(state: Any) -> tuple[Array, Array, Array]:
    """Evaluations reported inside an optax state: by our Infos and optax's line searches."""
    zero = jnp.zeros((), jnp.int32)
    values, grads, products = zero, zero, zero
    for info in _infos(state):
        if _is_info(info):
            values, grads = values + info.num_values, grads + info.num_grads
            products = products + info.num_products
        else:
            steps = jnp.asarray(info.num_linesearch_steps, jnp.int32)
            values, grads = values + steps, grads + steps
    return values, grads, products


def _is_info(node: Any) -> bool:
    return (
        isinstance(node, tuple) and getattr(node, "_fields", ())[: len(INFO_FIELDS)] == INFO_FIELDS
    )


def _is_search(node: Any) -> bool:
    kinds = (optax.ScaleByZoomLinesearchState, optax.ScaleByBacktrackingLinesearchState)
    return isinstance(node, kinds)


def _infos(state: Any) -> list[Any]:
    found = jax.tree.leaves(state, is_leaf=lambda node: _is_info(node) or _is_search(node))
    ours = [node for node in found if _is_info(node)]
    return ours + [node.info for node in found if _is_search(node)]
