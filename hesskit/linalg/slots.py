"""The arrays that stand for the block of a leaf, alone or with an axis of layers in front."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.blocks import Block, Shape
from hesskit.core.types import Array, Params

Slots = tuple[Any, ...]
"""By leaf: an array like it, or R and C, each a matrix or its diagonal, and a multiple of 1.

Of a leaf of layers each has an axis of these in front."""


def front(shape: Shape) -> tuple[int, ...]:
    """The axes of layers."""
    return () if shape.layers is None else (shape.layers,)


def empty_slots(params: Params, layout: tuple[Shape, ...]) -> Slots:
    """Zeros for the factors of params."""
    found = []
    for leaf, shape in zip(jax.tree.leaves(params), layout, strict=True):
        dtype, first = tree.widest(leaf.dtype), front(shape)
        if shape.split is None:
            found.append(jnp.zeros((*first, *shape.leaf), dtype))
            continue
        pair = zip(shape.sides, shape.dense, strict=True)
        sides = [jnp.zeros((*first, k, k) if full else (*first, k), dtype) for k, full in pair]
        found.append((*sides, jnp.zeros(first, dtype)))
    return tuple(found)


def in_trees(slots: Slots, structure: Any) -> tuple[Params, Params, Params]:
    """Slots for a state, in trees like params: optax, flax and orbax know what to do with these.

    Args:
      slots: by leaf.
      structure: of params.

    Returns:
      R, or the array of a leaf without factors; C; and the multiple of 1, or zeros of shape ().
    """
    parts = [slot if isinstance(slot, tuple) else (slot, *_nothing(slot)) for slot in slots]
    first, second, third = zip(*parts, strict=True) if parts else ((), (), ())
    return (
        jax.tree.unflatten(structure, first),
        jax.tree.unflatten(structure, second),
        jax.tree.unflatten(structure, third),
    )


def _nothing(slot: Array) -> tuple[Array, Array]:
    return jnp.zeros((), slot.dtype), jnp.zeros((), slot.dtype)


def from_trees(held: tuple[Params, Params, Params], structure: Any) -> Slots:
    """The slots that `in_trees` wrote."""
    parts = zip(*(structure.flatten_up_to(each) for each in held), strict=True)
    return tuple(part if part[1].ndim else part[0] for part in parts)


def by_layer(block: Block, fn: Callable[..., Any], *given: Any) -> Any:
    """`fn(block, *given)`, of each layer of `given` where the block has layers."""
    if block.shape.layers is None:
        return fn(block, *given)
    return jax.vmap(lambda *one: fn(block, *one))(*given)


def together(parts: list[Array]) -> Array:
    """Matrices, (..., n, n) each, one behind another: (k, n, n)."""
    return jnp.concatenate([part.reshape(-1, *part.shape[-2:]) for part in parts])


def apart(found: Array, parts: list[Array]) -> list[Array]:
    """What was found of each matrix of `together(parts)`, (k, *rest), as (..., *rest) each."""
    made, begin = [], 0
    for part in parts:
        first = part.shape[:-2]
        end = begin + math.prod(first)
        made.append(found[begin:end].reshape(*first, *found.shape[1:]))
        begin = end
    return made
