"""Which leaves of a call have an axis of problems: `in_axes`, as in `jax.vmap`, never guessed."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import select
from hesskit.core.types import Array


class Batch(NamedTuple):
    """The data of many problems.

    Attributes:
      mine: leaves with a leading axis of problems, None elsewhere.
      shared: the others, None in place of those.
    """

    mine: Any
    shared: Any

    def at(self, index: Array) -> Any:
        """The rows of `mine` of these problems."""
        return jax.tree.map(lambda a: a.at[index].get(mode="promise_in_bounds"), self.mine)

    def whole(self, mine: Any) -> Any:
        """One problem's data, from its part of `mine`."""
        return select.merge(self.shared, mine)

    def num(self) -> int:
        """The number of problems."""
        return jax.tree.leaves(self.mine)[0].shape[0]


def _full(axes: Any, data: tuple[Any, ...]) -> list[Any]:
    """An axis, or None, for each leaf."""

    def below(axis: Any, node: Any) -> list[Any]:
        return [axis] * len(jax.tree.leaves(node))

    try:
        spread = jax.tree.map(below, axes, data, is_leaf=lambda node: node is None)
    except ValueError as error:
        raise ValueError(
            f"in_axes={axes!r} does not fit (params, args); it is what jax.vmap takes: 0, or one "
            f"for params and one for args, (0, (0, None)). {error}"
        ) from error
    known = jax.tree.structure(axes, is_leaf=lambda node: node is None)
    flat = known.flatten_up_to(spread)
    return [axis for part in flat for axis in part]


def batched(trees: dict[str, Any], in_axes: Any) -> Batch:
    """The leaves with an axis of problems, moved to the front, and the others.

    Args:
      trees: params, args and more by name, in the order of `in_axes`; of arrays.
      in_axes: an int, None, or a tuple of one prefix tree of ints and None for each of `trees`.

    Returns:
      A `Batch` of the tuple of trees.

    Raises:
      TypeError: an axis is no int.
      ValueError: `in_axes` does not fit, an axis is out of range, nothing is batched, or leaves
        have different numbers of problems.

    Example:
      >>> import jax.numpy as jnp
      >>> batch = batched({"params": jnp.zeros(2), "args": (jnp.ones((5, 3)),)}, (None, 0))
      >>> print(batch.num(), batch.shared[0].shape)
      5 (2,)
    """
    data = tuple(trees.values())
    if isinstance(in_axes, list):
        in_axes = tuple(in_axes)
    axes = _full(in_axes, data)
    leaves, structure = jax.tree.flatten(data)
    paths = _paths(trees)
    sizes: dict[int, str] = {}
    moved = []
    for leaf, axis, path in zip(leaves, axes, paths, strict=True):
        if axis is None:
            moved.append(leaf)
            continue
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise TypeError(f"in_axes holds {axis!r} for {path}; expected an int or None")
        if not -leaf.ndim <= axis < leaf.ndim:
            raise ValueError(
                f"{path} has shape {leaf.shape} and no axis {axis}; mark what is shared with None "
                "in in_axes, for example in_axes=(0, (0, None))"
            )
        sizes.setdefault(leaf.shape[axis], path)
        moved.append(jnp.moveaxis(jnp.asarray(leaf), axis, 0))
    _check_sizes(sizes)
    flags = tuple(axis is not None for axis in axes)
    shared, mine = select.split(jax.tree.unflatten(structure, moved), flags)
    return Batch(mine, shared)


def _paths(trees: dict[str, Any]) -> list[str]:
    return [
        name + jax.tree_util.keystr(path)
        for name, data in trees.items()
        for path, _ in jax.tree_util.tree_leaves_with_path(data)
    ]


def _check_sizes(sizes: dict[int, str]) -> None:
    if not sizes:
        raise ValueError(
            "in_axes marks nothing as batched; give the axis of problems, for example "
            "in_axes=(None, (0, None))"
        )
    if len(sizes) > 1:
        (size, path), (other, where) = list(sizes.items())[:2]
        raise ValueError(
            f"{where} has leading size {other}, {path} {size}; mark what is shared: "
            "in_axes=(0, (0, None))"
        )
    if next(iter(sizes)) == 0:
        raise ValueError("there are no problems: the batched axis has length 0")
