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

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from hesskit.core import layout, tree
from hesskit.core.pair import Pair
from hesskit.core.types import Array, Params
from hesskit.linalg import basis


class History(NamedTuple):
    """The pairs, each leaf with a first axis of m rows, a ring."""

    steps: Params
    changes: Params


class Table(NamedTuple):
    """Inner products of the pairs, by row of the ring.

    `cross[i, j]` is s_i.y_j for a pair i not younger than j, `gram[i, j]` is y_i.y_j; both (m, m).
    """

    cross: Array
    gram: Array
    newest: Array  # () int32, its row
    num_pairs: Array  # () int32, held; at most m


def empty(params: Params, num: int) -> tuple[History, Table]:
    """No pairs, with room for `num`."""
    dtype = tree.result_dtype(params)
    history = History(tree.rows_like(params, num), tree.rows_like(params, num))
    square, none = jnp.zeros((num, num), dtype), jnp.zeros((), jnp.int32)
    return history, Table(square, square, none, none)


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
    # A cosine below eps is a right angle to rounding.
    cosine = jnp.abs(pair.cosine) if any_sign else pair.cosine
    enough = (cosine > tree.coarsest_eps(pair.step)) & jnp.isfinite(pair.unit)
    good = tree.while_once(kept, lambda: enough, jnp.array(False))
    scale = 1 / tree.power_of_two(pair.unit)
    step, change = tree.scale(scale, pair.step), tree.scale(scale, pair.change)
    num = table.cross.shape[0]
    row = jnp.where(table.num_pairs > 0, (table.newest + 1) % num, table.newest)

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


def _combine(rows: Params, weights: Array, like: Params) -> Params:
    """The sum of the rows by weights, like `like`, in at least float32."""

    def leaf(a: Array, v: Array) -> Array:
        return jax.lax.dot_general(
            weights,
            a.astype(weights.dtype),
            (((0,), (0,)), ((), ())),
            precision=jax.lax.Precision.HIGHEST,
            out_sharding=layout.explicit(v),
        )

    return jax.tree.map(leaf, rows, like)


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
    dtype, num = table.cross.dtype, table.cross.shape[0]
    newest = table.newest
    last = jax.tree.map(
        lambda a: jax.lax.dynamic_index_in_dim(a, newest, keepdims=False), history.changes
    )
    cross = table.cross.at[:, newest].set(basis.coefficients(history.steps, last))
    column = basis.coefficients(history.changes, last)
    gram = table.gram.at[:, newest].set(column).at[newest, :].set(column)
    table = table._replace(cross=cross, gram=gram)

    age = (newest - jnp.arange(num, dtype=newest.dtype)) % num  # row k from the youngest
    order = age[::-1]
    held = jnp.arange(num, dtype=newest.dtype) >= num - table.num_pairs  # in `order`, oldest first
    both = held[:, None] & held[None, :]
    upper = jnp.where(both, jnp.triu(cross[order][:, order]), jnp.eye(num, dtype=dtype))
    gamma = jnp.where(scaled, _scale(table), 1)
    s_dot = jnp.where(held, basis.coefficients(history.steps, vector)[order], 0)
    y_dot = jnp.where(held, basis.coefficients(history.changes, vector)[order], 0)
    a = solve_triangular(upper, s_dot)
    rest = y_dot - jnp.where(both, gram[order][:, order], 0) @ a
    b = solve_triangular(upper, jnp.diag(upper) * a - gamma * rest, trans="T")
    place = jnp.zeros((num,), dtype).at[order]
    minus = _combine(history.changes, place.set(jnp.where(held, gamma * a, 0)), vector)
    plus = _combine(history.steps, place.set(jnp.where(held, b, 0)), vector)
    product = jax.tree.map(lambda v, y, s: gamma * v.astype(y.dtype) - y + s, vector, minus, plus)
    return table, product


def _scale(table: Table) -> Array:
    """gamma = s.y / y.y of the newest pair; 1 without pairs."""
    newest = table.newest
    top, bottom = table.cross[newest, newest], table.gram[newest, newest]
    some = (table.num_pairs > 0) & (bottom > 0)
    return jnp.where(some, top / jnp.where(some, bottom, 1), 1)
