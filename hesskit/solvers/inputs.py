"""What a solver does with its arguments before anything is traced.

A compiled solve is cached on its static arguments, so that functions need a hash; and whoever has
float64 data while JAX computes in float32 should hear of it once.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core.types import Params
from hesskit.solvers.result import History

MOST_STEPS = 2**31 - 2
"""The last count that int32 holds, less one for the start."""


class _ById:
    """A function that has no hash, hashed by identity."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.__wrapped__ = fn  # inspect.signature looks here

    def __hash__(self) -> int:
        return id(self.__wrapped__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self.__wrapped__ is other.__wrapped__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)


def hashable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, or a function that is equal only to itself where `fn` has no hash."""
    try:
        hash(fn)
    except TypeError:
        return _ById(fn)
    return fn


def may_ravel(params: Params) -> bool:
    """Whether params may become one vector, which compiles faster: one dtype, and on no mesh.

    Args:
      params: the start, of arrays.

    Returns:
      True if nothing is lost by it.
    """
    leaves = jax.tree.leaves(params)
    here = all(jax.typeof(leaf).sharding.mesh.empty for leaf in leaves)
    # Sums over narrower leaves are kept in another dtype than the leaves.
    wide = all(jnp.finfo(leaf.dtype).bits >= 32 for leaf in leaves)
    return here and wide and len({leaf.dtype for leaf in leaves}) == 1


def limit_of(max_steps: Any) -> Any:
    """`max_steps` within what the counter holds."""
    return max_steps if isinstance(max_steps, Tracer) else min(int(max_steps), MOST_STEPS)


def rows(max_steps: Any) -> int:
    """The rows of a history: one a step, one for the start."""
    if isinstance(max_steps, Tracer):
        raise TypeError("history needs a concrete max_steps: its length is a shape")
    return int(max_steps) + 1


@functools.cache
def _warn_once(stacklevel: int) -> None:
    warnings.warn(
        "float64 data is converted to float32 because jax_enable_x64 is off. For float64 call "
        "jax.config.update('jax_enable_x64', True) before anything else.",
        stacklevel=stacklevel,
    )


def warn_float64(trees: Any) -> None:
    """Warns once that float64 data becomes float32 while x64 is off; call it from a solver."""
    if jax.dtypes.canonicalize_dtype("float64") == "float64":
        return
    for leaf in jax.tree.leaves(trees):
        wide = str(getattr(leaf, "dtype", "")) in ("float64", "complex128")
        if wide and not isinstance(leaf, jax.Array):  # a jax.Array was converted when it was made
            _warn_once(5)


def trimmed(history: History) -> History:
    """`history` without the rows past its length; as it is where the length is traced."""
    if isinstance(history.length, Tracer):
        return history
    length = int(history.length)
    rows = jax.tree.map(lambda a: a[:length], history._replace(length=None))
    return rows._replace(length=history.length)
