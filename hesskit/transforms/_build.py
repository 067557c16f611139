r"""The optax skeleton that all transforms share: a Rule becomes a Transformation.

An update of an accepting transform is the machine of core/method.py turned by half a step, since
optax brings the kept point with each call:

    update  =  judge at the trial . propose . remodel at params             (1)

so it holds two copies of the objective: one linearized at `params`, one evaluated at the trial.
The first runs only if the model is not already that of `params`: after a rejected step whose
value comes back bitwise, the kept model serves again and no product is spent.

With `learning_rate` the step is multiplied by it and never judged.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from hesskit.core import errors, method, tree, trial
from hesskit.core.bounds import Bounds
from hesskit.core.derivatives import Evaluation, value_and_grad
from hesskit.core.method import Method, State
from hesskit.core.rule import Rule
from hesskit.core.types import Array, Params, ValueFn
from hesskit.transforms import _optax
from hesskit.transforms._optax import Call, Transformation, memoize

__all__ = ["Transformation", "build", "memoize"]


def _scaled(step: Params, factor: Array) -> Params:
    """`factor` times the step, exact zeros where it is not finite."""
    out = tree.scale(factor, step)
    return tree.where(tree.all_finite(out), out, tree.zeros_like(out))


def build(
    rule: Rule,
    *,
    name: str,
    learning_rate: Any = None,
    has_aux: bool = False,
    sign: float = 1.0,
    any_structure: bool = True,
    special: Callable[[Bounds | None, int | None], Rule] | None = None,
) -> Transformation:
    """The transformation of `rule`.

    Args:
      rule: the method.
      name: the factory's name, for messages.
      learning_rate: None for steps that the method accepts or rejects itself; a float or a
        schedule multiplies the step, and nothing is rejected.
      has_aux: whether `value_fn` returns (value, aux); aux is dropped.
      sign: -1 gives the un-negated step of a `scale_by_*` transform.
      any_structure: whether nothing in `rule` has the structure of params.
      special: the rule for given bounds and number of outputs, where the method knows them.

    Returns:
      A `Transformation`.
    """
    errors.check_number(learning_rate, name="learning_rate", schedule=True)
    accepting = learning_rate is None

    def begin(point: Params, params: Params) -> State:
        return _optax.hide(method.start(rule, point), params)

    def advance(state: State, call: Call) -> tuple[Params, State]:
        machine = _model(rule, _optax.show(state, call.params, call.point), call)
        if accepting:
            failed = ~machine.modeled  # a batch of NaN: the model of the kept point outlives it
            step, machine = _trial(rule, machine, call.fn)
            return step, machine._replace(modeled=machine.modeled | (failed & state.modeled))
        assert machine.step is not None
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
        step = _scaled(machine.step.step, sign * jnp.asarray(rate, state.level.dtype))
        step = method.fitted(step, call.point, rule.bounds)
        return step, _forget(machine, step)

    init, update = _optax.initializer(begin), _optax.updater(name, has_aux, advance)
    machine = trial.machine(rule)._replace(any_structure=any_structure) if accepting else None

    def specialized(bounds: Bounds | None, num_rows: int | None) -> Method:
        assert special is not None
        return trial.machine(special(bounds, num_rows))._replace(any_structure=any_structure)

    return Transformation(
        init,
        update,
        method=machine,
        name=name,
        has_aux=has_aux,
        judges=accepting,
        special=specialized if accepting and special is not None else None,
    )


def _model(rule: Rule, state: State, call: Call) -> State:
    """Model and proposal at params; the kept model where the same value comes back."""
    given, kept = None, jnp.array(False)
    if call.value is not None:
        given = call.value.astype(state.level.dtype)
        kept = state.modeled & (given.astype(state.value.dtype) == state.value)
    going = state.info._replace(status=jnp.zeros_like(state.info.status))
    fresh = state._replace(modeled=kept, info=going)
    after = trial.remodel(
        rule,
        fresh,
        lambda: rule.evaluate(call.fn, call.point),
        _optax.right_hand_side(call.updates, call.grad),
    )
    mismatch = jnp.zeros_like(state.level)
    if given is not None:
        mismatch = jnp.where(kept, mismatch, jnp.abs(given - after.level))
    spent = jnp.where(kept, 0, 1).astype(jnp.int32)
    info = after.info._replace(
        value_mismatch=mismatch.astype(state.info.value_mismatch.dtype),
        num_values=spent,
        num_grads=spent,
    )
    return trial.propose(rule, after._replace(info=info))


def _trial(rule: Rule, state: State, fn: ValueFn) -> tuple[Params, State]:
    """One trial: the step if it is kept, exact zeros if not."""
    assert state.params is not None
    assert state.step is not None
    before = state.info
    step = method.fitted(state.step.step, state.params, rule.bounds)
    point = tree.add(state.params, step)
    evaluation: Evaluation = value_and_grad(fn, point)
    failed = ~state.modeled
    after = trial.judge(rule, state, evaluation, point)
    info = after.info._replace(
        status=jnp.where(before.status == 0, after.info.status, before.status),
        num_values=before.num_values + 1,
        num_grads=before.num_grads + 1,
    )
    kept = after.info.accepted & ~failed
    info = info._replace(accepted=kept, **rule.describe(after.model, after.size))
    after = after._replace(info=info)
    return tree.where(kept, step, tree.zeros_like(step)), after


def _forget(state: State, new: Params) -> State:
    """After an unjudged step: the value is unknown, and the kept point is no longer there."""
    inf = jnp.full_like(state.value, jnp.inf)
    moved = tree.norm(new)
    info = state.info._replace(accepted=moved > 0, step_norm=moved.astype(state.level.dtype))
    return state._replace(count=state.count + 1, value=inf, modeled=jnp.array(False), info=info)
