r"""A factor of the inverse of J'J, from the rows of J, and the null space beside it.

With D the norms of the columns of J (m, n), and singular values S above rounding,

    J D^{-1}  =  U S V',     (J'J)^{-1}  =  F F',     F  =  D^{-1} V S^{-1}          (1)

never J'J itself, whose condition is the square. Directions whose singular value is rounding are
the null space N = D^{-1} V_0 of J, and have no part in F.

Source: Golub & Van Loan (2013), Matrix Computations, section 5.5; Bjorck (1996), Numerical Methods
for Least Squares Problems, section 2.7 (rank) and 2.9.1 (column scaling).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array

NOISE = 64
"""Times eps sqrt(n): a singular value of unit columns that their rounding may make. Entries of a
Jacobian are right to some ten eps where the model cancels nothing."""


class GramInverse(NamedTuple):
    """F and N of (1), both (n, n), zero in the rows of entries that are not active.

    A row of `null` is zero where the entry takes no part in the null space.
    """

    factor: Array
    null: Array


def row_norms(matrix: Array) -> Array:
    """The Euclidean norm of each row, safe from overflow, with derivative 0 at 0."""
    top = jnp.max(jnp.abs(matrix), axis=1, initial=0)
    top = jax.lax.stop_gradient(jnp.where(top > 0, top, 1))
    squares = jnp.sum((matrix / top[:, None]) ** 2, axis=1)
    is_zero = squares == 0
    return jnp.where(is_zero, 0, top * jnp.sqrt(jnp.where(is_zero, 1, squares)))


@jax.jit
def gram_inverse(rows: Array, active: Array) -> GramInverse:
    """F and N of (1), differentiable where the rank is full.

    Args:
      rows: J, (m, n), in any order of sizes.
      active: which columns count, (n,) bool.

    Returns:
      A `GramInverse` in at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> found = gram_inverse(jnp.array([[3.0, 0.0], [4.0, 0.0], [0.0, 2.0]]), jnp.ones(2, bool))
      >>> print(found.factor @ found.factor.T)
      [[0.04 0.  ]
       [0.   0.25]]
    """
    dtype = tree.widest(rows.dtype)
    return GramInverse(*_inverse(jnp.where(active[None, :], rows.astype(dtype), 0), active))


@jax.custom_jvp
def _inverse(rows: Array, active: Array) -> tuple[Array, Array]:
    m, n = rows.shape
    eps = jnp.finfo(rows.dtype).eps
    size = row_norms(rows.T)
    size = jnp.where(size == 0, 1, size)
    matrix = rows / size[None, :]
    if m > n:
        matrix = jnp.linalg.qr(matrix, mode="r")
    # What is not active becomes a unit vector of its own, which no null vector mixes with.
    apart = jnp.diag((~active).astype(rows.dtype))
    _, s, vt = jnp.linalg.svd(jnp.concatenate([matrix, apart]), full_matrices=False)
    lost = s <= NOISE * eps * n**0.5 * jnp.max(s, initial=0)
    v = jnp.where(active[:, None], vt.T, 0)
    null = jnp.where(lost[None, :], v, 0)
    takes_part = row_norms(null) > jnp.sqrt(eps)
    null = jnp.where(takes_part[:, None], null, 0)
    factor = jnp.where(lost[None, :], 0, v / jnp.where(lost, 1, s)[None, :])
    return factor / size[:, None], null / size[:, None]


@_inverse.defjvp
def _inverse_tangent(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """dF = -F (U'A + A'U) / 2 with U = J F, A = dJ F, so that d(F F') = -F F' d(J'J) F F'."""
    # Nothing divides by the difference of two singular values, which may be equal.
    rows, active = primals
    factor, null = _inverse(rows, active)
    times = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    turn = times(times(rows, factor).T, times(tangents[0], factor))
    return (factor, null), (-times(factor, turn + turn.T) / 2, jnp.zeros_like(null))
