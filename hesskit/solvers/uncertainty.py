"""What a fit and a Laplace approximation both answer, from an estimate and its spread."""

import abc
import difflib
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import errors, objective, select, tree
from hesskit.core.entries import entry_names, per_entry
from hesskit.core.keys import as_key
from hesskit.core.types import Array, Params
from hesskit.linalg.gram_inverse import row_norms
from hesskit.solvers import spread as spreads
from hesskit.solvers.spread import NAN, UNFORMED, Derived, Places, Spread


class Uncertain(abc.ABC):
    """What a fit and a Laplace approximation both answer, from an estimate and its `Spread`.

    Under `vmap`, or for a batch of results, everything has the batch's axes in front.
    """

    @abc.abstractmethod
    def _estimate(self) -> tuple[Params, Spread]:
        """The estimate and its spread."""

    def _held(self) -> tuple[bool, ...]:
        """Which leaves are fixed."""
        return (False,) * len(jax.tree.leaves(self._estimate()[0]))

    def _num_axes(self) -> int:
        """The number of axes of a batch."""
        return self._estimate()[1].at_bound.ndim - 1

    def _one(self) -> Params:
        """The params of one of a batch."""
        params, _ = self._estimate()
        for _ in range(self._num_axes()):
            params = jax.tree.map(lambda a: a[0], params)
        return params

    def _places(self, chosen: tuple[bool, ...] | None = None) -> Places:
        """Of each entry, or each of the chosen ones, the place among those not fixed."""
        params = self._one()
        number = itertools.count()
        places = [None if held else next(number) for held in per_entry(self._held(), params)]
        if chosen is None:
            return tuple(places)
        pairs = zip(places, per_entry(chosen, params), strict=True)
        return tuple(place for place, flag in pairs if flag)

    def _formed(self) -> None:
        """Raises ValueError if there is no covariance."""
        spread = self._estimate()[1]
        if not spread.is_formed:
            raise ValueError(UNFORMED.format(most=spreads.MOST, count=spread.at_bound.shape[-1]))

    @property
    def names(self) -> tuple[str, ...]:
        """The path of each entry of params: the order of rows everywhere."""
        return entry_names(self._one())

    def _map(self, fn: Callable[[Params, Spread], Any]) -> Any:
        """`fn(params, spread)`, for each of a batch."""
        for _ in range(self._num_axes()):
            fn = jax.vmap(fn)
        return fn(*self._estimate())

    @property
    def covariance(self) -> Array:
        """C, (n, n), rows in the order of `names`: 0 where fixed, NaN where undetermined.

        ValueError where more than 4000 entries were fitted: it is then not formed.
        """
        return self._block(self._places(), self._places())

    @property
    def correlation(self) -> Array:
        """C_ij / (s_i s_j), (n, n), 1 on the diagonal; 0 where fixed, NaN where undetermined."""
        self._formed()
        places = self._places()
        return self._map(lambda _, spread: spreads.correlation(spread, places))

    @property
    def standard_errors(self) -> Params:
        """Like params, 0 where fixed, NaN where undetermined (`print` says why).

        Of a complex leaf: the error of its real part + i times that of its imaginary part.
        """

        def errors_of(params: Params, spread: Spread) -> Params:
            size = jnp.where(spread.open(), NAN, row_norms(spread.factor))
            free, rest = select.split(objective.split(params), self._held())
            whole = select.merge(tree.unravel(size, free), tree.zeros_like(rest))
            return objective.join(whole, params)

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
        key = as_key(key)
        num = errors.length_of(num, name="num")
        params, spread = self._estimate()
        shape = spread.at_bound.shape[:-1]
        draw = functools.partial(spreads.sample, num, self._held())
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
        return self._map(lambda params, spread: spreads.derived(fn, params, spread, self._held()))

    def block(self, rows: Any, columns: Any = None) -> Array:
        """The covariances of some parameters with others.

        Args:
          rows: a selector: a path ("peak/*"), a list of paths, a prefix tree of bools, or
            `f(path, leaf) -> bool`.
          columns: likewise; None means `rows`.

        Returns:
          The rows and columns of `covariance` that belong to them, in its order.

        Raises:
          ValueError: a selector matches nothing (the message lists the paths); there are too many
            entries for a covariance.
        """
        params = self._one()
        first = self._places(select.select(rows, params, name="rows"))
        if columns is None:
            return self._block(first, first)
        return self._block(first, self._places(select.select(columns, params, name="columns")))

    def _block(self, rows: Places, columns: Places) -> Array:
        self._formed()
        return self._map(
            lambda _, spread: spreads.covariance(spread.factor, spread.open(), rows, columns)
        )

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
        names, places = self.names, []
        for name in (a, b):
            if name not in names:
                close = difflib.get_close_matches(str(name), names, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ValueError(f"no entry {name!r}; names are {', '.join(names)}.{hint}")
            places.append(names.index(name))
        return self.correlation[..., places[0], places[1]]
