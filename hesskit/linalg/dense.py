r"""The dense matrix of a linear map on pytrees, by chunks of products.

    H[:, i] = H e_i                                                         (1)

Batches of `chunk_size` products are mapped over one linearization, so memory beyond the n x n
result is `chunk_size` times that of one product, not n times.

Source: Griewank & Walther (2008), chapter 3.
"""

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Params, Product

CHUNK_SIZE = 64
"""Columns found at once; measured in benchmarks/dense_hessian.py."""


def dense(product: Product, params: Params, *, chunk_size: int | None = None) -> Array:
    """The symmetric (n, n) matrix of `product`, rows in the order of `tree.ravel`.

    Args:
      product: `v -> H v` on pytrees like params.
      params: gives structure, shapes and dtypes.
      chunk_size: products mapped at once; None means 64.

    Returns:
      (H + H^T)/2, an (n, n) array of `tree.result_dtype(params)`.
    """
    n = tree.size(params)
    dtype = tree.result_dtype(params)
    width = min(n, chunk_size or CHUNK_SIZE)
    num_chunks = -(-n // max(width, 1))
    index = jnp.arange(n, dtype=jnp.int32)

    def rows(start: Array) -> Array:
        basis = start + index[:width, None] == index[None, :]
        return jax.vmap(lambda e: tree.ravel(product(tree.unravel(e, params))))(basis.astype(dtype))

    if num_chunks <= 1:
        matrix = rows(jnp.zeros((), jnp.int32))
    else:
        starts = jnp.minimum(jnp.arange(num_chunks, dtype=jnp.int32) * width, n - width)

        def write(i: Array, matrix: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(matrix, rows(starts[i]), starts[i], axis=0)

        matrix = jax.lax.fori_loop(0, num_chunks, write, jnp.zeros((n, n), dtype))
    return (matrix + matrix.T) / 2
