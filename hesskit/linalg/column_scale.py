r"""The diagonal D in whose norm |D s| a least-squares step is bounded, and the rows in that norm.

D holds powers of the largest norms so far of the columns of A. A direction whose singular value in
A D^{-1} = U S V' is rounding is no part of a step; but it may be so small for no better reason than
its unit (the slope of a line at x = 59,000 in float32). Where most of the residual that A can reach
is left to such directions, the singular values are found again with D proportional to the largest
norms, which is kept for this step if the rank is then larger: of a matrix that lacks rank in any
unit, as of fewer rows than columns, the step is the shortest in the norm that was asked for. The
largest so far tell the unit; a column that has become small has not changed its own.

Source: More (1978), "The Levenberg-Marquardt algorithm", section 4; van der Sluis (1969),
"Condition numbers and equilibration of matrices", theorem 3.5.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array
from hesskit.linalg.row_svd import factor

EVEN = 2
"""Columns whose lengths differ less than this are of one unit."""
VISIBLE = 0.5**0.5
"""A smaller part of Q'b in the directions that are seen leaves most of it to the others."""
SHORTEST = 0.5
"""A column below this power of the least number, of the largest, is nearly 0: 1e-19 in float32.
One below eps of it need not be, for the unit of a parameter is free: an amplitude of 1e-9 in
float32 beside a rate of 1."""


def _column_norms(matrix: Array) -> Array:
    unit = tree.power_of_two(jnp.max(jnp.abs(matrix), initial=0))  # squares are to be numbers
    return unit * jnp.sqrt(jnp.sum((matrix / unit) ** 2, axis=0))


def _powered(x: Array, power: float) -> Array:
    """x^power, of halves and quarters by roots: they take a tenth of the time."""
    if isinstance(power, float) and power in (0.25, 0.5, 1.0):
        return {0.25: jnp.sqrt(jnp.sqrt(x)), 0.5: jnp.sqrt(x), 1.0: x}[power]
    return x ** jnp.asarray(power, x.dtype)


def largest_columns(matrix: Array, previous: Array) -> Array:
    """The norms of columns where they are larger than before.

    Args:
      matrix: A, (m, n).
      previous: the largest before, (n,).

    Returns:
      The largest so far, (n,).
    """
    return jnp.maximum(_column_norms(matrix), previous)


def column_scale(largest: Array, power: float) -> Array:
    """D: |column|^power of the largest, nowhere below sqrt(eps) of the largest entry.

    Args:
      largest: norms of columns, (n,).
      power: in [0, 1].

    Returns:
      D, (n,), positive.
    """
    powers = _powered(largest, power)
    top = jnp.max(powers, initial=0)
    least = jnp.sqrt(jnp.finfo(powers.dtype).eps) * top
    return jnp.where(top > 0, jnp.maximum(powers, least), 1)


def _equilibrated(norms: Array, scale: Array) -> tuple[Array, Array, Array]:
    """The least multiple of the columns' norms that is nowhere below `scale`; how far that is off.

    Args:
      norms: of columns, (n,).
      scale: D, (n,).

    Returns:
      The new D, (n,), with the old one where a column is nearly 0, the largest over the least
      |column| / D of the others, (), and how many these are, ().
    """
    nearly_zero = float(jnp.finfo(norms.dtype).tiny) ** SHORTEST
    counts = norms > nearly_zero * jnp.max(norms, initial=0)
    lengths = jnp.where(counts, norms, 1) / scale
    least = jnp.min(lengths, initial=jnp.inf, where=counts)
    largest = jnp.max(lengths, initial=0, where=counts)
    even = jnp.where(counts, scale * lengths / least, scale)
    return even, largest / least, jnp.sum(counts, dtype=jnp.int32)


class _Trip(NamedTuple):
    """D and the factors found so far, their rank, whether none are, and whether to go on."""

    found: tuple[Array, Array, Array, Array]
    rank: Array
    first: Array
    going: Array


def scaled_factor(
    matrix: Array, b: Array, scale: Array, largest: Array, num_rows: int | None = None
) -> tuple[Array, Array, Array, Array]:
    """D and the factors of [A D^{-1} | b], with a D from `scale` up that does not hide most of Q'b.

    A loop of one trip, seldom two, holds one copy of the factorization.

    Args:
      matrix: R of A = Q R, (k, n), or A where it has no more rows than columns.
      b: Q'b, (k,).
      scale: D, (n,).
      largest: norms of columns that tell their units, (n,).
      num_rows: m, where A is an R.

    Returns:
      D, (n,), and S, V' and c as of `row_svd.factor`.
    """
    if (num_rows or matrix.shape[0]) < matrix.shape[1]:
        return scale, *factor(matrix / scale[None, :], b, num_rows)
    even, spread, count = _equilibrated(largest, scale)
    k = min(matrix.shape)
    most = jnp.minimum(count, k)  # as many directions there may be

    def trip(now: _Trip) -> _Trip:
        tried = jnp.where(now.first, scale, even)
        other = tried, *factor(matrix / tried[None, :], b, num_rows)
        rank = jnp.sum(other[1] > 0, dtype=jnp.int32)
        found = tree.where(now.first | (rank > now.rank), other, now.found)
        left = tree.norm(other[3]) <= VISIBLE * tree.norm(b)
        hidden = (rank < most) & (spread > EVEN) & left
        return _Trip(found, rank, jnp.array(False), now.first & hidden)

    yes, row = jnp.array(True), jnp.zeros((k,), matrix.dtype)
    nothing = scale, row, jnp.zeros_like(matrix[:k]), row
    start = _Trip(nothing, jnp.zeros((), jnp.int32), yes, yes)
    return jax.lax.while_loop(lambda now: now.going, trip, start).found
