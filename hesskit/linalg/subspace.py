r"""The trust-region subproblem in a plane, from two vectors and their products.

    minimize  g.s + s.Hs / 2   subject to   |s| <= radius,  s in span{u, v}     (1)

Given u, v, Hu, Hv no further products are needed: after a rejected step, a shorter radius costs a
few inner products. In an orthonormal basis B of the plane, s = By, (1) is

    minimize  (B'g).y + y.(B'HB)y / 2   subject to   |y| <= radius,             (2)

solved exactly by the eigenvalues of its 2 x 2 matrix. With v along the steepest descent direction,
the answer lowers the model at least as far as the Cauchy point.

Source: Byrd, Schnabel & Shultz (1988), "Approximate solution of the trust region problem by
minimization over two-dimensional subspaces"; Nocedal & Wright (2006), section 4.1.
"""

from typing import NamedTuple

import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Params, Scalar
from hesskit.linalg.cg import stretch
from hesskit.linalg.more_sorensen import trust_region_step


class PairMetric(NamedTuple):
    """The Gram matrix of two vectors u and v in the norm of the region, safe from overflow."""

    u_norm: Array  # ()
    v_norm: Array  # ()
    cosine: Array  # (), in [-1, 1]; 0 if u or v is zero


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
    u_unit = tree.scale(1 / jnp.where(u_norm > 0, u_norm, 1), tree.widen(u))
    v_unit = tree.scale(1 / jnp.where(v_norm > 0, v_norm, 1), tree.widen(v))
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
        >>> from hesskit.linalg.subspace import subspace_step
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
    u, hu, v, hv = (
        tree.scale(unit[i], tree.widen(x)) for i, x in ((0, u), (0, hu), (1, v), (1, hv))
    )
    g = tree.widen(gradient)
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
