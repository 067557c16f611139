r"""The dense matrix of a linear map on pytrees, by chunks of products.

    H[:, i] = H e_i                                                         (1)

A block of `chunk_size` products is mapped over one linearization, block after block, so memory
beyond the n x n result is that of one block. A wide block pays where one product is small or the
device is parallel; on a CPU the intermediates of a block should stay in its cache.

Source: Griewank & Walther (2008), chapter 3.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Params, Product

CHUNK_SIZE = 64
"""Columns found at once, at most."""
CACHE = 2**18
"""Bytes that the intermediates of a block may take on a CPU (benchmarks/dense_hessian.py)."""


def _bytes(node: Any) -> int:
    """What all equations of a jaxpr write, those inside its calls included."""
    if isinstance(node, (tuple, list)):
        return sum(_bytes(item) for item in node)
    equations = getattr(getattr(node, "jaxpr", node), "eqns", ())
    own = [v.aval for equation in equations for v in equation.outvars if hasattr(v.aval, "size")]
    inside = sum(_bytes(list(equation.params.values())) for equation in equations)
    return inside + sum(aval.size * aval.dtype.itemsize for aval in own)


def _block_size(product: Product, params: Params) -> int:
    """How many columns to find at once: all of a few, else what fits in the cache of a CPU."""
    n = tree.size(params)
    if n <= CHUNK_SIZE or jax.default_backend() != "cpu":
        return min(n, CHUNK_SIZE)
    written = _bytes(jax.make_jaxpr(product)(params))
    return max(1, min(CHUNK_SIZE, CACHE // max(written, 1)))


def stacked(
    linear: Callable[[Params], Params], like: Params, image: Params, chunk_size: int | None = None
) -> Array:
    """The images of the unit vectors of the space of `like`, one a row, raveled.

    Args:
      linear: a linear map on pytrees like `like`.
      like: gives structure, shapes and dtypes.
      image: likewise of what comes out, k entries.
      chunk_size: images found at once; None means at most 64, on a CPU as many as fit in its cache.

    Returns:
      An (n, k) array, n the size of `like`: the transposed matrix.
    """
    n = tree.size(like)
    dtype = tree.result_dtype(like)
    width = min(n, chunk_size or _block_size(linear, like))
    num_chunks = -(-n // max(width, 1))
    index = jnp.arange(n, dtype=jnp.int32)

    def column(e: Array) -> Array:
        return tree.ravel(linear(tree.unravel(e.astype(dtype), like)))

    def rows(start: Array) -> Array:
        if width == 1:
            return column(start == index)[None, :]
        return jax.vmap(column)(start + index[:width, None] == index[None, :])

    if num_chunks <= 1:
        return rows(jnp.zeros((), jnp.int32))
    starts = jnp.minimum(jnp.arange(num_chunks, dtype=jnp.int32) * width, n - width)

    def write(i: Array, matrix: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(matrix, rows(starts[i]), starts[i], axis=0)

    empty = jnp.zeros((n, tree.size(image)), tree.result_dtype(image))
    return jax.lax.fori_loop(0, num_chunks, write, empty)


def dense(product: Product, params: Params, *, chunk_size: int | None = None) -> Array:
    """The symmetric (n, n) matrix of `product`, rows in the order of `tree.ravel`.

    Args:
      product: `v -> H v` on pytrees like params.
      params: gives structure, shapes and dtypes.
      chunk_size: products mapped at once; None means at most 64, on a CPU as many as fit in
        its cache.

    Returns:
      (H + H^T)/2, an (n, n) array of `tree.result_dtype(params)`.
    """
    matrix = stacked(product, params, params, chunk_size)
    return (matrix + matrix.T) / 2
