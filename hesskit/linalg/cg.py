r"""Preconditioned conjugate gradients.

For symmetric H known by its products, and M positive definite known by v -> M^{-1}v,

    H x = b,   r = b - Hx,   stop at |r|_{M^-1} = sqrt(r.M^{-1}r) <= tol    (1)

    alpha = d.r / d.Hd,   x += alpha d,   r -= alpha Hd,
    z = M^{-1}r,   beta = r.z / (r.z)_old,   d = z + beta d                 (2)

Each iterate minimizes x.Hx/2 - b.x over a growing Krylov space as long as d.Hd > 0. Otherwise H is
not positive definite along d, which is an answer and not an error: the loop ends before the step
and d is returned. alpha is written so that it minimizes along d whatever rounding did to r.z.

Sums run over vectors kept in at least float32; d, at which H is applied, has the dtype of b.
Inside, b is scaled by a power of two (exactly), so the answer does not depend on its unit.

Source: Hestenes & Stiefel (1952); Nocedal & Wright (2006), Algorithm 5.3.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Params, Product, Scalar


class CGResult(NamedTuple):
    """The last iterate and why it is the last."""

    x: Params
    residual: Params  # b - Hx, from the recurrence
    residual_norm: Array  # (), in the norm of M^{-1}
    num_products: Array  # (), int32
    converged: Array  # (), bool: residual_norm <= tol
    negative_curvature: Array  # (), bool: d.Hd <= 0
    flat: Array  # (), bool: d.Hd <= eps |d| |Hd|, zero to rounding; x stays finite
    direction: Params  # the last d, with |d| = 1 and b.d >= 0
    curvature: Array  # (), d.Hd; 0 without products


class _Carry(NamedTuple):
    x: Params
    r: Params
    d: Params  # at first x0, where there is one
    rz: Array
    kappa: Array  # d.Hd
    num_products: Array
    is_start: Array  # the product to come is H x0
    negative: Array
    flat: Array
    going: Array


def stretch(scale: Params | None, x: Params) -> Params:
    """D x."""
    if scale is None:
        return x
    return jax.tree.map(lambda a, d: a * d.astype(a.dtype), x, scale)


def shrink(scale: Params | None, x: Params) -> Params:
    """D^{-1} x."""
    if scale is None:
        return x
    return jax.tree.map(lambda a, d: a / d.astype(a.dtype), x, scale)


def scaled_product(scale: Params | None, product: Product) -> Product:
    """The map v -> D^{-1} H D^{-1} v."""
    if scale is None:
        return product
    return lambda v: shrink(scale, tree.cast_like(product(shrink(scale, v)), v))


def _body(
    carry: _Carry,
    product: Product,
    solve: Callable[[Params], Params],
    tol: Array,
) -> _Carry:
    """One product: of x0 if there is one and it is the first, else an iteration of (2)."""
    product_d = tree.cast_like(product(carry.d), carry.d)
    d, hd = tree.widen(carry.d), tree.widen(product_d)
    kappa, slope = tree.vdot(d, hd), tree.vdot(d, carry.r)
    eps = tree.coarsest_eps(carry.d)
    negative = (kappa <= 0) & ~carry.is_start
    flat = (kappa <= eps * tree.norm(d) * tree.norm(hd)) & ~carry.is_start
    alpha = jnp.where(carry.is_start, 1, slope / kappa)
    x = tree.axpy(jnp.where(carry.is_start, 0, alpha), d, carry.x)
    r = tree.axpy(-alpha, hd, carry.r)
    z = solve(r)
    rz = tree.vdot(r, z)
    finite = jnp.isfinite(rz) & jnp.isfinite(kappa) & tree.all_finite(x)
    commit = finite & ~flat & (carry.is_start | (slope > 0))
    going = commit & (jnp.sqrt(rz) > tol)
    beta = jnp.where(carry.is_start, 0, rz / carry.rz)
    next_d = tree.cast_like(tree.axpy(beta, d, z), carry.d)
    known = jnp.isfinite(kappa) & ~carry.is_start
    return _Carry(
        x=tree.where(commit, x, carry.x),
        r=tree.where(commit, r, carry.r),
        d=tree.where(going, next_d, carry.d),
        rz=jnp.where(commit, rz, carry.rz),
        kappa=jnp.where(known, kappa, carry.kappa),
        num_products=carry.num_products + 1,
        is_start=jnp.zeros_like(carry.is_start),
        negative=negative,
        flat=flat,
        going=going,
    )


def cg(
    product: Product,
    b: Params,
    *,
    tol: Scalar,
    max_products: Scalar,
    x0: Params | None = None,
    precondition: Callable[[Params], Params] | None = None,
    needed: Scalar = True,
) -> CGResult:
    """Solves H x = b, or finds a direction in which H is not positive definite.

    Ends at the first of: the tolerance, `max_products`, a direction with d.Hd <= 0 or zero to
    rounding, a product or preconditioner that is not finite. x is the last good iterate in every
    case: zero, or `x0`, if the first product already says so.

    Args:
        product: v -> Hv, symmetric; called at one place, with vectors like `b`.
        b: right-hand side.
        tol: absolute, on the residual in the norm of M^{-1}, shape ().
        max_products: bound on products, shape (); may be traced.
        x0: start, shaped like `b`; costs one product. Zero if None, which costs none.
        precondition: v -> M^{-1}v, symmetric positive definite; identity if None.
        needed: shape (), bool; False costs no products, and gives the start and b as its residual.

    Returns:
        A `CGResult`; vectors in the dtype of `b`, scalars in `tree.result_dtype`.

    Example:
        >>> import jax.numpy as jnp
        >>> from hesskit.linalg.cg import cg
        >>> result = cg(lambda v: jnp.array([1.0, 4.0]) * v, jnp.ones(2), tol=1e-6, max_products=9)
        >>> print(result.x.round(4), result.num_products, result.negative_curvature)
        [1.   0.25] 2 False
    """
    dtype = tree.result_dtype(b)
    unit = tree.power_of_two(tree.max_abs(b))
    tol, max_products = jnp.asarray(tol, dtype) / unit, jnp.asarray(max_products, jnp.int32)

    def solve(r: Params) -> Params:
        return r if precondition is None else tree.widen(precondition(tree.cast_like(r, b)))

    def unfinished(carry: _Carry) -> Array:
        return carry.going & (carry.num_products < max_products)

    def original(x: Params) -> Params:
        return tree.cast_like(tree.scale(unit, x), b)

    r = tree.scale(1 / unit, tree.widen(b))
    x = (
        tree.zeros_like(r)
        if x0 is None
        else tree.scale(1 / unit, tree.widen(tree.cast_like(x0, b)))
    )
    z = solve(r)
    rz = tree.vdot(r, z)
    finite = jnp.isfinite(rz) & tree.all_finite(x)
    has_start, no = jnp.array(x0 is not None), jnp.zeros((), bool)
    start = _Carry(
        x=x,
        r=r,
        d=tree.cast_like(z if x0 is None else x, b),
        rz=rz,
        kappa=jnp.zeros_like(rz),
        num_products=jnp.zeros((), jnp.int32),
        is_start=has_start,
        negative=no,
        flat=no,
        going=jnp.asarray(needed) & finite & (has_start | (jnp.sqrt(rz) > tol)),
    )
    end = jax.lax.while_loop(unfinished, lambda carry: _body(carry, product, solve, tol), start)
    d_norm = tree.norm(end.d)
    d_norm = jnp.where(d_norm > 0, d_norm, 1)
    residual_norm = jnp.sqrt(jnp.maximum(end.rz, 0))
    return CGResult(
        x=original(end.x),
        residual=original(end.r),
        residual_norm=unit * residual_norm,
        num_products=end.num_products,
        converged=residual_norm <= tol,
        negative_curvature=end.negative,
        flat=end.flat,
        direction=tree.cast_like(tree.scale(1 / d_norm, tree.widen(end.d)), b),
        curvature=end.kappa / d_norm / d_norm,
    )
