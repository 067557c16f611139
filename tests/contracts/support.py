"""The objective and the step that most clauses share: one compilation a transform.

Objectives are scalar functions. `Case.of` gives each to a transform in the form that it takes:
as it is, or `structured` for those that need the residuals.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import hesskit

Array = jax.Array
Fn = Callable[..., Any]


def abs_sq(x: Array) -> Array:
    """|x|^2, real, with a derivative at 0."""
    return jnp.real(x) ** 2 + jnp.imag(x) ** 2


def squares(residuals: Fn) -> Fn:
    """The sum of |r|^2 over a pytree of residuals, as a function that carries them."""

    @functools.wraps(residuals)
    def total(params: Any, *args: Any, **data: Any) -> Array:
        leaves = jax.tree.leaves(residuals(params, *args, **data))
        return functools.reduce(jnp.add, [jnp.sum(abs_sq(r)) for r in leaves])

    total.residuals = residuals
    return total


def _itself(params: Any) -> Any:
    return params


def structured(fn: Fn) -> Fn:
    """`fn` in the form of least squares, or as a loss of params where it has no residuals."""
    residuals = getattr(fn, "residuals", None)
    if residuals is None:
        return hesskit.composite(fn, _itself)
    return hesskit.least_squares_loss(residuals, weights=2.0)  # half the sum of squares, twice


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


@squares
def bowl(params: Any) -> tuple[Array, ...]:
    """Rosenbrock's function of `a`, and a square of `c`, in any dtype."""
    x, y, c = params["a"][0], params["a"][1], params["b"]["c"]
    return 1 - x, 10**0.5 * (y - x * x), c - x


def world(params: Any, about: World) -> Array:
    """`bowl`, shifted and walled in as `about` says."""
    return bowl(_shifted(params, about)) + _height(params, about)


# A wall of -inf has no residual but NaN, which is as little a number.
world.residuals = lambda params, about: (
    *bowl.residuals(_shifted(params, about)),
    jnp.sqrt(_height(params, about)),
)


def _shifted(params: Any, about: World) -> Any:
    return jax.tree.map(lambda a: a - about.shift, params)


def _height(params: Any, about: World) -> Array:
    gaps = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), params, about.start)
    far = jnp.stack(jax.tree.leaves(gaps)).max() > about.wall
    return jnp.where(far, about.bump, 0)


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


_STEPPERS: dict[str, Any] = {}


def stepper(case: Any) -> tuple[Any, Any]:
    """The transform and its jitted `step(params, state, about) -> Moved` in `world`."""
    if case.name not in _STEPPERS:
        opt = case.make()
        _STEPPERS[case.name] = opt, jax.jit(functools.partial(advance, opt, case.of(world)))
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
