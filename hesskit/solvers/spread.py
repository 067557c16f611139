r"""The spread of an estimate: a factor of its covariance, what is open, and what follows.

    x  =  m + F z,   z ~ N(0, I),   C = F F'                                (1)

over the k entries that are not fixed, with F (k, k) the factor of the covariance C, never C itself:
a standard error is the norm of a row of F, with no digits lost to squares. What the data leave open
are the columns of N: a quantity with gradient g is determined iff g'N is zero to rounding,

    |sum_i g_i N_ij|  <=  sqrt(eps) sum_i |g_i N_ij|    for each j           (2)

and then has variance |F'g|^2 (the delta method); else it is NaN. So the product of two parameters
may have a standard error where neither of them has. An entry at a bound is open as well.

Source: Bates & Watts (1988), Nonlinear Regression Analysis, section 2.3; estimable functions:
Searle (1971), Linear Models, section 5.4.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import objective, select, tree
from hesskit.core.entries import entry_names
from hesskit.core.types import Array, Params
from hesskit.curvature.jacobian import jacobian
from hesskit.linalg.gram_inverse import row_norms

NAN = float("nan")
HIGHEST = jax.lax.Precision.HIGHEST

MOST = 4000
"""Entries up to which F is formed, by singular values: half a minute on a core, 200 MB."""

UNFORMED = (
    "no covariance: it is formed for at most {most} entries, and {count} were fitted. Hold leaves "
    "with fixed=, or solve with hesskit.gauss_newton_operator(loss, params)"
)


class Spread(NamedTuple):
    """The distribution (1) about its mean, of the entries that are not fixed.

    Attributes:
      factor: F, (k, k), zero in the rows of entries at a bound; or (k, 1), NaN: not formed.
      null: N, (k, k), zero in the rows of entries that are determined; or (k, 1), zero.
      at_bound: (k,) bool.
    """

    factor: Array
    null: Array
    at_bound: Array

    def open(self) -> Array:
        """Which entries have no standard error, (k,) bool."""
        return jnp.any(self.null != 0, axis=-1) | self.at_bound

    @property
    def is_formed(self) -> bool:
        """Whether F is known; there is a limit to k (fit_result.py)."""
        return self.factor.shape[-1] == self.factor.shape[-2]


def unformed(at_bound: Array, dtype: jnp.dtype) -> Spread:
    """A spread of which nothing is known, without a (k, k) array: all that follows is NaN."""
    column = jnp.full((*at_bound.shape, 1), NAN, dtype)
    return Spread(column, jnp.zeros_like(column), at_bound)


class Derived(NamedTuple):
    """A quantity computed from parameters, with its error by the delta method.

    Attributes:
      value: what the function returned.
      standard_error: like `value`; NaN where the quantity is not determined.
      covariance: (k, k) of the k entries of `value`.
    """

    value: Any
    standard_error: Any
    covariance: Array

    def __str__(self) -> str:
        """One line for each entry: the value +- its standard error."""
        pairs = zip(tree.ravel(self.value), tree.ravel(self.standard_error), strict=True)
        names = entry_names(self.value)
        rows = [f"{float(value):.7g} +- {float(error):.2g}" for value, error in pairs]
        if names == ("params",):
            return rows[0]
        return "\n".join(f"{name}: {row}" for name, row in zip(names, rows, strict=True))


def image(rows: Array, spread: Spread) -> Array:
    """G F for gradients in the rows of G, (j, k); NaN in rows that are not determined, by (2)."""
    rows = rows.astype(spread.factor.dtype)
    tolerance = jnp.sqrt(jnp.finfo(rows.dtype).eps)
    left = jnp.abs(jnp.matmul(rows, spread.null, precision=HIGHEST))
    size = jnp.matmul(jnp.abs(rows), jnp.abs(spread.null), precision=HIGHEST)
    is_open = jnp.any(left > tolerance * size, axis=1)
    is_open |= jnp.any((rows != 0) & spread.at_bound[None, :], axis=1)
    found = jnp.matmul(rows, spread.factor, precision=HIGHEST)
    found = jnp.where(jnp.any(rows != 0, axis=1)[:, None], found, 0)  # also where F is NaN
    return jnp.where(is_open[:, None], NAN, found)


def free_jacobian(
    fn: Callable[[Params], Any], params: Params, fixed: tuple[bool, ...]
) -> tuple[Any, Array]:
    """`fn(params)` and its Jacobian with respect to the leaves that are not fixed."""
    free, rest = select.split(params, fixed)
    return jacobian(lambda point: fn(select.merge(point, rest)), free)


def derived(
    fn: Callable[[Params], Any], params: Params, spread: Spread, fixed: tuple[bool, ...]
) -> Derived:
    """`fn(params)` with its standard error and covariance by the delta method."""
    value, rows = free_jacobian(fn, params, fixed)
    factor = image(rows, spread)
    return Derived(
        value,
        tree.unravel(row_norms(factor), value),
        jnp.matmul(factor, factor.T, precision=HIGHEST),
    )


Places = tuple[int | None, ...]
"""Of each of some entries its place among those that are not fixed, or None."""


def _take(rows: Array, is_open: Array, places: Places) -> tuple[Array, Array, Array]:
    """The rows at these places, 0 for a fixed entry; which are open, and which not fixed."""
    index = jnp.array([place or 0 for place in places], jnp.int32)
    free = jnp.array([place is not None for place in places], bool)
    return jnp.where(free[:, None], rows[index], 0), is_open[index] & free, free


def covariance(factor: Array, is_open: Array, rows: Places, columns: Places) -> Array:
    """F F' at these rows and columns: 0 where fixed, NaN where open."""
    left, open_left, free_left = _take(factor, is_open, rows)
    right, open_right, free_right = _take(factor, is_open, columns)
    matrix = jnp.matmul(left, right.T, precision=HIGHEST)
    unknown = open_left[:, None] | open_right[None, :]
    return jnp.where(unknown & free_left[:, None] & free_right[None, :], NAN, matrix)


def correlation(spread: Spread, places: Places) -> Array:
    """C_ij / (s_i s_j) at these rows and columns, 1 on the diagonal."""
    size = row_norms(spread.factor)
    unit = spread.factor / jnp.where(size == 0, 1, size)[:, None]
    matrix = jnp.clip(covariance(unit, spread.open(), places, places), -1, 1)
    sound = ~jnp.isnan(jnp.diagonal(matrix))
    return jnp.where(jnp.eye(len(places), dtype=bool) & sound[:, None], 1, matrix)


def sample(num: int, fixed: tuple[bool, ...], key: Array, params: Params, spread: Spread) -> Params:
    """`num` draws of (1), params with a leading axis; NaN where open."""
    free, rest = select.split(objective.split(params), fixed)
    z = jax.random.normal(key, (num, spread.factor.shape[1]), spread.factor.dtype)
    steps = jnp.matmul(z, spread.factor.T, precision=HIGHEST)
    draws = jnp.where(spread.open()[None, :], NAN, steps)

    def draw(step: Array) -> Params:
        moved = jax.tree.map(jnp.add, free, tree.unravel(step, free))
        return objective.join(select.merge(moved, rest), params)

    return jax.vmap(draw)(draws)
