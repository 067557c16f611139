r"""Kronecker factors as a preconditioner: means, damped inverses, products.

For a block R (x) C of a rows and b columns and the damping lambda,

    (R + pi sqrt(lambda))^{-1}  V  (C + sqrt(lambda) / pi)^{-1}             (1)

with pi^2 = (tr(R) / a) / (tr(C) / b), approximates (R (x) C + lambda)^{-1} V; a diagonal block d
gives V / (d + lambda). Factors of one length are inverted together: in one batched call, or one
after another on a CPU.

Source: Martens & Grosse (2015), "Optimizing neural networks with Kronecker-factored approximate
curvature", section 6.3.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import layout, tree
from hesskit.core.blocks import Block, Shape, groups, shape_of
from hesskit.core.types import Array, Params
from hesskit.linalg.slots import Slots, apart, by_layer, front, together


def shapes(params: Params, max_dim: int) -> tuple[Shape, ...]:
    """The matrix of each leaf."""
    return tuple(shape_of(leaf.shape, max_dim) for leaf in jax.tree.leaves(params))


def weight_of_next(num: Array, decay: Any) -> Array:
    """Of the next sample in running means of `num`, (): 1, 1/2, 1/3, ... to 1 - decay."""
    return jnp.maximum(1 / (num + 1).astype(jnp.float32), jnp.asarray(1 - decay, jnp.float32))


def mixed(old: Slots, new: Slots, weight: Array) -> Slots:
    """(1 - weight) old + weight new."""
    return jax.tree.map(lambda a, b: a + weight.astype(a.dtype) * (b - a), old, new)


def side_trace(side: Array) -> Array:
    """The trace of a factor that is a matrix, or its diagonal."""
    return jnp.trace(side) if side.ndim == 2 else jnp.sum(side)


def is_finite(slots: Slots, blocks: tuple[Block, ...]) -> Array:
    """Whether semidefinite factors are finite, (): their diagonals have the largest entries."""
    sizes = []
    for slot, block in zip(slots, blocks, strict=True):
        if block.has_factors:
            sizes += by_layer(block, lambda _, one: [side_trace(side) for side in one[:2]], slot)
            sizes.append(slot[2])
        else:
            sizes.append(slot)
    return tree.all_finite(sizes)


def normal(slots: Slots, blocks: tuple[Block, ...]) -> Slots:
    """The factors R and C of each block R (x) C, of means in which some are sums."""
    made = list(slots)
    for i, (slot, block) in enumerate(zip(slots, blocks, strict=True)):
        if block.has_factors and block.is_sum:
            made[i] = by_layer(block, _normal, slot)
    return tuple(made)


def _normal(block: Block, slot: Any) -> Any:
    del block
    total = side_trace(slot[1])
    return slot[0], slot[1] / jnp.where(total > 0, total, 1), slot[2]


def trace(slots: Slots, blocks: tuple[Block, ...]) -> Array:
    """The trace of all blocks, ()."""
    parts = []
    for slot, block in zip(slots, blocks, strict=True):
        if block.has_factors:
            parts.append(jnp.sum(by_layer(block, _trace, slot)))
        elif block.kind == "diagonal":
            parts.append(jnp.sum(slot))
    dtype = tree.widest(*(part.dtype for part in parts))
    return sum((part.astype(dtype) for part in parts), jnp.zeros((), dtype))


def _trace(block: Block, slot: Any) -> Array:
    shift = slot[2] * (block.shape.rows * block.shape.columns)
    return side_trace(slot[0]) * side_trace(slot[1]) + shift


def _shares(block: Block, slot: Any, *, damping: Array) -> tuple[Array, Array]:
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


def _damped(block: Block, matrix: Array, share: Array) -> Array:
    """A factor with its share of the damping."""
    del block
    return matrix + share * jnp.eye(len(matrix), dtype=matrix.dtype)


def _inverse_diagonal(block: Block, diagonal: Array, share: Array) -> Array:
    """The inverse of a factor that is a diagonal, with its share of the damping."""
    del block
    return 1 / (diagonal + share)


def _inverse(matrix: Array) -> Array:
    """The inverse of a positive definite matrix, (..., n, n)."""
    lower = jax.lax.linalg.cholesky(matrix)
    one = jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)
    half = jax.lax.linalg.triangular_solve(lower, one, left_side=True, lower=True)
    return jnp.matmul(jnp.swapaxes(half, -1, -2), half, precision=jax.lax.Precision.HIGHEST)


PLACES = ("replicated", "distributed")
"""Where matrices are factored: all of them on every device, or a part on each."""


def one_by_one(
    fn: Callable[[Array], Any], matrices: Array, after: Array, place: str = "replicated"
) -> Any:
    """`fn` of each matrix, (k, n, n), not begun before `after`, (), is known.

    jaxlib 0.10.2 runs a batch of LAPACK calls on the workers of a pool and waits in one of them:
    two batches at once on two cores wait for each other for ever. So a CPU takes one matrix after
    another, and one length after another.

    Args:
      fn: (..., n, n) -> a pytree.
      matrices: (k, n, n).
      after: a number of what was found before.
      place: "replicated", or "distributed" over the devices of the mesh, if there is one.

    Returns:
      Their values, with a leading axis k, on every device.
    """
    matrices = matrices + 0 * after.astype(matrices.dtype)
    mesh = jax.typeof(matrices).sharding.mesh
    mesh = jax.sharding.get_abstract_mesh() if mesh.empty else mesh
    if place == "distributed" and not mesh.empty and mesh.size > 1:
        return _distributed(fn, matrices, mesh)
    return jax.lax.platform_dependent(
        matrices, cpu=lambda stack: jax.lax.map(fn, stack), default=fn
    )


def _distributed(fn: Callable[[Array], Any], matrices: Array, mesh: Any) -> Any:
    """`fn` of each matrix, in equal parts on the devices; one gathering of all."""
    k, n, _ = matrices.shape
    part = -(-k // mesh.size)
    more = jnp.broadcast_to(jnp.eye(n, dtype=matrices.dtype), (part * mesh.size - k, n, n))
    axes = mesh.axis_names

    def mine(matrices: Array) -> Any:
        first = jax.lax.axis_index(axes) * part
        some = jax.lax.dynamic_slice_in_dim(matrices, first, part)
        found = one_by_one(fn, some, jnp.zeros(()))
        return jax.tree.map(lambda a: jax.lax.all_gather(a, axes, tiled=True), found)

    whole = jax.shard_map(mine, mesh=mesh, in_specs=jax.P(), out_specs=jax.P(), check_vma=False)
    return jax.tree.map(lambda a: a[:k], whole(jnp.concatenate([matrices, more])))


def inverses(
    slots: Slots, blocks: tuple[Block, ...], damping: Array, *, place: str = "replicated"
) -> Slots:
    """The inverses of (1), in slots of the same shapes.

    Args:
      slots: the factors.
      blocks: what they are of.
      damping: lambda, ().
      place: where they are found, of `PLACES`.

    Returns:
      Slots.
    """
    made: list[Any] = list(slots)
    shares = {}
    for i, (slot, block) in enumerate(zip(slots, blocks, strict=True)):
        if block.has_factors:
            shares[i] = by_layer(block, functools.partial(_shares, damping=damping), slot)
            pairs = zip(slot[:2], shares[i], block.shape.dense, strict=True)
            made[i] = [
                side if full else by_layer(block, _inverse_diagonal, side, share)
                for side, share, full in pairs
            ]
            made[i].append(slot[2])
        elif block.kind == "diagonal":
            damped = slot + damping.astype(slot.dtype)
            made[i] = 1 / jnp.where(damped > 0, damped, 1)
    last = jnp.zeros(())
    for n, members in groups(blocks).items():
        parts = [
            by_layer(blocks[i], _damped, slots[i][side][..., :n, :n], shares[i][side])
            for i, side in members
        ]
        found = one_by_one(_inverse, together(parts), last, place)
        last = found[-1, 0, 0]
        for (i, side), inverse in zip(members, apart(found, parts), strict=True):
            made[i][side] = padded(inverse, slots[i][side].shape)
    return tuple(tuple(slot) if isinstance(slot, list) else slot for slot in made)


def padded(x: Array, shape: tuple[int, ...]) -> Array:
    """`x` with zeros behind, up to a shape."""
    return jnp.pad(x, [(0, n - k) for n, k in zip(shape, x.shape, strict=True)])


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


def _parts(
    block: Block, slot: Any, leaf: Array, bias: Array | None, *, matrix: Callable[..., Array]
) -> tuple[Array, Array | None]:
    """`matrix(slot, block, V)` as the leaf and, where it has one, its bias."""
    m = matrix(slot, block, _with_bias(block, leaf, bias, slot[0].dtype))
    last = None
    if bias is not None:
        last = m[:, -1] if block.swapped[0] else m[-1, :]
        last = last.reshape(bias.shape).astype(bias.dtype)
    inner = m[: block.shape.rows, : block.shape.columns]
    return inner.reshape(leaf.shape).astype(leaf.dtype), last


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
    each = functools.partial(_parts, matrix=matrix)
    for i, (slot, block, leaf) in enumerate(zip(slots, blocks, leaves, strict=True)):
        if block.kind == "diagonal":
            x = leaf.astype(slot.dtype).reshape(slot.shape)
            made[i] = diagonal(slot, x).reshape(leaf.shape).astype(leaf.dtype)
        elif block.has_factors:
            j, own = block.bias, leaf.reshape(*front(block.shape), *block.shape.leaf)
            bias = None
            if j is not None:
                bias = leaves[j].reshape(*front(blocks[j].shape), *blocks[j].shape.leaf)
            inner, last = by_layer(block, each, slot, own, bias)
            made[i] = inner.reshape(leaf.shape)
            if j is not None:
                made[j] = last.reshape(leaves[j].shape)
    return jax.tree.map(layout.like, jax.tree.unflatten(structure, made), vector)


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
        product = times(rows, m)
        if columns.ndim == 1:
            return product * columns[None, :]
        return jnp.matmul(product, columns, precision=jax.lax.Precision.HIGHEST)

    return by_block(inverses, blocks, vector, both, operator.mul)
