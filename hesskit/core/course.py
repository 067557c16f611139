"""What a line-search method is, its `Line`, and where a run of it stands, its `Course`."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import line_search, method, tree
from hesskit.core.line_search import LineSearchInfo, Rules
from hesskit.core.method import State
from hesskit.core.types import Array, Params


class Line(NamedTuple):
    """What distinguishes one line-search method from another.

    Attributes:
      empty: `params -> (history, table)`: what only `learn` writes, and the small rest, a
        NamedTuple with a field `num_pairs`, () int32.
      learn: `(history, table, pair, kept) -> (history, table)`; nothing changes unless `kept`.
      direct: `(history, table, rhs) -> (table, direction)`; -rhs where there are no pairs.
      rules: the constants of the line search.
      longest: the length that may not be passed.
      shortened: the first step along -g is no longer than 1.
      given: `direct` only hands on a direction that came with the call.
      bounds: what core/bounds.py parses, or None.
      follow: `(history, table, pair, kept, rhs) -> (history, table, direction)`: `learn` and
        `direct` in one, for an update that searches nothing; or None.
      boxed: `(history, table, grad, params, box, first) -> (step, longest)` in the place of
        `direct` where there are bounds; `first` scales -grad where there are no pairs.
    """

    empty: Callable[..., Any]
    learn: Callable[..., Any]
    direct: Callable[..., tuple[Any, Params]]
    rules: Rules = line_search.DEFAULT
    longest: Any = jnp.inf
    shortened: Any = True
    given: bool = False
    bounds: Any = None
    follow: Callable[..., tuple[Any, Any, Params]] | None = None
    boxed: Callable[..., tuple[Params, Array]] | None = None


class Course(NamedTuple):
    """The model of a line-search method: its memory, the direction, where the search stands.

    `steepest` says that the last search found nothing, and -grad takes the direction's place;
    `largest` is the largest |grad| met.
    """

    history: Any
    table: Any
    direction: Any  # this and the rest are None inside an optax state
    steepest: Any
    largest: Any
    search: Any


def begin(history: Any, table: Any, params: Params) -> Course:
    """The course before its first direction."""
    one = jnp.ones((), tree.result_dtype(params))
    search = line_search.begin(one, -one, one)
    return Course(history, table, tree.zeros_like(params), jnp.array(False), 0 * one, search)


def start(line: Line, params: Params) -> State:
    """The first state: nothing known, `ask` gives `params`."""
    history, table = line.empty(params)
    course = begin(history, table, params)
    info = functools.partial(LineSearchInfo, **describe(course))
    return method.first_state(params, course, info)


def describe(course: Course) -> dict[str, Array]:
    """The Info's own fields."""
    search = course.search
    return {
        "learning_rate": search.length,
        "num_linesearch_steps": search.num_trials,
        "num_pairs": course.table.num_pairs,
        "decrease_error": search.decrease_error,
        "curvature_error": search.curvature_error,
    }
