r"""Kronecker factors of the Gauss-Newton matrix of a model, found in the model itself.

Where a product with a leaf takes inputs x_t at N positions t to outputs of slopes g_t, and g_t are
slopes of the outputs' curvature H = F F' itself, those of F u for u random of variance 1,

    G  ~  R (x) C,    R = sum_t x_t x_t' / N,    C = sum_t E[g_t g_t']      (1)

with 1 as an entry more of x_t where a bias is added; or exactly, from one column of F u at a time
(linalg/kronecker_reading.py). Positions are those of examples, or of examples and of what shares
the weight: pixels, places in a sequence, steps of a `scan` ("expand"); or x_t is their mean and g_t
their sum first ("reduce"). It is exact for one example at one position. Layers stacked for a `scan`
have a block each. A leaf in several products has the sum, drawn together by traces; one in none has
factors of its own slopes,

    G  ~  E[V V'] (x) E[V'V] / E[tr V'V],    V the slope by the leaf        (2)

Source: Martens & Grosse (2015), sections 2 and 3; Grosse & Martens (2016), section 3; Eschenhagen,
Immer, Turner, Schneider & Hennig (2023), "Kronecker-Factored Approximate Curvature for Modern
Neural Network Architectures", sections 3.1 and 3.2.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import layout, loop, tree
from hesskit.core.blocks import Block, Plan
from hesskit.core.types import Array
from hesskit.core.uses import Use
from hesskit.linalg.kronecker import side_trace
from hesskit.linalg.kronecker_reading import Passed
from hesskit.linalg.slots import Slots, by_layer, front

SHARING = ("expand", "reduce")


def _across(x: Array, y: Array) -> Array:
    """Sum over rows of x y'."""
    return jax.lax.dot_general(
        x,
        y,
        (((0,), (0,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        out_sharding=layout.replicated(x, 2),
    )


def _gram(x: Array, full: bool) -> Array:
    """Sum over rows of x x', or its diagonal."""
    return _across(x, x) if full else jnp.sum(x * x, axis=0)


def _more(gram: Array, row: Array | None, corner: Array) -> Array:
    """A Gram matrix, or its diagonal, with a row more."""
    if gram.ndim == 1:
        return jnp.concatenate([gram, corner[None]])
    row = jnp.zeros_like(gram[0]) if row is None else row
    top = jnp.concatenate([gram, row[:, None]], axis=1)
    return jnp.concatenate([top, jnp.concatenate([row, corner[None]])[None, :]])


def _looked_up(ids: Array, k: int, full: bool, dtype: Any) -> Array:
    """The Gram matrix of unit vectors."""
    counts = jnp.zeros((k,), dtype).at[ids.reshape(-1)].add(1, mode="drop")
    return jnp.diag(counts) if full else counts


def _positions(x: Array, sharing: str, last: int, mean: bool) -> Array:
    """(positions, entries), of `last` axes of entries, which may be none."""
    x = x if x.ndim > last else x[None]
    if sharing == "reduce" and last and x.ndim > 2:
        axes = tuple(range(1, x.ndim - 1))
        x = jnp.mean(x, axis=axes) if mean else jnp.sum(x, axis=axes)
    return x.reshape(-1, x.shape[-1]) if last else x.reshape(-1)


class Seen(NamedTuple):
    """What one pass shows of a block; of layers, with an axis of these in front."""

    inputs: list[
        Any
    ]  # of each use that has some, (*positions, a), or (*positions,) of an embedding
    slopes: list[Any]  # likewise, (*positions, b)
    leaf: Array  # slope by the leaf
    outputs: list[Array]  # slopes by the outputs that are the leaf itself


def _seen(block: Block, at: Passed, leaf: int) -> Seen:
    """What a pass shows of the block of a leaf."""
    inputs, slopes = [], []
    for use in block.uses:
        x = g = None
        if use.inputs is not None:
            last = 0 if use.kind == "embedding" else 1
            x = loop.by_layer(use.inputs, use.loops, last)(at.values[use.source])
        if use.slopes is not None:
            g = loop.by_layer(use.slopes, use.loops, 1)(at.slopes[use.output])
        inputs.append(x)
        slopes.append(g)
    shape = (*front(block.shape), *block.shape.leaf)
    outputs = [at.outputs[j].reshape(shape) for j in block.alone]
    return Seen(inputs, slopes, at.leaves[leaf].reshape(shape), outputs)


def _met(use: Use, x: Array, g: Array, sharing: str) -> tuple[Array, Array]:
    """Inputs, (positions, a) or numbers of rows, (positions,), and slopes, (positions, b)."""
    is_row, dtype = use.kind == "embedding", tree.widest(g.dtype)
    # What is looked up is one row at each position.
    sharing = "expand" if is_row else sharing
    g = _positions(g.astype(dtype), sharing, 1, False)
    return _positions(x if is_row else x.astype(dtype), sharing, int(not is_row), True), g


def _of_use(use: Use, block: Block, x: Array, g: Array, swapped: bool) -> tuple[Array, Array]:
    """R and C of one product, by (1)."""
    full = block.shape.dense[::-1] if swapped else block.shape.dense
    zero, one = jnp.zeros((), g.dtype), jnp.ones((), g.dtype)
    if use.kind == "embedding":
        k = (block.shape.rows, block.shape.columns)[int(swapped)]
        inner = _more(_looked_up(x, k, full[0], g.dtype) / x.shape[0], None, zero)
    else:
        row = None if block.bias is None else jnp.mean(x, axis=0)
        inner = _more(_gram(x, full[0]) / x.shape[0], row, zero if row is None else one)
    pair = inner, _more(_gram(g, full[1]), None, zero)
    return (pair[1], pair[0]) if swapped else pair


def _summed(pairs: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Sums, drawn together by traces (`Block.is_sum`): exact where one factor is common."""
    if len(pairs) == 1:
        return pairs[0]
    rows = sum((side_trace(c) * r for r, c in pairs), jnp.zeros_like(pairs[0][0]))
    return rows, sum((side_trace(r) * c for r, c in pairs), jnp.zeros_like(pairs[0][1]))


def squares(plan: Plan, at: Passed, basis: Slots, *, sharing: str) -> tuple[Any, ...]:
    """The diagonal of the curvature in the eigenvectors of its factors, from one pass.

    Args:
      plan: where leaves enter.
      at: the pass.
      basis: eigenvectors (linalg/kronecker_basis.py).
      sharing: "expand" or "reduce".

    Returns:
      An array like the values of a slot for each leaf with factors; what else there is, as it is.
    """
    made: list[Any] = list(basis)
    for i, (block, slot) in enumerate(zip(plan.blocks, basis, strict=True)):
        if block.has_factors:
            of_block = functools.partial(_squares_of_block, sharing=sharing)
            found = by_layer(block, of_block, _seen(block, at, i), slot)
            made[i] = found.astype(slot.values.dtype)
    return tuple(made)


def _squares_of_block(block: Block, seen: Seen, slot: Any, *, sharing: str) -> Array:
    if block.kind == "sampled":
        v = _slope(block, seen.leaf)
        return _along(_along(v, slot.columns, None).T, slot.rows, None).T ** 2
    total = _shift(seen, slot.values)
    for use, x, g, swapped in zip(block.uses, seen.inputs, seen.slopes, block.swapped, strict=True):
        total += _squares_of_use(use, block, *_met(use, x, g, sharing), slot, swapped)
    return total


def _squares_of_use(use: Use, block: Block, x: Array, g: Array, slot: Any, swapped: bool) -> Array:
    """Sum over positions of (U'x)_i^2 (V'g)_j^2."""
    mine, theirs = (slot.columns, slot.rows) if swapped else (slot.rows, slot.columns)
    slopes = _along(g, theirs, None) ** 2
    if use.kind == "embedding" and mine.ndim == 1:
        total = jnp.zeros((len(mine), slopes.shape[1]), slopes.dtype)
        total = total.at[x].add(slopes, mode="drop")
    elif use.kind == "embedding":
        total = _across(mine.at[x].get(mode="fill", fill_value=0).astype(g.dtype) ** 2, slopes)
    else:
        one = None if block.bias is None else jnp.ones((), x.dtype)
        total = _across(_along(x, mine, one) ** 2, slopes)
    return total.T if swapped else total


def _along(x: Array, vectors: Array, bias: Array | None) -> Array:
    """Rows of x, (p, a), with `bias` as an entry more, along eigenvectors; (p, k), k > a."""
    k = len(vectors)
    if vectors.ndim == 2:
        found = jnp.matmul(x, vectors[: x.shape[1]], precision=jax.lax.Precision.HIGHEST)
        return found if bias is None else found + bias * vectors[x.shape[1]][None, :]
    more = jnp.zeros((), x.dtype) if bias is None else bias
    last = jnp.broadcast_to(more, (len(x), 1))
    return jnp.concatenate([x, last], axis=1)[:, :k]


def statistics(plan: Plan, at: Passed, like: Slots, *, sharing: str) -> Slots:
    """The sums that one pass adds to the factors: R and C, or of what `Block.is_sum` parts of them.

    Args:
      plan: where leaves enter.
      at: the pass.
      like: slots, for their dtypes.
      sharing: "expand" or "reduce".

    Returns:
      Slots.
    """
    made: list[Any] = list(like)
    for i, (block, slot) in enumerate(zip(plan.blocks, like, strict=True)):
        if block.kind != "joined":
            of_block = functools.partial(_of_block, sharing=sharing)
            made[i] = by_layer(block, of_block, _seen(block, at, i), slot)
    return tree.cast_like(tuple(made), like)


def _of_block(block: Block, seen: Seen, slot: Any, *, sharing: str) -> Any:
    if block.kind == "diagonal":
        return _diagonal(block, seen, slot.dtype).reshape(slot.shape)
    if block.kind == "sampled":
        return (*_cut(_by_slope(block, seen.leaf), slot), jnp.zeros_like(slot[2]))
    each = zip(block.uses, seen.inputs, seen.slopes, block.swapped, strict=True)
    pairs = [_of_use(use, block, *_met(use, x, g, sharing), swapped) for use, x, g, swapped in each]
    return (*_cut(_summed(pairs), slot), _shift(seen, slot[2]))


def _cut(pair: tuple[Array, Array], slot: Any) -> list[Array]:
    """R and C without the row of a bias where the slot has none."""
    return [side[(slice(len(like)),) * side.ndim] for side, like in zip(pair, slot, strict=False)]


def _by_slope(block: Block, slope: Array) -> tuple[Array, Array]:
    """V V' and V'V of (2)."""
    v, zero = _slope(block, slope), jnp.zeros((), tree.widest(slope.dtype))
    rows, columns = _gram(v.T, block.shape.dense[0]), _gram(v, block.shape.dense[1])
    return _more(rows, None, zero), _more(columns, None, zero)


def _slope(block: Block, slope: Array) -> Array:
    return tree.widen(slope).reshape(block.shape.rows, block.shape.columns)


def _diagonal(block: Block, seen: Seen, dtype: Any) -> Array:
    """The squares of slopes, summed over positions where they are known there."""
    if block.is_whole:
        own = tree.widen(seen.leaf)
        return own * own
    total = jnp.zeros((), dtype)
    for x, slope in zip(seen.inputs, seen.slopes, strict=True):
        g = tree.widen(slope)
        g = g if x is None else g * tree.widen(x)
        g = g.reshape(-1, g.shape[-1])
        total = total + jnp.sum(g * g, axis=0).astype(dtype)
    for output in seen.outputs:
        own = tree.widen(output).reshape(-1)
        total = total + (own * own).astype(dtype)
    return jnp.broadcast_to(total, (block.shape.rows,))


def _shift(seen: Seen, like: Array) -> Array:
    """The curvature of a leaf that is an output itself, as a multiple of 1."""
    squares = [jnp.mean(tree.widen(output) ** 2).astype(like.dtype) for output in seen.outputs]
    return sum(squares, jnp.zeros_like(like))
