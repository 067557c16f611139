"""The objective and the step that most clauses share: one compilation a transform."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.contracts.registry import Case

Array = jax.Array


class World(NamedTuple):
    """Data that bends `world`: `bump` is added farther than `wall` (max-norm) from `start`."""

    start: Any
    shift: Array
    wall: Array
    bump: Array


def start() -> dict[str, Any]:
    """Where most runs begin: a vector and a () leaf, n = 3."""
    return {"a": jnp.array([-1.2, 1.0], jnp.float32), "b": {"c": jnp.full((), 0.5, jnp.float32)}}


def minimum() -> dict[str, Any]:
    """The minimizer of `world` at shift 0."""
    return {"a": jnp.ones(2, jnp.float32), "b": {"c": jnp.ones((), jnp.float32)}}


def data(*, shift: float = 0.0, wall: float = np.inf, bump: float = 0.0) -> World:
    """A `World` in float32."""
    numbers = (jnp.full((), x, jnp.float32) for x in (shift, wall, bump))
    return World(start(), *numbers)


def bowl(params: Any) -> Array:
    """Rosenbrock's function of `a`, and a square of `c`, in any dtype."""
    x, y, c = params["a"][0], params["a"][1], params["b"]["c"]
    return (1 - x) ** 2 + 10 * (y - x * x) ** 2 + (c - x) ** 2


def world(params: Any, about: World) -> Array:
    """`bowl`, shifted and walled in as `about` says."""
    gaps = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), params, about.start)
    far = jnp.stack(jax.tree.leaves(gaps)).max() > about.wall
    moved = jax.tree.map(lambda a: a - about.shift, params)
    return bowl(moved) + jnp.where(far, about.bump, 0)


class Moved(NamedTuple):
    """What one step gave."""

    params: Any
    state: Any
    updates: Any
    value: Array  # before the step


def advance(opt: Any, fn: Any, params: Any, state: Any, *args: Any) -> Moved:
    """One step the way a user writes it."""
    value, grad = jax.value_and_grad(fn)(params, *args)
    updates, state = opt.update(grad, state, params, value=value, grad=grad, value_fn=fn, args=args)
    return Moved(optax.apply_updates(params, updates), state, updates, value)


def abs_sq(x: Array) -> Array:
    """|x|^2, real, with a derivative at 0."""
    return jnp.real(x) ** 2 + jnp.imag(x) ** 2


_STEPPERS: dict[str, Any] = {}


def stepper(case: Case) -> tuple[Any, Any]:
    """The transform and its jitted `step(params, state, about) -> Moved` in `world`."""
    if case.name not in _STEPPERS:
        opt = case.make()
        _STEPPERS[case.name] = opt, jax.jit(functools.partial(advance, opt, world))
    return _STEPPERS[case.name]


def types(tree: Any) -> Any:
    """Shape, dtype, weak type and sharding of every leaf, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path): str(jax.typeof(leaf)) + _weak(leaf) for path, leaf in leaves
    }


def _weak(leaf: Any) -> str:
    return " weak" if jax.typeof(leaf).weak_type else ""


def assert_same(x: Any, y: Any) -> None:
    """Bit for bit the same, NaN included."""
    assert types(x) == types(y)
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def all_finite(tree: Any) -> bool:
    """Whether every number in the tree is finite."""
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(tree))
