r"""The trust region in a Krylov space, exactly: conjugate gradients beyond the boundary.

Lanczos steps from the gradient g give H Q = Q T + r e_k' (`linalg/lanczos.py`). Restricted to
s = Qh, the trust-region problem is

    minimize  |g| h_1 + h.Th / 2   subject to   |h| <= radius,              (1)

    (T + shift) h = -|g| e_1,   shift >= 0,   (H + shift) s + g = h_k r,    (2)

solved exactly by the eigen-decomposition T = V diag(w) V', for any radius. Up to the boundary (1)
is the method of conjugate gradients; it goes on where Steihaug's stops. The saddle-free step has
|T| + damping in place of T in (2). With `scale` = D everything happens in z = D s, as in
`linalg/steihaug.py`.

Source: Gould, Lucidi, Roma & Toint (1999), "Solving the trust-region subproblem using the Lanczos
method"; Dauphin et al. (2014), "Identifying and attacking the saddle point problem", for |T|.
"""

from typing import NamedTuple

import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Params, Product, Scalar
from hesskit.linalg.basis import combination
from hesskit.linalg.cg import scaled_product, shrink, stretch
from hesskit.linalg.lanczos import (
    LanczosResult,
    decompose,
    decompose_if_any,
    lanczos,
    last_entry,
)
from hesskit.linalg.more_sorensen import trust_region_step


class KrylovModel(NamedTuple):
    """The quadratic model in a Krylov space: it gives a step for any radius without products."""

    basis: Params  # Q', each leaf (num_steps, *shape), in z = D s
    residual: Params  # r
    residual_norm: Array  # (), |r|
    eigenvalues: Array  # w, (num_steps,), ascending; w[0] < 0 is negative curvature
    eigenvectors: Array  # V, (num_steps, num_steps)
    gradient_norm: Array  # (), |D^{-1} g|
    num_valid: Array  # (), int32, k
    num_products: Array  # (), int32
    scale: Params | None  # D


class KrylovStep(NamedTuple):
    """A step of a `KrylovModel`."""

    step: Params
    hessian_step: Params  # H step
    predicted: Array  # (), the decrease of the quadratic model
    step_norm: Array  # (), |D step|
    shift: Array  # (), (T + shift) h = -|g| e_1, or |T| + damping in place of T
    residual_norm: Array  # (), of (H + shift) s + g, in the dual norm
    on_boundary: Array  # (), bool


def gltr(
    product: Product,
    gradient: Params,
    radius: Scalar,
    *,
    tol: Scalar,
    num_steps: int,
    scale: Params | None = None,
    needed: Scalar = True,
) -> KrylovModel:
    """Builds the Krylov space of g until the step for `radius` satisfies (H + shift) s = -g.

    Every Lanczos step is followed by the eigen-decomposition of T, small beside a product.

    Args:
        product: v -> Hv, symmetric; called at one place, with vectors like `gradient`.
        gradient: g.
        radius: shape (); the radius that is asked first.
        tol: stop at |(H + shift) s + g| <= tol in the dual norm (of D^{-1}), shape ().
        num_steps: static bound on products, at least 1.
        scale: D, positive, shaped like `gradient`, for the region |D s| <= radius; identity if
            None.
        needed: shape (), bool; False costs no products and gives zero steps.

    Returns:
        A `KrylovModel` for `krylov_step` and `krylov_absolute_step`.

    Example:
        >>> import jax.numpy as jnp
        >>> from hesskit.linalg.gltr import gltr, krylov_step
        >>> h, g = jnp.array([1.0, -2.0, 4.0]), jnp.array([1.0, 0.1, 1.0])
        >>> model = gltr(lambda v: h * v, g, 1.0, tol=1e-6, num_steps=3)
        >>> for radius in (1.0, 0.5):
        ...     answer = krylov_step(model, radius)
        ...     print(f"{answer.step_norm:.3f} {answer.shift:.3f} {answer.predicted:.3f}")
        1.000 2.107 1.343
        0.500 2.276 0.535
    """
    g = shrink(scale, gradient)
    norm = tree.norm(g)
    radius, tol = jnp.asarray(radius, norm.dtype), jnp.asarray(tol, norm.dtype)

    def is_solved(result: LanczosResult) -> Array:
        w, vectors = decompose(result)
        y = trust_region_step(w, norm * vectors[0], radius).step
        last = last_entry(jnp.sum(vectors * y[None, :], axis=1), result.num_valid)
        return jnp.abs(last) * result.residual_norm <= tol

    result = lanczos(scaled_product(scale, product), g, num_steps, needed=needed, until=is_solved)
    w, vectors = decompose_if_any(result)
    return KrylovModel(
        basis=result.basis,
        residual=tree.cast_like(result.residual, gradient),
        residual_norm=result.residual_norm,
        eigenvalues=w,
        eigenvectors=vectors,
        gradient_norm=jnp.where(jnp.isfinite(norm), norm, 0),
        num_valid=result.num_valid,
        num_products=result.num_products,
        scale=scale,
    )


