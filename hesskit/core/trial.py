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

import jax.numpy as jnp

from hesskit.core import acceptance, tree
from hesskit.core.derivatives import Evaluation
from hesskit.core.method import (
    Method,
    Rule,
    State,
    ask,
    context,
    is_small,
    start,
    unbounded,
    zero_step,
)
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


def judge(rule: Rule, state: State, evaluation: Evaluation) -> State:
    """Keeps or rejects the trial point and moves `size`; spends nothing."""
    assert state.params is not None
    assert state.step is not None
    step, params = state.step, state.params
    value = evaluation.value.astype(state.level.dtype)
    eps = float(jnp.finfo(evaluation.value.dtype).eps)
    point = tree.add(params, step.step)
    moved = tree.sub(point, params)  # the step as it was rounded
    slope = tree.vdot(state.grad, moved)
    grad_norm = tree.norm(evaluation.grad)
    trial = acceptance.judge(
        value=state.level,
        reference=state.reference,
        trial_value=value,
        predicted=-(slope + tree.vdot(moved, step.product) / 2 + step.penalty),
        slope=slope,
        trial_slope=tree.vdot(evaluation.grad, moved),
        calmer=grad_norm <= tree.norm(state.grad),
        finite=jnp.isfinite(value) & tree.all_finite(evaluation.grad),
        floor=acceptance.rounding_floor(state.level, state.reference, eps),
    )
    kept, step_norm = trial.accepted, tree.norm(moved)
    size = rule.adapt(state.size, step.norm, step.on_boundary, trial)
    size = jnp.where(step.norm > 0, size, state.size)  # no step says nothing about its size
    unit = tree.coarsest_eps(params)
    stuck = ~kept & (step_norm <= unit * (tree.norm(params) + unit))
    explained = ~step.on_boundary | is_small(state.info.grad_norm, state.level, eps)
    info = state.info._replace(
        status=_code(kept, stuck, trial, unbounded(value, eps), explained),
        accepted=kept,
        step_norm=jnp.where(kept, step_norm, 0),
        ratio=trial.ratio,
        grad_norm=jnp.where(kept, grad_norm, state.info.grad_norm),
    )
    return state._replace(
        count=state.count + 1,
        value=jnp.where(kept, value, state.level).astype(state.value.dtype),
        grad=tree.where(kept, evaluation.grad, state.grad),
        level=jnp.where(kept, value, state.level),
        reference=jnp.where(kept, jnp.minimum(value, state.reference), state.reference),
        size=size.astype(state.size.dtype),
        modeled=state.modeled & ~kept,
        params=tree.where(kept, point, params),
        indefinite=state.indefinite & ~kept,
        info=info,
    )


def _rebase(state: State, evaluation: Evaluation) -> State:
    """The state with value and gradient evaluated anew at the kept point."""
    value = evaluation.value.astype(state.level.dtype)
    same = state.level == value
    return state._replace(
        value=value.astype(state.value.dtype),
        grad=evaluation.grad,
        level=value,
        reference=jnp.where(same, state.reference, value),
    )


def _build(rule: Rule, state: State, evaluation: Evaluation, rhs: Params) -> tuple[State, Array]:
    """The model at the kept point, and the first size where there was none."""
    here = context(state)
    built = rule.build(evaluation, rhs, state.model, here)
    size = state.size
    if callable(rule.size):
        size = jnp.asarray(rule.size(state.count), size.dtype)
    elif rule.size is None:
        size = jnp.where(size > 0, size, rule.first_size(built.model, evaluation.grad, here))
    state = state._replace(
        model=built.model, indefinite=built.indefinite, size=size, modeled=jnp.array(True)
    )
    return state, jnp.asarray(built.num_products, jnp.int32)


def remodel(
    rule: Rule,
    state: State,
    evaluate: Callable[[], Evaluation],
    choose: Callable[[Params], Params] = lambda grad: grad,
) -> State:
    """The model of the kept point, unless `state.modeled`: the only place that spends products.

    Args:
      rule: the method.
      state: the kept point.
      evaluate: value, gradient and product at the kept point; called inside a loop of one or zero
        trips.
      choose: the right-hand side of the model's system, from the gradient.

    Returns:
      The state with value, gradient and model of the kept point. Where the evaluation is not
      finite nothing is committed and the status is NONFINITE_START.
    """
    none = jnp.zeros((), jnp.int32)

    def evaluate_and_build() -> tuple[State, Array, Array]:
        evaluation = evaluate()
        finite = jnp.isfinite(evaluation.value) & tree.all_finite(evaluation.grad)

        def build() -> tuple[State, Array]:
            rhs = choose(evaluation.grad)
            return _build(rule, _rebase(state, evaluation), evaluation, rhs)

        return *tree.while_once(finite, build, (state, none)), finite

    after, num_products, finite = tree.while_once(
        ~state.modeled, evaluate_and_build, (state, none, jnp.array(True))
    )
    info = after.info._replace(
        num_products=num_products,
        grad_norm=tree.norm(after.grad),
        status=jnp.where(finite, after.info.status, Status.NONFINITE_START).astype(jnp.int32),
    )
    return after._replace(info=info)


def propose(rule: Rule, state: State) -> State:
    """The next trial from the model; says GRADIENT_TOL where the kept point is at rest."""
    assert state.params is not None
    here = context(state)
    step = rule.solve(state.model, state.grad, state.size, here)
    sound = tree.all_finite(step.step) & state.modeled
    zero = zero_step(state.params, state.level.dtype)
    step = step._replace(step=tree.cast_like(step.step, state.params))
    step = tree.where(
        sound, step._replace(penalty=jnp.asarray(step.penalty, zero.norm.dtype)), zero
    )
    rest = state.modeled & here.at_rest
    status = jnp.where(state.modeled & ~sound, Status.SINGULAR, state.info.status)
    status = jnp.where(rest & ~state.indefinite, Status.GRADIENT_TOL, status)
    status = jnp.where(rest & state.indefinite & (step.norm == 0), Status.SADDLE, status)
    own = rule.describe(state.model, state.size)
    info = state.info._replace(status=status.astype(jnp.int32), **own)
    return state._replace(step=step, fresh=jnp.array(False), info=info)


def tell(rule: Rule, state: State, evaluation: Evaluation) -> State:
    """The next state, from the evaluation at `ask(state)`: (1)."""
    value = evaluation.value.astype(state.level.dtype)
    arrived = state.info._replace(accepted=jnp.array(True), step_norm=jnp.zeros_like(value))
    again = state._replace(modeled=state.modeled & (value == state.level), info=arrived)
    state = tree.where(state.fresh, again, judge(rule, state, evaluation))
    state = remodel(rule, state, lambda: evaluation)
    one = jnp.ones((), jnp.int32)
    state = state._replace(info=state.info._replace(num_values=one, num_grads=one))
    return propose(rule, state)


def machine(rule: Rule) -> Method:
    """The machine of `rule`."""
    return Method(start=functools.partial(start, rule), ask=ask, tell=functools.partial(tell, rule))
