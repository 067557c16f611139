r"""A line search after any direction: the last link of a chain.

The updates u that arrive are a direction, and leave as a u, with a length a that satisfies the
approximate Wolfe conditions of core/line_search.py. Where u points uphill, -grad takes its place.

Source: Hager & Zhang (2005), SIAM J. Optim. 16, 170-192.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import errors, line_search
from hesskit.core.course import Line
from hesskit.core.line_search import Rules
from hesskit.core.pair import Pair
from hesskit.core.types import Array, Params
from hesskit.transforms import _descend
from hesskit.transforms._optax import Transformation, memoize


class Heed(NamedTuple):
    """No memory: 1 while the direction that came is heeded."""

    num_pairs: Array


def _empty(params: Params) -> tuple[tuple[()], Heed]:
    del params
    return (), Heed(jnp.ones((), jnp.int32))


def _learn(history: tuple[()], table: Heed, pair: Pair, kept: Array) -> tuple[tuple[()], Heed]:
    del pair
    return history, Heed(jnp.where(kept, 1, table.num_pairs))


def _direct(history: tuple[()], table: Heed, rhs: Params) -> tuple[Heed, Params]:
    del history
    return table, rhs


@memoize
def scale_by_hager_zhang_linesearch(
    max_linesearch_steps: Any = None,
    *,
    max_learning_rate: Any = None,
    slope_rtol: Any = line_search.DELTA,
    curv_rtol: Any = line_search.SIGMA,
    has_aux: bool = False,
) -> Transformation:
    r"""Scales updates by the length that a line search finds, after any direction.

    x <- x + a u with f(x + a u) <= f(x) + slope_rtol a g.u and g(x + a u).u >= curv_rtol g.u, or
    their approximate form where f differs by rounding alone. Put it last, behind the sign: after
    `optax.sgd(1.0)`, `optax.adam(1.0)`, `scale_by_lbfgs()` and `optax.scale(-1.0)`. The first
    length is 1. f never increases; a search that finds nothing gives zero updates.

    Args:
      max_linesearch_steps: evaluations of one search at most; one that finds nothing is followed
        by one along -grad. None means 30.
      max_learning_rate: the length that may not be passed. None: no limit.
      slope_rtol: delta of the sufficient decrease (Hager & Zhang 2005: 0.1).
      curv_rtol: sigma of the curvature condition, above slope_rtol (the same: 0.9).
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation`. Its `update` needs `value_fn`; with `value` and `grad` the first
      evaluation is a trial.

    Raises:
      ValueError: an argument out of its range.
      TypeError: a number was expected.

    For mini-batches: no, unless each batch is nearly the whole.

    Cost of an update in gradients: 1 for each evaluation, at least 1.

    Example:
      >>> import jax, jax.numpy as jnp, optax, hesskit
      >>> f, x = lambda x: jnp.sum(jnp.array([1.0, 9.0]) * x**2), jnp.ones(2)
      >>> opt = optax.chain(optax.sgd(1.0), hesskit.scale_by_hager_zhang_linesearch())
      >>> print(hesskit.minimize(f, x, opt).success)
      True

    References:
      Hager & Zhang (2005), SIAM J. Optim. 16, 170-192.
    """
    errors.check_count(max_linesearch_steps, name="max_linesearch_steps")
    errors.check_number(max_learning_rate, name="max_learning_rate", open_low=True)
    errors.check_number(slope_rtol, name="slope_rtol", open_low=True, high=0.5, none=False)
    errors.check_number(curv_rtol, name="curv_rtol", open_low=True, high=1.0, none=False)
    trials = line_search.MAX_TRIALS if max_linesearch_steps is None else max_linesearch_steps
    line = Line(
        empty=_empty,
        learn=_learn,
        direct=_direct,
        rules=Rules(slope_rtol, curv_rtol, trials),
        longest=jnp.inf if max_learning_rate is None else max_learning_rate,
        given=True,
    )
    return _descend.build(line, name="scale_by_hager_zhang_linesearch", has_aux=has_aux)
