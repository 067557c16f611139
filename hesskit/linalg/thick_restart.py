r"""Eigenpairs at the ends of a spectrum by thick-restart Lanczos.

m products with symmetric H give orthonormal Q = [q_0 ... q_{m-1}] and a unit vector q_m with

    H Q  =  Q T + beta q_m e_m',     T y = w y,     |H Q y - w Q y| = beta |y_m|      (1)

and those Ritz pairs at the ends converge first. With m vectors in memory and pairs still wanting, p
of them are kept and the recurrence goes on from

    [Q y_1 ... Q y_p, q_m],    T = diag(w_1 ... w_p) bordered by beta y_m.             (2)

Every new vector is orthogonalized against all others, a second time where the first left little of
it. Where a vector vanishes, span Q is invariant and a random one is put in its place, so that
multiple eigenvalues are found too.

Source: Wu & Simon (2000), "Thick-restart Lanczos method for large symmetric eigenvalue problems",
SIAM J. Matrix Anal. Appl. 22, 602-616; Daniel, Gragg, Kaufman & Stewart (1976) for the second time.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import pseudo_random, tree
from hesskit.core.types import Array, Params, Product
from hesskit.linalg import basis
from hesskit.linalg.lanczos import NEGLIGIBLE

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


class _Carry(NamedTuple):
    rows: Params  # (m + 1, *shape), Q' and q_m
    t: Array  # (m, m)
    known: Params  # sum_{i<j} T_ij q_i, of the product to come
    j: Array  # (), int32, vectors whose product is known
    beta: Array  # (), of the last vector
    norm: Array
    num_products: Array
    finite: Array
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
    carry = _start(start, num_rows)

    def not_full(carry: _Carry) -> Array:
        going = (carry.j < num_rows) & (carry.num_products < max_products)
        return going & carry.finite & ~carry.over

    def step(carry: _Carry) -> _Carry:
        return _extend(product, like, carry, exhausted=num_rows == n)

    def cycle(carry: _Carry) -> _Carry:
        full = carry.j == num_rows
        carry = _Carry(
            *tree.while_once(full, lambda: _compressed(carry, kept, low_kept, num_rows), carry)
        )
        carry = jax.lax.while_loop(not_full, step, carry)
        _, _, residuals = _ritz(carry, lowest, highest)
        over = jnp.all(residuals <= tol * carry.norm) | (num_rows == n)
        over |= ~carry.finite | (carry.num_products >= max_products)
        return carry._replace(over=carry.over | over)

    carry = jax.lax.while_loop(lambda carry: ~carry.over, cycle, carry)
    values, y, residuals = _ritz(carry, lowest, highest)
    rows = jax.tree.map(lambda a: a[:-1], carry.rows)
    eps = jnp.finfo(values.dtype).eps
    known = carry.finite & (carry.j >= wanted)
    return Pairs(
        values=jnp.where(known, values, jnp.nan),
        vectors=basis.combinations(rows, y),
        residual_norms=jnp.where(
            known, jnp.maximum(residuals, NEGLIGIBLE * eps * carry.norm), jnp.inf
        ),
        norm=carry.norm,
        num_products=carry.num_products,
        finite=carry.finite,
    )


def _start(start: Params, num_rows: int) -> _Carry:
    first = wide = tree.widen(start)
    first = tree.scale(1 / tree.norm(first), first)
    dtype = tree.result_dtype(wide)
    zero, count = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
    rows = tree.rows_like(wide, num_rows + 1)
    return _Carry(
        rows=jax.tree.map(lambda a, b: a.at[0].set(b), rows, first),
        t=jnp.zeros((num_rows, num_rows), dtype),
        known=tree.zeros_like(wide),
        j=count,
        beta=zero,
        norm=zero,
        num_products=count,
        finite=jnp.array(True),
        over=jnp.array(False),
    )


def _project(rows: Params, x: Params, valid: Array) -> tuple[Params, Array]:
    """`x` without its part in the span of the valid rows, and the coefficients of that part."""
    c = jnp.where(valid, basis.coefficients(rows, x), 0)
    return tree.sub(x, basis.combination(rows, c)), c


def _orthogonalized(rows: Params, x: Params, valid: Array) -> tuple[Params, Array]:
    """The same, once more where little is left."""
    before = tree.norm(x)
    x, c = _project(rows, x, valid)
    again = tree.norm(x) < AGAIN * before

    def second() -> tuple[Params, Array]:
        y, d = _project(rows, x, valid)
        return y, c + d

    return tree.while_once(again, second, (x, c))


def _extend(product: Product, like: Params, carry: _Carry, *, exhausted: bool) -> _Carry:
    """One product, and the vector it gives."""
    j, num_rows = carry.j, carry.t.shape[0]
    index = jnp.arange(num_rows + 1, dtype=jnp.int32)
    q = jax.tree.map(lambda a: a[j], carry.rows)
    hq = tree.widen(tree.cast_like(product(tree.cast_like(q, like)), like))
    size = tree.norm(hq)
    finite = jnp.isfinite(size)
    hq = tree.where(finite, hq, tree.zeros_like(hq))
    norm = jnp.maximum(carry.norm, jnp.where(finite, size, 0))
    alpha = tree.vdot(q, hq)
    w = tree.axpy(-alpha, q, tree.sub(hq, carry.known))
    w, c = _orthogonalized(carry.rows, w, index <= j)
    alpha = alpha + c[j]
    beta = tree.norm(w)
    negligible = NEGLIGIBLE * jnp.finfo(beta.dtype).eps
    vanished = ~(beta > negligible * norm)

    def fresh() -> Params:
        x = pseudo_random.like(w, carry.num_products)
        x, _ = _orthogonalized(carry.rows, x, index <= j)
        return tree.scale(1 / tree.norm(x), x)

    unit = tree.scale(1 / jnp.where(vanished, 1, beta), w)
    more = (j + 1 < num_rows) | (not exhausted)
    unit = tree.while_once(vanished & more, fresh, unit)
    beta = jnp.where(vanished, 0, beta)
    t = carry.t.at[j, j].set(alpha)
    t = t.at[j, j + 1].set(beta, mode="drop").at[j + 1, j].set(beta, mode="drop")
    return _Carry(
        rows=jax.tree.map(lambda a, b: a.at[j + 1].set(b), carry.rows, unit),
        t=jnp.where(finite, t, carry.t),
        known=tree.scale(beta, q),
        j=j + finite.astype(jnp.int32),
        beta=beta,
        norm=norm,
        num_products=carry.num_products + 1,
        finite=finite,
        over=carry.over,
    )


def _decomposed(carry: _Carry) -> tuple[Array, Array]:
    """Eigenvalues and vectors of T; those of rows not yet known come last."""
    index = jnp.arange(carry.t.shape[0], dtype=jnp.int32)
    valid = index < carry.j
    t = jnp.where(valid[:, None] & valid[None, :], carry.t, 0)
    bound = jnp.max(jnp.sum(jnp.abs(t), axis=0))
    t = t + jnp.diag(jnp.where(valid, 0, 2 * bound + 1))
    return jnp.linalg.eigh(t, symmetrize_input=False)


def _chosen(carry: _Carry, lowest: int, highest: int) -> Array:
    """The places of the pairs at the ends among all, ascending."""
    ends = jnp.arange(lowest, dtype=jnp.int32), jnp.arange(highest, dtype=jnp.int32)
    top = jnp.maximum(carry.j - highest + ends[1], 0)
    return jnp.concatenate([ends[0], top])


def _ritz(carry: _Carry, lowest: int, highest: int) -> tuple[Array, Array, Array]:
    """The pairs at the ends: values (k,), coordinates (k, m), residual norms (k,)."""
    w, y = _decomposed(carry)
    places = _chosen(carry, lowest, highest)
    y = y[:, places].T
    last = jnp.abs(y[:, jnp.maximum(carry.j - 1, 0)])
    return w[places], y, carry.beta * last


def _compressed(carry: _Carry, kept: int, low_kept: int, num_rows: int) -> _Carry:
    """The restart (2)."""
    w, y, _ = _ritz(carry, low_kept, kept - low_kept)
    border = carry.beta * y[:, -1]
    t = jnp.zeros_like(carry.t)
    t = t.at[:kept, :kept].set(jnp.diag(w))
    t = t.at[kept, :kept].set(border).at[:kept, kept].set(border)

    def leaf(a: Array, new: Array) -> Array:
        return a.at[:kept].set(new).at[kept].set(a[num_rows])

    old = jax.tree.map(lambda a: a[:-1], carry.rows)
    rows = jax.tree.map(leaf, carry.rows, basis.combinations(old, y))
    padded = jnp.concatenate([border, jnp.zeros((num_rows + 1 - kept,), border.dtype)])
    return carry._replace(
        rows=rows,
        t=t,
        known=basis.combination(rows, padded),
        j=jnp.full_like(carry.j, kept),
    )
