"""Functions of small arrays, of one problem or, under `vmap`, of many with the lanes last.

`vmap` puts the lanes first, so that the innermost loop of a compiled program runs over 4 entries of
one problem. With the lanes last it runs over the same entry of all, which processors do several at
a time: the arithmetic of small matrices is then five to ten times faster.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from hesskit.core.types import Array


def adjacent(x: Array) -> Array:
    """The array, whose last axis is the one that is contiguous in memory.

    Else a compiler is free to keep another order, and takes that of where the array comes from.

    Args:
      x: any array.

    Returns:
      `x`.
    """
    return with_layout_constraint(x, Layout(tuple(range(x.ndim))))


def on_lanes(alone: Callable[..., Any], lanes: Callable[..., Any]) -> Callable[..., Any]:
    """`alone`, whose batch is worked off by `lanes`.

    Args:
      alone: a function of arrays.
      lanes: the same of arrays with one more axis, the last one, in what goes in and comes out.

    Returns:
      A function of arrays. Its derivatives are those of `alone`, lanes first: the rule that
      `custom_vmap` has for them mixes up lanes where only some of the tangents have lanes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> size = on_lanes(lambda x: jnp.sqrt(x @ x), lambda x: jnp.sqrt(x[0] ** 2 + x[1] ** 2))
      >>> print(jax.vmap(size)(jnp.array([[3.0, 4.0], [0.0, 2.0], [5.0, 12.0]])))
      [ 5.  2. 13.]
    """

    def of_batch(axis_size: int, in_batched: list[bool], *args: Any) -> Any:
        last = [
            adjacent(jnp.moveaxis(leaf, 0, -1))
            if batched
            else jnp.broadcast_to(leaf[..., None], (*leaf.shape, axis_size))
            for leaf, batched in zip(args, in_batched, strict=True)
        ]
        out = jax.tree.map(adjacent, lanes(*last))
        return jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0), out)

    return _either(alone, of_batch)


def on_each(alone: Callable[..., Any], each: Callable[..., Any]) -> Callable[..., Any]:
    """`alone`, whose batch is worked off by `each` under `vmap`: the same by other means.

    For arrays so long that processors have enough to do with those of one problem.

    Args:
      alone: a function of arrays.
      each: the same.

    Returns:
      A function of arrays, with the derivatives of `alone`.
    """

    def of_batch(axis_size: int, in_batched: list[bool], *args: Any) -> Any:
        axes = [0 if batched else None for batched in in_batched]
        return jax.vmap(each, axes, axis_size=axis_size)(*args)

    return _either(alone, of_batch)


def _either(alone: Callable[..., Any], of_batch: Callable[..., Any]) -> Callable[..., Any]:
    """`alone`, or for a batch `of_batch`, which puts its axis first in all that comes out."""
    fn = jax.custom_batching.custom_vmap(alone)

    @fn.def_vmap
    def _(axis_size: int, in_batched: list[bool], *args: Any) -> tuple[Any, Any]:
        out = of_batch(axis_size, in_batched, *args)
        return out, jax.tree.map(lambda _: True, out)

    differentiable = jax.custom_jvp(fn)
    differentiable.defjvp(functools.partial(jax.jvp, alone))
    return differentiable
