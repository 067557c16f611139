r"""The trial machine: `tell` for every method that models, proposes and judges.

    tell  =  propose . remodel . judge                                      (1)

`judge` keeps or rejects the trial and moves `size` (a radius, a damping, a step length);
`remodel` builds the model of a newly kept point, the only place that spends products, and does
not run after a rejection; `propose` solves the model for the next trial. The optax face runs the
same three in the order that `update` needs (transforms/_build.py). What distinguishes one method
from another is its `Rule` (core/method.py).

Source: Nocedal & Wright (2006), Algorithm 4.1; Conn, Gould & Toint (2000), Algorithm 6.1.1.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import acceptance, method, tree
from hesskit.core.derivatives import Evaluation
from hesskit.core.method import Method, State, context, is_small, start, unbounded, zero_step
from hesskit.core.rule import Rule
from hesskit.core.status import Status
from hesskit.core.types import Array, Params


def _code(
    kept: Array, stuck: Array, trial: acceptance.Trial, endless: Array, explained: Array
) -> Array:
    """The status of a judged trial; 0 while the run goes on.

    A rejected step that promises less than the rounding floor ends the run. It is the floor that
    limits it where the step was full or the gradient is small (`explained`); a short step under a
    large gradient was shortened because the model promised what the function did not keep.

    Args:
      kept: the trial was kept, () bool.
      stuck: it was rejected although it hardly moved, () bool.
      trial: what was found there.
      endless: the value is taken for -infinity, () bool.
      explained: rounding is enough to explain a rejection below the floor, () bool.

    Returns:
      A `Status`, () int32.
    """
    limited = ~kept & trial.limited & trial.finite
    failed = stuck | (limited & ~explained)
    code = jnp.where(failed, Status.LINE_SEARCH_FAILED, Status.RUNNING)
    code = jnp.where(stuck & ~trial.finite, Status.NONFINITE_TRIALS, code)
    code = jnp.where(limited & explained, Status.ROUNDOFF_LIMITED, code)
    return jnp.where(endless, Status.UNBOUNDED, code).astype(jnp.int32)


def judge(rule: Rule, state: State, evaluation: Evaluation, point: Params | None = None) -> State:
    """Keeps or rejects the trial `point` (None: where `ask` led), moves `size`; spends nothing."""
    # Where `fresh`, the evaluation is no trial but at the kept point, which stays.
    assert state.params is not None
    assert state.step is not None
    step, params = state.step, state.params
    value = evaluation.value.astype(state.level.dtype)
    # The value was rounded to its own dtype, then to that of the levels.
    eps = max(float(jnp.finfo(v.dtype).eps) for v in (evaluation.value, state.level))
    point = method.moved(params, step.step, rule.bounds) if point is None else point
    moved = tree.sub(point, params)  # the step as it was rounded
    slope = tree.vdot(state.grad, moved)
    here = tree.where(state.fresh, params, point)
    grad_norm = method.grad_norm(evaluation.grad, here, rule.bounds)  # not finite if it is not
    is_trial = ~state.fresh
    floor = acceptance.rounding_floor(state.level, state.reference, eps)
    if rule.noise is not None:
        floor = jnp.maximum(floor, rule.noise(state.model))
    trial = acceptance.judge(
        value=state.level,
        reference=state.reference,
        trial_value=value,
        predicted=-(slope + tree.vdot(moved, step.product) / 2 + step.penalty),
        slope=slope,
        trial_slope=tree.vdot(evaluation.grad, moved),
        calmer=grad_norm <= state.info.grad_norm,
        finite=jnp.isfinite(value) & jnp.isfinite(grad_norm),
        floor=floor,
    )
    kept, step_norm = trial.accepted & is_trial, tree.norm(moved)
    size = rule.adapt(state.size, step.norm, step.on_boundary, trial)
    # No step says nothing about its size.
    size = jnp.where(is_trial & (step.norm > 0), size, state.size)
    stuck = ~kept & tree.negligible(moved, params)
    full = ~step.on_boundary & (step.norm > 0)
    explained = full | is_small(state.info.grad_norm / jnp.maximum(1, state.level), eps)
    code = _code(kept, stuck, trial, unbounded(value, eps), explained)
    info = state.info._replace(
        status=jnp.where(is_trial, code, state.info.status),
        accepted=kept | state.fresh,
        step_norm=jnp.where(kept, step_norm, 0),
        ratio=jnp.where(is_trial, trial.ratio, state.info.ratio),
        grad_norm=jnp.where(kept | (state.fresh & trial.finite), grad_norm, state.info.grad_norm),
    )
    return state._replace(
        count=state.count + is_trial.astype(state.count.dtype),
        value=jnp.where(kept, value, state.level).astype(state.value.dtype),
        grad=tree.where(kept, evaluation.grad, state.grad),
        level=jnp.where(kept, value, state.level),
        reference=jnp.where(kept, jnp.minimum(value, state.reference), state.reference),
        size=size.astype(state.size.dtype),
        modeled=state.modeled & ~kept & (is_trial | (value == state.level)),
        params=tree.where(kept, point, params),
        indefinite=state.indefinite & ~kept,
        at_rest=state.at_rest & ~kept,
        info=info,
    )


class _Model(NamedTuple):
    """What `remodel` changes."""

    value: Array
    grad: Params
    grad_norm: Array
    size: Array
    model: Any
    indefinite: Array
    at_rest: Array
    num_products: Array
    finite: Array


def _build(rule: Rule, state: State, new: _Model, evaluation: Evaluation, rhs: Params) -> _Model:
    """The model at the kept point, and the first size where there was none."""
    info, size = state.info._replace(grad_norm=new.grad_norm), state.size
    if callable(rule.size):
        size = jnp.asarray(rule.size(state.count), size.dtype)
    there = state._replace(grad=new.grad, level=new.value, size=size, info=info)
    here = context(there, bounds=rule.bounds)
    built = rule.build(evaluation, rhs, state.model, here)
    if rule.size is None:
        size = jnp.where(size > 0, size, rule.first_size(built.model, new.grad, here))
    return new._replace(
        size=size,
        model=built.model,
        indefinite=built.indefinite,
        at_rest=jnp.asarray(built.at_rest),
        num_products=jnp.asarray(built.num_products, jnp.int32),
    )


def _remodeled(state: State, new: _Model) -> State:
    """The state with what `remodel` found."""
    same = new.value == state.level
    status = jnp.where(new.finite, state.info.status, Status.NONFINITE_START).astype(jnp.int32)
    info = state.info._replace(
        num_products=new.num_products, grad_norm=new.grad_norm, status=status
    )
    return state._replace(
        value=new.value.astype(state.value.dtype),
        grad=new.grad,
        level=new.value,
        reference=jnp.where(same, state.reference, new.value),
        size=new.size,
        modeled=state.modeled | new.finite,
        model=new.model,
        indefinite=new.indefinite,
        at_rest=new.at_rest,
        info=info,
    )


def remodel(
    rule: Rule,
    state: State,
    evaluation: Evaluation | Callable[[], Evaluation],
    choose: Callable[[Params], Params] = lambda grad: grad,
) -> State:
    """The model of the kept point, unless `state.modeled`: the only place that spends products.

    Args:
      rule: the method.
      state: the kept point.
      evaluation: value, gradient and product at the kept point; if a function, it is called
        inside a loop of one or zero trips.
      choose: the right-hand side of the model's system, from the gradient.

    Returns:
      The state with value, gradient and model of the kept point. Where the evaluation is not
      finite nothing is committed and the status is NONFINITE_START.
    """
    old = _Model(
        value=state.level,
        grad=state.grad,
        grad_norm=state.info.grad_norm,
        size=state.size,
        model=state.model,
        indefinite=state.indefinite,
        at_rest=state.at_rest,
        num_products=jnp.zeros((), jnp.int32),
        finite=jnp.array(True),
    )
    needed = ~state.modeled

    def build(at: Evaluation, needed: Array) -> _Model:
        norm = method.grad_norm(at.grad, state.params, rule.bounds)
        finite = jnp.isfinite(at.value) & jnp.isfinite(norm)
        new = old._replace(value=at.value.astype(old.value.dtype), grad=at.grad, grad_norm=norm)
        kept = old._replace(finite=finite | ~needed)

        def found() -> _Model:
            return _build(rule, state, new, at, choose(at.grad))

        if rule.eager:
            return tree.where(needed & finite, tree.cast_like(found(), kept), kept)
        return tree.while_once(needed & finite, found, kept)

    if callable(evaluation):
        found = tree.while_once(needed, lambda: build(evaluation(), needed), old)
    else:
        found = build(evaluation, needed)
    return _remodeled(state, found)


def propose(rule: Rule, state: State) -> State:
    """The next trial from the model; says GRADIENT_TOL where the kept point is at rest.

    Not where the model has no finite step even there: its matrix is not finite, and nothing tells
    a minimum from a saddle. That is SINGULAR.

    Args:
      rule: the method.
      state: the kept point with its model.

    Returns:
      The state with a step.
    """
    assert state.params is not None
    here = context(state, rule.judges_rest, rule.bounds)
    step = rule.solve(state.model, state.grad, state.size, here)
    sound = tree.all_finite(step.step) & state.modeled
    zero = zero_step(state.params, state.level.dtype)
    step = step._replace(step=tree.cast_like(step.step, state.params))
    step = tree.where(
        sound, step._replace(penalty=jnp.asarray(step.penalty, zero.norm.dtype)), zero
    )
    rest = state.modeled & here.at_rest
    status = jnp.where(state.modeled & ~sound, Status.SINGULAR, state.info.status)
    status = jnp.where(rest & sound & ~state.indefinite, Status.GRADIENT_TOL, status)
    status = jnp.where(rest & state.indefinite & (step.norm == 0), Status.SADDLE, status)
    own = rule.describe(state.model, state.size)
    info = state.info._replace(status=status.astype(jnp.int32), **own)
    return state._replace(step=step, fresh=jnp.array(False), info=info)


def tell(rule: Rule, state: State, evaluation: Evaluation) -> State:
    """The next state, from the evaluation at `ask(state)`: (1)."""
    state = remodel(rule, judge(rule, state, evaluation), evaluation)
    one = jnp.ones((), jnp.int32)
    state = state._replace(info=state.info._replace(num_values=one, num_grads=one))
    return propose(rule, state)


def machine(rule: Rule) -> Method:
    """The machine of `rule`."""
    return Method(
        start=functools.partial(start, rule),
        ask=functools.partial(method.ask, bounds=rule.bounds),
        tell=functools.partial(tell, rule),
        evaluate=rule.evaluate,
        leaves_saddles=rule.leaves_saddles,
        looks_at_rest=rule.looks_at_rest,
        judges_rest=rule.judges_rest,
        many=lambda: machine(
            rule._replace(eager=True, evaluate=rule.evaluate_many or rule.evaluate)
        ),
    )
