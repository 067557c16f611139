r"""The dense Hessian by its eigen-decomposition: the model of every dense method.

In the scaled variable z = D s, with D a positive diagonal (the identity unless asked for),

    D^{-1} H D^{-1}  =  Q diag(w) Q',     s = D^{-1} Q t,                   (1)

the quadratic model separates: a method is a rule for t given w and c = Q' D^{-1} g. A Hessian
with an entry that is not finite is replaced by the identity, which makes the step a gradient step;
where the gradient is zero, by NaN, since nothing then tells a minimum from a saddle.

Source: Conn, Gould & Toint (2000), section 7.3; scaling: More (1978), section 6.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.acceptance import first_radius, is_negative
from hesskit.core.bounds import projected_gradient
from hesskit.core.derivatives import Evaluation
from hesskit.core.rule import Built, Context, Step
from hesskit.core.types import Array, Params
from hesskit.linalg import bounded, small
from hesskit.linalg.dense import dense
from hesskit.linalg.more_sorensen import trust_region_step
from hesskit.linalg.positive import modified_eigenvalues


class Spectrum(NamedTuple):
    """The eigen-decomposition (1) at the kept point, and the right-hand side in its basis."""

    eigenvalues: Array  # (n,), ascending
    vectors: Array  # (n, n), Q, columns
    coefficients: Array  # (n,), Q' D^{-1} rhs
    scale: Array  # (n,), the diagonal of D


def empty(params: Params) -> Spectrum:
    """A spectrum of the right shapes, for the state before the first model."""
    n, dtype = tree.size(params), tree.result_dtype(params)
    vector = jnp.zeros((n,), dtype)
    return Spectrum(vector, jnp.zeros((n, n), dtype), jnp.copy(vector), jnp.zeros((n,), dtype))


def curvature_scale(matrix: Array, previous: Array) -> Array:
    """D from the diagonal of H: the largest sqrt|H_ii| seen so far (More 1978, equation 6.1)."""
    new = jnp.sqrt(jnp.abs(jnp.diagonal(matrix)))
    seen = jnp.maximum(new, previous)
    top = jnp.max(seen, initial=0)
    floor = jnp.sqrt(jnp.finfo(matrix.dtype).eps) * jnp.where(top > 0, top, 1)
    return jnp.maximum(seen, floor)


def is_indefinite(eigenvalues: Array, params: Params) -> Array:
    """Whether the lowest eigenvalue is negative curvature, and not the rounding of products."""
    largest = jnp.max(jnp.abs(eigenvalues), initial=0)
    return is_negative(jnp.min(eigenvalues, initial=0), largest, tree.coarsest_eps(params))


def roused(model: Spectrum, context: Context) -> Array:
    """The coefficients c, pushed off a saddle: for methods that see it only through c.

    Where the gradient is zero, or the step |H|^{-1} g shorter than eps^(1/4) of the first radius of
    a trust region (its gain is then sqrt(eps) of what the lowest eigenvector offers, near the
    rounding of f), c_1 becomes |w_1| times that radius, and so the step goes that far along it.

    Args:
      model: the spectrum at the kept point.
      context: the kept point.

    Returns:
      The coefficients, (n,).
    """
    w, c = model.eigenvalues, model.coefficients
    eps, length = tree.coarsest_eps(context.params), first_radius(context.params)
    short = tree.norm(c / modified_eigenvalues(w, eps)) <= eps**0.25 * length
    leaves = is_indefinite(w, context.params) & (context.at_rest | short)
    push = jnp.where(c[0] > 0, -w[0], w[0]) * length.astype(w.dtype)
    return c.at[0].set(jnp.where(leaves, push, c[0]))


def finite_hessian(
    evaluation: Evaluation, params: Params, chunk_size: int | None
) -> tuple[Array, Array]:
    """The dense Hessian, and whether it is finite; if not, the identity in its place."""
    assert evaluation.product is not None
    matrix = dense(evaluation.product, params, chunk_size=chunk_size)
    finite = jnp.all(jnp.isfinite(matrix))
    return jnp.where(finite, matrix, jnp.eye(matrix.shape[0], dtype=matrix.dtype)), finite


def build(
    evaluation: Evaluation,
    rhs: Params,
    model: Spectrum,
    context: Context,
    *,
    scale: Callable[[Array, Array], Array] | None = None,
    chunk_size: int | None = None,
) -> Built:
    """The spectrum at the kept point, from n products."""
    n = model.scale.shape[0]
    matrix, finite = finite_hessian(evaluation, context.params, chunk_size)
    diagonal = jnp.ones_like(model.scale) if scale is None else scale(matrix, model.scale)
    w, q = small.eigh(matrix / diagonal[:, None] / diagonal[None, :])
    c = q.T @ (tree.ravel(rhs) / diagonal)
    unknown = context.at_rest & ~finite
    w, c = jnp.where(unknown, jnp.nan, w), jnp.where(unknown, jnp.nan, c)
    spectrum = Spectrum(w, q, c, diagonal)
    on_face = w if context.bounds is None else _face_eigenvalues(spectrum, evaluation, context)
    return Built(spectrum, is_indefinite(on_face, context.params), jnp.asarray(n, jnp.int32))


def _masked(matrix: Array, free: Array) -> Array:
    """The matrix on the free coordinates; the others apart, with the largest modulus."""
    top = jnp.max(jnp.abs(matrix), initial=0) * matrix.shape[0]
    inside = free[:, None] & free[None, :]
    return jnp.where(inside, matrix, 0) + jnp.diag(jnp.where(free, 0, jnp.where(top > 0, top, 1)))


def _matrix(model: Spectrum) -> Array:
    """D^{-1} H D^{-1}."""
    return (model.vectors * model.eigenvalues[None, :]) @ model.vectors.T


def _face_eigenvalues(model: Spectrum, evaluation: Evaluation, context: Context) -> Array:
    """The eigenvalues on the face of the box that -g does not leave."""
    assert context.bounds is not None
    inward = projected_gradient(evaluation.grad, context.params, context.bounds)
    free = tree.ravel(inward) == tree.ravel(evaluation.grad)
    return jnp.linalg.eigvalsh(_masked(_matrix(model), free), symmetrize_input=False)


def bounded_step(model: Spectrum, grad: Params, size: Array, context: Context) -> Step:
    """The step of the model inside a trust region and a box (linalg/bounded.py).

    Args:
      model: the spectrum at the kept point.
      grad: its gradient.
      size: the radius, in the unit of |D params|.
      context: the kept point and its bounds.

    Returns:
      The step with B = H.
    """
    assert context.bounds is not None
    matrix, scale, x = _matrix(model), model.scale, tree.ravel(context.params)
    g = model.vectors @ model.coefficients  # in the unit of D^{-1} g

    def minimizer(held: Array, free: Array, room: Array) -> tuple[Array, Array]:
        w, q = jnp.linalg.eigh(_masked(matrix, free), symmetrize_input=False)
        c = q.T @ jnp.where(free, g + matrix @ (scale * held), 0)
        best = trust_region_step(w, c, room)
        return jnp.where(free, (q @ best.step) / scale, 0), best.on_boundary

    def slope(s: Array, d: Array) -> Array:
        return (g + matrix @ (scale * s)) @ (scale * d)

    best = bounded.bounded_step(
        minimizer,
        slope,
        gradient=tree.ravel(grad).astype(scale.dtype),
        lower=tree.ravel(context.bounds.lower) - x,
        upper=tree.ravel(context.bounds.upper) - x,
        scale=scale,
        radius=size,
    )
    return Step(
        step=tree.unravel(best.step, context.params),
        product=tree.unravel(scale * (matrix @ (scale * best.step)), context.params),
        norm=tree.norm(scale * best.step),
        on_boundary=best.on_boundary,
    )


def to_step(
    model: Any,
    t: Array,
    params: Params,
    *,
    on_boundary: Array,
    penalty: Array | float = 0.0,
) -> Step:
    """The step of coordinates t, with B = H; `penalty` is the cubic term of the model.

    Args:
      model: a `Spectrum`, or another model with its first fields and `scale`.
      t: the coordinates, (n,).
      params: gives the structure.
      on_boundary: whether the size held the step back.
      penalty: what the model adds to g.s + s.Hs/2.

    Returns:
      The step, its product and its length |t|.
    """
    s = (model.vectors @ t) / model.scale
    hs = (model.vectors @ (model.eigenvalues * t)) * model.scale
    return Step(
        step=tree.unravel(s, params),
        product=tree.unravel(hs, params),
        norm=jnp.sqrt(jnp.sum(t * t)),
        on_boundary=on_boundary,
        penalty=penalty,
    )
