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

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.acceptance import FLOOR_ULPS, rounding_floor
from hesskit.core.bounds import projected_gradient
from hesskit.core.derivatives import Evaluation
from hesskit.core.rule import Built, Context, Step
from hesskit.core.types import Array, Params
from hesskit.linalg import bounded, small
from hesskit.linalg.column_scale import column_scale, largest_columns, scaled_factor
from hesskit.linalg.more_sorensen import trust_region_step
from hesskit.linalg.row_svd import factor, reduce_rows


class Factored(NamedTuple):
    """The model (1) at a kept point, k = min(m, n) where m is known beforehand, else n."""

    eigenvalues: Array  # (k,), S^2, ascending; zero beyond the rank
    vectors: Array  # (n, k), V, columns
    coefficients: Array  # (k,), S c
    scale: Array  # (n,), the diagonal of D
    largest: Array  # (n,), norms of columns so far
    noise: Array  # (), the rounding of f that residuals bring
    most: Array  # (), the largest |b| so far; of |c| where the loss has no b
    curve: Any = None  # of a geodesic step (curvature/geodesic.py)


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
    vectors, scale = jnp.zeros((n, k), dtype), jnp.zeros((n,), dtype)
    return Factored(vector, vectors, jnp.copy(vector), scale, jnp.copy(scale), zero, jnp.copy(zero))


def _padded(array: Array, n: int, axis: int) -> Array:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (n - array.shape[axis], 0)
    return jnp.pad(array, widths)


class Beside(NamedTuple):
    """What residuals are beside their parts |A| |x|, which they know to eps of that."""

    rounding: Array  # (), of f, which differences of larger numbers bring
    parts: Array  # (), | |A| |x| |
    zero: Array  # (), bool: each entry of b is within the tolerance of its parts and of the largest


def beside(matrix: Array, residual: Array, x: Array, most: Array, tolerance: Array) -> Beside:
    """The residuals beside what parameters contribute to each, |A| |x|.

    A residual is known at best to what a rounding of the parameters changes in it, eps |A| |x|;
    near a minimum that is far more than eps of the residual, and f no longer tells whether it
    falls while the gradient still does: its rounding is |b| . |A| |x| in roundings, as of
    `acceptance.rounding_floor`.

    Args:
      matrix: A, (m, n).
      residual: b, (m,).
      x: the parameters, (n,).
      most: the largest |b| so far, ().
      tolerance: ().

    Returns:
      A `Beside`. Either bound of `zero` may be large for no good reason: the parts by a large
      offset in a parameter, the largest |b| by a far start.
    """
    if matrix.shape[1] <= small.LARGEST:
        columns = zip(jnp.unstack(jnp.abs(matrix), axis=1), jnp.abs(x), strict=True)
        parts = functools.reduce(operator.add, (column * a for column, a in columns))
    else:
        parts = jnp.abs(matrix) @ jnp.abs(x)
    eps = float(jnp.finfo(parts.dtype).eps)
    together = jnp.sum(jnp.abs(residual * parts))
    unit = tree.power_of_two(jnp.max(parts, initial=0))
    return Beside(
        rounding_floor(together, together, eps),
        unit * jnp.sqrt(jnp.sum((parts / unit) ** 2)),
        jnp.all(jnp.abs(residual) <= tolerance * jnp.minimum(parts, most)),
    )


