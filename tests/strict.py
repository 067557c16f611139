"""The strictest mode that JAX offers: no implicit broadcasting of ranks, no implicit promotion."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def strict() -> Iterator[None]:
    """Make an implicit change of rank or dtype an error inside the block."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield
