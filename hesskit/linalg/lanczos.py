r"""Lanczos tridiagonalization and its lowest Ritz pair.

From a start b, k products with symmetric H give orthonormal Q = [q_1 ... q_k] with

    H Q = Q T + r e_k',   Q'Q = I,   Q'r = 0,   q_1 = b / |b|,              (1)

T tridiagonal with diagonal alpha and off-diagonal beta. Every new vector is orthogonalized twice
against all others, so that (1) holds to rounding. Eigenvalues of T (Ritz values) are curvatures of
H along the Ritz vectors; those at the ends of the spectrum converge first:

    T y = w y,   |y| = 1,   d = Q y:   d.Hd = w,   H d - w d = y_k r.       (2)

Basis vectors are kept in at least float32; H is applied to vectors in the dtype of b.

Source: Golub & Van Loan (2013), section 10.3.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import pseudo_random, tree
from hesskit.core.acceptance import is_negative
from hesskit.core.types import Array, Params, Product, Scalar
from hesskit.linalg.basis import coefficients, combination

NEGLIGIBLE = 10
"""A residual of so many eps |H| is the rounding error of a product."""


class LanczosResult(NamedTuple):
    """The factorization (1) after `num_valid` steps; later rows of the basis are zero."""

    basis: Params  # Q', each leaf (num_steps, *shape)
    alpha: Array  # (num_steps,), T[i, i]; padded from num_valid on
    beta: Array  # (num_steps,), T[i, i + 1]; zero from num_valid - 1 on
    residual: Params  # r; b without steps
    residual_norm: Array  # (), |r|
    num_valid: Array  # (), int32, k
    num_products: Array  # (), int32, k or k + 1


class _Carry(NamedTuple):
    result: LanczosResult
    largest: Array  # the largest |Hq| so far, a lower bound of |H|
    going: Array


def tridiagonal(alpha: Array, beta: Array) -> Array:
    """T, shape (num_steps, num_steps); the last of `beta` is not read."""
    return jnp.diag(alpha) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1)


def _orthogonalize(basis: Params, x: Params, num_steps: int) -> tuple[Params, Array]:
    """The vector x - Q Q'x, done twice, and Q'x."""
    first = coefficients(basis, x)
    x = tree.sub(x, combination(basis, first))
    second = coefficients(basis, x)
    total = first + second  # () of vectors without leaves
    return tree.sub(x, combination(basis, second)), jnp.broadcast_to(total, (num_steps,))


def _append(result: LanczosResult, alpha: Array) -> tuple[Array, Array]:
    """The diagonals of T with one more row, padded anew."""
    k, index = result.num_valid, jnp.arange(result.alpha.shape[0], dtype=jnp.int32)
    alphas = jnp.where(index < k, result.alpha, 0).at[k].set(alpha)
    betas = result.beta.at[k - 1].set(jnp.where(k > 0, result.residual_norm, 0))
    bound = jnp.max(jnp.abs(alphas) + betas + jnp.roll(betas, 1))
    padding = jnp.where(bound > 0, 2 * bound, 1)
    return jnp.where(index <= k, alphas, padding), betas


def _empty(start: Params, num_steps: int) -> LanczosResult:
    """No steps yet; a start that is not finite counts as zero."""
    norm = tree.norm(start)
    finite = jnp.isfinite(norm)
    wide = tree.where(finite, tree.widen(start), tree.zeros_like(tree.widen(start)))
    count = jnp.zeros((), jnp.int32)
    return LanczosResult(
        basis=tree.rows_like(wide, num_steps),
        alpha=jnp.ones((num_steps,), norm.dtype),
        beta=jnp.zeros((num_steps,), norm.dtype),
        residual=wide,
        residual_norm=jnp.where(finite, norm, 0),
        num_valid=count,
        num_products=count,
    )


def lanczos(
    product: Product,
    start: Params,
    num_steps: int,
    *,
    needed: Scalar = True,
    until: Callable[[LanczosResult], Array] | None = None,
) -> LanczosResult:
    """Up to `num_steps` Lanczos steps on H from b, fully reorthogonalized.

    Ends early where span Q is invariant, |r| <= `NEGLIGIBLE` eps |H|, and before a product that is
    not finite. (To miss the former, where products round more coarsely, costs products and does no
    harm: r is then a new direction.) The padded T has the eigenvalues of its valid part and, at
    least twice as large as all of them, a padding (1 if they are zero) whose eigenvectors are
    orthogonal to e_1.

    Args:
        product: v -> Hv, symmetric; called at one place, with vectors like `start`.
        start: b.
        num_steps: static, at least 1.
        needed: shape (), bool; False costs no products.
        until: whether the factorization so far is enough, shape (), bool.

    Returns:
        A `LanczosResult` in at least float32.

    Example:
        >>> import jax.numpy as jnp
        >>> from hesskit.linalg.lanczos import lanczos, tridiagonal
        >>> h = jnp.array([1.0, 2.0, 4.0])
        >>> result = lanczos(lambda v: h * v, jnp.ones(3), 3)
        >>> print(jnp.linalg.eigvalsh(tridiagonal(result.alpha, result.beta)).round(4))
        [1. 2. 4.]
    """
    negligible = NEGLIGIBLE * jnp.finfo(tree.result_dtype(start)).eps

    def body(carry: _Carry) -> _Carry:
        result, k = carry.result, carry.result.num_valid
        q = tree.scale(1 / result.residual_norm, result.residual)
        basis = jax.tree.map(lambda rows, row: rows.at[k].set(row), result.basis, q)
        hq = tree.widen(tree.cast_like(product(tree.cast_like(q, start)), start))
        residual, c = _orthogonalize(basis, hq, num_steps)
        size, beta = tree.norm(hq), tree.norm(residual)
        commit = jnp.isfinite(size) & jnp.isfinite(beta) & jnp.all(jnp.isfinite(c))
        alphas, betas = _append(result, c[k])
        after = LanczosResult(
            basis=basis,  # a row too many is cleared at the end: no `where` over all rows
            alpha=jnp.where(commit, alphas, result.alpha),
            beta=jnp.where(commit, betas, result.beta),
            residual=tree.where(commit, residual, result.residual),
            residual_norm=jnp.where(commit, beta, result.residual_norm),
            num_valid=k + commit.astype(jnp.int32),
            num_products=result.num_products + 1,
        )
        largest = jnp.where(commit, jnp.maximum(carry.largest, size), carry.largest)
        going = commit & (beta > negligible * largest)
        if until is not None:
            going &= ~until(after)
        return _Carry(after, largest, going)

    empty = _empty(start, num_steps)
    going = jnp.asarray(needed) & (empty.residual_norm > 0)
    first = _Carry(empty, jnp.zeros_like(empty.residual_norm), going)
    result = jax.lax.while_loop(
        lambda carry: carry.going & (carry.result.num_valid < num_steps), body, first
    ).result
    extra = jnp.where(result.num_products > result.num_valid, result.num_valid, num_steps)
    return result._replace(
        basis=jax.tree.map(lambda rows: rows.at[extra].set(0, mode="drop"), result.basis)
    )


def decompose(result: LanczosResult) -> tuple[Array, Array]:
    """Eigenvalues w and eigenvectors V of the padded T."""
    answer = jnp.linalg.eigh(tridiagonal(result.alpha, result.beta))
    return answer.eigenvalues, answer.eigenvectors


def decompose_if_any(result: LanczosResult) -> tuple[Array, Array]:
    """The same, computed only if there is a step; else w = 1, V = 0."""
    w = jnp.ones_like(result.alpha)
    none = w, jnp.zeros_like(jnp.diag(w))
    answer = tree.while_once(result.num_valid > 0, lambda: decompose(result), none)
    w, vectors = jax.tree.leaves(answer)
    return w, vectors


def last_entry(x: Array, num_valid: Array) -> Array:
    """Entry k of x (k counts from 1), zero if k = 0."""
    return jnp.where(num_valid > 0, x[num_valid - 1], 0)


class Escape(NamedTuple):
    """The lowest curvature found."""

    curvature: Array  # (), the lowest Ritz value, d.Hd; 0 without products
    negative: Array  # (), bool: below -eps^(2/3) of the largest, so not its rounding noise
    direction: Params  # d, of norm 1; zero without products
    product_direction: Params  # H d
    residual_norm: Array  # (), |Hd - curvature d|: an eigenvalue of H is that near
    num_products: Array  # (), int32
    finite: Array  # (), bool: the first product was, if there was one


def escape(
    product: Product,
    params_like: Params,
    *,
    num_steps: int,
    seed: int = 0,
    needed: Scalar = True,
) -> Escape:
    """The lowest Ritz pair of H from a fixed pseudo-random start: where a saddle point goes down.

    `negative` says that H is indefinite, beyond the rounding of its products. The reverse is a
    matter of chance and steps: an eigenvalue far below the others shows within a few.

    Args:
        product: v -> Hv, symmetric; called at one place, with vectors like `params_like`.
        params_like: gives structure, shapes and dtypes.
        num_steps: static bound on products, at least 1.
        seed: of the start.
        needed: shape (), bool; False costs no products and gives zeros.

    Returns:
        An `Escape`; vectors in the dtype of `params_like`, scalars in `tree.result_dtype`.

    Example:
        >>> import jax.numpy as jnp
        >>> from hesskit.linalg.lanczos import escape
        >>> h = jnp.array([1.0, -2.0, 4.0])
        >>> print(escape(lambda v: h * v, jnp.zeros(3), num_steps=3).curvature.round(4))
        -2.0
    """
    start = pseudo_random.like(params_like, seed)
    result = lanczos(product, start, num_steps, needed=needed)
    w, vectors = decompose_if_any(result)
    y = vectors[:, 0]
    last = last_entry(y, result.num_valid)
    direction = combination(result.basis, y)
    curvature = jnp.where(result.num_valid > 0, w[0], 0)
    valid = jnp.arange(num_steps, dtype=jnp.int32) < result.num_valid
    largest = jnp.max(jnp.where(valid, jnp.abs(result.alpha) + jnp.abs(result.beta), 0))
    return Escape(
        curvature=curvature,
        negative=is_negative(curvature, largest, tree.coarsest_eps(params_like)),
        direction=tree.cast_like(direction, start),
        product_direction=tree.cast_like(
            tree.axpy(curvature, direction, tree.scale(last, result.residual)), start
        ),
        residual_norm=jnp.abs(last) * result.residual_norm,
        num_products=result.num_products,
        finite=(result.num_valid > 0) | (result.num_products == 0),
    )
