"""Which leaves of a call have an axis of problems: `in_axes`, as in `jax.vmap`, never guessed."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import prefix, select
from hesskit.core.types import Array

EXAMPLE = {"params": None, "args": (0, None), "xdata": None, "ydata": 0, "sigma": 0}
"""What messages advise for each tree."""


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


def _example(trees: dict[str, Any]) -> str:
    """An `in_axes` for these trees; a sigma that is not given needs none."""
    names = [name for name in trees if name != "sigma" or jax.tree.leaves(trees[name])]
    return f"in_axes={tuple(map(EXAMPLE.get, names))} for ({', '.join(names)})"


def _misfit(axes: Any, trees: dict[str, Any]) -> str:
    """Why `in_axes` does not fit."""
    if not isinstance(axes, tuple):
        return f"it is a {type(axes).__name__}, expected an int or a tuple of one entry for each"
    if len(axes) != len(trees):
        return f"it has {len(axes)} entries"
    for axis, (name, tree) in zip(axes, trees.items(), strict=True):
        marks = jax.tree.map(lambda _: 0, axis, is_leaf=lambda node: node is None)
        try:
            prefix.spread(marks, tree, name=f"in_axes for {name}", of=name)
        except ValueError as error:
            return str(error)
    return ""


def _full(axes: Any, trees: dict[str, Any]) -> list[Any]:
    """An axis, or None, for each leaf."""
    data = tuple(trees.values())

    def below(axis: Any, node: Any) -> list[Any]:
        return [axis] * len(jax.tree.leaves(node))

    try:
        spread = jax.tree.map(below, axes, data, is_leaf=lambda node: node is None)
    except ValueError as error:
        raise ValueError(
            f"in_axes={axes!r} does not fit ({', '.join(trees)}): {_misfit(axes, trees)}. It is "
            f"what jax.vmap takes: 0, or one for each, for example {_example(trees)}"
        ) from error
    known = jax.tree.structure(axes, is_leaf=lambda node: node is None)
    flat = known.flatten_up_to(spread)
    return [axis for part in flat for axis in part]


def batched(trees: dict[str, Any], in_axes: Any) -> Batch:
    """The leaves with an axis of problems, moved to the front, and the others.

    Args:
      trees: params, args and more by name, in the order of `in_axes`; of arrays. A number for
        sigma is shared, whatever `in_axes` says.
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
    leaves, structure = jax.tree.flatten(data)
    paths = _paths(trees)
    axes = [
        None if jnp.ndim(leaf) == 0 and path.startswith("sigma") else axis
        for leaf, path, axis in zip(leaves, paths, _full(in_axes, trees), strict=True)
    ]
    sizes: dict[int, tuple[str, str]] = {}
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
                f"in in_axes, for example {_example(trees)}"
            )
        along = f"leading size {leaf.shape[0]}" if axis == 0 else f"size {leaf.shape[axis]}"
        where = "" if axis == 0 else f" along axis {axis}"
        sizes.setdefault(leaf.shape[axis], (path, f"{along}{where}"))
        moved.append(jnp.moveaxis(jnp.asarray(leaf), axis, 0))
    _check_sizes(sizes, _example(trees))
    flags = tuple(axis is not None for axis in axes)
    shared, mine = select.split(jax.tree.unflatten(structure, moved), flags)
    return Batch(mine, shared)


def _paths(trees: dict[str, Any]) -> list[str]:
    return [
        name + jax.tree_util.keystr(path)
        for name, data in trees.items()
        for path, _ in jax.tree_util.tree_leaves_with_path(data)
    ]


def _check_sizes(sizes: dict[int, tuple[str, str]], example: str) -> None:
    """Raises ValueError unless there is one size; each comes with a path and its words."""
    if not sizes:
        raise ValueError(
            f"in_axes marks nothing as batched; give the axis of problems, for example {example}"
        )
    if len(sizes) > 1:
        (size, (path, _)), (_, (other, has)) = list(sizes.items())[:2]
        raise ValueError(
            f"{other} has {has}, {path} {size}; mark what is shared with None, for "
            f"example {example}"
        )
    if next(iter(sizes)) == 0:
        raise ValueError("there are no problems: the batched axis has length 0")
