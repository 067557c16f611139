r"""The optax skeleton that all transforms share: a Rule becomes a Transformation.

An update of an accepting transform is the machine of core/method.py turned by half a step, since
optax brings the kept point with each call:

    update  =  judge at the trial . propose . remodel at params             (1)

so it holds two copies of the objective: one linearized at `params`, one evaluated at the trial.
The first runs only if the model is not already that of `params`: after a rejected step whose
value comes back bitwise, the kept model serves again and no product is spent.

With `learning_rate` the step is multiplied by it and never judged.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hesskit.core import errors, method, objective, tree, trial
from hesskit.core.derivatives import Evaluation, linearized, value_and_grad
from hesskit.core.method import Method, Rule, State
from hesskit.core.types import Array, Params, ValueFn

DESCENT = 1e-8
"""An upstream transform is heeded if its cosine with the gradient is at least this."""


class Transformation(optax.GradientTransformationExtraArgs):
    """An optax transformation that carries its machine.

    A 2-tuple `(init, update)` like every optax transformation. Solvers run `method` directly;
    where a wrapper loses it they run the loop over `update`, which visits the same points.

    Attributes:
      method: the machine behind `update`; None where the step is never judged.
      name: the factory's name, for messages and `Result.method`.
      has_aux: whether `value_fn` returns (value, aux) in `update`.
    """

    method: Method | None
    name: str
    has_aux: bool

    def __new__(
        cls,
        init: Callable[..., Any],
        update: Callable[..., Any],
        *,
        method: Method | None,
        name: str,
        has_aux: bool = False,
    ) -> "Transformation":
        """The 2-tuple with its attributes."""
        self = super().__new__(cls, init, update)
        self.method, self.name, self.has_aux = method, name, has_aux
        return self


def memoize(factory: Callable[..., Transformation]) -> Callable[..., Transformation]:
    """One object per set of arguments, so that an inline factory call hits the same jit cache.

    Arguments that cannot be hashed (arrays, tracers) make a new object each time.

    Args:
      factory: makes a transformation.

    Returns:
      The same factory, memoized.
    """
    cached = functools.lru_cache(maxsize=256, typed=True)(factory)

    @functools.wraps(factory)
    def call(*args: Any, **kwargs: Any) -> Transformation:
        try:
            hash((args, tuple(kwargs.items())))
        except TypeError:
            return factory(*args, **kwargs)
        return cached(*args, **kwargs)

    return call


def _own_buffers(state: State) -> State:
    """The state with no two leaves in one buffer: a donated buffer can be given away only once."""
    seen: set[int] = set()

    def own(leaf: Array) -> Array:
        first = id(leaf) not in seen
        seen.add(id(leaf))
        return leaf if first else jnp.copy(leaf)

    return jax.tree.map(own, state)


def _keep_positional(update: Callable[..., Any]) -> Callable[..., Any]:
    """`update` with a sentence for data under the name of one of its positional arguments."""

    @functools.wraps(update)
    def call(*given: Any, **data: Any) -> tuple[Params, State]:
        for key in ("updates", "state", "params")[: len(given)]:
            if key in data:
                raise TypeError(objective.reserved(key))
        return update(*given, **data)

    return call


def _check_state(state: State, params: Params, name: str) -> None:
    """Raises ValueError if `state` was made for other params."""

    def shapes(tree: Params) -> Any:
        leaves, structure = jax.tree.flatten(tree)
        return structure, [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]

    if shapes(state.grad) != shapes(params):
        raise ValueError(
            f"{name}.update got a state of other params: it holds {errors.describe(state.grad)}, "
            f"params is {errors.describe(params)}; call init(params) again"
        )


def _check_given(value: Any) -> Array | None:
    """The caller's `value` as an array; ValueError or TypeError unless it is a real ()."""
    if value is None:
        return None
    array = jnp.asarray(value)
    if array.shape != () or not jnp.issubdtype(array.dtype, jnp.floating):
        raise (ValueError if array.shape else TypeError)(
            f"value must be a real scalar, got {array.dtype}{list(array.shape)}"
        )
    return array


def _hide(state: State, params: Params) -> State:
    """The machine's state as optax's: without the point, with the gradient in params' dtypes."""
    grad = objective.conjugate(objective.join(state.grad, params))
    return state._replace(params=None, step=None, grad=tree.cast_like(grad, params))


def _show(state: State, params: Params, point: Params) -> State:
    """The inverse of `_hide` at the real `point` of `params`."""
    grad = objective.split(objective.conjugate(state.grad))
    return state._replace(params=point, grad=grad, fresh=jnp.array(False))