def _step(model: KrylovModel, y: Array, shift: Array, on_boundary: Array) -> KrylovStep:
    """The step s = Q V y; one that is not finite becomes zero."""
    finite = jnp.all(jnp.isfinite(y))
    y = jnp.where(finite, y, 0)
    w, vectors = model.eigenvalues, model.eigenvectors
    h = jnp.sum(vectors * y[None, :], axis=1)
    th = jnp.sum(vectors * (w * y)[None, :], axis=1)
    last = last_entry(h, model.num_valid)
    hessian_step = tree.axpy(last, tree.widen(model.residual), combination(model.basis, th))
    step = tree.cast_like(combination(model.basis, h), model.residual)
    return KrylovStep(
        step=shrink(model.scale, step),
        hessian_step=stretch(model.scale, tree.cast_like(hessian_step, model.residual)),
        predicted=-jnp.sum((model.gradient_norm * vectors[0] + 0.5 * (w * y)) * y),
        step_norm=tree.norm(y),
        shift=jnp.where(finite, shift, 0),
        residual_norm=jnp.abs(last) * model.residual_norm,
        on_boundary=on_boundary & finite,
    )


def krylov_step(model: KrylovModel, radius: Scalar) -> KrylovStep:
    """The global minimizer of the quadratic model over |D s| <= radius in the Krylov space.

    Args:
        model: from `gltr`.
        radius: shape (); any, also another than `gltr` was given. May be inf if T is positive
            definite; on another T the step is then zero.

    Returns:
        A `KrylovStep`; vectors in the dtype of the gradient, scalars in `tree.result_dtype`.

    Example:
        >>> import jax.numpy as jnp
        >>> from hesskit.linalg.gltr import gltr, krylov_step
        >>> model = gltr(lambda v: -v, jnp.array([2.0, 0.0]), 1.0, tol=0.0, num_steps=2)
        >>> print(krylov_step(model, 0.5).step, model.num_products)
        [-0.5  0. ] 1
    """
    w = model.eigenvalues
    answer = trust_region_step(w, model.gradient_norm * model.eigenvectors[0], radius)
    return _step(model, answer.step, answer.shift, answer.on_boundary)


def krylov_absolute_step(
    model: KrylovModel, damping: Scalar, radius: Scalar = jnp.inf
) -> KrylovStep:
    """The saddle-free step: Newton's, with the modulus of each curvature in the Krylov space.

    s = -Q (|T| + damping + shift)^{-1} Q'g with the least shift >= 0 such that |D s| <= radius.

    Args:
        model: from `gltr`.
        damping: shape (), at least 0.
        radius: shape ().

    Returns:
        A `KrylovStep`, whose `predicted` is of the true quadratic model, without |.|.

    Example:
        >>> import jax.numpy as jnp
        >>> from hesskit.linalg.gltr import gltr, krylov_absolute_step
        >>> model = gltr(lambda v: -v, jnp.array([2.0, 0.0]), 1.0, tol=0.0, num_steps=2)
        >>> print(krylov_absolute_step(model, 3.0).step)
        [-0.5  0. ]

    Reference:
        Dauphin et al. (2014), "Identifying and attacking the saddle point problem".
    """
    w, c = model.eigenvalues, model.gradient_norm * model.eigenvectors[0]
    stiffness = jnp.abs(w) + jnp.asarray(damping, w.dtype)
    order = jnp.argsort(stiffness)
    answer = trust_region_step(stiffness[order], c[order], radius)
    y = jnp.zeros_like(w).at[order].set(answer.step)
    return _step(model, y, answer.shift, answer.on_boundary)
