r"""A function of any pytree on a line or a plane through a point: what a picture shows of it.

    phi(t)  =  f(x + t_1 d_1 + ... + t_k d_k)                               (1)

with the gradient and the Hessian of phi in t, which are d_i . g and d_i . H d_j of f.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import errors, objective, tree
from hesskit.core.types import Array, Params

AT_ONCE = 2**16
"""Entries of all the points that are mapped together: a grid of a net goes point by point."""


class Slice(NamedTuple):
    """phi at m points.

    Attributes:
      values: (m,).
      slopes: its gradient, (m, k), or None.
      bends: its Hessian, (m, k, k), or None.
    """

    values: Array
    slopes: Array | None
    bends: Array | None


def on_slice(
    value_fn: Any,
    params: Params,
    directions: Params,
    *,
    coefficients: Any,
    args: Any = (),
    order: int = 0,
    caller: str,
) -> Slice:
    """Values of (1), and derivatives up to `order`.

    Args:
      value_fn: `value_fn(params, ...) -> ()`.
      params: x.
      directions: d, like params with a leading axis of k.
      coefficients: t of each point, (m, k).
      args: data for `value_fn`.
      order: of derivatives: 0, 1 or 2.
      caller: the picture, for messages.

    Returns:
      A `Slice` in at least float32.
    """
    params = errors.check_params(params)
    dtype = tree.result_dtype(params)
    moves = jax.tree.map(lambda d, a: jnp.asarray(d, a.dtype), directions, params)

    def everywhere(start: Params, moves: Params, t: Array, args: Any) -> Slice:
        fn = objective.drop_aux(objective.bind(value_fn, args=args, caller=caller))

        def at(t: Array) -> Array:
            shift = jax.tree.map(lambda d: jnp.tensordot(t.astype(d.dtype), d, 1), moves)
            return fn(tree.add(start, shift)).astype(dtype)

        def all_of(t: Array) -> Slice:
            slopes = jax.grad(at)(t) if order >= 1 else None
            return Slice(at(t), slopes, jax.hessian(at)(t) if order >= 2 else None)

        chunk = max(1, AT_ONCE // tree.size(start))
        if chunk >= len(t):
            return jax.vmap(all_of)(t)
        return jax.lax.map(all_of, t, batch_size=chunk)

    return jax.jit(everywhere)(params, moves, jnp.asarray(coefficients, dtype), args)


def stacked(*directions: Params) -> Params:
    """Directions like params as `on_slice` takes them, with a leading axis."""
    return jax.tree.map(lambda *rows: jnp.stack(rows), *directions)


def picked(directions: Params, places: tuple[int, ...]) -> Params:
    """Some of stacked directions, in this order."""
    return jax.tree.map(lambda rows: jnp.stack([rows[i] for i in places]), directions)
