r"""Eigenpairs at the ends of a spectrum by thick-restart Lanczos.

m products with symmetric H give orthonormal Q = [q_0 ... q_{m-1}] and a unit vector q_m with

    H Q  =  Q T + beta q_m e_m',     T y = w y,     |H Q y - w Q y| = beta |y_m|      (1)

and those Ritz pairs at the ends converge first. With m vectors in memory and pairs still wanting, p
of them are kept and the recurrence goes on from

    [Q y_1 ... Q y_p, q_m],    T = diag(w_1 ... w_p) bordered by beta y_m.             (2)

Every new vector is orthogonalized against all others, a second time where the first left little of
it. It joins the rows with others of its block: XLA copies all that one loop both reads and writes.
Where one vanishes, span Q is invariant, and a random one finds multiple eigenvalues too.

Source: Wu & Simon (2000), "Thick-restart Lanczos method for large symmetric eigenvalue problems",
SIAM J. Matrix Anal. Appl. 22, 602-616; Daniel, Gragg, Kaufman & Stewart (1976) for the second time.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import pseudo_random, tree
from hesskit.core.types import Array, Params, Product
from hesskit.linalg import basis
from hesskit.linalg.lanczos import NEGLIGIBLE

BLOCK = 8
"""Rows read at once, and written at once: 8 of 20,000 numbers are in cache when used again."""

AGAIN = 0.5
"""A vector that keeps less of its length is orthogonalized again (Daniel et al.: 1/10 to 1)."""


class Pairs(NamedTuple):
    """The Ritz pairs that were asked for, ascending."""

    values: Array  # (k,), NaN where there are none
    vectors: Params  # (k, *shape), of norm 1
    residual_norms: Array  # (k,), |H v - w v|, at least the rounding of a product
    norm: Array  # (), the largest |Hq|, a lower bound of |H|
    num_products: Array  # (), int32
    finite: Array  # (), bool: every product was


class _Step(NamedTuple):
    """The recurrence before a product."""

    q: Params  # q_j, whose product is to come
    recent: Params  # (BLOCK, *shape), vectors that are not yet among the rows, q_j the last
    t: Array  # (m, m)
    known: Params  # sum_{i<j} T_ij q_i, of the product to come
    j: Array  # (), int32, vectors whose product is known
    beta: Array  # (), of the last vector
    norm: Array
    num_products: Array
    finite: Array


class _Carry(NamedTuple):
    rows: Params  # (m + 1 + BLOCK, *shape), Q', q_m, and room for a block
    step: _Step
    over: Array  # (), bool: nothing more to do


def eigenpairs(
    product: Product,
    like: Params,
    start: Params,
    tol: Array,
    max_products: Array,
    *,
    lowest: int,
    highest: int,
    num_rows: int,
) -> Pairs:
    """The `lowest` smallest and `highest` largest eigenvalues of H with their vectors.

    Ends where |H v - w v| <= tol |H| for all of them, or after `max_products`.

    Args:
      product: v -> Hv, symmetric; called at one place, with vectors like `like`.
      like: gives structure, shapes and dtypes, real.
      start: a random vector like `like`; must not be zero.
      tol: relative to |H|, ().
      max_products: bound, (), int32.
      lowest: static.
      highest: static; `lowest + highest` is at most n.
      num_rows: m, static, at most n; more than `lowest + highest` unless it is n.

    Returns:
      `Pairs` in at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> h = jnp.arange(1.0, 9.0)
      >>> found = eigenpairs(lambda v: h * v, h, h, 1e-5, 99, lowest=1, highest=2, num_rows=6)
      >>> print(jnp.abs(found.values - jnp.array([1.0, 7.0, 8.0])).max() < 1e-4)
      True
    """
    n, wanted = tree.size(like), lowest + highest
    kept = min(wanted + (num_rows - wanted) // 2, num_rows - 1)
    low_kept = -(-kept * lowest // wanted)

    def not_full(step: _Step) -> Array:
        return (step.j < num_rows) & (step.num_products < max_products) & step.finite

    def block(carry: tuple[Params, _Step]) -> tuple[Params, _Step]:
        rows, before = carry

        def has_room(step: _Step) -> Array:
            return not_full(step) & (step.j < before.j + BLOCK)

        def extended(step: _Step) -> _Step:
            known = _Known(rows, before.j + 1, step.recent, step.j - before.j)
            return _extend(product, like, known, step, exhausted=num_rows == n)

        step = jax.lax.while_loop(has_room, extended, before)
        return _written(rows, step.recent, before.j + 1), step

    def cycle(carry: _Carry) -> _Carry:
        pair = carry.rows, carry.step
        if num_rows < n:  # else there is one cycle
            restarted = functools.partial(_compressed, *pair, kept, low_kept)
            pair = tree.while_once(carry.step.j == num_rows, restarted, pair)
        rows, step = jax.lax.while_loop(lambda pair: not_full(pair[1]), block, pair)
        _, _, residuals = _ritz(step, lowest, highest)
        over = jnp.all(residuals <= tol * step.norm) | (num_rows == n)
        return _Carry(rows, step, over | ~step.finite | (step.num_products >= max_products))

    rows, step, _ = jax.lax.while_loop(
        lambda carry: ~carry.over, cycle, _Carry(*_start(start, num_rows), jnp.array(False))
    )
    values, y, residuals = _ritz(step, lowest, highest)
    eps = jnp.finfo(values.dtype).eps
    known = step.finite & (step.j >= wanted)
    return Pairs(
        values=jnp.where(known, values, jnp.nan),
        vectors=basis.combinations(_first(rows, num_rows), y),
        residual_norms=jnp.where(
            known, jnp.maximum(residuals, NEGLIGIBLE * eps * step.norm), jnp.inf
        ),
        norm=step.norm,
        num_products=step.num_products,
        finite=step.finite,
    )


class _Known(NamedTuple):
    """The vectors that a new one is to be orthogonal to."""

    rows: Params
    num_rows: Array  # (), int32
    recent: Params
    num_recent: Array  # (), int32


def _start(start: Params, num_rows: int) -> tuple[Params, _Step]:
    first = wide = tree.widen(start)
    first = tree.scale(1 / tree.norm(first), first)
    dtype = tree.result_dtype(wide)
    zero, count = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
    rows = tree.rows_like(wide, num_rows + 1 + BLOCK)
    step = _Step(
        q=first,
        recent=tree.rows_like(wide, BLOCK),
        t=jnp.zeros((num_rows, num_rows), dtype),
        known=tree.zeros_like(wide),
        j=count,
        beta=zero,
        norm=zero,
        num_products=count,
        finite=jnp.array(True),
    )
    return jax.tree.map(lambda a, b: a.at[0].set(b), rows, first), step


def _first(rows: Params, num: int) -> Params:
    return jax.tree.map(lambda a: a[:num], rows)


def _written(rows: Params, block: Params, at: Array) -> Params:
    """`rows` with a block of them replaced."""
    put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=at, axis=0)
    return jax.tree.map(put, rows, block)


def _without(rows: Params, x: Params, num: Array) -> Params:
    """`x` without its part in the span of a block of rows, of which the first `num` count."""
    c = jnp.where(jnp.arange(BLOCK, dtype=jnp.int32) < num, basis.coefficients(rows, x), 0)
    return tree.sub(x, basis.combination(rows, c))


def _projected(known: _Known, x: Params) -> Params:
    """`x` without its part in the span of all that is known, block by block."""

    def body(i: Array, x: Params) -> Params:
        take = functools.partial(
            jax.lax.dynamic_slice_in_dim, start_index=i * BLOCK, slice_size=BLOCK
        )
        return _without(jax.tree.map(take, known.rows), x, known.num_rows - i * BLOCK)

    x = jax.lax.fori_loop(0, -(-known.num_rows // BLOCK), body, x)
    return _without(known.recent, x, known.num_recent)


def _orthogonalized(known: _Known, x: Params) -> Params:
    """The same, once more where little is left."""
    before = tree.norm(x)
    x = _projected(known, x)
    again = tree.norm(x) < AGAIN * before
    return tree.while_once(again, lambda: _projected(known, x), x)


def _extend(
    product: Product, like: Params, known: _Known, step: _Step, *, exhausted: bool
) -> _Step:
    """One product, and the vector it gives."""
    j, num_rows = step.j, step.t.shape[0]
    hq = tree.widen(tree.cast_like(product(tree.cast_like(step.q, like)), like))
    size = tree.norm(hq)
    finite = jnp.isfinite(size)
    hq = tree.where(finite, hq, tree.zeros_like(hq))
    norm = jnp.maximum(step.norm, jnp.where(finite, size, 0))
    alpha = tree.vdot(step.q, hq)
    w = tree.axpy(-alpha, step.q, tree.sub(hq, step.known))
    missed = tree.vdot(step.q, w)
    alpha = alpha + missed
    w = _orthogonalized(known, tree.axpy(-missed, step.q, w))
    beta = tree.norm(w)
    negligible = NEGLIGIBLE * jnp.finfo(beta.dtype).eps
    vanished = ~(beta > negligible * norm)

    def fresh() -> Params:
        x = _orthogonalized(known, pseudo_random.like(w, step.num_products))
        return tree.scale(1 / tree.norm(x), x)

    unit = tree.scale(1 / jnp.where(vanished, 1, beta), w)
    more = (j + 1 < num_rows) | (not exhausted)
    unit = tree.while_once(vanished & more, fresh, unit)
    beta = jnp.where(vanished, 0, beta)
    t = step.t.at[j, j].set(alpha)
    t = t.at[j, j + 1].set(beta, mode="drop").at[j + 1, j].set(beta, mode="drop")
    return _Step(
        q=unit,
        recent=jax.tree.map(lambda a, b: a.at[known.num_recent].set(b), step.recent, unit),
        t=jnp.where(finite, t, step.t),
        known=tree.scale(beta, step.q),
        j=j + finite.astype(jnp.int32),
        beta=beta,
        norm=norm,
        num_products=step.num_products + 1,
        finite=finite,
    )


def _decomposed(step: _Step) -> tuple[Array, Array]:
    """Eigenvalues and vectors of T; those of rows not yet known come last."""
    index = jnp.arange(step.t.shape[0], dtype=jnp.int32)
    valid = index < step.j
    t = jnp.where(valid[:, None] & valid[None, :], step.t, 0)
    bound = jnp.max(jnp.sum(jnp.abs(t), axis=0))
    t = t + jnp.diag(jnp.where(valid, 0, 2 * bound + 1))
    return jnp.linalg.eigh(t, symmetrize_input=False)


def _chosen(step: _Step, lowest: int, highest: int) -> Array:
    """The places of the pairs at the ends among all, ascending."""
    ends = jnp.arange(lowest, dtype=jnp.int32), jnp.arange(highest, dtype=jnp.int32)
    top = jnp.maximum(step.j - highest + ends[1], 0)
    return jnp.concatenate([ends[0], top])


def _ritz(step: _Step, lowest: int, highest: int) -> tuple[Array, Array, Array]:
    """The pairs at the ends: values (k,), coordinates (k, m), residual norms (k,)."""
    w, y = _decomposed(step)
    places = _chosen(step, lowest, highest)
    y = y[:, places].T
    last = jnp.abs(y[:, jnp.maximum(step.j - 1, 0)])
    return w[places], y, step.beta * last


def _compressed(rows: Params, step: _Step, kept: int, low_kept: int) -> tuple[Params, _Step]:
    """The restart (2)."""
    num_rows = step.t.shape[0]
    w, y, _ = _ritz(step, low_kept, kept - low_kept)
    border = step.beta * y[:, -1]
    t = jnp.zeros_like(step.t)
    t = t.at[:kept, :kept].set(jnp.diag(w))
    t = t.at[kept, :kept].set(border).at[:kept, kept].set(border)
    new = basis.combinations(_first(rows, num_rows), y)

    def leaf(a: Array, b: Array, q: Array) -> Array:
        return a.at[:kept].set(b).at[kept].set(q)

    step = step._replace(t=t, known=basis.combination(new, border), j=jnp.full_like(step.j, kept))
    return jax.tree.map(leaf, rows, new, step.q), step
