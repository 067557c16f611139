r"""The model of a least-squares step, factored: singular values of the whitened rows.

With the rows A and the residual b of an objective (curvature/gauss_newton.py), so that its
Gauss-Newton matrix is A'A and its gradient A'b, and with a positive diagonal D,

    [A D^{-1} | b]  =  Q [R | Q'b],    R  =  U S V',    c = U' Q' b         (1)

the model |A s + b|^2 / 2 separates in t = V' D s: |S t + c|^2 / 2 and a constant. Its condition is
that of A, where the normal equations have its square. Directions with S_i <= max(m, n) eps S_1 are
no part of a step: it is the shortest of the minimizers, in the norm |D s|.

Source: Golub & Van Loan (2013), sections 5.5 and 6.2; More (1978), "The Levenberg-Marquardt
algorithm"; Nocedal & Wright (2006), section 10.3.
"""

from typing import NamedTuple

import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.acceptance import rounding_floor
from hesskit.core.bounds import projected_gradient
from hesskit.core.derivatives import Evaluation
from hesskit.core.method import is_at_rest
from hesskit.core.rule import Built, Context, Step
from hesskit.core.types import Array, Params
from hesskit.linalg import bounded
from hesskit.linalg.more_sorensen import trust_region_step


class Factored(NamedTuple):
    """The model (1) at a kept point, k = min(m, n) where m is known beforehand, else n."""

    eigenvalues: Array  # (k,), S^2, ascending; zero beyond the rank
    vectors: Array  # (n, k), V, columns
    coefficients: Array  # (k,), S c
    scale: Array  # (n,), the diagonal of D
    noise: Array  # (), the rounding of f that residuals bring


def empty(params: Params, num_rows: int | None = None) -> Factored:
    """A model of the right shapes, for the state before the first one.

    Args:
      params: the point.
      num_rows: m, or None where it is not known: the model then has room for any.

    Returns:
      A `Factored` of zeros.
    """
    n, dtype = tree.size(params), tree.result_dtype(params)
    k = n if num_rows is None else min(num_rows, n)
    vector = jnp.zeros((k,), dtype)
    zero = jnp.zeros((), dtype)
    return Factored(
        vector, jnp.zeros((n, k), dtype), jnp.copy(vector), jnp.zeros((n,), dtype), zero
    )


def column_scale(matrix: Array, previous: Array, power: float) -> Array:
    """D: the largest |column|^power so far, nowhere below sqrt(eps) of the largest entry."""
    unit = tree.power_of_two(jnp.max(jnp.abs(matrix), initial=0))  # squares are to be numbers
    norms = unit * jnp.sqrt(jnp.sum((matrix / unit) ** 2, axis=0))
    new = norms ** jnp.asarray(power, matrix.dtype)
    seen = jnp.maximum(new, previous)
    top = jnp.max(seen, initial=0)
    least = jnp.sqrt(jnp.finfo(matrix.dtype).eps) * top
    return jnp.where(top > 0, jnp.maximum(seen, least), 1)


def reduce_rows(matrix: Array, residual: Array) -> tuple[Array, Array]:
    """R and Q'b of (1), with min(m, n) rows; for m <= n the rows themselves."""
    m, n = matrix.shape
    if m <= n:
        return matrix, residual
    joined = jnp.linalg.qr(jnp.concatenate([matrix, residual[:, None]], axis=1), mode="r")
    return joined[:n, :n], joined[:n, n]


def factor(matrix: Array, residual: Array) -> tuple[Array, Array, Array]:
    """S, V' and c of (1).

    Args:
      matrix: A D^{-1}, (m, n).
      residual: b, (m,).

    Returns:
      S descending, (k,), V', (k, n), and c, (k,), for k = min(m, n). Singular values at the
      rounding of the largest, and their entries of c, are zero.
    """
    m, n = matrix.shape
    if WIDE <= m < n and matrix.dtype == jnp.float64:
        return _by_samples(matrix, residual)
    small, b = reduce_rows(matrix, residual)
    u, s, vt = jnp.linalg.svd(small, full_matrices=False)
    noise = max(m, n) * jnp.finfo(s.dtype).eps * jnp.max(s, initial=0)
    return jnp.where(s > noise, s, 0), vt, jnp.where(s > noise, u.T @ b, 0)


def _by_samples(matrix: Array, residual: Array) -> tuple[Array, Array, Array]:
    """(1) from A A' = U S^2 U', whose rounding leaves half the digits: enough for float64."""
    m = matrix.shape[0]
    w, u = jnp.linalg.eigh(matrix @ matrix.T)
    w, u = w[::-1], u[:, ::-1]
    known = w > m * jnp.finfo(w.dtype).eps * jnp.max(w, initial=0)
    s = jnp.sqrt(jnp.where(known, w, 0))
    vt = (u.T @ matrix) / jnp.where(known, s, 1)[:, None]
    return s, jnp.where(known[:, None], vt, 0), jnp.where(known, u.T @ residual, 0)


WIDE = 100
"""Rows from which a wide A is taken apart by samples: four times faster than its SVD."""


def _padded(array: Array, n: int, axis: int) -> Array:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (n - array.shape[axis], 0)
    return jnp.pad(array, widths)


def rounding(matrix: Array, residual: Array, x: Array) -> Array:
    """The rounding of f where residuals are differences of larger numbers.

    A residual is known at best to what a rounding of the parameters changes in it, eps |A| |x|;
    near a minimum that is far more than eps of the residual, and f no longer tells whether it
    falls while the gradient still does.

    Args:
      matrix: A, (m, n).
      residual: b, (m,).
      x: the parameters, (n,).

    Returns:
      The floor |b| . |A| |x| in roundings, as of `acceptance.rounding_floor`, ().
    """
    size = jnp.sum(jnp.abs(residual) * (jnp.abs(matrix) @ jnp.abs(x)))
    return rounding_floor(size, size, float(jnp.finfo(matrix.dtype).eps))


