r"""Singular values and eigenvalues of small matrices, without a library call for each.

LAPACK takes microseconds to begin, whatever the size, and works off a batch one matrix at a time.
For a batch of n <= 4 the same is written out in array operations, which take a whole batch at once:
three to five times faster. A matrix alone goes to LAPACK, which starts fewer kernels.

The triangle R of [A | b] = Q [R | c] comes from modified Gram-Schmidt, whose R and c are as good as
Householder's (Bjorck 1967) though its Q is not. The singular values come from one-sided Jacobi on
the columns w_i of R': plane rotations of pairs until all are orthogonal,

    |w_i.w_j|  <=  n eps |w_i| |w_j|,     R'  =  V S U',    w_i = s_i v_i   (1)

which finds small singular values to more digits than bidiagonalization does. The pairs of a sweep
come in n - 1 rounds of n / 2 disjoint ones, those of a round-robin tournament. A symmetric H is
shifted by mu = 2 |H|_F, so that H + mu is positive definite of condition 3 at most, and has its
singular vectors for eigenvectors.

Source: Golub & Van Loan (2013), sections 5.2.8 and 8.6.3 (one-sided Jacobi), 8.5.5 (the rounds);
Bjorck (1967), "Solving linear least squares problems by Gram-Schmidt orthogonalization"; Drmac &
Veselic (2008), "New fast and accurate Jacobi SVD algorithm I" (on R', not R).
"""

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array
from hesskit.linalg.on_lanes import on_lanes

LARGEST = 4
"""Of n. In batches of 256 on a core, float64: 3 to 4 times faster than LAPACK for n = 2 and 4,
alike for 6, slower for 8."""
MAX_SWEEPS = 15
"""5 or 6 are usual; each more than squares the cosines left."""


PAIRS = {
    1: (),
    2: ((0, 1),),
    3: ((0, 1), (0, 2), (1, 2)),
    4: ((0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2)),
}
"""The rotations of a sweep, by the number of rows."""


def _dot(x: Array, y: Array, count: int) -> Array:
    """The inner product of the first entries, (1, ...)."""
    return total(x[:count] * y[:count])


def total(x: Array) -> Array:
    """The sum over the first axis, which stays; written out where it is short.

    Args:
      x: (n, ...).

    Returns:
      (1, ...).
    """
    if x.shape[0] > LARGEST:
        return jnp.sum(x, 0, keepdims=True)
    return functools.reduce(operator.add, (x[k : k + 1] for k in range(x.shape[0])))


def reduce(given: Sequence[Array], residual: Array) -> tuple[Array, Array, Array]:
    """R and c with [A | residual] = Q [R | c], and Q'Q = 1; and |residual|.

    Args:
      given: the n columns of A, (m,), m >= n; their squares are numbers.
      residual: b, (m,), likewise.

    Returns:
      R, (n, n), upper triangular with a diagonal that is not negative, c, (n,), and |b|, ().
    """
    n = len(given)
    columns = [*given, residual]
    rows = []
    for k in range(n):
        last = jnp.sum(columns[n] * columns[n])
        along = jnp.stack([jnp.sum(columns[k] * column) for column in columns[k:]])
        size = jnp.sqrt(along[0])
        inverse = 1 / jnp.where(size > 0, size, 1)
        row = along * inverse
        columns[k + 1 :] = [
            column - (part * inverse) * columns[k]
            for column, part in zip(columns[k + 1 :], row[1:], strict=True)
        ]
        rows.append(jnp.concatenate([jnp.zeros((k,), row.dtype), row]))
    joined = jnp.stack(rows)
    c = joined[:, n]
    return joined[:, :n], c, jnp.sqrt(jnp.sum(c[:-1] ** 2) + last)


def _rotated(a: Array, b: Array, n: int) -> tuple[Array, Array, Array]:
    """Two rows made orthogonal in their first n entries, and the tangent: 0 where they were."""
    alpha, beta, gamma = _dot(a, a, n), _dot(b, b, n), _dot(a, b, n)
    orthogonal = jnp.abs(gamma) <= n * jnp.finfo(a.dtype).eps * jnp.sqrt(alpha) * jnp.sqrt(beta)
    unit = tree.power_of_two(alpha + beta)  # these are squares: their squares need one
    d, gamma = (beta - alpha) / unit, gamma / unit
    length = jnp.abs(d) + jnp.sqrt(d * d + 4 * gamma * gamma)  # one quotient: a kernel, not three
    tangent = jnp.where(d < 0, -2, 2) * gamma / jnp.where(length > 0, length, 1)
    tangent = jnp.where(orthogonal, 0, tangent)
    c = jnp.sqrt(1 / (1 + tangent * tangent))  # XLA's own 1 / sqrt takes three times as long
    s = c * tangent
    return c * a - s * b, s * a + c * b, tangent


