r"""Which block of a curvature stands for which leaf: Kronecker factors, or less.

A leaf of two or more axes, as a matrix of a rows and b columns, may have the block

    R (x) C,    R (a, a) and C (b, b)                                       (1)

with one more row in each for a bias that enters with it. What is kept follows from the shapes of
params alone, so that a state can be made before the objective is known; a trace of the model then
says which of the two takes inputs, and which leaves have no such block. Only where the objective is
known beforehand can a leaf have a block for each of its slices: layers stacked for a `scan`.
"""

import itertools
import math
from typing import Any, NamedTuple

import jax

from hesskit.core.graph import Graph, trace
from hesskit.core.types import Params
from hesskit.core.uses import MATRIX, Use, uses

MAX_DIM = 2048
"""Rows of a factor at most: 32 MB for it and its inverse, a second to invert on a core."""
SHARED = ("sum", "sampled")
"""Of a leaf that enters several products: the sum of their factors, or factors of its own."""
UNLAYERED = "inside scan: pass objective= and example= for factors by layer"
"""Why a leaf of layers has factors of its own slopes where the objective was not known."""


class Shape(NamedTuple):
    """The matrix of a leaf, or of each of its layers.

    Attributes:
      leaf: its shape, or that of a layer.
      split: the number of axes that make its rows; None where its block is diagonal.
      dense: whether R and C are matrices, or their diagonals.
      layers: how many there are, each with a block of its own; None for a leaf with one block.
      more: rows that R and C have beyond those of the leaf, for a bias that may join it.
    """

    leaf: tuple[int, ...]
    split: int | None
    dense: tuple[bool, bool] = (False, False)
    layers: int | None = None
    more: tuple[int, int] = (1, 1)

    @property
    def rows(self) -> int:
        """a."""
        return math.prod(self.leaf[: self.split])

    @property
    def columns(self) -> int:
        """b."""
        return math.prod(self.leaf[self.split :])

    @property
    def sides(self) -> tuple[int, int]:
        """Lengths of R and C, with the row of a bias."""
        return self.rows + self.more[0], self.columns + self.more[1]

    def axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Axes longer than 1 that make rows, and columns."""
        long = [i for i, n in enumerate(self.leaf) if n != 1]
        cut = self.split or 0
        return tuple(i for i in long if i < cut), tuple(i for i in long if i >= cut)


def shape_of(leaf: tuple[int, ...], max_dim: int) -> Shape:
    """The matrix that a leaf of that shape is taken for.

    Kernels have their input or their output axes together, and one of both first or last: of the
    two cuts, behind the first axis or before the last, that with the smaller factors.

    Args:
      leaf: its shape.
      max_dim: length up to which a factor is a matrix.

    Returns:
      A `Shape`.
    """
    vector = len(leaf) > 2 and sum(n != 1 for n in leaf) < 2  # a bias with axes for space
    if len(leaf) < 2 or math.prod(leaf) == 0 or vector:
        return Shape(leaf, None)
    cuts = [Shape(leaf, len(leaf) - 1), Shape(leaf, 1)]
    best = min(cuts, key=lambda cut: cut.rows + cut.columns)
    return best._replace(dense=(best.rows <= max_dim, best.columns <= max_dim))


class Block(NamedTuple):
    """What stands for a leaf.

    Attributes:
      path: of the leaf.
      shape: its matrix.
      kind: "kronecker"; "joined", in the block of another leaf; "sampled", of factors from slopes
        by the leaf itself; "diagonal".
      uses: what the block is made of.
      swapped: for each use, whether columns take the inputs.
      bias: of "kronecker", the leaf joined to it; of "joined", the leaf that has it.
      alone: places among the outputs where the leaf itself is one.
      why: a few words.
    """

    path: str
    shape: Shape
    kind: str
    uses: tuple[Use, ...]
    swapped: tuple[bool, ...] = ()
    bias: int | None = None
    alone: tuple[int, ...] = ()
    why: str = ""

    @property
    def has_factors(self) -> bool:
        """Whether the block is R (x) C."""
        return self.kind in ("kronecker", "sampled")

    @property
    def lengths(self) -> tuple[int, int]:
        """Rows of R and of C that are in use."""
        rows, columns = self.shape.rows, self.shape.columns
        if self.bias is None:
            return rows, columns
        return (rows, columns + 1) if self.swapped[0] else (rows + 1, columns)

    @property
    def is_sum(self) -> bool:
        """Whether R and C are sums, of which the block is R (x) C / tr(C)."""
        return self.kind == "sampled" or len(self.uses) > 1

    @property
    def is_whole(self) -> bool:
        """Whether the slope by the leaf itself is needed."""
        known = all(map(_is_plain, self.uses))
        once = len(self.uses) + len(self.alone) <= 1
        return self.kind == "sampled" or (self.kind == "diagonal" and not (known and once))


def _is_plain(use: Use) -> bool:
    """Whether each entry has a slope at each position: a bias, a scale, weights of one output."""
    return use.kind in ("bias", "scale") or (use.kind == "dense" and not use.given)


class Plan(NamedTuple):
    """The model and the block of each leaf."""

    graph: Graph
    blocks: tuple[Block, ...]


def plan(
    fn: Any,
    params: Params,
    *,
    max_dim: int,
    shared: str,
    joined: bool = True,
    fixed: bool = False,
) -> Plan:
    """Reads a model and gives each leaf its block.

    Args:
      fn: `params -> outputs`.
      params: a pytree of real arrays.
      max_dim: length up to which a factor is a matrix.
      shared: of a leaf that enters several products: "sum" or "sampled".
      joined: whether a bias is part of the block of its weight.
      fixed: whether the layout is that of the shapes of leaves: no block for each layer, a cut by
        shape alone, and a row more in every factor.

    Returns:
      A `Plan`.
    """
    graph = trace(fn, params)
    found = uses(graph)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    blocks = []
    for i, (path, leaf) in enumerate(leaves):
        mine = [use for use in found if use.leaf == i]
        alone = tuple(j for j, number in enumerate(graph.outputs) if number == graph.leaves[i])
        shape = shape_of(leaf.shape, max_dim)
        stack = _stack(mine or [use.bias for use in found if use.bias and use.bias.leaf == i])
        if stack is not None and not fixed:
            layer, layers = stack
            shape = shape_of(layer, max_dim)._replace(layers=layers)
        mine = [_fitting(use, shape, fixed) for use in mine]
        shape = shape if fixed else _cut(shape, mine, max_dim)
        block = _block(shape, mine, shared)
        blocks.append(block._replace(path=jax.tree_util.keystr(path), alone=alone))
    made = _joined(blocks, joined, fixed)
    return Plan(graph, made if fixed else tuple(map(_fitted, made)))


def _cut(shape: Shape, found: list[Use], max_dim: int) -> Shape:
    """The matrix cut where all products with the leaf have it, if they agree."""
    products = [use for use in found if use.kind in MATRIX]
    if not products or 0 in shape.leaf:
        return shape
    for split in (shape.split or 1, *range(1, len(shape.leaf) + 1)):
        cut = shape._replace(split=split)
        if all(_side(cut, use) is not None for use in products):
            return cut._replace(dense=(cut.rows <= max_dim, cut.columns <= max_dim))
    return shape


def _stack(found: list[Use]) -> tuple[tuple[int, ...], int] | None:
    """Shape and number of the layers that all products with a leaf know, or else all its uses."""
    told = [use for use in found if use.kind in MATRIX] or found
    stacks = {(use.shape, use.layers) for use in told}
    (shape, layers), *others = stacks or {((), None)}
    return None if others or layers is None else (shape, layers)


def _fitting(use: Use, shape: Shape, fixed: bool) -> Use:
    """A use of the leaf as it is in blocks: of another form where they know no such layers."""
    if use.layers == shape.layers and use.shape == shape.leaf:
        return use
    why = UNLAYERED if fixed else "inside scan and elsewhere"
    return use._replace(kind="other", inputs=None, slopes=None, why=why)


def _block(shape: Shape, found: list[Use], shared: str) -> Block:
    """The block of a leaf from its uses."""
    products = [use for use in found if use.kind in MATRIX]
    others = [use for use in found if use.kind not in MATRIX]
    told = ", ".join(dict.fromkeys(use.why or use.kind for use in found))
    if shape.split is None:
        return Block("", shape, "diagonal", tuple(found), why=told or "not used")
    sampled = Block("", shape, "sampled", tuple(found), why=told or "not used")
    if not products:
        return sampled
    if len(found) > 1 and shared == "sampled":
        return sampled._replace(why=f"used {len(found)} times")
    sides = [_side(shape, use) for use in products]
    if None in sides:
        use = products[sides.index(None)]
        cut = f"its matrix is cut behind axis {shape.split - 1}, and {use.kind} sums over "
        return sampled._replace(why=cut + f"axes {use.taken}")
    ignored = f"; not counted: {', '.join(use.why or use.kind for use in others)}" if others else ""
    kinds = " + ".join(use.kind for use in products)
    swapped = tuple(side == 1 for side in sides)
    return Block("", shape, "kronecker", tuple(products), swapped, why=kinds + ignored)


def _side(shape: Shape, use: Use) -> int | None:
    """0 where rows take the inputs, 1 where columns do, None where neither."""
    pair = (use.taken, use.given)
    return next(
        (i for i, axes in enumerate((shape.axes(), shape.axes()[::-1])) if axes == pair), None
    )


def _joined(blocks: list[Block], joined: bool, fixed: bool) -> tuple[Block, ...]:
    """The blocks with biases in those of their weights, where these have one and it is asked."""
    made = list(blocks)
    for i, block in enumerate(blocks):
        for use in block.uses:
            if use.bias is None:
                continue
            j = use.bias.leaf
            if joined and block.kind == "kronecker" and len(block.uses) == 1:
                made[i] = block._replace(bias=j)
                why = f"bias of {block.path}"
                made[j] = made[j]._replace(kind="joined", bias=i, why=why)
            else:
                own = _fitting(use.bias, made[j].shape, fixed)
                made[j] = made[j]._replace(uses=(own,), why=own.why or "bias")
    return tuple(made)


def _fitted(block: Block) -> Block:
    """With no row for a bias but that which is there."""
    if not block.has_factors:
        return block
    a, b = block.lengths
    more = a - block.shape.rows, b - block.shape.columns
    return block._replace(shape=block.shape._replace(more=more))


def groups(blocks: tuple[Block, ...]) -> dict[int, list[tuple[int, int]]]:
    """The factors that are matrices, as (leaf, side), by their length."""
    found: dict[int, list[tuple[int, int]]] = {}
    for (i, block), side in itertools.product(enumerate(blocks), (0, 1)):
        if block.has_factors and block.shape.dense[side]:
            found.setdefault(block.lengths[side], []).append((i, side))
    return found
