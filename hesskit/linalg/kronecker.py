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


def normal(slots: Slots, blocks: tuple[Block, ...]) -> Slots:
    """The factors R and C of each block R (x) C, of means in which some are sums."""
    made = list(slots)
    for i, (slot, block) in enumerate(zip(slots, blocks, strict=True)):
        if block.has_factors and block.is_sum:
            total = side_trace(slot[1])
            made[i] = (slot[0], slot[1] / jnp.where(total > 0, total, 1), slot[2])
    return tuple(made)


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
    traces = [side_trace(side) for side in slot[:2]]
    means = [t / n for t, n in zip(traces, block.lengths, strict=True)]
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


def one_by_one(fn: Callable[[Array], Any], matrices: Array, after: Array) -> Any:
    """`fn` of each matrix, (k, n, n), not begun before `after`, (), is known.

    jaxlib 0.10.2 runs a batch of LAPACK calls on the workers of a pool and waits in one of them:
    two batches at once on two cores wait for each other for ever. So a CPU takes one matrix after
    another, and one length after another.

    Args:
      fn: (..., n, n) -> a pytree.
      matrices: (k, n, n).
      after: a number of what was found before.

    Returns:
      Their values, with a leading axis k.
    """
    matrices = matrices + 0 * after.astype(matrices.dtype)
    return jax.lax.platform_dependent(
        matrices, cpu=lambda stack: jax.lax.map(fn, stack), default=fn
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
    for n, members in groups(blocks).items():
        one = jnp.eye(n, dtype=slots[members[0][0]][0].dtype)
        stack = jnp.stack([slots[i][side][:n, :n] + shares[i][side] * one for i, side in members])
        found = one_by_one(_inverse, stack, last)
        last = found[-1, 0, 0]
        for (i, side), inverse in zip(members, found, strict=True):
            made[i][side] = jnp.pad(inverse, (0, len(slots[i][side]) - n))
    return tuple(tuple(slot) if isinstance(slot, list) else slot for slot in made)


def times(side: Array, x: Array) -> Array:
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


def by_block(
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


def apply(inverses: Slots, blocks: tuple[Block, ...], vector: Params) -> Params:
    """(1).

    Args:
      inverses: what `inverses` made.
      blocks: what they are of.
      vector: like params.

    Returns:
      A pytree like `vector`.
    """

    def both(slot: Any, block: Block, m: Array) -> Array:
        del block
        rows, columns = (s[(slice(n),) * s.ndim] for s, n in zip(slot[:2], m.shape, strict=True))
        return times(columns, times(rows, m).T).T

    return by_block(inverses, blocks, vector, both, operator.mul)
