"""Random vectors of mean zero and covariance I: what a stochastic estimate looks at a matrix with.

Source: Hutchinson (1990), Communications in Statistics 19, 433-450 (signs); Girard (1989),
Numerische Mathematik 56, 1-23 (normal).
"""

import jax
import jax.numpy as jnp

from hesskit.core import layout
from hesskit.core.types import Array, Params

WORD = 32
"""Bits of a word of the generator."""


def signs(key: Array, like: Params) -> Params:
    """Independent signs, +1 or -1 with equal chances, in the shapes and dtypes of `like`.

    Each word of the generator gives 32 of them: `jax.random.rademacher` spends a word on each, on a
    CPU five times as long.

    Args:
      key: a key, ().
      like: gives structure, shapes, dtypes and shardings.

    Returns:
      A pytree like `like`.
    """
    leaves, structure = jax.tree.flatten(like)
    counts = [-(-leaf.size // WORD) for leaf in leaves]
    words = jax.random.bits(key, (sum(counts),), jnp.uint32)
    place = jnp.arange(WORD, dtype=jnp.uint32)
    drawn, start = [], 0
    for leaf, count in zip(leaves, counts, strict=True):
        bits = (words[start : start + count, None] >> place[None, :]) & jnp.uint32(1)
        chosen = bits.reshape(-1)[: leaf.size].reshape(leaf.shape).astype(leaf.dtype)
        drawn.append(layout.like(1 - 2 * chosen, leaf))
        start += count
    return jax.tree.unflatten(structure, drawn)


def normal(key: Array, like: Params) -> Params:
    """Independent standard normal entries, in the shapes and dtypes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, max(len(leaves), 1))
    pairs = zip(keys, leaves, strict=False)
    drawn = [layout.like(jax.random.normal(k, a.shape, a.dtype), a) for k, a in pairs]
    return jax.tree.unflatten(structure, drawn)
