r"""Kronecker factors by their eigenvectors: exact damped inverses, and corrected eigenvalues.

With R = U diag(a) U' and C = V diag(b) V' of a block, and S = a b',

    (R (x) C + lambda)^{-1} W  =  U ((U'W V) / (S + lambda)) V'             (1)

In this basis the curvature itself, sum_t x_t x_t' (x) E[g_t g_t'], has the diagonal

    S_ij  =  sum_t E[(U'x_t)_i^2 (V'g_t)_j^2]                               (2)

which is the nearest to it, a b' among them. When the basis moves, S goes along by the squares of
the cosines: the diagonal, in the new basis, of what it was.

Source: Martens & Grosse (2015), appendix B; George, Laurent, Bouthillier, Ballas & Vincent (2018),
"Fast approximate natural gradient descent in a Kronecker-factored eigenbasis", section 3.
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core.blocks import Block, groups
from hesskit.core.types import Array, Params
from hesskit.linalg.kronecker import by_block, one_by_one, padded, times
from hesskit.linalg.slots import Slots, apart, by_layer, from_trees, together


class Turned(NamedTuple):
    """The slot of a leaf with factors; what is not in use is zero.

    Attributes:
      rows: U, (k, k), eigenvectors as columns; (k,) zeros of a side that is diagonal: U = 1.
      columns: V, likewise.
      values: S.
    """

    rows: Array
    columns: Array
    values: Array


def empty(slots: Slots) -> Slots:
    """Zeros for the eigenvectors of these factors."""

    def one(slot: Any) -> Any:
        if not isinstance(slot, tuple):
            return jnp.zeros_like(slot)
        rows, columns = (jnp.zeros_like(side) for side in slot[:2])
        shape = (*slot[2].shape, rows.shape[-1], columns.shape[-1])
        return Turned(rows, columns, jnp.zeros(shape, rows.dtype))

    return tuple(one(slot) for slot in slots)


def basis_from_trees(held: Any, structure: Any) -> Slots:
    """The slots of eigenvectors that `slots.in_trees` wrote."""
    found = from_trees(held, structure)
    return tuple(Turned(*slot) if isinstance(slot, tuple) else slot for slot in found)


def _eigh(matrix: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(matrix)
    return jnp.maximum(values, 0), vectors


def turned(slots: Slots, blocks: tuple[Block, ...], *, place: str = "replicated") -> Slots:
    """The eigenvectors of factors, and S = a b' and the multiple of 1.

    Args:
      slots: the factors, not their means (`kronecker.normal`).
      blocks: what they are of.
      place: where eigenvectors are found, of `kronecker.PLACES`.

    Returns:
      Slots like those of `empty`.
    """
    found: dict[tuple[int, int], tuple[Array, Array]] = {}
    last = jnp.zeros(())
    for n, members in groups(blocks).items():
        parts = [slots[i][side][..., :n, :n] for i, side in members]
        values, vectors = one_by_one(_eigh, together(parts), last, place)
        last = values[-1, 0]
        pairs = zip(apart(values, parts), apart(vectors, parts), strict=True)
        found |= dict(zip(members, pairs, strict=True))
    made = list(slots)
    for i, (slot, block) in enumerate(zip(slots, blocks, strict=True)):
        if block.has_factors:
            made[i] = by_layer(block, _turned, slot, found.get((i, 0)), found.get((i, 1)))
        elif isinstance(slot, tuple):  # of a bias with a matrix of its own, joined to another
            (made[i],) = empty((slot,))
    return tuple(made)


def _turned(block: Block, slot: Any, *found: tuple[Array, Array] | None) -> Turned:
    """The slot from eigenvalues and eigenvectors of R and C, None of a diagonal."""
    values, vectors = [], []
    for side, n, pair in zip(slot[:2], block.lengths, found, strict=True):
        values.append(side[:n] if pair is None else pair[0])
        vectors.append(jnp.zeros_like(side) if pair is None else padded(pair[1], side.shape))
    s = values[0][:, None] * values[1][None, :] + slot[2]
    return Turned(vectors[0], vectors[1], padded(s, (len(slot[0]), len(slot[1]))))


def corrected(old: Slots, new: Slots, fresh: Slots, weight: Array) -> Slots:
    """The basis of `new` with the running mean of (2).

    Args:
      old: eigenvectors and means before.
      new: the new eigenvectors; of leaves without factors, their means.
      fresh: S of (2) in the new basis, one array for each leaf with factors.
      weight: of `fresh` in the mean, ().

    Returns:
      Slots like `new`.
    """

    def one(was: Any, now: Any, s: Any) -> Any:
        if not isinstance(now, Turned) or isinstance(s, Turned):  # nothing is fresh of joined ones
            return now
        moved = (jax.vmap(_moved) if now.values.ndim == 3 else _moved)(was, now)
        return now._replace(values=moved + weight.astype(moved.dtype) * (s - moved))

    return tuple(one(*slots) for slots in zip(old, new, fresh, strict=True))


def _moved(was: Turned, now: Turned) -> Array:
    """S in the new basis."""
    rows, columns = (_cosines(b, a) for a, b in zip(was[:2], now[:2], strict=True))
    return times(columns, times(rows, was.values).T).T


def _cosines(now: Array, was: Array) -> Array:
    """Squares of the cosines between eigenvectors; ones of a side without."""
    if now.ndim == 1:
        return jnp.ones_like(now)
    return times(now.T, was) ** 2


def mapped(
    slots: Slots,
    blocks: tuple[Block, ...],
    vector: Params,
    fn: Callable[[Array, Array], Array],
) -> Params:
    """U fn(S, U'W V) V' of each block, fn(d, w) of a diagonal one.

    Args:
      slots: eigenvectors.
      blocks: what they are of.
      vector: like params.
      fn: of arrays of one shape, entry by entry.

    Returns:
      A pytree like `vector`.
    """

    def one(slot: Turned, block: Block, m: Array) -> Array:
        del block
        sides = [s[:n, :n] if s.ndim == 2 else None for s, n in zip(slot[:2], m.shape, strict=True)]
        m = fn(slot.values[: m.shape[0], : m.shape[1]], _between(sides, m, back=False))
        return _between(sides, m, back=True)

    return by_block(slots, blocks, vector, one, fn)


def _between(sides: list[Array | None], m: Array, *, back: bool) -> Array:
    """U'M V, or back U M V'."""
    for side in sides:
        m = (m if side is None else times(side if back else side.T, m)).T
    return m


def apply(slots: Slots, blocks: tuple[Block, ...], vector: Params) -> Params:
    """The blocks times a vector like params."""
    return mapped(slots, blocks, vector, operator.mul)


def solve(slots: Slots, blocks: tuple[Block, ...], vector: Params, damping: Array) -> Params:
    """(1), of a vector like params; `damping` is lambda, ()."""
    return mapped(slots, blocks, vector, lambda s, w: w / (s + damping.astype(s.dtype)))


def eigenvalues(slots: Slots, blocks: tuple[Block, ...]) -> list[Array]:
    """Those of each block, in no order; one array for each that is not joined to another."""
    found = []
    for slot, block in zip(slots, blocks, strict=True):
        if block.has_factors:
            a, b = block.lengths
            found.append(slot.values[..., :a, :b])
        elif block.kind == "diagonal":
            found.append(slot)
    return found


def trace(slots: Slots, blocks: tuple[Block, ...], dtype: Any) -> Array:
    """The trace of all blocks, ()."""
    parts = [jnp.sum(values).astype(dtype) for values in eigenvalues(slots, blocks)]
    return sum(parts, jnp.zeros((), dtype))
