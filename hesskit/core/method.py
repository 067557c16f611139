r"""One machine under both faces: where to evaluate next, and what to make of the evaluation.

A `Method` knows no optax and no loop: `start(params)` gives the first state, `ask(state)` the one
point to evaluate next, `tell(state, evaluation)` the next state. The first evaluation is
`ask(start(params))`, so a loop around ask and tell holds one copy of the objective.

Methods build a local model at the kept point, propose a trial from it, and judge the trial; they
differ in the model and in the step. A `Rule` is that difference; core/trial.py is the rest.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.bounds import landed, parse, projected_gradient
from hesskit.core.derivatives import Evaluation, linearized
from hesskit.core.rule import Context, Rule, Step
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


class State(NamedTuple):
    """What the next `tell` or `update` needs.

    Inside an optax state all that an update begins anew is None, since each leaf costs a call of it
    a microsecond: `params` and `step`, `fresh`, and of a line search `size`, `modeled`,
    `indefinite` and `at_rest` too.

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
      params: the kept point; an optax state gets it with each update.
      step: the proposed `Step`.
      tolerance: (), |grad| at which the gradient counts as zero. A solver sets it; a loop of
        updates goes on to eps, where nothing is left to gain.
      indefinite: negative curvature was found at the kept point.
      at_rest: nothing is left to gain at the kept point, of a rule that judges it.
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
    at_rest: Array
    info: Any


class Method(NamedTuple):
    """`start(params) -> state`, `ask(state) -> point`, `tell(state, evaluation) -> state`.

    `evaluate(fn, params, has_aux=...)` gives the evaluation that `tell` wants, with products or
    without; `leaves_saddles` says that a zero gradient under negative curvature does not end it;
    `looks_at_rest` that it looks for negative curvature only there; `any_structure` that nothing in
    it has the structure of params, which may be raveled; `judges_rest` that `state.at_rest` counts,
    in place of |grad| <= tolerance; `many()` is the machine for lanes of a `vmap`, None the same.
    """

    start: Callable[[Params], State]
    ask: Callable[[State], Params]
    tell: Callable[[State, Evaluation], State]
    evaluate: Callable[..., Evaluation] = linearized
    leaves_saddles: bool = True
    looks_at_rest: bool = False
    any_structure: bool = True
    judges_rest: bool = False
    many: Callable[[], "Method"] | None = None


def unbounded(value: Array, eps: float) -> Array:
    """Whether `value` is so low that f is taken to fall without end; `eps` is its rounding."""
    coarsest = float(jnp.finfo(jnp.float32).eps)  # of bfloat16 it would be a limit of -16384
    return value < UNBOUNDED_BELOW / min(eps, coarsest) ** 2


def default_tolerance(params: Params) -> Scalar:
    """eps^(2/3): between sqrt(eps), which is easy, and eps, which rounding forbids.

    Not relative to f, which an added constant would change; where f is so large that its rounding
    keeps |g| above this, the run ends at the rounding floor.

    Args:
      params: the coarsest leaf gives eps.

    Returns:
      A tolerance for |g|, ().
    """
    return tree.result_dtype(params).type(tree.coarsest_eps(params) ** (2 / 3))


def is_small(grad_norm: Array, eps: float) -> Array:
    """Whether |g| <= eps^(1/3): looser than `default_tolerance`, it tells a stop near a minimum."""
    return grad_norm <= eps ** (1 / 3)  # Dennis & Schnabel (1983), section 7.2, for typical f = 1


def is_at_rest(grad_norm: Array, value: Array, tolerance: Array) -> Array:
    """Whether |g| <= tolerance, and f is finite."""
    return (grad_norm <= tolerance) & jnp.isfinite(value)


def context(state: State, judges_rest: bool = False, bounds: Any = None) -> Context:
    """What a rule may know of the kept point."""
    at_rest = is_at_rest(state.info.grad_norm, state.level, state.tolerance)
    return Context(
        params=state.params,
        size=state.size,
        at_rest=state.at_rest if judges_rest else at_rest,
        tolerance=state.tolerance,
        bounds=parse(bounds, state.params),
    )


def no_step(params: Params) -> Step:
    """No step, without a product."""
    zero = jnp.zeros((), tree.result_dtype(params))
    return Step(tree.zeros_like(params), None, zero, jnp.array(False))


def zero_step(params: Params, dtype: jnp.dtype) -> Step:
    """No step of a model."""
    zero = jnp.zeros((), dtype)
    return no_step(params)._replace(product=tree.zeros_like(params), norm=zero, penalty=zero)


def start(rule: Rule, params: Params) -> State:
    """The first state of a trial method: nothing known, `ask` gives `params`."""
    size = jnp.zeros((), tree.result_dtype(params))
    if rule.size is not None and not callable(rule.size):
        size = jnp.asarray(rule.size, size.dtype)
    model = rule.empty(params)
    own = rule.describe(model, jnp.copy(size))
    state = first_state(params, model, functools.partial(rule.info, **own))
    return state._replace(size=size, step=zero_step(params, size.dtype))


def first_state(params: Params, model: Any, info: Callable[..., Any]) -> State:
    """The first state of any method; `info` takes the common fields."""
    dtype = tree.result_dtype(params)
    zero, count, no = jnp.zeros((), dtype), jnp.zeros((), jnp.int32), jnp.array(False)
    common = (count, no, zero, zero, zero, count, count, count, zero)
    inf = jnp.full((), jnp.inf, dtype)
    return State(
        count=count,
        value=inf.astype(value_dtype(params)),
        grad=tree.zeros_like(params),
        level=inf,
        reference=inf,
        size=zero,
        fresh=jnp.array(True),
        modeled=no,
        model=model,
        params=params,
        step=no_step(params),
        tolerance=jnp.asarray(tree.coarsest_eps(params), dtype),
        indefinite=no,
        at_rest=no,
        info=info(**dict(zip(INFO_FIELDS, common, strict=True))),
    )


def value_dtype(params: Params) -> jnp.dtype:
    """The widest real dtype of params, in which a state reports its value."""
    dtypes = [jnp.finfo(jnp.result_type(leaf)).dtype for leaf in jax.tree.leaves(params)]
    return max(dtypes, key=lambda d: jnp.finfo(d).bits, default=jnp.dtype(jnp.float32))


def ask(state: State, bounds: Any = None) -> Params:
    """The next point: the kept one if it was never evaluated, else the trial."""
    assert state.params is not None
    assert state.step is not None
    trial = moved(state.params, state.step.step, bounds)
    return tree.where(state.fresh, state.params, trial)


def moved(params: Params, step: Params, bounds: Any = None) -> Params:
    """`params + step`, in the box to the bit: the two may round beyond it."""
    box, point = parse(bounds, params), tree.add(params, step)
    return point if box is None else landed(point, params, box)


def fitted(step: Params, params: Params, bounds: Any = None) -> Params:
    """The step to `moved`, shortened so that `params + step` is in the box whoever adds the two."""
    box = parse(bounds, params)
    if box is None:
        return step

    def fit(x: Array, s: Array, to: Array, low: Array, high: Array) -> Array:
        if jnp.iscomplexobj(x):
            return s
        beyond = (x + (to - x) < low) | (x + (to - x) > high)
        return jnp.where(beyond, jnp.nextafter(to - x, jnp.zeros_like(x)), to - x)

    return jax.tree.map(fit, params, step, moved(params, step, box), *box)


def grad_norm(grad: Params, params: Params, bounds: Any = None) -> Array:
    """|grad|, of the projected gradient where there are bounds."""
    box = parse(bounds, params)
    return tree.norm(grad if box is None else projected_gradient(grad, params, box))
