r"""The diagonal D in whose norm |D s| a least-squares step is bounded, and the rows in that norm.

D holds powers of the largest norms so far of the columns of A. A direction whose singular value in
A D^{-1} = U S V' is rounding is no part of a step; but it may be so small for no better reason than
its unit (the slope of a line at x = 59,000 in float32). Where one is, the singular values are found
again with D proportional to the columns, which is kept if the rank is then larger: of a matrix that
lacks rank in any unit, the step is the shortest in the norm that was asked for.

Source: More (1978), "The Levenberg-Marquardt algorithm", section 4; van der Sluis (1969),
"Condition numbers and equilibration of matrices", theorem 3.5.
"""

import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array
from hesskit.linalg.row_svd import factor

EVEN = 2
"""Columns whose lengths differ less than this are of one unit."""


def _column_norms(matrix: Array) -> Array:
    unit = tree.power_of_two(jnp.max(jnp.abs(matrix), initial=0))  # squares are to be numbers
    return unit * jnp.sqrt(jnp.sum((matrix / unit) ** 2, axis=0))


def column_scale(matrix: Array, previous: Array, power: float) -> Array:
    """D: the largest |column|^power so far, nowhere below sqrt(eps) of the largest entry.

    Args:
      matrix: A, (m, n).
      previous: D before, (n,).
      power: in [0, 1].

    Returns:
      D, (n,), positive.
    """
    new = _column_norms(matrix) ** jnp.asarray(power, matrix.dtype)
    seen = jnp.maximum(new, previous)
    top = jnp.max(seen, initial=0)
    least = jnp.sqrt(jnp.finfo(matrix.dtype).eps) * top
    return jnp.where(top > 0, jnp.maximum(seen, least), 1)


def _equilibrated(matrix: Array, scale: Array) -> tuple[Array, Array]:
    """The least multiple of the columns' norms that is nowhere below `scale`; how far that is off.

    Args:
      matrix: A, (m, n).
      scale: D, (n,).

    Returns:
      The new D, (n,), with the old one where a column is nearly 0, and the largest over the least
      |column| / D of the others, ().
    """
    norms = _column_norms(matrix)
    counts = norms > jnp.finfo(norms.dtype).eps * jnp.max(norms, initial=0)
    lengths = jnp.where(counts, norms, 1) / scale
    least = jnp.min(lengths, initial=jnp.inf, where=counts)
    largest = jnp.max(lengths, initial=0, where=counts)
    return jnp.where(counts, scale * lengths / least, scale), largest / least


def scaled_factor(matrix: Array, b: Array, scale: Array) -> tuple[Array, Array, Array, Array]:
    """D and the factors of [A D^{-1} | b], with a D from `scale` up that hides no direction.

    Args:
      matrix: A, (m, n).
      b: (m,).
      scale: D, (n,).

    Returns:
      D, (n,), and S, V' and c as of `row_svd.factor`.
    """
    found = scale, *factor(matrix / scale[None, :], b)
    even, spread = _equilibrated(matrix, scale)

    def fairer() -> tuple[Array, Array, Array, Array]:
        other = even, *factor(matrix / even[None, :], b)
        return tree.where(jnp.sum(other[1] > 0) > jnp.sum(found[1] > 0), other, found)

    hidden = jnp.any(found[1] <= 0) & (spread > EVEN)
    return tree.while_once(hidden, fairer, found)
