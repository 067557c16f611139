r"""Truncated conjugate gradients in a trust region.

With gradient g, symmetric H (perhaps indefinite) known by its products, and M positive definite,

    s  ~  argmin  m(s) = g.s + s.Hs / 2   subject to   |s|_M <= radius      (1)

by conjugate gradients from s = 0, preconditioned with M^{-1}, until

    |g + Hs|_{M^-1} <= tol,   or  d.Hd <= 0,   or  |s|_M would reach the radius;  (2)

in the last two cases s goes on along d to the boundary. m falls and |s|_M grows with every
iterate, and the first is the Cauchy point. |s|_M and s.Md come from recurrences (no products with
M); without a preconditioner they are computed. With `scale` = D everything happens in z = D s,
where the gradient is D^{-1}g and the matrix D^{-1}HD^{-1}; M belongs to that space, so that
|s| = |D s|_M.

Vectors that sums run over are kept in at least float32; d, at which H is applied, has the dtype of
the gradient. Inside, g and the radius are scaled by powers of two (exactly), so the answer does
not depend on their units.

Source: Steihaug (1983), "The conjugate gradient method and trust regions in large scale
optimization"; Nocedal & Wright (2006), Algorithm 7.2; Conn, Gould & Toint (2000), Algorithm 7.5.1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Params, Product, Scalar
from hesskit.linalg.cg import scaled_product, shrink, stretch

WIDEST = 2.0**60
"""Bound on the ratios of units inside: its square is finite in float32."""


class SteihaugResult(NamedTuple):
    """The step, and all that `dogleg` needs for a smaller radius without products."""

    step: Params
    hessian_step: Params  # H step, from the recurrences
    predicted: Array  # (), -m(step) >= 0
    step_norm: Array  # (), in the norm of the region
    residual_norm: Array  # (), |g + H step| in the dual norm
    num_products: Array  # (), int32
    on_boundary: Array  # (), bool
    negative_curvature: Array  # (), bool: the last d had d.Hd <= 0
    direction: Params  # the last d, of norm 1; g.d <= 0
    curvature: Array  # (), d.Hd; 0 without products
    first_direction: Params  # -M^{-1} g, scaled to norm 1
    first_product: Params  # H first_direction; 0 without products
    cosine: Array  # (), of the angle between step and first_direction in that norm

    @property
    def rayleigh(self) -> Array:
        """d.Hd / d.d of the last d, whatever the norm of the region; 0 without products."""
        square = tree.vdot(self.direction, self.direction)
        return self.curvature / jnp.where(square > 0, square, 1)


class _Carry(NamedTuple):
    s: Params  # in units of `length_unit`
    r: Params  # g + Hs, in units of `force_unit`
    d: Params
    rz: Array  # |r|^2 in the dual norm
    ss: Array  # s.Ms
    sd: Array  # s.Md
    dd: Array  # d.Md
    curvature: Array  # d.Hd / d.Md
    first_product: Params
    num_products: Array
    on_boundary: Array
    negative: Array
    going: Array


def _length_to_boundary(carry: _Carry, radius: Array) -> Array:
    """The positive root t of |s + t d|_M = radius, without cancellation."""
    ss, sd, dd = carry.ss, carry.sd, carry.dd
    c = jnp.maximum(radius**2 - ss, 0)
    root = jnp.sqrt(sd**2 + dd * c)
    return jnp.where(sd > 0, c / (sd + root), (root - sd) / dd)


def _advance(
    carry: _Carry, hd: Params, radius: Array, unit: Array
) -> tuple[Params, Params, Array, Array, Array]:
    """Moves along d: the new s and r, the length, d.Hd and whether the step stays inside."""
    d = tree.widen(carry.d)
    slope, kappa = tree.vdot(carry.r, d), tree.vdot(d, hd)
    free = -slope / kappa * unit
    longer = carry.ss + free * (2 * carry.sd + free * carry.dd)
    inside = (kappa > 0) & (longer < radius**2)
    # An infinite region has no boundary: keep s, or take d = -M^{-1}g if there is none yet.
    endless = jnp.where(carry.num_products == 0, unit, 0)
    edge = jnp.where(jnp.isinf(radius), endless, _length_to_boundary(carry, radius))
    length = jnp.where(inside, free, edge)
    s, r = tree.axpy(length, d, carry.s), tree.axpy(length / unit, hd, carry.r)
    usable = jnp.isfinite(kappa) & (slope < 0) & tree.all_finite(s)
    return s, r, length, jnp.where(usable, kappa, jnp.nan), inside


def _iterate(
    product: Product,
    solve: Callable[[Params], Params],
    start: _Carry,
    radius: Array,
    *,
    unit: Array,
    tol: Array,
    max_products: Array,
    is_euclidean: bool,
) -> _Carry:
    """Algorithm 7.5.1 from `start`; `unit` is the force unit over the length unit."""

    def body(carry: _Carry) -> _Carry:
        product_d = tree.cast_like(product(carry.d), carry.d)
        if is_euclidean:
            s, d = carry.s, tree.widen(carry.d)
            carry = carry._replace(ss=tree.vdot(s, s), sd=tree.vdot(s, d), dd=tree.vdot(d, d))
        s, r, length, kappa, inside = _advance(carry, tree.widen(product_d), radius, unit)
        z = solve(r)
        rz = tree.vdot(r, z)
        commit = jnp.isfinite(kappa) & jnp.isfinite(rz)
        going = commit & inside & (jnp.sqrt(rz) > tol)
        beta = rz / carry.rz
        d = tree.cast_like(tree.axpy(beta, tree.widen(carry.d), tree.negative(z)), carry.d)
        ss = carry.ss + length * (2 * carry.sd + length * carry.dd)
        is_first = (carry.num_products == 0) & commit
        return _Carry(
            s=tree.where(commit, s, carry.s),
            r=tree.where(commit, r, carry.r),
            d=tree.where(going, d, carry.d),
            rz=jnp.where(commit, rz, carry.rz),
            ss=jnp.where(commit, ss, carry.ss),
            sd=jnp.where(going, beta * (carry.sd + length * carry.dd), carry.sd),
            dd=jnp.where(going, rz + beta**2 * carry.dd, carry.dd),
            curvature=jnp.where(commit, kappa / carry.dd, carry.curvature),
            first_product=tree.where(is_first, product_d, carry.first_product),
            num_products=carry.num_products + 1,
            on_boundary=commit & ~inside & jnp.isfinite(radius),
            negative=commit & (kappa <= 0),
            going=going,
        )

    def unfinished(carry: _Carry) -> Array:
        return carry.going & (carry.num_products < max_products)

    return jax.lax.while_loop(unfinished, body, start)


def _start(g: Params, z: Params, like: Params, tol: Array, needed: Array) -> _Carry:
    """Start at s = 0, r = g, d = -z; a gradient that is not finite counts as zero."""
    rz = tree.vdot(g, z)
    finite = jnp.isfinite(rz) & tree.all_finite(z)
    zero, no = jnp.zeros_like(rz), jnp.zeros((), bool)
    zeros = tree.zeros_like(g)
    rz = jnp.where(finite, rz, 0)
    return _Carry(
        s=zeros,
        r=tree.where(finite, g, zeros),
        d=tree.cast_like(tree.where(finite, tree.negative(z), zeros), like),
        rz=rz,
        ss=zero,
        sd=zero,
        dd=rz,
        curvature=zero,
        first_product=tree.zeros_like(like),
        num_products=jnp.zeros((), jnp.int32),
        on_boundary=no,
        negative=no,
        going=needed & (jnp.sqrt(rz) > tol),
    )


def _units(gradient: Params, radius: Array) -> tuple[Array, Array]:
    """Powers of two near max|g| and near the radius, at most `WIDEST` apart."""
    force = tree.power_of_two(tree.max_abs(gradient))
    length = jnp.where(jnp.isfinite(radius) & (radius > 0), tree.power_of_two(radius), force)
    return force, jnp.clip(length, force / WIDEST, force * WIDEST)


def _lengths(start: _Carry, end: _Carry, is_euclidean: bool) -> tuple[Array, Array, Array, Array]:
    """|s|, |d| of the first and the last d (1 if zero), the cosine of s and the first d."""
    s_norm = tree.norm(end.s) if is_euclidean else jnp.sqrt(end.ss)
    first_norm = jnp.sqrt(start.rz)
    lengths = s_norm * first_norm
    # s.M(-M^{-1}g) = -g.s
    cosine = -tree.vdot(start.r, end.s) / jnp.where(lengths > 0, lengths, 1)
    d_norm = jnp.where(end.dd > 0, jnp.sqrt(end.dd), 1)
    first_norm = jnp.where(first_norm > 0, first_norm, 1)
    return s_norm, first_norm, d_norm, jnp.clip(cosine, -1, 1)


def steihaug(
    product: Product,
    gradient: Params,
    radius: Scalar,
    *,
    tol: Scalar,
    max_products: Scalar,
    precondition: Callable[[Params], Params] | None = None,
    scale: Params | None = None,
    needed: Scalar = True,
) -> SteihaugResult:
    """Approximate minimizer of g.s + s.Hs/2 over |s| <= radius by truncated CG.

    A product that is not finite ends the loop at the last finite iterate (at the first product,
    s = 0). With an infinite radius, negative curvature ends it there too; at the first product the
    step is then the steepest descent direction -M^{-1}g, of no particular length. Both are told
    apart by `negative_curvature` and `on_boundary`.

    Args:
        product: v -> Hv, symmetric; called at one place, with vectors like `gradient`.
        gradient: g.
        radius: shape (), at least 0; may be inf.
        tol: stop at |g + Hs| <= tol in the dual norm (that of M^{-1}, in z-space), shape ().
        max_products: bound on products, shape (); may be traced.
        precondition: v -> M^{-1}v, symmetric positive definite; identity if None.
        scale: D, positive, shaped like `gradient`; identity if None.
        needed: shape (), bool; False costs no products and gives a zero step.

    Returns:
        A `SteihaugResult`; vectors in the dtype of `gradient`, scalars in `tree.result_dtype`.

    Example:
        >>> import jax.numpy as jnp
        >>> from hesskit.linalg.steihaug import steihaug
        >>> saddle = jnp.array([2.0, -1.0])
        >>> result = steihaug(lambda v: saddle * v, jnp.array([1.0, 2.0]), 1.0, tol=0.0,
        ...                   max_products=10)
        >>> print(result.negative_curvature, result.on_boundary, result.step_norm.round(3))
        True True 1.0
    """
    dtype = tree.result_dtype(gradient)
    radius, tol = jnp.asarray(radius, dtype), jnp.asarray(tol, dtype)
    g = shrink(scale, gradient)
    force_unit, length_unit = _units(g, radius)

    def solve(r: Params) -> Params:
        return r if precondition is None else tree.widen(precondition(tree.cast_like(r, gradient)))

    is_euclidean = precondition is None
    g = tree.scale(1 / force_unit, tree.widen(g))
    start = _start(g, solve(g), gradient, tol / force_unit, jnp.asarray(needed))
    end = _iterate(
        scaled_product(scale, product),
        solve,
        start,
        jnp.where(jnp.isinf(radius), radius, jnp.minimum(radius / length_unit, WIDEST)),
        unit=force_unit / length_unit,
        tol=tol / force_unit,
        max_products=jnp.asarray(max_products, jnp.int32),
        is_euclidean=is_euclidean,
    )
    g = start.r

    def original(unit: Array, x: Params) -> Params:
        return shrink(scale, tree.cast_like(tree.scale(unit, x), gradient))

    def original_product(unit: Array, x: Params) -> Params:
        return stretch(scale, tree.cast_like(tree.scale(unit, x), gradient))

    s_norm, first_norm, d_norm, cosine = _lengths(start, end, is_euclidean)
    return SteihaugResult(
        step=original(length_unit, end.s),
        hessian_step=original_product(force_unit, tree.sub(end.r, g)),
        predicted=-0.5 * tree.vdot(end.s, tree.add(g, end.r)) * force_unit * length_unit,
        step_norm=length_unit * s_norm,
        residual_norm=force_unit * jnp.sqrt(jnp.maximum(end.rz, 0)),
        num_products=end.num_products,
        on_boundary=end.on_boundary,
        negative_curvature=end.negative,
        direction=original(1 / d_norm, end.d),
        curvature=end.curvature,
        first_direction=original(1 / first_norm, start.d),
        first_product=original_product(1 / first_norm, end.first_product),
        cosine=cosine,
    )
