r"""Curvature from pairs of steps and gradient changes: L-BFGS in compact form.

With the last m pairs (s_i, y_i), oldest first, S = [s_1 ... s_m], Y = [y_1 ... y_m],
R = triu(S'Y), D = diag(S'Y) and gamma = s_m.y_m / y_m.y_m, the inverse BFGS matrix times g is

    H g  =  gamma g  -  gamma Y a  +  S b                                   (1)
    R a  =  S'g,      R' b  =  D a - gamma (Y'g - Y'Y a)

which is the two-loop recursion with its two loops as triangular solves: everything that is n long
is in two stages, inner products of the history with g and the newest y before, (1) after, and no
inner product waits for another. Pairs are stored by leaf, in the dtype and layout of params, both
divided by a power of two near sqrt(|s||y|) (H does not change), so that no inner product under- or
overflows.

Source: Byrd, Nocedal & Schnabel (1994), Math. Program. 63, 129-156, Theorem 2.2; Nocedal & Wright
(2006), Algorithm 7.4 and (7.20); Chen, Wang & Zhou (2014) for the recursion on inner products.
"""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from hesskit.core import layout, tree
from hesskit.core.pair import Pair
from hesskit.core.types import Array, Params
from hesskit.linalg import basis

CLEAR = 0.1  # of |v|: differences of products with v then lose one digit at most
LARGE = 2**16  # entries of a leaf that memory, not the processor, hands over
WRITTEN_OUT = 32  # pairs


class History(NamedTuple):
    """The pairs, each leaf with a first axis of m rows, a ring."""

    steps: Params
    changes: Params


class Dots(NamedTuple):
    """S'v and Y'v of one vector, (m,) each, by row of the ring."""

    steps: Array
    changes: Array


class Table(NamedTuple):
    """Inner products of the pairs, by row of the ring.

    `cross[i, j]` is s_i.y_j for a pair i not younger than j, `gram[i, j]` is y_i.y_j; both (m, m).
    """

    cross: Array
    gram: Array
    newest: Array  # () int32, its row
    num_pairs: Array  # () int32, held; at most m
    dots: Dots | None = None  # of the vector that `follow` multiplied last


def empty(params: Params, num: int, *, follows: bool = False) -> tuple[History, Table]:
    """No pairs, with room for `num`; `follows` for `follow`."""
    dtype = tree.result_dtype(params)
    history = History(tree.rows_like(params, num), tree.rows_like(params, num))
    square, none = jnp.zeros((num, num), dtype), jnp.zeros((), jnp.int32)
    dots = Dots(square[0], square[0]) if follows else None
    return history, Table(square, square, none, none, dots)


def _enough(pair: Pair, *, any_sign: bool) -> Array:
    """Whether the pair curves up enough: a cosine below eps is a right angle to rounding."""
    cosine = jnp.abs(pair.cosine) if any_sign else pair.cosine
    return (cosine > tree.coarsest_eps(pair.step)) & jnp.isfinite(pair.unit)


def _written(history: History, table: Table, pair: Pair, good: Array) -> tuple[History, Table]:
    """Both with the pair in place of the oldest, if it is good."""
    num = table.cross.shape[0]
    row = jnp.where(table.num_pairs > 0, (table.newest + 1) % num, table.newest)
    scale = 1 / tree.power_of_two(pair.unit)
    step, change = tree.scale(scale, pair.step), tree.scale(scale, pair.change)

    def write(rows: Array, item: Array) -> Array:
        old = jax.lax.dynamic_index_in_dim(rows, row, keepdims=False)
        new = jnp.where(good, item, old)
        if jax.typeof(new).sharding.mesh != jax.typeof(rows).sharding.mesh:
            # A leaf that is on no mesh, beside others that are: it is small, and written whole.
            here = jnp.arange(num).reshape(num, *[1] * item.ndim) == row
            return jnp.where(here, new[None], rows)
        return jax.lax.dynamic_update_index_in_dim(rows, new, row, 0)

    history = History(
        jax.tree.map(write, history.steps, step), jax.tree.map(write, history.changes, change)
    )
    count = jnp.minimum(table.num_pairs + 1, num)
    return history, table._replace(
        newest=jnp.where(good, row, table.newest),
        num_pairs=jnp.where(good, count, table.num_pairs),
    )


def push(
    history: History, table: Table, pair: Pair, kept: Array, *, any_sign: bool = False
) -> tuple[History, Table]:
    """The history with one more pair in place of the oldest, if it curves up enough.

    Args:
      history: the pairs.
      table: their inner products; those of the new pair come with the next `multiply`.
      pair: s and y.
      kept: whether there is a pair at all, () bool.
      any_sign: take a pair of negative curvature too, as the bare formula does.

    Returns:
      The new history and table.
    """
    enough = _enough(pair, any_sign=any_sign)
    good = tree.while_once(kept, lambda: enough, jnp.array(False))
    return _written(history, table, pair, good)


def multiply(
    history: History, table: Table, vector: Params, *, scaled: Any = True
) -> tuple[Table, Params]:
    """(1): the inverse BFGS matrix times `vector`, which comes back where there are no pairs.

    Args:
      history: the pairs.
      table: their inner products, but for those of the newest.
      vector: like params.
      scaled: gamma as in (1); else gamma = 1.

    Returns:
      The table with all of them, and the product.
    """
    table = _completed(table, _newest_dots(history, table))
    return table, _product(history, table, vector, _dots(history, vector), scaled=scaled)


