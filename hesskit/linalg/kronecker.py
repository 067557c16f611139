r"""Kronecker factors as a preconditioner: means, damped inverses, products.

For a block R (x) C of a rows and b columns and the damping lambda,

    (R + pi sqrt(lambda))^{-1}  V  (C + sqrt(lambda) / pi)^{-1}             (1)

with pi^2 = (tr(R) / a) / (tr(C) / b), approximates (R (x) C + lambda)^{-1} V; a diagonal block d
gives V / (d + lambda). Factors of one length are inverted together: in one batched call, or one
after another on a CPU.

Source: Martens & Grosse (2015), "Optimizing neural networks with Kronecker-factored approximate
curvature", section 6.3.
"""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.blocks import Block, Shape, groups, shape_of
from hesskit.core.types import Array, Params

Slots = tuple[Any, ...]
"""By leaf: an array like it, or R and C, each a matrix or its diagonal, and a multiple of 1."""


def shapes(params: Params, max_dim: int) -> tuple[Shape, ...]:
    """The matrix of each leaf."""
    return tuple(shape_of(leaf.shape, max_dim) for leaf in jax.tree.leaves(params))


def empty(params: Params, max_dim: int) -> Slots:
    """Zeros for the factors of params."""
    found = []
    for leaf, shape in zip(jax.tree.leaves(params), shapes(params, max_dim), strict=True):
        dtype = tree.widest(leaf.dtype)
        if shape.split is None:
            found.append(jnp.zeros(shape.leaf, dtype))
            continue
        pair = zip(shape.sides, shape.dense, strict=True)
        sides = [jnp.zeros((k, k) if full else (k,), dtype) for k, full in pair]
        found.append((*sides, jnp.zeros((), dtype)))
    return tuple(found)


def mixed(old: Slots, new: Slots, weight: Array) -> Slots:
    """(1 - weight) old + weight new."""
    return jax.tree.map(lambda a, b: a + weight.astype(a.dtype) * (b - a), old, new)


def side_trace(side: Array) -> Array:
    """The trace of a factor that is a matrix, or its diagonal."""
    return jnp.trace(side) if side.ndim == 2 else jnp.sum(side)


def trace(slots: Slots, blocks: tuple[Block, ...]) -> Array:
    """The trace of all blocks, ()."""
    parts = []
    for slot, block in zip(slots, blocks, strict=True):
        if block.has_factors:
            shift = slot[2] * (block.shape.rows * block.shape.columns)
            parts.append(side_trace(slot[0]) * side_trace(slot[1]) + shift)
        elif block.kind == "diagonal":
            parts.append(jnp.sum(slot))
    dtype = tree.widest(*(part.dtype for part in parts))
    return sum((part.astype(dtype) for part in parts), jnp.zeros((), dtype))


def _shares(slot: Any, block: Block, damping: Array) -> tuple[Array, Array]:
    """What is added to R and to C, by (1)."""
    lengths = [block.shape.rows, block.shape.columns]
    if block.bias is not None:
        lengths[int(block.swapped[0])] += 1
    traces = [side_trace(side) for side in slot[:2]]
    means = [t / n for t, n in zip(traces, lengths, strict=True)]
    some = (means[0] > 0) & (means[1] > 0)
    pi = jnp.sqrt(jnp.where(some, means[0] / jnp.where(some, means[1], 1), 1))
    root = jnp.sqrt(damping.astype(pi.dtype) + slot[2])
    eps = jnp.finfo(pi.dtype).eps
    shares = [jnp.maximum(s, eps * t) for s, t in zip((pi * root, root / pi), traces, strict=True)]
    shares = [jnp.where(s > 0, s, 1) for s in shares]
    return shares[0], shares[1]


def _inverse(matrix: Array) -> Array:
    """The inverse of a positive definite matrix, (..., n, n)."""
    lower = jax.lax.linalg.cholesky(matrix)
    one = jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)
    half = jax.lax.linalg.triangular_solve(lower, one, left_side=True, lower=True)
    return jnp.matmul(jnp.swapaxes(half, -1, -2), half, precision=jax.lax.Precision.HIGHEST)


def _inverses(matrices: Array, after: Array) -> Array:
    """Inverses of positive definite matrices, (k, n, n), not begun before `after`, (), is known.

    jaxlib 0.10.2 runs a batch of LAPACK calls on the workers of a pool and waits in one of them:
    two batches at once on two cores wait for each other for ever. So a CPU takes one matrix after
    another, and one length after another.

    Args:
      matrices: (k, n, n).
      after: a number of the inverses before.

    Returns:
      The inverses, (k, n, n).
    """
    matrices = matrices + 0 * after.astype(matrices.dtype)
    return jax.lax.platform_dependent(
        matrices, cpu=lambda stack: jax.lax.map(_inverse, stack), default=_inverse
    )


def inverses(slots: Slots, blocks: tuple[Block, ...], damping: Array) -> Slots:
    """The inverses of (1), in slots of the same shapes.

    Args:
      slots: the factors.
      blocks: what they are of.
      damping: lambda, ().

    Returns:
      Slots.
    """
    made: list[Any] = list(slots)
    shares = {}
    for i, (slot, block) in enumerate(zip(slots, blocks, strict=True)):
        if block.has_factors:
            shares[i] = _shares(slot, block, damping)
            made[i] = [
                side if side.ndim == 2 else 1 / (side + share)
                for side, share in zip(slot[:2], shares[i], strict=True)
            ]
            made[i].append(slot[2])
        elif block.kind == "diagonal":
            damped = slot + damping.astype(slot.dtype)
            made[i] = 1 / jnp.where(damped > 0, damped, 1)
    last = jnp.zeros(())
    for k, members in groups(blocks).items():
        one = jnp.eye(k, dtype=slots[members[0][0]][0].dtype)
        stack = jnp.stack([slots[i][side] + shares[i][side] * one for i, side in members])
        found = _inverses(stack, last)
        last = found[-1, 0, 0]
        for (i, side), inverse in zip(members, found, strict=True):
            made[i][side] = inverse
    return tuple(tuple(slot) if isinstance(slot, list) else slot for slot in made)


