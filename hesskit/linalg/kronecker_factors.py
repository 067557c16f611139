r"""Kronecker factors of the Gauss-Newton matrix of a model, found in the model itself.

Where a product with a leaf takes inputs x_t at N positions t to outputs of slopes g_t, and g_t are
slopes of the outputs' curvature H = F F' itself, those of F u for u random of variance 1,

    G  ~  R (x) C,    R = sum_t x_t x_t' / N,    C = sum_t E[g_t g_t']      (1)

with 1 as an entry more of x_t where a bias is added; or exactly, from one column of F u at a time
(linalg/kronecker_reading.py). Positions are those of examples, or of
examples and of what shares the weight: pixels, places in a sequence ("expand"); or x_t is their
mean and g_t their sum first ("reduce"). It is exact for one example at one position. A leaf in
several products has the sum, drawn together by traces; one in none has factors of its own slopes,

    G  ~  E[V V'] (x) E[V'V] / E[tr V'V],    V the slope by the leaf        (2)

Source: Martens & Grosse (2015), sections 2 and 3; Grosse & Martens (2016), section 3; Eschenhagen,
Immer, Turner, Schneider & Hennig (2023), "Kronecker-Factored Approximate Curvature for Modern
Neural Network Architectures", sections 3.1 and 3.2.
"""

from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import layout, tree
from hesskit.core.blocks import Block, Plan
from hesskit.core.types import Array
from hesskit.core.uses import Use
from hesskit.linalg.kronecker import Slots, side_trace
from hesskit.linalg.kronecker_reading import Passed

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


def _met(use: Use, at: Passed, sharing: str, dtype: Any) -> tuple[Array, Array]:
    """Inputs, (positions, a) or numbers of rows, (positions,), and slopes, (positions, b)."""
    assert use.inputs is not None
    assert use.slopes is not None
    is_row = use.kind == "embedding"
    # What is looked up is one row at each position.
    sharing = "expand" if is_row else sharing
    g = _positions(use.slopes(at.slopes[use.output]).astype(dtype), sharing, 1, False)
    x = use.inputs(at.values[use.source])
    return _positions(x if is_row else x.astype(dtype), sharing, int(not is_row), True), g


def _of_use(use: Use, block: Block, at: Passed, swapped: bool, sharing: str) -> tuple[Array, Array]:
    """R and C of one product, by (1)."""
    dtype = tree.widest(at.slopes[use.output].dtype)
    x, g = _met(use, at, sharing, dtype)
    full = block.shape.dense[::-1] if swapped else block.shape.dense
    zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
    if use.kind == "embedding":
        k = (block.shape.rows, block.shape.columns)[int(swapped)]
        inner = _more(_looked_up(x, k, full[0], dtype) / x.shape[0], None, zero)
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
        if block.kind == "kronecker":
            parts = [
                _squares_of_use(use, block, at, slot, swapped, sharing)
                for use, swapped in zip(block.uses, block.swapped, strict=True)
            ]
            made[i] = (sum(parts) + _shift(block, at, slot.values)).astype(slot.values.dtype)
        elif block.kind == "sampled":
            v = _slope(block, at.leaves[i])
            along = _along(_along(v, slot.columns, None).T, slot.rows, None).T
            made[i] = (along**2).astype(slot.values.dtype)
    return tuple(made)


def _squares_of_use(
    use: Use, block: Block, at: Passed, slot: Any, swapped: bool, sharing: str
) -> Array:
    """Sum over positions of (U'x)_i^2 (V'g)_j^2."""
    x, g = _met(use, at, sharing, tree.widest(at.slopes[use.output].dtype))
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
        if block.kind == "kronecker":
            pairs = [
                _of_use(use, block, at, swapped, sharing)
                for use, swapped in zip(block.uses, block.swapped, strict=True)
            ]
            made[i] = (*_summed(pairs), _shift(block, at, slot[2]))
        elif block.kind == "sampled":
            made[i] = (*_by_slope(block, at.leaves[i]), jnp.zeros_like(slot[2]))
        elif block.kind == "diagonal":
            made[i] = _diagonal(block, at, i, slot.dtype).reshape(slot.shape)
    return tree.cast_like(tuple(made), like)


def _by_slope(block: Block, slope: Array) -> tuple[Array, Array]:
    """V V' and V'V of (2)."""
    v, zero = _slope(block, slope), jnp.zeros((), tree.widest(slope.dtype))
    rows, columns = _gram(v.T, block.shape.dense[0]), _gram(v, block.shape.dense[1])
    return _more(rows, None, zero), _more(columns, None, zero)


def _slope(block: Block, slope: Array) -> Array:
    return tree.widen(slope).reshape(block.shape.rows, block.shape.columns)


def _diagonal(block: Block, at: Passed, leaf: int, dtype: Any) -> Array:
    """The squares of slopes, summed over positions where they are known there."""
    if block.is_whole:
        own = tree.widen(at.leaves[leaf])
        return own * own
    total = jnp.zeros((), dtype)
    for use in block.uses:
        assert use.slopes is not None
        g = tree.widen(use.slopes(at.slopes[use.output]))
        if use.inputs is not None:
            g = g * tree.widen(use.inputs(at.values[use.source]))
        g = g.reshape(-1, g.shape[-1])
        total = total + jnp.sum(g * g, axis=0).astype(dtype)
    for j in block.alone:
        own = tree.widen(at.outputs[j]).reshape(-1)
        total = total + (own * own).astype(dtype)
    return jnp.broadcast_to(total, (block.shape.rows,))


def _shift(block: Block, at: Passed, like: Array) -> Array:
    """The curvature of a leaf that is an output itself, as a multiple of 1."""
    squares = [jnp.mean(tree.widen(at.outputs[j]) ** 2).astype(like.dtype) for j in block.alone]
    return sum(squares, jnp.zeros_like(like))
