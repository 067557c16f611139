r"""What is known of parameters: a normal distribution about an estimate, and what follows from it.

    x  =  m + F z,   z ~ N(0, I),   C = F F'                                (1)

with F (n, n) the factor of the covariance C, never C itself: a standard error is the norm of a row
of F, with no digits lost to squares. What the data leave open are the columns of N: a quantity
with gradient g is determined iff g'N is zero to rounding,

    |sum_i g_i N_ij|  <=  sqrt(eps) sum_i |g_i N_ij|    for each j           (2)

and then has variance |F'g|^2 (the delta method); else it is NaN. So the product of two parameters
may have a standard error where neither of them has. An entry at a bound is open as well.

Source: Bates & Watts (1988), Nonlinear Regression Analysis, section 2.3; estimable functions:
Searle (1971), Linear Models, section 5.4.
"""

import difflib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import errors, objective, select, tree
from hesskit.core.entries import entry_names, per_entry
from hesskit.core.types import Array, Params
from hesskit.curvature.jacobian import jacobian
from hesskit.linalg.gram_inverse import row_norms

NAN = float("nan")
HIGHEST = jax.lax.Precision.HIGHEST


class Spread(NamedTuple):
    """The distribution (1) about its mean.

    Attributes:
      factor: F, (n, n); rows of fixed entries and of those at a bound are zero.
      null: N, (n, n), zero in the rows of entries that are determined.
      at_bound: (n,) bool.
    """

    factor: Array
    null: Array
    at_bound: Array

    def open(self) -> Array:
        """Which entries have no standard error, (n,) bool."""
        return jnp.any(self.null != 0, axis=-1) | self.at_bound


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
    """G F for gradients in the rows of G, (k, n); NaN in rows that are not determined, by (2)."""
    rows = rows.astype(spread.factor.dtype)
    tolerance = jnp.sqrt(jnp.finfo(rows.dtype).eps)
    left = jnp.abs(jnp.matmul(rows, spread.null, precision=HIGHEST))
    size = jnp.matmul(jnp.abs(rows), jnp.abs(spread.null), precision=HIGHEST)
    is_open = jnp.any(left > tolerance * size, axis=1)
    is_open |= jnp.any((rows != 0) & spread.at_bound[None, :], axis=1)
    found = jnp.matmul(rows, spread.factor, precision=HIGHEST)
    return jnp.where(is_open[:, None], NAN, found)


def derived(fn: Callable[[Params], Any], params: Params, spread: Spread) -> Derived:
    """`fn(params)` with its standard error and covariance by the delta method."""
    value, rows = jacobian(fn, params)
    factor = image(rows, spread)
    return Derived(
        value,
        tree.unravel(row_norms(factor), value),
        jnp.matmul(factor, factor.T, precision=HIGHEST),
    )


def _fill(spread: Spread, fixed: tuple[bool, ...], matrix: Array) -> Array:
    """`matrix`, NaN in the rows and columns of open entries, 0 in those of fixed ones."""
    bad, held = spread.open(), jnp.array(fixed)
    matrix = jnp.where(bad[:, None] | bad[None, :], NAN, matrix)
    return jnp.where(held[:, None] | held[None, :], 0, matrix)


def _covariance(spread: Spread, fixed: tuple[bool, ...]) -> Array:
    factor = spread.factor
    return _fill(spread, fixed, jnp.matmul(factor, factor.T, precision=HIGHEST))


def _correlation(spread: Spread, fixed: tuple[bool, ...]) -> Array:
    size = row_norms(spread.factor)
    unit = spread.factor / jnp.where(size == 0, 1, size)[:, None]
    matrix = jnp.clip(jnp.matmul(unit, unit.T, precision=HIGHEST), -1, 1)
    matrix = _fill(spread, fixed, matrix)
    n = len(fixed)
    sound = ~jnp.isnan(jnp.diagonal(matrix))
    return jnp.where(jnp.eye(n, dtype=bool) & sound[:, None], 1, matrix)


def _sample(num: int, key: Array, params: Params, spread: Spread) -> Params:
    real = objective.split(params)
    z = jax.random.normal(key, (num, spread.factor.shape[0]), spread.factor.dtype)
    steps = jnp.matmul(z, spread.factor.T, precision=HIGHEST)
    draws = jnp.where(spread.open()[None, :], NAN, steps)

    def draw(step: Array) -> Params:
        moved = jax.tree.map(jnp.add, real, tree.unravel(step, real))
        return objective.join(moved, params)

    return jax.vmap(draw)(draws)