def _times(side: Array, x: Array) -> Array:
    """`side` times the rows of x."""
    if side.ndim == 1:
        return side[:, None] * x
    return jnp.matmul(side, x, precision=jax.lax.Precision.HIGHEST)


def _with_bias(block: Block, leaf: Array, bias: Array | None, dtype: Any) -> Array:
    """The matrix of a leaf, with its bias as a row more on the side of the inputs."""
    m = leaf.astype(dtype).reshape(block.shape.rows, block.shape.columns)
    if bias is None:
        return m
    b = bias.astype(dtype).reshape(-1)
    last = b[:, None] if block.swapped[0] else b[None, :]
    return jnp.concatenate([m, last], axis=int(block.swapped[0]))


def _put(made: list[Any], i: int, block: Block, m: Array) -> None:
    """Writes the matrix of a leaf, and the row of its bias, to their places."""
    if block.bias is not None:
        last = m[:, -1] if block.swapped[0] else m[-1, :]
        bias = made[block.bias]
        made[block.bias] = last.reshape(bias.shape).astype(bias.dtype)
    inner = m[: block.shape.rows, : block.shape.columns]
    made[i] = inner.reshape(made[i].shape).astype(made[i].dtype)


def _by_block(
    slots: Slots,
    blocks: tuple[Block, ...],
    vector: Params,
    matrix: Callable[[Any, Block, Array], Array],
    diagonal: Callable[[Array, Array], Array],
) -> Params:
    """`matrix(slot, block, V)` of leaves with factors, `diagonal(slot, v)` of the others."""
    leaves, structure = jax.tree.flatten(vector)
    made: list[Any] = list(leaves)
    for i, (slot, block, leaf) in enumerate(zip(slots, blocks, leaves, strict=True)):
        if block.kind == "diagonal":
            made[i] = diagonal(slot, leaf.astype(slot.dtype)).astype(leaf.dtype)
        elif block.has_factors:
            bias = None if block.bias is None else leaves[block.bias]
            m = _with_bias(block, leaf, bias, slot[0].dtype)
            _put(made, i, block, matrix(slot, block, m))
    return jax.tree.unflatten(structure, made)


def apply(
    slots: Slots, blocks: tuple[Block, ...], vector: Params, *, shifted: bool = False
) -> Params:
    """(1), or R V C of the factors themselves.

    Args:
      slots: inverses, or factors.
      blocks: what they are of.
      vector: like params.
      shifted: whether the multiple of 1 is added: of factors, not of inverses.

    Returns:
      A pytree like `vector`.
    """

    def times(slot: Any, block: Block, m: Array) -> Array:
        del block
        rows, columns = (s[(slice(n),) * s.ndim] for s, n in zip(slot[:2], m.shape, strict=True))
        found = _times(columns, _times(rows, m).T).T
        return found + slot[2] * m if shifted else found

    return _by_block(slots, blocks, vector, times, operator.mul)


def _spectrum(side: Array, k: int) -> tuple[Array, Array | None]:
    """Eigenvalues of the first k rows of a factor, and eigenvectors where it is a matrix."""
    if side.ndim == 1:
        return side[:k], None
    values, vectors = jnp.linalg.eigh(side[:k, :k])
    return jnp.maximum(values, 0), vectors


def _spectra(slot: Any, block: Block) -> list[tuple[Array, Array | None]]:
    lengths = [block.shape.rows, block.shape.columns]
    if block.bias is not None:
        lengths[int(block.swapped[0])] += 1
    return [_spectrum(side, k) for side, k in zip(slot[:2], lengths, strict=True)]


def eigenvalues(slots: Slots, blocks: tuple[Block, ...]) -> list[Array]:
    """Those of each block, in no order.

    Args:
      slots: the factors.
      blocks: what they are of.

    Returns:
      One array for each block that is not joined to another.
    """
    found = []
    for slot, block in zip(slots, blocks, strict=True):
        if block.has_factors:
            (a, _), (b, _) = _spectra(slot, block)
            found.append(a[:, None] * b[None, :] + slot[2])
        elif block.kind == "diagonal":
            found.append(slot)
    return found


def solve(slots: Slots, blocks: tuple[Block, ...], vector: Params, damping: Array) -> Params:
    """(R (x) C + damping)^{-1} V exactly, by eigenvectors.

    Args:
      slots: the factors.
      blocks: what they are of.
      vector: like params.
      damping: lambda, ().

    Returns:
      A pytree like `vector`.
    """

    def divided(slot: Any, block: Block, m: Array) -> Array:
        (a, u), (b, v) = _spectra(slot, block)
        values = a[:, None] * b[None, :] + slot[2] + damping.astype(a.dtype)
        return _turned(u, v, _turned(u, v, m, back=False) / values, back=True)

    return _by_block(
        slots, blocks, vector, divided, lambda slot, x: x / (slot + damping.astype(slot.dtype))
    )


def _turned(u: Array | None, v: Array | None, m: Array, *, back: bool) -> Array:
    """U'M V, or back U M V'."""
    if u is not None:
        m = _times(u if back else u.T, m)
    return m if v is None else _times(v if back else v.T, m.T).T
