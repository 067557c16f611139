r"""The signs of a symmetric matrix: how many eigenvalues are positive, zero and negative.

An eigenvalue w counts as zero where rounding alone may have made it,

    |w|  <=  10 sqrt(n) eps max|w|                                          (1)

(a backward stable solver errs by at most n eps |A|, and in practice by the root of n). The counts
(n+, n0, n-) name the kind: (n, 0, 0) is positive definite; semidefinite where one sign is missing
and some are zero; indefinite where both signs are there.

Source: Golub & Van Loan (2013), section 8.1; Higham (2002), section 3.2 (square-root rule).
"""

import jax
import jax.numpy as jnp

from hesskit.core.answer import Kind
from hesskit.core.types import Array

ROUNDING = 10
"""The factor of (1)."""


class DefiniteKind(Kind):
    """What the signs of the eigenvalues say; `print` gives the name."""

    UNDECIDED = 0
    POSITIVE_DEFINITE = 1
    POSITIVE_SEMIDEFINITE = 2
    ZERO = 3
    NEGATIVE_SEMIDEFINITE = 4
    NEGATIVE_DEFINITE = 5
    INDEFINITE = 6


def zero_tolerance(largest: Array, n: int, eps: float) -> Array:
    """The right-hand side of (1), (), from max|w|."""
    return ROUNDING * n**0.5 * eps * largest


def count(eigenvalues: Array, tolerance: Array) -> Array:
    """How many are positive, zero, and negative, (3,) int32; NaN is none of these."""
    parts = [
        eigenvalues > tolerance,
        jnp.abs(eigenvalues) <= tolerance,
        eigenvalues < -tolerance,
    ]
    return jnp.stack([jnp.sum(part, dtype=jnp.int32) for part in parts])


def kind_of(inertia: Array, n: int) -> Array:
    """The code of a `DefiniteKind`, (), int32, from the counts of `count`."""
    positive, zero, negative = (inertia[i] for i in range(3))
    known = jnp.sum(inertia, dtype=jnp.int32) == n
    rows = [
        (~known, DefiniteKind.UNDECIDED),
        ((positive > 0) & (negative > 0), DefiniteKind.INDEFINITE),
        (positive == n, DefiniteKind.POSITIVE_DEFINITE),
        (negative == n, DefiniteKind.NEGATIVE_DEFINITE),
        (zero == n, DefiniteKind.ZERO),
        (positive > 0, DefiniteKind.POSITIVE_SEMIDEFINITE),
    ]
    return _first(rows, DefiniteKind.NEGATIVE_SEMIDEFINITE)


def kind_of_ends(values: Array, errors: Array, tolerance: Array) -> Array:
    """The code of a `DefiniteKind`, (), int32, from two Ritz values and their residual norms.

    Args:
      values: the smallest and the largest, (2,).
      errors: an eigenvalue lies within so much of each, (2,).
      tolerance: what counts as zero, ().

    Returns:
      INDEFINITE where both signs were seen; else what holds if nothing lies beyond the ends;
      UNDECIDED where zero is inside an interval, or a number is NaN.
    """
    low, high = values[0], values[1]
    below, above = low - errors[0], high + errors[1]
    flat_low, flat_high = jnp.abs(low) <= tolerance, jnp.abs(high) <= tolerance
    rows = [
        ((low < -tolerance) & (high > tolerance), DefiniteKind.INDEFINITE),
        (below > tolerance, DefiniteKind.POSITIVE_DEFINITE),
        (above < -tolerance, DefiniteKind.NEGATIVE_DEFINITE),
        (flat_low & flat_high, DefiniteKind.ZERO),
        (flat_low & (below >= -2 * tolerance), DefiniteKind.POSITIVE_SEMIDEFINITE),
        (flat_high & (above <= 2 * tolerance), DefiniteKind.NEGATIVE_SEMIDEFINITE),
    ]
    return _first(rows, DefiniteKind.UNDECIDED)


def _first(rows: list[tuple[Array, DefiniteKind]], otherwise: DefiniteKind) -> Array:
    """The kind of the first row that holds."""
    code = jnp.asarray(int(otherwise), jnp.int32)
    for holds, kind in reversed(rows):
        code = jnp.where(holds, jnp.int32(kind), code)
    return code


def eigen(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues, ascending, and eigenvectors, columns; NaN where the matrix is not finite."""
    w, q = jnp.linalg.eigh(matrix, symmetrize_input=False)
    finite = jnp.all(jnp.isfinite(matrix))
    return jax.tree.map(lambda a: jnp.where(finite, a, jnp.nan), (w, q))