class Uncertain:
    """What a fit and a Laplace approximation both answer, from an estimate and its `Spread`.

    Under `vmap`, or for a batch of results, everything has the batch's axes in front.
    """

    names: tuple[str, ...]
    """The path of each entry of params: the order of rows everywhere."""

    def _estimate(self) -> tuple[Params, Spread]:
        """The mean of (1) and the rest of it."""
        raise NotImplementedError

    def _held(self) -> tuple[bool, ...]:
        """Which entries are fixed."""
        return (False,) * len(self.names)

    def _num_axes(self) -> int:
        """The number of axes of a batch."""
        return self._estimate()[1].at_bound.ndim - 1

    def _map(self, fn: Callable[[Params, Spread], Any]) -> Any:
        """`fn(params, spread)`, for each of a batch."""
        for _ in range(self._num_axes()):
            fn = jax.vmap(fn)
        return fn(*self._estimate())

    @property
    def covariance(self) -> Array:
        """C, (n, n), rows in the order of `names`: 0 where fixed, NaN where undetermined."""
        return self._map(lambda _, spread: _covariance(spread, self._held()))

    @property
    def correlation(self) -> Array:
        """C_ij / (s_i s_j), (n, n), 1 on the diagonal; 0 where fixed, NaN where undetermined."""
        return self._map(lambda _, spread: _correlation(spread, self._held()))

    @property
    def standard_errors(self) -> Params:
        """Like params, 0 where fixed, NaN where undetermined (`print` says why).

        Of a complex leaf: the error of its real part + i times that of its imaginary part.
        """

        def errors_of(params: Params, spread: Spread) -> Params:
            size = jnp.where(spread.open(), NAN, row_norms(spread.factor))
            return objective.join(tree.unravel(size, objective.split(params)), params)

        return self._map(errors_of)

    def sample(self, key: Any, num: int) -> Params:
        """Draws from the normal distribution with this mean and covariance.

        Args:
          key: an int or a key of `jax.random`; each of a batch has its own draws.
          num: how many.

        Returns:
          A tree like params with a leading axis of `num`; fixed entries are constant, and those
          without a standard error NaN.
        """
        if isinstance(key, int):
            key = jax.random.key(key)
        num = errors.length_of(num, name="num")
        params, spread = self._estimate()
        shape = spread.at_bound.shape[:-1]
        draw = functools.partial(_sample, num)
        for _ in shape:
            draw = jax.vmap(draw)
        keys = jax.random.split(key, shape) if shape else key
        return draw(keys, params, spread)

    def derived(self, fn: Callable[[Params], Any]) -> Derived:
        """A quantity computed from the parameters, with its error by the delta method.

        Args:
          fn: `fn(params) -> ` any pytree of real floats, differentiable at the estimate.

        Returns:
          `Derived(value, standard_error, covariance)`; NaN errors where the quantity depends on
          what the data do not determine.

        Raises:
          TypeError: `fn` is no function, or its result holds something that is no real float.
        """
        errors.check_callable(fn, name="fn")
        return self._map(lambda params, spread: derived(fn, params, spread))

    def block(self, rows: Any, columns: Any = None) -> Array:
        """The covariances of some parameters with others.

        Args:
          rows: a selector: a path ("peak/*"), a list of paths, a prefix tree of bools, or
            `f(path, leaf) -> bool`.
          columns: likewise; None means `rows`.

        Returns:
          The rows and columns of `covariance` that belong to them, in its order.

        Raises:
          ValueError: a selector matches nothing; the message lists the paths.
        """
        params, _ = self._estimate()
        for _ in range(self._num_axes()):
            params = jax.tree.map(lambda a: a[0], params)

        def places(selector: Any, name: str) -> Array:
            flags = per_entry(select.select(selector, params, name=name), params)
            return jnp.array([i for i, flag in enumerate(flags) if flag], dtype=jnp.int32)

        first = places(rows, "rows")
        second = first if columns is None else places(columns, "columns")
        return self.covariance[..., first[:, None], second[None, :]]

    def correlation_between(self, a: str, b: str) -> Array:
        """The correlation of two entries.

        Args:
          a: a name of `names`, such as "peak/height" or "w[0]".
          b: another.

        Returns:
          A () array.

        Raises:
          ValueError: a name is not among `names`.
        """
        places = []
        for name in (a, b):
            if name not in self.names:
                close = difflib.get_close_matches(str(name), self.names, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ValueError(f"no entry {name!r}; names are {', '.join(self.names)}.{hint}")
            places.append(self.names.index(name))
        return self.correlation[..., places[0], places[1]]
