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
from hesskit.linalg.cg import power_of_two, widen
from hesskit.linalg.more_sorensen import trust_region_step

WIDEST = 2.0**60
"""Bound on the ratios of units inside: its square is finite in float32."""


class PairMetric(NamedTuple):
    """The Gram matrix of two vectors u and v in the norm of the region, safe from overflow."""

    u_norm: Array  # ()
    v_norm: Array  # ()
    cosine: Array  # (), in [-1, 1]; 0 if u or v is zero


class SteihaugResult(NamedTuple):
    """The step, and all that a smaller radius needs to do without further products."""

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
    metric: PairMetric  # of u = step, v = first_direction


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
    d = widen(carry.d)
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
            s, d = carry.s, widen(carry.d)
            carry = carry._replace(ss=tree.vdot(s, s), sd=tree.vdot(s, d), dd=tree.vdot(d, d))
        s, r, length, kappa, inside = _advance(carry, widen(product_d), radius, unit)
        z = solve(r)
        rz = tree.vdot(r, z)
        commit = jnp.isfinite(kappa) & jnp.isfinite(rz)
        going = commit & inside & (jnp.sqrt(rz) > tol)
        beta = rz / carry.rz
        d = tree.cast_like(tree.axpy(beta, widen(carry.d), tree.negative(z)), carry.d)
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
    force = power_of_two(tree.max_abs(gradient))
    length = jnp.where(jnp.isfinite(radius) & (radius > 0), power_of_two(radius), force)
    return force, jnp.clip(length, force / WIDEST, force * WIDEST)


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
        >>> print(result.negative_curvature, result.on_boundary, result.step_norm)
        True True 1.0
    """
    dtype = tree.result_dtype(gradient)
    radius, tol = jnp.asarray(radius, dtype), jnp.asarray(tol, dtype)
    g = shrink(scale, gradient)
    force_unit, length_unit = _units(g, radius)

    def solve(r: Params) -> Params:
        return r if precondition is None else widen(precondition(tree.cast_like(r, gradient)))

    g = tree.scale(1 / force_unit, widen(g))
    start = _start(g, solve(g), gradient, tol / force_unit, jnp.asarray(needed))
    end = _iterate(
        scaled_product(scale, product),
        solve,
        start,
        jnp.where(jnp.isinf(radius), radius, jnp.minimum(radius / length_unit, WIDEST)),
        unit=force_unit / length_unit,
        tol=tol / force_unit,
        max_products=jnp.asarray(max_products, jnp.int32),
        is_euclidean=precondition is None,
    )
    g, s = start.r, end.s
    s_norm = tree.norm(s) if precondition is None else jnp.sqrt(end.ss)
    first_norm = jnp.sqrt(start.rz)
    unit_first = jnp.where(first_norm > 0, first_norm, 1)
    d_norm = jnp.where(end.dd > 0, jnp.sqrt(end.dd), 1)
    lengths = s_norm * first_norm
    cosine = -tree.vdot(g, s) / jnp.where(lengths > 0, lengths, 1)

    def original(unit: Array, x: Params) -> Params:
        return shrink(scale, tree.cast_like(tree.scale(unit, x), gradient))

    def original_product(unit: Array, x: Params) -> Params:
        return stretch(scale, tree.cast_like(tree.scale(unit, x), gradient))

    step_norm = length_unit * s_norm
    return SteihaugResult(
        step=original(length_unit, s),
        hessian_step=original_product(force_unit, tree.sub(end.r, g)),
        predicted=-0.5 * tree.vdot(s, tree.add(g, end.r)) * force_unit * length_unit,
        step_norm=step_norm,
        residual_norm=force_unit * jnp.sqrt(jnp.maximum(end.rz, 0)),
        num_products=end.num_products,
        on_boundary=end.on_boundary,
        negative_curvature=end.negative,
        direction=original(1 / d_norm, end.d),
        curvature=end.curvature,
        first_direction=original(1 / unit_first, start.d),
        first_product=original_product(1 / unit_first, end.first_product),
        metric=PairMetric(step_norm, first_norm / unit_first, jnp.clip(cosine, -1, 1)),
    )


class SubspaceStep(NamedTuple):
    """A minimizer of the model over a plane."""

    step: Params
    hessian_step: Params  # H step
    predicted: Array  # (), -m(step) of the step as rounded
    step_norm: Array  # (), in the norm of the region
    on_boundary: Array  # (), bool


def _pair_metric(u: Params, v: Params) -> PairMetric:
    """Euclidean norms and cosine."""
    u_norm, v_norm = tree.norm(u), tree.norm(v)
    u_unit = tree.scale(1 / jnp.where(u_norm > 0, u_norm, 1), widen(u))
    v_unit = tree.scale(1 / jnp.where(v_norm > 0, v_norm, 1), widen(v))
    return PairMetric(u_norm, v_norm, jnp.clip(tree.vdot(u_unit, v_unit), -1, 1))


def _orthonormal_basis(metric: PairMetric, eps: float) -> tuple[Array, Array]:
    """Orthonormal vectors, as columns of coefficients of unit u and v, and if there are two."""
    # The first is v (u if v is zero), the second the rest of u, a zero column if the sine of the
    # angle is below eps^(1/4): there the error of its curvature, about eps / sine^2, exceeds what
    # it adds, about sine^2.
    has_u, has_v = metric.u_norm > 0, metric.v_norm > 0
    sine_squared = (1 - metric.cosine) * (1 + metric.cosine)
    is_plane = has_u & has_v & (sine_squared > eps**0.5)
    sine = jnp.sqrt(jnp.where(is_plane, sine_squared, 1))
    zero = jnp.zeros_like(sine)
    first = jnp.stack([(has_u & ~has_v).astype(sine.dtype), has_v.astype(sine.dtype)])
    second = jnp.where(is_plane, jnp.stack([1 / sine, -metric.cosine / sine]), zero)
    return jnp.stack([first, second], axis=1), is_plane


def _plane_step(
    matrix: Array, linear: Array, is_plane: Array, radius: Array
) -> tuple[Array, Array]:
    """The minimizer of linear.y + y.Ay/2 over |y| <= radius, (2,), and if it is at the boundary."""
    a, b, c = matrix[0, 0], matrix[0, 1], matrix[1, 1]
    # On a line the other dimension gets a positive curvature and no force: y stays zero there.
    b, c = jnp.where(is_plane, b, 0), jnp.where(is_plane, c, jnp.abs(a) + 1)
    angle = 0.5 * jnp.arctan2(2 * b, a - c)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    mean, half = 0.5 * (a + c), jnp.hypot(0.5 * (a - c), b)
    low, high = jnp.stack([-sin, cos]), jnp.stack([cos, sin])
    vectors = jnp.stack([low, high])
    coefficients = jnp.sum(vectors * linear[None, :], axis=1)
    answer = trust_region_step(jnp.stack([mean - half, mean + half]), coefficients, radius)
    return jnp.sum(vectors * answer.step[:, None], axis=0), answer.on_boundary


def subspace_step(
    gradient: Params,
    radius: Scalar,
    pairs: tuple[tuple[Params, Params], tuple[Params, Params]],
    *,
    metric: PairMetric | None = None,
    scale: Params | None = None,
) -> SubspaceStep:
    """The exact minimizer of g.s + s.Hs/2 over s in span{u, v} with |s| <= radius, no products.

    With v along -M^{-1}g it lowers the model at least as far as the Cauchy point. u and v may be
    anything, parallel or zero too. They are reduced to scalars at once, hence nearly parallel ones
    (sine below eps^(1/4)) count as v alone.

    Args:
        gradient: g.
        radius: shape (), at least 0 and finite.
        pairs: ((u, Hu), (v, Hv)).
        metric: of u and v in the norm of the region (`SteihaugResult.metric` where a
            preconditioner defines it); computed as |D s| if None.
        scale: D, positive, shaped like `gradient`; identity if None. Read only without `metric`.

    Returns:
        A `SubspaceStep`; vectors in the dtype of `gradient`, scalars in `tree.result_dtype`. A
        step that would not be finite is zero.

    Example:
        >>> import jax.numpy as jnp
        >>> from hesskit.linalg.steihaug import subspace_step
        >>> g, h = jnp.array([1.0, 0.0]), jnp.array([1.0, -1.0])
        >>> u, v = jnp.array([0.0, 1.0]), -g
        >>> result = subspace_step(g, 2.0, ((u, h * u), (v, h * v)))
        >>> print(result.on_boundary, result.predicted)
        True 2.25
    """
    dtype = tree.result_dtype(gradient)
    radius = jnp.asarray(radius, dtype)
    (u, hu), (v, hv) = pairs
    if metric is None:
        metric = _pair_metric(stretch(scale, u), stretch(scale, v))
    norms = jnp.stack([metric.u_norm, metric.v_norm]).astype(dtype)
    unit = 1 / jnp.where(norms > 0, norms, 1)
    u, hu, v, hv = (tree.scale(unit[i], widen(x)) for i, x in ((0, u), (0, hu), (1, v), (1, hv)))
    g = widen(gradient)
    basis, is_plane = _orthonormal_basis(metric, tree.coarsest_eps(gradient))
    uv = 0.5 * (tree.vdot(u, hv) + tree.vdot(v, hu))
    curvature = jnp.array([[tree.vdot(u, hu), uv], [uv, tree.vdot(v, hv)]])
    force = jnp.stack([tree.vdot(g, u), tree.vdot(g, v)])

    def reduced(x: Array) -> Array:
        return jnp.sum(basis[:, :, None] * x[:, None, :], axis=0)

    matrix = reduced(reduced(curvature).T)
    linear = reduced(force[:, None])[:, 0]
    y, on_boundary = _plane_step(matrix, linear, is_plane, radius)
    c = jnp.sum(basis * y[None, :], axis=1)
    step = tree.axpy(c[0], u, tree.scale(c[1], v))
    hessian_step = tree.axpy(c[0], hu, tree.scale(c[1], hv))
    finite = tree.all_finite(step) & tree.all_finite(hessian_step)
    zero = tree.zeros_like(gradient)
    step = tree.where(finite, tree.cast_like(step, gradient), zero)
    hessian_step = tree.where(finite, tree.cast_like(hessian_step, gradient), zero)
    return SubspaceStep(
        step=step,
        hessian_step=hessian_step,
        predicted=-(tree.vdot(gradient, step) + 0.5 * tree.vdot(step, hessian_step)),
        step_norm=jnp.where(finite, tree.norm(y), 0),
        on_boundary=on_boundary & finite,
    )
