r"""One machine under both faces: where to evaluate next, and what to make of the evaluation.

A `Method` knows no optax and no loop: `start(params)` gives the first state, `ask(state)` the one
point to evaluate next, `tell(state, evaluation)` the next state. The first evaluation is
`ask(start(params))`, so a loop around ask and tell holds one copy of the objective.

All methods here build a local model at the kept point, propose a trial from it, and judge the
trial; they differ in the model and in the step. A `Rule` is that difference:

    tell  =  propose . remodel . judge                                      (1)

`judge` keeps or rejects the trial and moves `size` (a radius, a damping, a step length);
`remodel` builds the model of a newly kept point, the only place that spends products, and does
not run after a rejection; `propose` solves the model for the next trial. The optax face runs the
same three in the order that `update` needs (transforms/_build.py).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import acceptance, tree
from hesskit.core.derivatives import Evaluation
from hesskit.core.status import Status
from hesskit.core.types import Array, Params, Scalar

INFO_FIELDS = (
    "status",
    "accepted",
    "step_norm",
    "ratio",
    "grad_norm",
    "num_values",
    "num_grads",
    "num_products",
    "value_mismatch",
)
"""Every Info begins with these."""


UNBOUNDED_BELOW = -1.0
"""A value below this over eps^2 (-7e13 in float32, -2e31 in float64) is taken for -infinity."""


class Step(NamedTuple):
    """A proposed step. `step` and `product` (B s, for the model's matrix B) are like params.

    `norm` is the length of the step in the unit of `size`; `penalty` is what the model adds to
    g.s + s.Bs/2 (the cubic term); `on_boundary` whether `size` held the step back.
    """

    step: Params
    product: Params
    norm: Array
    on_boundary: Array
    penalty: Scalar = 0.0


class Built(NamedTuple):
    """A model at a kept point; `indefinite`: negative curvature was found there."""

    model: Any
    indefinite: Array
    num_products: Array


class Rule(NamedTuple):
    """What distinguishes one trial method from another.

    Attributes:
      info: the method's Info type; its fields begin with `INFO_FIELDS`.
      empty: `params -> model`, shapes of the model.
      build: `(evaluation, rhs, model, context) -> Built`: the only place that spends products.
      solve: `(model, grad, size, context) -> Step`.
      adapt: `(size, step_norm, on_boundary, trial) -> size`.
      first_size: `(model, grad, context) -> size`, from the first model.
      describe: `(model, size) -> dict` of the Info's own fields.
      size: the first size as a number, or a schedule of the count, or None for `first_size`.
    """

    info: type
    empty: Callable[..., Any]
    build: Callable[..., Built]
    solve: Callable[..., Step]
    adapt: Callable[..., Array]
    first_size: Callable[..., Array]
    describe: Callable[..., dict[str, Any]]
    size: Any = None


class Context(NamedTuple):
    """What a rule may know besides its model: the kept point and when its gradient is zero."""

    params: Params
    size: Array
    at_rest: Array  # () bool: |grad| is within the gradient tolerance


class State(NamedTuple):
    """What the next `tell` or `update` needs.

    Attributes:
      count: trials judged, int32.
      value: f at the kept point, in the real dtype of params (what `value_and_grad_from_state`
        reads); inf before the first evaluation.
      grad: its gradient, like params, in the convention of `jax.grad`.
      level: the same value in at least float32: the reference of the ratio test.
      reference: the lowest value kept so far.
      size: radius, damping, weight or step length; 0 until the first model chooses it.
      fresh: the next evaluation is at `params` itself.
      modeled: `model` belongs to the kept point.
      model: the method's own: factorizations, directions.
      params: the kept point (None inside an optax state, which gets it with each update).
      step: the proposed `Step` (None inside an optax state).
      tolerance: (2,), |grad| <= tolerance[0] + tolerance[1] |value| is at rest.
      indefinite: negative curvature was found at the kept point.
      info: what the last update did.
    """

    count: Array
    value: Array
    grad: Params
    level: Array
    reference: Array
    size: Array
    fresh: Array
    modeled: Array
    model: Any
    params: Params | None
    step: Step | None
    tolerance: Array
    indefinite: Array
    info: Any


class Method(NamedTuple):
    """`start(params) -> state`, `ask(state) -> point`, `tell(state, evaluation) -> state`."""

    start: Callable[[Params], State]
    ask: Callable[[State], Params]
    tell: Callable[[State, Evaluation], State]


def default_tolerance(params: Params) -> Array:
    """eps^(2/3), absolute and relative to |f|: between sqrt(eps), easy, and eps, out of reach."""
    eps = tree.coarsest_eps(params)
    return jnp.full((2,), eps ** (2 / 3), tree.result_dtype(params))


def grad_tolerance(state: State) -> Array:
    """The gradient norm below which the kept point is at rest."""
    return state.tolerance[0] + state.tolerance[1] * jnp.abs(state.level)


def _context(state: State) -> Context:
    at_rest = tree.norm(state.grad) <= grad_tolerance(state)
    return Context(params=state.params, size=state.size, at_rest=at_rest)


def empty_info(rule: Rule, model: Any, size: Array, dtype: jnp.dtype) -> Any:
    """An Info of the right shapes."""
    zero, count = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
    common = (count, jnp.array(False), zero, zero, zero, count, count, count, zero)
    return rule.info(
        **dict(zip(INFO_FIELDS, common, strict=True)), **rule.describe(model, size)
    )


def _zero_step(params: Params, dtype: jnp.dtype) -> Step:
    zero = jnp.zeros((), dtype)
    return Step(tree.zeros_like(params), tree.zeros_like(params), zero, jnp.array(False), zero)


def start(rule: Rule, params: Params) -> State:
    """The first state: nothing known, `ask` gives `params`."""
    dtype = tree.result_dtype(params)
    inf = jnp.full((), jnp.inf, dtype)
    size = jnp.zeros((), dtype)
    if rule.size is not None and not callable(rule.size):
        size = jnp.asarray(rule.size, dtype)
    model = rule.empty(params)
    return State(
        count=jnp.zeros((), jnp.int32),
        value=inf.astype(value_dtype(params)),
        grad=tree.zeros_like(params),
        level=inf,
        reference=jnp.copy(inf),
        size=size,
        fresh=jnp.array(True),
        modeled=jnp.array(False),
        model=model,
        params=params,
        step=_zero_step(params, dtype),
        tolerance=default_tolerance(params),
        indefinite=jnp.array(False),
        info=empty_info(rule, model, jnp.copy(size), dtype),
    )


def value_dtype(params: Params) -> jnp.dtype:
    """The widest real dtype of params, in which a state reports its value."""
    dtypes = [jnp.finfo(jnp.result_type(leaf)).dtype for leaf in jax.tree.leaves(params)]
    return max(dtypes, key=lambda d: jnp.finfo(d).bits, default=jnp.dtype(jnp.float32))


def ask(state: State) -> Params:
    """The next point: the kept one if it was never evaluated, else the trial."""
    assert state.params is not None and state.step is not None
    trial = tree.add(state.params, state.step.step)
    return tree.where(state.fresh, state.params, trial)


def _code(kept: Array, stuck: Array, trial: acceptance.Trial, unbounded: Array) -> Array:
    """The status of a judged trial; 0 while the run goes on."""
    code = jnp.where(stuck, Status.LINE_SEARCH_FAILED, Status.RUNNING)
    code = jnp.where(stuck & ~trial.finite, Status.NONFINITE_TRIALS, code)
    code = jnp.where(~kept & trial.limited & trial.finite, Status.ROUNDOFF_LIMITED, code)
    return jnp.where(unbounded, Status.UNBOUNDED, code).astype(jnp.int32)


def judge(rule: Rule, state: State, evaluation: Evaluation) -> State:
    """Keeps or rejects the trial point and moves `size`; spends nothing."""
    assert state.params is not None and state.step is not None
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
    unit = tree.coarsest_eps(params)
    stuck = ~kept & (step_norm <= unit * (tree.norm(params) + unit))
    unbounded = value < UNBOUNDED_BELOW / eps**2
    info = state.info._replace(
        status=_code(kept, stuck, trial, unbounded),
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
        size=rule.adapt(state.size, step.norm, step.on_boundary, trial).astype(state.size.dtype),
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
    context = _context(state)
    built = rule.build(evaluation, rhs, state.model, context)
    size = state.size
    if callable(rule.size):
        size = jnp.asarray(rule.size(state.count), size.dtype)
    elif rule.size is None:
        size = jnp.where(size > 0, size, rule.first_size(built.model, evaluation.grad, context))
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
    context = _context(state)
    step = rule.solve(state.model, state.grad, state.size, context)
    sound = tree.all_finite(step.step) & state.modeled
    zero = _zero_step(state.params, state.level.dtype)
    step = step._replace(step=tree.cast_like(step.step, state.params))
    step = tree.where(sound, step._replace(penalty=jnp.asarray(step.penalty, zero.norm.dtype)), zero)
    rest = state.modeled & context.at_rest
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


def method(rule: Rule) -> Method:
    """The machine of `rule`."""
    return Method(
        start=functools.partial(start, rule), ask=ask, tell=functools.partial(tell, rule)
    )
