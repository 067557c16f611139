"""Points to start from, drawn in a box."""

import jax

from hesskit.core.types import Array, Params


def drawn(lower: Params, upper: Params, num: int, key: Array) -> Params:
    """Points uniform in a box.

    Args:
      lower: one corner, a pytree of real arrays; where a side is not finite, no number is drawn.
      upper: the other, like it.
      num: how many.
      key: of `jax.random`.

    Returns:
      The points, stacked: each leaf with a leading axis of `num`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> points = drawn(jnp.zeros(2), jnp.array([1.0, 5.0]), 100, jax.random.key(0))
      >>> print(points.shape, bool((points.max(0) < jnp.array([1.0, 5.0])).all()))
      (100, 2) True
    """
    leaves, structure = jax.tree.flatten(lower)
    keys = jax.random.split(key, len(leaves))
    points = [
        a[None] + (b - a)[None] * jax.random.uniform(k, (num, *a.shape), a.dtype)
        for a, b, k in zip(leaves, jax.tree.leaves(upper), keys, strict=True)
    ]
    return jax.tree.unflatten(structure, points)
