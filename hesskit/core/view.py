"""A leaf of params rearranged: which axes of the leaf lie along which axis of the value.

Reshapes, transposes and casts of a weight change nothing of what it is. An axis of the value holds
some axes of the leaf, in order, or none where it has length 1 or the leaf is repeated along it.
In the body of a loop the leaf is the same at every step, or one slice of it: a layer.
"""

import math
from typing import Any, NamedTuple

SAME = {"convert_element_type", "copy", "reduce_precision", "sharding_constraint", "reshard"}


Loops = tuple[tuple[int, str], ...]
"""Length, and what steps are, of loops, the outermost first.

"layers" have a slice of the leaf each; of those that share it "steps" hand something on, "parts"
nothing."""


class View(NamedTuple):
    """Leaf number, its shape, and axes of the leaf along each axis of the value.

    `loops` are those around the value; shape and axes are those of a slice.
    """

    leaf: int
    shape: tuple[int, ...]
    axes: tuple[tuple[int, ...], ...]
    loops: Loops = ()


def of_leaf(leaf: int, shape: tuple[int, ...]) -> View:
    """The leaf itself."""
    return View(leaf, shape, tuple((i,) if n != 1 else () for i, n in enumerate(shape)))


def whole(seen: View, shape: tuple[int, ...]) -> bool:
    """Whether a value of that shape holds each entry of the leaf once."""
    return math.prod(shape) == math.prod(seen.shape)


def at_step(seen: View, length: int, *, sliced: bool, carries: bool) -> View | None:
    """The view in the body of a loop.

    Args:
      seen: the view outside.
      length: number of steps.
      sliced: whether a step has a slice of the first axis, not the whole value.
      carries: whether steps hand something on.

    Returns:
      A `View`, or None where slices are not of the first axes of the leaf.
    """
    if not sliced or not seen.axes[0]:  # no axis of the leaf: each slice is the whole leaf
        axes = seen.axes[int(sliced) :]
        shared = (length, "steps" if carries else "parts")
        return seen._replace(axes=axes, loops=(*seen.loops, shared))
    first, *rest = seen.axes
    k = len(first)
    if first != tuple(range(k)):
        return None
    axes = tuple(tuple(i - k for i in axes) for axes in rest)
    return View(seen.leaf, seen.shape[k:], axes, (*seen.loops, (length, "layers")))


def moved(seen: View, equation: Any, shape: tuple[int, ...]) -> View | None:
    """The view after an equation that rearranges, or None.

    Args:
      seen: the view before.
      equation: of a jaxpr; the view is its first input.
      shape: of its output.

    Returns:
      A `View`, or None where the output is something else.
    """
    name, given = equation.primitive.name, equation.params
    if name in SAME:
        return seen
    if name == "transpose":
        return seen._replace(axes=tuple(seen.axes[i] for i in given["permutation"]))
    if name == "squeeze":
        dropped = {i % len(seen.axes) for i in given["dimensions"]}
        return seen._replace(axes=tuple(a for i, a in enumerate(seen.axes) if i not in dropped))
    if name == "reshape":
        return _reshaped(seen, shape)
    if name == "broadcast_in_dim":
        axes: list[tuple[int, ...]] = [()] * len(shape)
        for i, to in enumerate(given["broadcast_dimensions"]):
            axes[to] = seen.axes[i]
        return seen._replace(axes=tuple(axes))
    return None


def _reshaped(seen: View, shape: tuple[int, ...]) -> View | None:
    """The view in another shape, where each new axis is made of whole axes of the leaf."""
    if not whole(seen, shape):
        return None
    left = [i for axes in seen.axes for i in axes]
    found = []
    for n in shape:
        here: list[int] = []
        while left and math.prod(seen.shape[i] for i in here) < n:
            here.append(left.pop(0))
        if math.prod(seen.shape[i] for i in here) != n:
            return None
        found.append(tuple(here))
    return seen._replace(axes=tuple(found))
