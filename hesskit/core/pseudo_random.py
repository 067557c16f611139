"""A vector without structure that is always the same: a start, a probe, a direction to try."""

import jax
import jax.numpy as jnp

from hesskit.core import layout
from hesskit.core.types import Array, Params, Scalar


def like(x: Params, seed: Scalar = 0) -> Params:
    """A fixed vector of entries uniform in (-sqrt 3, sqrt 3), of variance 1: always the same.

    An integer hash of each entry's place (Wellons 2018, "lowbias32"): a few instructions where a
    generator of `jax.random` is hundreds in the compiled program.

    Args:
      x: gives structure, shapes, dtypes and shardings.
      seed: an integer, which may be traced; another vector for another seed.

    Returns:
      A pytree like `x`, real.
    """
    leaves, structure = jax.tree.flatten(x)
    draws = [_hashed(a, seed * len(leaves) + i) for i, a in enumerate(leaves)]
    return jax.tree.unflatten(structure, draws)


def _hashed(leaf: Array, salt: Scalar) -> Array:
    place = jnp.full(leaf.shape, salt, jnp.uint32)
    for axis in range(leaf.ndim):
        along = jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        place = place * jnp.uint32(leaf.shape[axis] + 1) + along
    bits = place * jnp.uint32(0x9E3779B9) + jnp.uint32(1)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = (bits ^ (bits >> jnp.uint32(shift))) * jnp.uint32(factor)
    bits = bits ^ (bits >> jnp.uint32(16))
    unit = bits.astype(jnp.float32) / 2.0**31 - 1
    return layout.like((unit * 3.0**0.5).astype(leaf.dtype), leaf)