def _nothing_left(model: Factored, size: Array, evaluation: Evaluation, context: Context) -> Array:
    """Whether nothing is left to gain.

    Either |c| <= tolerance |b|, the relative offset of Bates & Watts (1981), free of units, while
    the whole step is at most sqrt(tolerance) of the parameters in the norm |D s| (a residual that
    no parameter can lower makes any c look small); or, where residuals vanish, both |g| and |c| are
    within the tolerance. Of bounded parameters, all are those of the face where -g does not lead
    out of the box.

    Args:
      model: (1) at the kept point.
      size: |b|^2, ().
      evaluation: at the kept point.
      context: the kept point.

    Returns:
      A () bool.
    """
    matrix, c = _rows_of(model)
    grad, box, s = evaluation.grad, context.bounds, jnp.sqrt(model.eigenvalues)
    if box is not None:
        whole, grad = grad, projected_gradient(grad, context.params, box)
        inside = tree.ravel(grad) == tree.ravel(whole)
        w, _, coefficients = _face(matrix, c, inside)
        s = jnp.sqrt(w)
        c = coefficients / jnp.where(s > 0, s, 1)
    tolerance, drop = jnp.asarray(context.tolerance), tree.norm(c)
    step = tree.norm(c / jnp.where(s > 0, s, 1))
    short = step <= jnp.sqrt(tolerance) * tree.norm(model.scale * tree.ravel(context.params))
    small = is_at_rest(tree.norm(grad), evaluation.value, tolerance)
    by_offset = (size > 0) & short & (drop <= tolerance * jnp.sqrt(size))
    return by_offset | (small & (drop <= tolerance))


def build(
    evaluation: Evaluation,
    rhs: Params,
    model: Factored,
    context: Context,
    *,
    power: float,
) -> Built:
    """The model (1) at the kept point, from one Jacobian.

    Args:
      evaluation: with rows.
      rhs: the gradient, or what an upstream transform made of it.
      model: the model before, for its scale.
      context: the kept point.
      power: D is |column|^power.

    Returns:
      The `Factored` model.
    """
    assert evaluation.rows is not None
    n, dtype = model.scale.shape[0], model.scale.dtype
    rows = evaluation.rows()
    matrix = rows.matrix.astype(dtype)
    m = matrix.shape[0]
    b = jnp.zeros((m,), dtype) if rows.residual is None else rows.residual.astype(dtype)
    finite = tree.all_finite((matrix, b))
    matrix, b = jnp.where(finite, matrix, 0), jnp.where(finite, b, 0)
    scale = column_scale(matrix, model.scale, power)
    s, vt, c = factor(matrix / scale[None, :], b)
    k = model.eigenvalues.shape[0]
    s, vt, c = (_padded(a, k, 0) for a in (s[::-1], vt[::-1], c[::-1]))
    known = tree.zeros_like(rhs) if rows.residual is None else evaluation.grad
    more = vt @ (tree.ravel(tree.sub(rhs, known)).astype(dtype) / scale)
    coefficients = s * c + jnp.where(s > 0, more, 0)
    noise = rounding(matrix, b, tree.ravel(context.params).astype(dtype))
    factored = Factored(s * s, vt.T, coefficients, scale, noise)
    return Built(
        model=factored,
        indefinite=jnp.array(False),
        num_products=jnp.asarray(min(m, n), jnp.int32),
        at_rest=finite & _nothing_left(factored, jnp.sum(b * b), evaluation, context),
    )


def _rows_of(model: Factored) -> tuple[Array, Array]:
    """S V' of (1), (k, n), and c."""
    s = jnp.sqrt(model.eigenvalues)
    return s[:, None] * model.vectors.T, model.coefficients / jnp.where(s > 0, s, 1)


def _face(matrix: Array, residual: Array, free: Array) -> tuple[Array, Array, Array]:
    """S^2 ascending, V and S c of |R z + b|^2 for z that is zero where not free."""
    s, vt, c = factor(jnp.where(free[None, :], matrix, 0), residual)
    s, vt, c = s[::-1], vt[::-1], c[::-1]
    return s * s, vt.T, s * c


def bounded_step(model: Factored, grad: Params, size: Array, context: Context) -> Step:
    """The step of the model inside a trust region and a box (linalg/bounded.py).

    Args:
      model: the model at the kept point.
      grad: its gradient.
      size: the radius, in the unit of |D params|.
      context: the kept point and its bounds.

    Returns:
      The step with B = G.
    """
    assert context.bounds is not None
    matrix, c = _rows_of(model)
    x, scale = tree.ravel(context.params), model.scale

    def minimizer(held: Array, free: Array, room: Array) -> tuple[Array, Array]:
        w, v, coefficients = _face(matrix, c + matrix @ (scale * held), free)
        best = trust_region_step(w, coefficients, room, exact=True)
        return jnp.where(free, (v @ best.step) / scale, 0), best.on_boundary

    def slope(s: Array, d: Array) -> Array:
        return (matrix @ (scale * d)) @ (c + matrix @ (scale * s))

    best = bounded.bounded_step(
        minimizer,
        slope,
        gradient=tree.ravel(grad).astype(scale.dtype),
        lower=tree.ravel(context.bounds.lower) - x,
        upper=tree.ravel(context.bounds.upper) - x,
        scale=scale,
        radius=size,
    )
    product = scale * (matrix.T @ (matrix @ (scale * best.step)))
    return Step(
        step=tree.unravel(best.step, context.params),
        product=tree.unravel(product, context.params),
        norm=tree.norm(scale * best.step),
        on_boundary=best.on_boundary,
    )
