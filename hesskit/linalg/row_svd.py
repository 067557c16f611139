r"""A linear least-squares problem taken apart by singular values.

    [A | b]  =  Q [R | Q'b],    R  =  U S V',    c = U' Q' b                (1)

so that |A t + b|^2 = |S V't + c|^2 and a constant. Its condition is that of A, where the normal
equations have its square. For m <= n the rows are R themselves.

Source: Golub & Van Loan (2013), sections 5.5 and 6.2.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array
from hesskit.linalg import small
from hesskit.linalg.on_lanes import on_each, on_lanes

WIDE = 100
"""Rows from which a wide A is taken apart by samples: four times faster than its SVD."""


def reduce_rows(matrix: Array, residual: Array) -> tuple[Array, Array, Array]:
    """R and Q'b of (1), with min(m, n) rows, and |b|; for m <= n the rows themselves.

    Args:
      matrix: A, (m, n).
      residual: b, (m,).

    Returns:
      R, (k, n), and Q'b, (k,), for k = min(m, n), and |b|, (). Not finite where an entry of A or b
      is not.
    """
    m, n = matrix.shape
    if m <= n:
        return matrix, residual, tree.norm(residual)
    return (_small_triangle if n <= small.LARGEST else _triangle)(matrix, residual)


def _triangle(matrix: Array, residual: Array) -> tuple[Array, Array, Array]:
    n = matrix.shape[1]
    joined = jnp.linalg.qr(jnp.concatenate([matrix, residual[:, None]], axis=1), mode="r")
    return joined[:n, :n], joined[:n, n], tree.norm(joined[: n + 1, n])


class _Trip(NamedTuple):
    """The units of A and b, (2,), what was found in the last ones, and whether to go on."""

    unit: Array
    found: tuple[Array, Array, Array]
    going: Array


def _reduced(matrix: Array, residual: Array) -> tuple[Array, Array, Array]:
    """`small.reduce`, and once more in other units where squares are out of range, which is seldom.

    A loop, since one copy of a program rounds in one way: units change no digit.

    Args:
      matrix: as in `reduce_rows`, m > n.
      residual: as in `reduce_rows`.

    Returns:
      What `reduce_rows` returns.
    """
    columns = jnp.unstack(matrix, axis=1)
    info, one = jnp.finfo(matrix.dtype), jnp.ones((2,), matrix.dtype)
    least = 2.0 ** (info.minexp // 2 + info.nmant)  # squares of what is eps of it are numbers

    def largest(*given: Array) -> Array:
        peaks = [jnp.max(jnp.abs(a)) for a in given]
        return jnp.stack([functools.reduce(jnp.maximum, peaks[:-1]), peaks[-1]])

    def trip(now: _Trip) -> _Trip:
        unit = now.unit
        triangle, c, size = small.reduce([a / unit[0] for a in columns], residual / unit[1])
        lengths = jnp.stack([jnp.max(jnp.abs(triangle)), size])
        fits = jnp.all((lengths > least) & jnp.isfinite(lengths)) | jnp.any(unit != 1)
        peaks = tree.while_once(~fits, largest, one, *columns, residual)
        other = tree.power_of_two(peaks)
        found = unit[0] * triangle, unit[1] * c, unit[1] * size
        return _Trip(other, found, jnp.any(other != 1))

    nothing = jnp.zeros_like(matrix[: matrix.shape[1]]), jnp.zeros_like(matrix[0])
    first = _Trip(one, (*nothing, jnp.zeros_like(residual[0])), jnp.array(True))
    return jax.lax.while_loop(lambda now: now.going, trip, first).found


_small_triangle = on_each(_triangle, _reduced)


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