def _sweep(rows: list[Array], n: int) -> tuple[list[Array], Array]:
    """All pairs of rows once, and in which lanes one was not orthogonal."""
    rows, moved = list(rows), jnp.zeros_like(rows[0][:1], bool)
    for i, j in PAIRS[len(rows)]:
        rows[i], rows[j], tangent = _rotated(rows[i], rows[j], n)
        moved |= (tangent != 0) & jnp.isfinite(tangent)
    return rows, moved


def _descending(rows: list[Array], n: int) -> tuple[list[Array], list[Array]]:
    """The rows by the norms of their first n entries, and these norms, by exchange of neighbors."""
    rows = list(rows)
    sizes = [jnp.sqrt(_dot(row, row, n)) for row in rows]
    for last in range(len(rows) - 1, 0, -1):
        for i in range(last):
            swap = sizes[i] < sizes[i + 1]
            for items in (rows, sizes):
                low, high = items[i], items[i + 1]
                items[i], items[i + 1] = jnp.where(swap, high, low), jnp.where(swap, low, high)
    return rows, sizes


def svd(matrix: Array, residual: Array) -> tuple[Array, Array, Array]:
    """S, V' and U'b of matrix = U S V'.

    Args:
      matrix: R, (k, n, ...), k <= n; further axes are lanes.
      residual: b, (k, ...).

    Returns:
      S descending, (k, ...), V', (k, n, ...), whose rows are zero where S is, and U'b, (k, ...).
      NaN where an entry is not finite.
    """
    k, n = matrix.shape[:2]
    peak = jnp.max(jnp.abs(matrix), (0, 1), initial=0)[None]
    unit = tree.power_of_two(peak)
    first = [jnp.concatenate([matrix[i] / unit, residual[i : i + 1]]) for i in range(k)]

    def body(now: tuple[list[Array], Array, Array]) -> tuple[list[Array], Array, Array]:
        rows, moved = _sweep(now[0], n)
        return rows, moved, now[2] + 1

    rows, _, _ = jax.lax.while_loop(
        lambda now: jnp.any(now[1]) & (now[2] < MAX_SWEEPS),
        body,
        (first, jnp.ones_like(peak, bool), jnp.zeros((), jnp.int32)),
    )
    rows, sizes = _descending(rows, n)
    vt = [row[:n] / jnp.where(size == 0, 1, size) for row, size in zip(rows, sizes, strict=True)]
    return (
        jnp.concatenate(sizes) * unit,
        jnp.stack(vt),
        jnp.concatenate([row[n:] for row in rows]),
    )


def _eigh(matrix: Array) -> tuple[Array, Array]:
    """Of (n, n, ...), as `svd`."""
    n = matrix.shape[0]
    peak = jnp.max(jnp.abs(matrix), (0, 1), initial=0)[None]
    unit = tree.power_of_two(peak)
    scaled = matrix / unit[None]
    shift = 2 * jnp.sqrt(jnp.sum(scaled * scaled, (0, 1)))[None]
    shift = jnp.where(shift == 0, 1, shift)
    one = jnp.eye(n, dtype=matrix.dtype).reshape(n, n, *(1,) * (matrix.ndim - 2))
    s, vt, _ = svd(scaled + shift[None] * one, jnp.zeros_like(scaled[0]))
    return (s[::-1] - shift) * unit, jnp.swapaxes(vt[::-1], 0, 1)


def _eigh_alone(matrix: Array) -> tuple[Array, Array]:
    w, q = jnp.linalg.eigh(matrix, symmetrize_input=False)
    return w, q


_small_eigh = on_lanes(_eigh_alone, _eigh)


def eigh(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues, ascending, and eigenvectors in columns, as `jnp.linalg.eigh` gives them.

    Under `vmap` by (1) where n is small, else by LAPACK.

    Args:
      matrix: H, (n, n), symmetric.

    Returns:
      w, (n,), and Q, (n, n).
    """
    if matrix.shape[0] <= LARGEST:
        return _small_eigh(matrix)
    return _eigh_alone(matrix)
