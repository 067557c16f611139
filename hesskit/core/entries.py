"""The entries of a pytree: their names, and what is said of leaves said of each entry."""

from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import objective, select, tree
from hesskit.core.types import Array, Params


def entry_names(params: Params) -> tuple[str, ...]:
    """The name of each entry in the order of `ravel_pytree`: "bg/b", "w[0]", "w[1, 2]".

    A complex leaf has all its real parts first: "z.real[0]", then "z.imag[0]".

    Args:
      params: a pytree of arrays.

    Returns:
      A tuple of n strings.

    Example:
      >>> import jax.numpy as jnp
      >>> entry_names({"bg": {"b": jnp.zeros(())}, "w": jnp.zeros(2)})
      ('bg/b', 'w[0]', 'w[1]')
    """
    found: list[str] = []
    for name, leaf in zip(select.names(params), jax.tree.leaves(params), strict=True):
        for part in (".real", ".imag") if jnp.iscomplexobj(leaf) else ("",):
            found += [name + part + place for place in _places(jnp.shape(leaf))]
    return tuple(found)


def _places(shape: tuple[int, ...]) -> list[str]:
    """The index of each entry of an array, as it is written; nothing for a scalar."""
    indices: list[list[int]] = [[]]
    for length in shape:
        indices = [[*index, i] for index in indices for i in range(length)]
    return [str(index) if index else "" for index in indices]


def per_entry(chosen: tuple[Any, ...], params: Params) -> tuple[Any, ...]:
    """What is said of each leaf, said of each entry, in the order of `entry_names`."""
    leaves = jax.tree.leaves(objective.split(params))
    return tuple(flag for flag, leaf in zip(chosen, leaves, strict=True) for _ in range(leaf.size))


def as_vector(params: Params) -> Array:
    """The entries in the order of `entry_names`, (n,)."""
    return tree.ravel(objective.split(params))


def as_rows(stacked: Params) -> Array:
    """Many params in one tree with a leading axis, as (num, n)."""
    return jax.vmap(as_vector)(stacked)
