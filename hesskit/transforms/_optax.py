r"""What optax asks of every transform of ours: the 2-tuple, its checks, its state between calls.

A machine of core/method.py keeps the point; optax brings it with each call. `initializer` and
`updater` make optax's two functions of a machine's: arguments become a `Call` at real parameters,
and what comes of it is turned back.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding

from hesskit.core import errors, objective, tree
from hesskit.core.bounds import Bounds
from hesskit.core.method import Method, State
from hesskit.core.types import Array, Params

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
      judges: whether a step is compared before it is taken; None where a wrapper cannot know.
      special: `(bounds, number of outputs) -> Method`, the machine that stays in a box (None: no
        box) and suits the shape of the objective; None where there is none.
      held: of a transform that leaves some leaves where they are and another to the rest, that
        other and `params -> ` which leaves stay; else None.
    """

    method: Method | None
    name: str
    has_aux: bool
    judges: bool | None
    special: Callable[[Bounds | None, int | None], Method] | None
    held: tuple[optax.GradientTransformation, Callable[[Params], tuple[bool, ...]]] | None

    def __new__(
        cls,
        init: Callable[..., Any],
        update: Callable[..., Any],
        *,
        method: Method | None,
        name: str,
        has_aux: bool = False,
        judges: bool | None = None,
        special: Callable[[Bounds | None, int | None], Method] | None = None,
        held: tuple[optax.GradientTransformation, Callable[..., tuple[bool, ...]]] | None = None,
    ) -> "Transformation":
        """The 2-tuple with its attributes."""
        self = super().__new__(cls, init, update)
        self.method, self.name, self.has_aux = method, name, has_aux
        self.judges = judges if method is None else True
        self.special, self.held = special, held
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


def check_inner(inner: Any, name: str) -> None:
    """Raises TypeError unless a wrapper was given a transform."""
    if not (hasattr(inner, "init") and hasattr(inner, "update")):
        raise TypeError(f"{name} takes a transform, such as hesskit.newton_cg(), got {inner!r}")


def own_buffers(state: Any) -> Any:
    """The state with no two leaves in one buffer: a donated buffer can be given away only once."""
    seen: set[int] = set()

    def own(leaf: Array) -> Array:
        first = id(leaf) not in seen
        seen.add(id(leaf))
        return leaf if first else jnp.copy(leaf)

    return jax.tree.map(own, state)


def placed(state: Any, params: Params) -> Any:
    """The state on the devices of params, as an update will leave it, so that it compiles once.

    A leaf that is not on the mesh of params yet gets a copy on each of its devices.

    Args:
      state: a fresh one.
      params: what it is for.

    Returns:
      The state; as it is while tracing, or where params are on no mesh.
    """
    leaves = jax.tree.leaves((params, state))
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return state
    homes = [getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(params)]
    mesh = next((home.mesh for home in homes if isinstance(home, NamedSharding)), None)
    if mesh is None:
        return state
    typed = AxisType.Explicit in mesh.axis_types  # then a layout names every axis of an array

    def place(leaf: Array) -> Array:
        if isinstance(leaf.sharding, NamedSharding):
            return jax.device_put(leaf, leaf.sharding)
        spec = jax.P(*[None] * leaf.ndim) if typed else jax.P()
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(place, state)


def keep_positional(update: Callable[..., Any]) -> Callable[..., Any]:
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

    if not isinstance(state, State):
        raise TypeError(
            f"{name}.update got a state of another transform, {type(state).__name__}; call "
            "init(params) of this one"
        )
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


def hide(state: State, params: Params) -> State:
    """The machine's state as optax's: without what comes with a call, `grad` in params' dtypes."""
    grad = objective.conjugate(objective.join(state.grad, params))
    return state._replace(params=None, step=None, fresh=None, grad=tree.cast_like(grad, params))


def show(state: State, params: Params, point: Params) -> State:
    """The inverse of `hide` at the real `point` of `params`."""
    grad = objective.split(objective.conjugate(state.grad))
    return state._replace(params=point, grad=grad, fresh=jnp.array(False))


def identical(x: Params, y: Params) -> bool:
    """Whether both hold the same arrays, known without looking at a number."""
    return all(a is b for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True))


def right_hand_side(updates: Params, given: Params | None) -> Callable[[Params], Params]:
    """The gradient, or what an upstream transform made of it if that still descends."""
    if given is not None and identical(updates, given):
        return lambda grad: grad

    def choose(grad: Params) -> Params:
        changed = jnp.array(True) if given is None else ~tree.equal(updates, given)
        cosine = DESCENT * tree.norm(updates) * tree.norm(grad)
        descends = (tree.vdot(updates, grad) >= cosine) & tree.all_finite(updates)
        return tree.where(changed & descends, tree.cast_like(updates, grad), grad)

    return choose


class Call(NamedTuple):
    """The arguments of an `update` at real parameters: `fn(point) -> ()`, and what came with it."""

    params: Params  # the user's
    point: Params
    updates: Params
    value: Array | None
    grad: Params | None = None
    fn: Any = None  # a ValueFn where there is one


def arrive_alone(name: str, updates: Params, params: Params | None, value: Any) -> Call:
    """The checked call of a transform that evaluates nothing; ValueError or TypeError if wrong."""
    if params is None:
        raise ValueError(errors.NO_PARAMS.format(name=name))
    params = errors.check_params(params)
    errors.check_like(updates, params, name="updates")
    incoming = objective.split(tree.cast_like(updates, params))
    return Call(params, objective.split(params), incoming, _check_given(value))


def arrive(
    name: str,
    has_aux: bool,
    updates: Params,
    state: State,
    params: Params | None,
    /,
    *,
    value_fn: Any = None,
    value: Any = None,
    grad: Params | None = None,
    args: Any = (),
    **data: Any,
) -> Call:
    """The checked call; ValueError or TypeError says what is wrong with it."""
    caller = f"{name}.update"
    value_fn = objective.required(value_fn, data, caller=caller)
    call = arrive_alone(name, updates, params, value)
    _check_state(state, call.params, name)
    fn, _ = objective.real(
        value_fn, call.params, args=args, data=data, has_aux=has_aux, caller=caller
    )
    if grad is not None:
        errors.check_like(grad, call.params, name="grad")
        grad = objective.split(tree.cast_like(grad, call.params))
    return call._replace(grad=grad, fn=fn)


def initializer(start: Callable[[Params, Params], Any]) -> Callable[[Params], Any]:
    """The `init` that gives `start(real params, params)`, each leaf in a buffer of its own."""

    def init(params: Params) -> Any:
        params = errors.check_params(jax.tree.map(tree.zeros_of, params), allow_empty=True)
        return placed(own_buffers(start(objective.split(params), params)), params)

    return init


def updater(
    name: str, has_aux: bool, advance: Callable[[State, Call], tuple[Params, State]]
) -> Callable[..., tuple[Params, State]]:
    """The `update` that checks its arguments and gives what `advance(state, call)` says."""

    def update(
        updates: Params,
        state: State,
        params: Params | None = None,
        **extra: Any,
    ) -> tuple[Params, State]:
        call = arrive(name, has_aux, updates, state, params, **extra)
        step, machine = advance(state, call)
        new = tree.cast_like(objective.join(step, call.params), call.params)
        return new, tree.cast_like(hide(machine, call.params), state)

    update.__qualname__ = f"{name}.update"  # for Python's own sentences
    return keep_positional(update)