def follow(
    history: History,
    table: Table,
    pair: Pair,
    kept: Array,
    vector: Params,
    *,
    scaled: Any = True,
    any_sign: bool = False,
) -> tuple[History, Table, Params]:
    """`push` and `multiply` where y is `vector` less the one of the last call.

    The products of y are then differences of those of the two vectors, unless y is so much the
    smaller that rounding would tell: the history is read twice in the place of three times.

    Args:
      history: the pairs.
      table: their inner products, with `dots`.
      pair: s and y.
      kept: whether there is a pair at all, () bool.
      vector: like params; `pair.grad` came the last time.
      scaled: gamma as in (1); else gamma = 1.
      any_sign: take a pair of negative curvature too, as the bare formula does.

    Returns:
      The new history, the table, and the product.
    """
    before = table.dots
    assert before is not None
    good = kept & _enough(pair, any_sign=any_sign)
    history, table = _written(history, table, pair, good)
    dots = _dots(history, vector)
    unit = tree.power_of_two(pair.unit)
    norm, size = pair.norm / unit, pair.size / unit

    def differences() -> Dots:
        steps, changes = ((a - b) / unit for a, b in zip(dots, before, strict=True))
        own = pair.cosine * norm * size
        newest = table.newest
        return Dots(steps.at[newest].set(own), changes.at[newest].set(size * size))

    # Rows of fewer digits hold a rounded y, and their products are to be those of that.
    exact = tree.coarsest_eps(vector) <= float(jnp.finfo(dots.steps.dtype).eps)
    clear = good & exact & (pair.size > CLEAR * tree.norm(vector))
    column = jax.lax.cond(clear, differences, lambda: _newest_dots(history, table))
    table = _completed(table, column)._replace(dots=dots)
    return history, table, _product(history, table, vector, dots, scaled=scaled)


def _dots(history: History, vector: Params) -> Dots:
    return Dots(*(basis.coefficients(rows, vector) for rows in history))


def _newest_dots(history: History, table: Table) -> Dots:
    """Those with the newest y."""
    last = jax.tree.map(
        lambda a: jax.lax.dynamic_index_in_dim(a, table.newest, keepdims=False), history.changes
    )
    return _dots(history, last)


def _completed(table: Table, dots: Dots) -> Table:
    """The table with the inner products of the newest y."""
    newest = table.newest
    cross = table.cross.at[:, newest].set(dots.steps)
    gram = table.gram.at[:, newest].set(dots.changes).at[newest, :].set(dots.changes)
    return table._replace(cross=cross, gram=gram)


def _product(history: History, table: Table, vector: Params, dots: Dots, *, scaled: Any) -> Params:
    """(1), given S'g and Y'g."""
    dtype, num = table.cross.dtype, table.cross.shape[0]
    age = (table.newest - jnp.arange(num, dtype=jnp.int32)) % num  # row k from the youngest
    order = age[::-1]
    held = jnp.arange(num, dtype=jnp.int32) >= num - table.num_pairs  # in `order`, oldest first
    both = held[:, None] & held[None, :]
    upper = jnp.where(both, jnp.triu(table.cross[order][:, order]), jnp.eye(num, dtype=dtype))
    gamma = jnp.where(scaled, _scale(table), 1)
    s_dot, y_dot = (jnp.where(held, a[order], 0) for a in dots)
    a = solve_triangular(upper, s_dot)
    rest = y_dot - jnp.where(both, table.gram[order][:, order], 0) @ a
    b = solve_triangular(upper, jnp.diag(upper) * a - gamma * rest, trans="T")
    place = jnp.zeros((num,), dtype).at[order]
    weights = Dots(place.set(jnp.where(held, b, 0)), place.set(jnp.where(held, -gamma * a, 0)))
    return _combined(history, weights, gamma, vector)


def _combined(history: History, weights: Dots, gamma: Array, vector: Params) -> Params:
    """gamma v, and the rows by their weights, in at least float32."""
    dtype, few = weights.steps.dtype, weights.steps.size <= WRITTEN_OUT

    def over(rows: Array, weights: Array, like: Array) -> Array:
        if few and like.size >= LARGE:  # one pass over everything, for a kernel of many terms
            terms = [w * row.astype(dtype) for w, row in zip(weights, rows, strict=True)]
            return functools.reduce(operator.add, terms)
        return jax.lax.dot_general(
            weights,
            rows.astype(dtype),
            (((0,), (0,)), ((), ())),
            precision=jax.lax.Precision.HIGHEST,
            out_sharding=layout.explicit(like),
        )

    def leaf(v: Array, s: Array, y: Array) -> Array:
        return gamma * v.astype(dtype) + over(y, weights.changes, v) + over(s, weights.steps, v)

    return jax.tree.map(leaf, vector, *history)


def _scale(table: Table) -> Array:
    """gamma = s.y / y.y of the newest pair; 1 without pairs."""
    newest = table.newest
    top, bottom = table.cross[newest, newest], table.gram[newest, newest]
    some = (table.num_pairs > 0) & (bottom > 0)
    return jnp.where(some, top / jnp.where(some, bottom, 1), 1)
