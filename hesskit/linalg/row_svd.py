r"""A linear least-squares problem taken apart by singular values.

    [A | b]  =  Q [R | Q'b],    R  =  U S V',    c = U' Q' b                (1)

so that |A t + b|^2 = |S V't + c|^2 and a constant. Its condition is that of A, where the normal
equations have its square. For m <= n the rows are R themselves.

Source: Golub & Van Loan (2013), sections 5.5 and 6.2.
"""

import jax
import jax.numpy as jnp

from hesskit.core.types import Array
from hesskit.linalg import small
from hesskit.linalg.on_lanes import on_lanes

WIDE = 100
"""Rows from which a wide A is taken apart by samples: four times faster than its SVD."""


def reduce_rows(matrix: Array, residual: Array) -> tuple[Array, Array, Array]:
    """R and Q'b of (1), with min(m, n) rows, and what is left of b; for m <= n the rows themselves.

    Args:
      matrix: A, (m, n).
      residual: b, (m,).

    Returns:
      R, (k, n), and Q'b, (k,), for k = min(m, n), and |b - Q Q'b|, (). Not finite where an entry of
      A or b is not.
    """
    m, n = matrix.shape
    if m <= n:
        return matrix, residual, jnp.zeros((), residual.dtype)
    return (_small_triangle if n <= small.LARGEST else _triangle)(matrix, residual)


def _triangle(matrix: Array, residual: Array) -> tuple[Array, Array, Array]:
    n = matrix.shape[1]
    joined = jnp.linalg.qr(jnp.concatenate([matrix, residual[:, None]], axis=1), mode="r")
    return joined[:n, :n], joined[:n, n], jnp.abs(joined[n, n])


_small_triangle = on_lanes(_triangle, small.reduce)


def factor(
    matrix: Array, residual: Array, num_rows: int | None = None
) -> tuple[Array, Array, Array]:
    """S, V' and c of (1).

    Args:
      matrix: A, (m, n), or its R.
      residual: b, (m,), or Q'b.
      num_rows: m, where A is an R.

    Returns:
      S descending, (k,), V', (k, n), and c, (k,), for k = min(m, n). Singular values at the
      rounding of the largest, and their entries of c, are zero.
    """
    m, n = matrix.shape
    if WIDE <= m < n and matrix.dtype == jnp.float64:
        return _by_samples(matrix, residual)
    triangle, b, _ = reduce_rows(matrix, residual)
    s, vt, c = (_small_svd if n <= small.LARGEST else _svd)(triangle, b)
    noise = max(num_rows or m, n) * jnp.finfo(s.dtype).eps * jnp.max(s, initial=0)
    return jnp.where(s > noise, s, 0), vt, jnp.where(s > noise, c, 0)


def _svd(triangle: Array, b: Array) -> tuple[Array, Array, Array]:
    u, s, vt = jnp.linalg.svd(triangle, full_matrices=False)
    return s, vt, u.T @ b


_small_svd = on_lanes(_svd, small.svd)
"""One after the other takes LAPACK longer than all at once (linalg/small.py)."""


def _by_samples(matrix: Array, residual: Array) -> tuple[Array, Array, Array]:
    """(1) from A A' = U S^2 U', whose rounding leaves half the digits: enough for float64."""
    m = matrix.shape[0]
    w, u = jnp.linalg.eigh(matrix @ matrix.T)
    w, u = w[::-1], u[:, ::-1]
    known = w > m * jnp.finfo(w.dtype).eps * jnp.max(w, initial=0)
    s = jnp.sqrt(jnp.where(known, w, 0))
    # XLA multiplies by a transpose that is not written out at half the speed.
    vt = (jax.lax.optimization_barrier(u.T) @ matrix) / jnp.where(known, s, 1)[:, None]
    return s, jnp.where(known[:, None], vt, 0), jnp.where(known, u.T @ residual, 0)
