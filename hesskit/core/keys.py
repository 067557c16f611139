"""What a user gives as `key=`, as a key of `jax.random`."""

from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import errors
from hesskit.core.types import Array


def as_key(key: Any, *, name: str = "key") -> Array:
    """A key in a buffer of its own.

    Args:
      key: an integer, which may be traced, or a key of `jax.random.key` or `jax.random.PRNGKey`.
      name: of the argument, for messages.

    Returns:
      A key, ().

    Raises:
      TypeError: it is none of these.
    """
    if isinstance(key, int) and not isinstance(key, bool):
        return jax.random.key(key)
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ():
        return jnp.copy(key)
    if dtype is not None and jnp.issubdtype(dtype, jnp.integer) and shape == ():
        return jax.random.key(key)
    if dtype == jnp.uint32 and len(shape or ()) == 1:
        return jax.random.wrap_key_data(jnp.copy(key))
    raise TypeError(f"{name} must be an int or one key of jax.random, got {errors.describe(key)}")
