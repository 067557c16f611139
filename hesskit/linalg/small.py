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

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array

LARGEST = 4
"""Of n. In batches of 256 on a core, float64: 3 to 4 times faster than LAPACK for n = 2 and 4,
alike for 6, slower for 8."""
MAX_SWEEPS = 15
"""5 or 6 are usual; each more than squares the cosines left."""


def reduce(matrix: Array, residual: Array) -> tuple[Array, Array]:
    """R and c with [matrix | residual] = Q [R | c], and Q'Q = 1.

    Args:
      matrix: A, (m, n), m >= n.
      residual: b, (m,).

    Returns:
      R, (n, n), upper triangular with a diagonal that is not negative, and c, (n,).
    """
    n = matrix.shape[1]
    unit = tree.power_of_two(jnp.max(jnp.abs(matrix), initial=0))  # squares are to be numbers
    last = tree.power_of_two(jnp.max(jnp.abs(residual), initial=0))
    columns = [*(matrix / unit).T, residual / last]
    rows = []
    for k in range(n):
        size = jnp.sqrt(jnp.sum(columns[k] * columns[k]))
        q = columns[k] / jnp.where(size > 0, size, 1)
        along = [jnp.sum(q * column) for column in columns[k + 1 :]]
        columns[k + 1 :] = [
            column - dot * q for column, dot in zip(columns[k + 1 :], along, strict=True)
        ]
        rows.append(jnp.stack([*[jnp.zeros_like(size)] * k, size, *along]))
    joined = jnp.stack(rows)
    return joined[:, :n] * unit, joined[:, n] * last


def _rotated(p: Array, q: Array, n: int) -> tuple[Array, Array, Array]:
    """Each pair of rows made orthogonal in its first n entries, and whether one was not."""
    a, b = p[:, :n], q[:, :n]
    alpha, beta, gamma = jnp.sum(a * a, 1), jnp.sum(b * b, 1), jnp.sum(a * b, 1)
    orthogonal = jnp.abs(gamma) <= n * jnp.finfo(p.dtype).eps * jnp.sqrt(alpha) * jnp.sqrt(beta)
    zeta = (beta - alpha) / jnp.where(orthogonal, 1, 2 * gamma)
    root = jnp.abs(zeta) + jnp.sqrt(1 + zeta * zeta)
    tangent = jnp.where(orthogonal, 0, jnp.where(zeta < 0, -1, 1) / root)
    cosine = 1 / jnp.sqrt(1 + tangent * tangent)
    c, s = cosine[:, None], (cosine * tangent)[:, None]
    return c * p - s * q, s * p + c * q, jnp.any(~orthogonal & jnp.isfinite(gamma))


def _sweep(p: Array, q: Array, n: int) -> tuple[Array, Array, Array]:
    """All pairs once: row 0 stays, the others move on by one place a round."""
    half = p.shape[0]
    moved = jnp.zeros((), bool)
    for _ in range(2 * half - 1):
        p, q, turned = _rotated(p, q, n)
        moved |= turned
        if half > 1:
            p, q = (
                jnp.concatenate([p[:1], q[:1], p[1:-1]]),
                jnp.concatenate([q[1:], p[-1:]]),
            )
    return p, q, moved


def svd(matrix: Array, residual: Array) -> tuple[Array, Array, Array]:
    """S, V' and U'b of matrix = U S V'.

    Args:
      matrix: R, (k, n), k <= n.
      residual: b, (k,).

    Returns:
      S descending, (k,), V', (k, n), whose rows are zero where S is, and U'b, (k,). NaN where an
      entry is not finite.
    """
    k, n = matrix.shape
    unit = tree.power_of_two(jnp.max(jnp.abs(matrix), initial=0))
    rows = jnp.concatenate([matrix / unit, residual[:, None]], axis=1)
    rows = jnp.pad(rows, ((0, k % 2), (0, 0)))
    half = rows.shape[0] // 2

    def body(now: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        p, q, moved = _sweep(now[0], now[1], n)
        return p, q, moved, now[3] + 1

    p, q, _, _ = jax.lax.while_loop(
        lambda now: now[2] & (now[3] < MAX_SWEEPS),
        body,
        (rows[:half], rows[half:], jnp.ones((), bool), jnp.zeros((), jnp.int32)),
    )
    rows = jnp.concatenate([p, q])
    size = jnp.sqrt(jnp.sum(rows[:, :n] ** 2, axis=1))
    order = jnp.argsort(-size)[:k]
    rows, size = rows[order], size[order]
    return size * unit, rows[:, :n] / jnp.where(size == 0, 1, size)[:, None], rows[:, n]


def _eigh(matrix: Array) -> tuple[Array, Array]:
    n = matrix.shape[0]
    unit = tree.power_of_two(jnp.max(jnp.abs(matrix), initial=0))
    scaled = matrix / unit
    shift = 2 * jnp.sqrt(jnp.sum(scaled * scaled))
    shift = jnp.where(shift == 0, 1, shift)
    s, vt, _ = svd(scaled + shift * jnp.eye(n, dtype=matrix.dtype), jnp.zeros_like(scaled[0]))
    return (s[::-1] - shift) * unit, vt[::-1].T


@jax.custom_batching.custom_vmap
def _eigh_alone(matrix: Array) -> tuple[Array, Array]:
    w, q = jnp.linalg.eigh(matrix, symmetrize_input=False)
    return w, q


@_eigh_alone.def_vmap
def _eigh_of_batch(
    axis_size: int, in_batched: list[bool], matrix: Array
) -> tuple[tuple[Array, Array], tuple[bool, bool]]:
    del axis_size, in_batched  # of one argument, it is the batched one
    return jax.vmap(_eigh)(matrix), (True, True)


def eigh(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues, ascending, and eigenvectors in columns, as `jnp.linalg.eigh` gives them.

    Under `vmap` by (1) where n is small, else by LAPACK.

    Args:
      matrix: H, (n, n), symmetric.

    Returns:
      w, (n,), and Q, (n, n).
    """
    if matrix.shape[0] <= LARGEST:
        return _eigh_alone(matrix)
    w, q = jnp.linalg.eigh(matrix, symmetrize_input=False)
    return w, q