def _right_hand_side(updates: Params, given: Params | None) -> Callable[[Params], Params]:
    """The gradient, or what an upstream transform made of it if that still descends."""

    def choose(grad: Params) -> Params:
        changed = jnp.array(True) if given is None else ~tree.equal(updates, given)
        cosine = DESCENT * tree.norm(updates) * tree.norm(grad)
        descends = (tree.vdot(updates, grad) >= cosine) & tree.all_finite(updates)
        return tree.where(changed & descends, tree.cast_like(updates, grad), grad)

    return choose


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
) -> Transformation:
    """The transformation of `rule`.

    Args:
      rule: the method.
      name: the factory's name, for messages.
      learning_rate: None for steps that the method accepts or rejects itself; a float or a
        schedule multiplies the step, and nothing is rejected.
      has_aux: whether `value_fn` returns (value, aux); aux is dropped.
      sign: -1 gives the un-negated step of a `scale_by_*` transform.

    Returns:
      A `Transformation`.
    """
    errors.check_number(learning_rate, name="learning_rate", schedule=True)
    accepting = learning_rate is None

    def init(params: Params) -> State:
        params = errors.check_params(jax.tree.map(tree.zeros_of, params), allow_empty=True)
        state = method.start(rule, objective.split(params))
        return _own_buffers(_hide(state, params))

    @_keep_positional
    def update(
        updates: Params,
        state: State,
        params: Params | None = None,
        *,
        value_fn: Callable[..., Any],
        value: Any = None,
        grad: Params | None = None,
        args: Any = (),
        **data: Any,
    ) -> tuple[Params, State]:
        if params is None:
            raise ValueError(errors.NO_PARAMS.format(name=name))
        params = errors.check_params(params)
        errors.check_like(updates, params, name="updates")
        _check_state(state, params, name)
        bound = objective.real(
            value_fn, params, args=args, data=data, has_aux=has_aux, caller=f"{name}.update"
        )
        incoming = objective.split(tree.cast_like(updates, params))
        if grad is not None:
            errors.check_like(grad, params, name="grad")
            grad = objective.split(tree.cast_like(grad, params))
        given = _check_given(value)
        machine = _model(rule, _show(state, params, bound[1]), bound, given, incoming, grad)
        if accepting:
            failed = ~machine.modeled  # a batch of NaN: the model of the kept point outlives it
            step, machine = _trial(rule, machine, bound[0])
            machine = machine._replace(modeled=machine.modeled | (failed & state.modeled))
        else:
            assert machine.step is not None
            rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
            step = _scaled(machine.step.step, sign * jnp.asarray(rate, state.level.dtype))
            machine = _forget(machine, step)
        new = tree.cast_like(objective.join(step, params), params)
        return new, tree.cast_like(_hide(machine, params), state)

    machine = trial.machine(rule) if accepting else None
    return Transformation(init, update, method=machine, name=name, has_aux=has_aux)


def _model(
    rule: Rule,
    state: State,
    bound: tuple[ValueFn, Params],
    value: Array | None,
    updates: Params,
    grad: Params | None,
) -> State:
    """Model and proposal at params; the kept model where the same value comes back."""
    fn, params = bound
    given, kept = None, jnp.array(False)
    if value is not None:
        given = value.astype(state.level.dtype)
        kept = state.modeled & (given.astype(state.value.dtype) == state.value)
    going = state.info._replace(status=jnp.zeros_like(state.info.status))
    fresh = state._replace(modeled=kept, info=going)
    after = trial.remodel(
        rule, fresh, lambda: linearized(fn, params), _right_hand_side(updates, grad)
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
    evaluation: Evaluation = value_and_grad(fn, tree.add(state.params, state.step.step))
    failed = ~state.modeled
    after = trial.judge(rule, state, evaluation)
    info = after.info._replace(
        status=jnp.where(before.status == 0, after.info.status, before.status),
        num_values=before.num_values + 1,
        num_grads=before.num_grads + 1,
    )
    kept = after.info.accepted & ~failed
    info = info._replace(accepted=kept, **rule.describe(after.model, after.size))
    after = after._replace(info=info)
    step = tree.where(kept, state.step.step, tree.zeros_like(state.step.step))
    return step, after


def _forget(state: State, new: Params) -> State:
    """After an unjudged step: the value is unknown, and the kept point is no longer there."""
    inf = jnp.full_like(state.value, jnp.inf)
    moved = tree.norm(new)
    info = state.info._replace(accepted=moved > 0, step_norm=moved.astype(state.level.dtype))
    return state._replace(count=state.count + 1, value=inf, modeled=jnp.array(False), info=info)