def _nothing_left(
    model: Factored,
    size: Array | None,
    near: Beside,
    evaluation: Evaluation,
    context: Context,
) -> Array:
    """Whether nothing is left to gain, judged free of units.

    Either |c| <= tolerance |b|, the relative offset of Bates & Watts (1981), while the whole step
    is at most sqrt(tolerance) of the parameters in the norm |D s| (a residual that no parameter can
    lower makes any c look small); or b is zero beside its parts, in any unit and wherever the start
    was: in its place c where the loss has none. Of bounded parameters, all are those of the face
    where -g does not lead out of the box.

    Args:
      model: (1) at the kept point.
      size: |b|, (), or None.
      near: b beside its parts.
      evaluation: at the kept point.
      context: the kept point.

    Returns:
      A () bool.
    """
    matrix, c = _rows_of(model)
    s = jnp.sqrt(model.eigenvalues)
    if context.bounds is not None:
        inward = projected_gradient(evaluation.grad, context.params, context.bounds)
        inside = tree.ravel(inward) == tree.ravel(evaluation.grad)
        w, _, coefficients = _face(matrix, c, inside)
        s = jnp.sqrt(w)
        c = coefficients / jnp.where(s > 0, s, 1)
    tolerance = jnp.asarray(context.tolerance, c.dtype)
    floor = FLOOR_ULPS * float(jnp.finfo(c.dtype).eps) * near.parts
    if size is None:
        left = tree.norm(c)
        return (left <= tolerance * jnp.minimum(near.parts, model.most)) | (left <= floor)
    step = tree.norm(c / jnp.where(s > 0, s, 1))
    short = step <= jnp.sqrt(tolerance) * tree.norm(model.scale * tree.ravel(context.params))
    by_offset = short & (tree.norm(c) <= tolerance * size)
    return by_offset | near.zero | (size <= floor)


def build(
    evaluation: Evaluation,
    rhs: Params,
    model: Factored,
    context: Context,
    *,
    power: float,
    bend: Callable[[Factored, Any, Callable[[Array], Array]], Any] | None = None,
) -> Built:
    """The model (1) at the kept point, from one Jacobian.

    Args:
      evaluation: with rows.
      rhs: the gradient, or what an upstream transform made of it.
      model: the model before, for its scale.
      context: the kept point.
      power: D is |column|^power.
      bend: `(model, rows, u -> S U'u) -> curve`, where the model is to have one.

    Returns:
      The `Factored` model.
    """
    assert evaluation.rows is not None
    n, dtype = model.scale.shape[0], model.scale.dtype
    rows = evaluation.rows()
    matrix = rows.matrix.astype(dtype)
    m = matrix.shape[0]
    b = jnp.zeros((m,), dtype) if rows.residual is None else rows.residual.astype(dtype)
    triangle, inside, size = rows.reduced or reduce_rows(matrix, b)
    finite = tree.all_finite((triangle, inside, size))
    triangle, inside = jnp.where(finite, triangle, 0), jnp.where(finite, inside, 0)
    largest = largest_columns(triangle, model.largest)
    scale = column_scale(largest, power)
    scale, s, vt, c = scaled_factor(triangle, inside, scale, largest, num_rows=m)
    k = model.eigenvalues.shape[0]
    s, vt, c = (_padded(a, k, 0) for a in (s[::-1], vt[::-1], c[::-1]))
    known = tree.zeros_like(rhs) if rows.residual is None else evaluation.grad
    more = vt @ (tree.ravel(tree.sub(rhs, known)).astype(dtype) / scale)
    coefficients = s * c + jnp.where(s > 0, more, 0)
    c = coefficients / jnp.where(s > 0, s, 1)
    has_b = rows.residual is not None
    size = jnp.where(finite, size, 0)
    most = jnp.maximum(model.most, size if has_b else tree.norm(c))
    x = tree.ravel(context.params).astype(dtype)
    near = beside(matrix, b, x, most, jnp.asarray(context.tolerance, dtype))
    noise = jnp.where(finite, near.rounding, 0)
    factored = Factored(s * s, vt.T, coefficients, scale, largest, noise, most)

    def project(u: Array) -> Array:
        return vt @ ((u.astype(dtype) @ matrix) / scale)

    if bend is not None:
        factored = factored._replace(curve=bend(factored, rows, project))
    return Built(
        model=factored,
        indefinite=jnp.array(False),
        num_products=jnp.asarray(min(m, n), jnp.int32),
        at_rest=finite
        & _nothing_left(factored, size if has_b else None, near, evaluation, context),
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
