r"""The trust-region subproblem in the eigenbasis, solved to the hard case.

With the Hessian diagonalized, H = Q diag(w) Q', and c = Q'g, the subproblem separates:

    minimize  c.s + sum_i w_i s_i^2 / 2   subject to   |s| <= radius        (1)

s is a global minimizer iff some shift >= 0 satisfies

    (w_i + shift) s_i = -c_i,   w_i + shift >= 0,   shift (radius - |s|) = 0    (2)

so either the Newton step fits, or the shift solves the secular equation

    1 / |s(shift)| = 1 / radius,   s_i(shift) = -c_i / (w_i + shift)        (3)

whose left side is concave and increasing: Newton's method from a lower bound of the root climbs to
it monotonically. The unknown is x = shift - base, base = max(0, -w_1), so that w_i + shift = gap_i
+ x with gap_i = w_i + base >= 0 keeps its relative accuracy however close the shift comes to -w_1.
In the hard case the shift is -w_1 to rounding: |s| <= radius already at x = eps base / 8, and the
first eigenvector fills the step up to the boundary.

Source: More & Sorensen (1983), "Computing a trust region step"; Conn, Gould & Toint (2000),
section 7.3; Nocedal & Wright (2006), section 4.3.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core.types import Array, Scalar
from hesskit.linalg import small
from hesskit.linalg.on_lanes import on_lanes

MAX_NEWTON = 50
"""Bound on Newton iterations; 2 to 6 are usual (the ledger in the tests)."""


class TrustRegionStep(NamedTuple):
    """The minimizer of the model, in the eigenbasis: the step in R^n is `Q @ step`."""

    step: Array  # (n,)
    shift: Array  # (), (W + shift) step = -c and W + shift >= 0
    on_boundary: Array  # (), bool: |step| = radius
    hard_case: Array  # (), bool: shift = -w_1 to rounding, on the boundary
    predicted: Array  # (), the decrease of the quadratic model, >= 0


def predicted_decrease(coefficients: Array, step: Array, shift: Array) -> Array:
    """-(c.s + s.Ws/2) for (W + shift) s = -c, as a sum of non-negative terms.

    Args:
        coefficients: c, shape (n,).
        step: s, shape (n,).
        shift: shape ().

    Returns:
        (-c.s + shift |s|^2) / 2, shape (), which loses no digits to cancellation.
    """
    pull = jnp.where(step == 0, 0, jnp.sqrt(shift) * step)  # a radius of 0: inf times 0
    return 0.5 * jnp.sum(pull * pull - coefficients * step)


def largest(eigenvalues: Array) -> Array:
    """The largest modulus of ascending eigenvalues."""
    return jnp.maximum(jnp.abs(eigenvalues[0]), jnp.abs(eigenvalues[-1]))


def settle(eigenvalues: Array, coefficients: Array) -> tuple[Array, Array]:
    """Reads rounding noise of a semidefinite problem as zero.

    An eigen-decomposition knows w to about n eps max|w| and c to n eps max|c|. If no eigenvalue is
    lower than -n eps max|w|, negative ones become zero, and coefficients that are noise where the
    eigenvalue is noise become zero too: their part of the step is then zero (the pseudo-inverse)
    instead of noise over noise. An indefinite problem is returned as it came.

    Args:
        eigenvalues: w, ascending, shape (n,).
        coefficients: c, shape (n,).

    Returns:
        w and c, settled.
    """
    eps = eigenvalues.shape[0] * jnp.finfo(eigenvalues.dtype).eps
    noise = eps * largest(eigenvalues)
    semidefinite = eigenvalues[0] >= -noise
    is_noise = (eigenvalues <= noise) & (
        jnp.abs(coefficients) <= eps * jnp.max(jnp.abs(coefficients))
    )
    w = jnp.where(semidefinite, jnp.maximum(eigenvalues, 0), eigenvalues)
    return w, jnp.where(semidefinite & is_noise, 0, coefficients)


def shifted_solve(gaps: Array, coefficients: Array, x: Array) -> Array:
    """-c / (gaps + x), and zero where c is zero: the pseudo-inverse at a vanishing gap."""
    is_zero = coefficients == 0
    return jnp.where(is_zero, 0, -coefficients / jnp.where(is_zero, 1, gaps + x))


def secular_root(
    gaps: Array, coefficients: Array, start: Array, target: tuple[Array, int], active: Array
) -> tuple[Array, Array]:
    """Newton's method for |c / (gaps + x)| = offset + slope x, on the reciprocals.

    The function 1/|s(x)| - 1/(offset + slope x) is concave and increasing in x > 0, so iterates
    from a lower bound of the root increase to it; they are kept from falling where rounding says
    otherwise. The last correction is applied, not checked: with p the share of |s|^2 that sits at
    the lowest gap, it takes an error of `ratio - 1` to about (ratio - 1)^2 / p.

    Args:
        gaps: non-negative, shape (n,).
        coefficients: c, shape (n,), at most about 1.
        start: a lower bound of the root, shape ().
        target: (offset, slope); a static slope of 0 is a trust region, 1 a cubic model.
        active: whether to iterate at all, shape (), bool.

    Returns:
        The root, shape (), and the number of iterations, shape (), int32.
    """
    offset, slope = target
    climb = functools.partial(_climb, slope=slope)
    offset = jnp.asarray(offset, gaps.dtype)
    if gaps.shape[0] <= small.LARGEST:
        climb = on_lanes(climb, climb)
    return climb(gaps, coefficients, start, offset, jnp.asarray(active))


def _climb(
    gaps: Array, coefficients: Array, start: Array, offset: Array, active: Array, *, slope: int
) -> tuple[Array, Array]:
    """`secular_root`, also of arrays with a further axis of lanes, the last one."""
    tolerance = 0.25 * jnp.sqrt(jnp.finfo(gaps.dtype).eps)  # leaves eps / 16
    is_zero = coefficients == 0

    def going(error: Array, num_iterations: Array) -> Array:
        return (error > tolerance) & (num_iterations < MAX_NEWTON)

    def newton(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, error, num_iterations = carry
        goal = offset[None] + slope * x
        # From a lower bound no component exceeds the goal: these squares are in range.
        squares = (shifted_solve(gaps, coefficients, x) / goal) ** 2
        total = small.total(squares)
        ratio = jnp.sqrt(total)
        lowest = jnp.min(jnp.where(is_zero, jnp.inf, gaps + x), 0, keepdims=True)
        p = small.total(squares * jnp.where(is_zero, 0, lowest / (gaps + x))) / total
        correction = lowest * (ratio - 1) / (p + ratio * slope * (lowest / goal))
        climbed = jnp.maximum(x + correction, x)
        left = jnp.where(climbed > x, jnp.abs(ratio - 1) / jnp.sqrt(p), 0)
        more = going(error, num_iterations)
        return (
            jnp.where(more, climbed, x),
            jnp.where(more, left, error),
            num_iterations + more.astype(jnp.int32),
        )

    error = jnp.where(active[None], jnp.inf, 0).astype(gaps.dtype)
    root, _, num_iterations = jax.lax.while_loop(
        lambda carry: jnp.any(going(*carry[1:])),
        newton,
        (start[None], error, jnp.zeros_like(error, jnp.int32)),
    )
    return root[0], num_iterations[0]


def fill(step: Array, length: Array, coefficients: Array) -> Array:
    """The step with the first component that gives it this length and lowers c.s."""
    rest = jnp.sum((step.at[0].set(0) / length) ** 2)
    first = length * jnp.sqrt(jnp.maximum(1 - rest, 0))
    return step.at[0].set(jnp.where(coefficients[0] > 0, -first, first))  # + where c_1 = 0


def negligible(base: Array) -> Array:
    """An x so small that base + x is base to rounding: below it lies the hard case."""
    return jnp.finfo(base.dtype).eps / 8 * base


class _Boundary(NamedTuple):
    step: Array  # (n,), of norm radius
    excess: Array  # (), shift - base
    num_iterations: Array  # (), int32


def _boundary_step(w: Array, c: Array, c_max: Array, radius: Array, active: Array) -> _Boundary:
    """Solves (3) in units where radius = 1 and max(|c|, |w|) = 1."""
    w_max = largest(w)
    unit = jnp.maximum(c_max, w_max * radius)
    # Subtract before scaling: a fused multiply-add would leave gaps[0] not quite zero.
    base = jnp.maximum(-w[0], 0)
    gaps, base = (
        jnp.where(w_max > 0, (a / w_max) * ((w_max * radius) / unit), 0) for a in (w + base, base)
    )
    scaled_c = jnp.where(c_max > 0, (c / c_max) * (c_max / unit), 0)
    # sum_{i<=k} c_i^2 / (gap_i + x)^2 <= 1 bounds x from below for every k.
    partial = jnp.sqrt(jnp.cumsum(scaled_c**2))
    start = jnp.max(jnp.maximum(partial, jnp.abs(scaled_c)) - gaps, initial=0)
    least = negligible(base)
    short = jnp.sum(shifted_solve(gaps, scaled_c, least) ** 2)
    hard = (base > 0) & (start <= least) & (short <= 1)
    start = jnp.maximum(start, least)
    one = jnp.ones((), w.dtype)
    x, num_iterations = secular_root(gaps, scaled_c, start, (one, 0), active & ~hard)
    step = shifted_solve(gaps, scaled_c, x)
    full = jnp.where(hard, fill(step, one, c), step / jnp.sqrt(jnp.sum(step * step)))
    return _Boundary(radius * full, x * (unit / radius), num_iterations)


def _solve(
    eigenvalues: Array, coefficients: Array, radius: Array, exact: bool = False
) -> tuple[TrustRegionStep, Array]:
    """The step and the number of Newton iterations."""
    w, c = eigenvalues, coefficients
    if not exact:
        w, c = settle(eigenvalues, coefficients)
    newton = shifted_solve(w, c, jnp.zeros((), w.dtype))
    shortest = jnp.finfo(w.dtype).tiny  # a radius of 0: 0 / 0
    relative = jnp.sum((newton / jnp.maximum(radius, shortest)) ** 2)  # inf and NaN do not fit
    interior = (w[0] >= 0) & (relative <= 1)
    # `settle` never clears the largest c.
    edge = _boundary_step(w, c, jnp.max(jnp.abs(coefficients), initial=0), radius, ~interior)
    step = jnp.where(interior, newton, edge.step)
    base = jnp.maximum(-w[0], 0)
    shift = jnp.where(interior, 0, base + edge.excess)
    result = TrustRegionStep(
        step=step,
        shift=shift,
        on_boundary=~interior,
        hard_case=(base > 0) & (edge.excess <= jnp.finfo(w.dtype).eps * base),
        predicted=predicted_decrease(c, step, shift),
    )
    return result, edge.num_iterations


def trust_region_step(
    eigenvalues: Array, coefficients: Array, radius: Scalar, *, exact: bool = False
) -> TrustRegionStep:
    """The global minimizer of c.s + s.Ws/2 over |s| <= radius, W = diag(eigenvalues).

    Unchanged by the units of c, w and radius. A positive semidefinite W that is singular gives the
    pseudo-inverse step where c has only rounding noise in the null space. c = 0 on an indefinite W
    gives a full step along the lowest eigenvector. A NaN anywhere gives a NaN step.

    Args:
        eigenvalues: w, ascending as from `jnp.linalg.eigh`, shape (n,), float32 or float64.
        coefficients: c = Q'g, shape (n,), same dtype.
        radius: shape (). May be inf if W is positive definite (the Newton step); on another W the
            step is then not finite, as the model has no minimum.
        exact: nothing is read as rounding noise: for squares of singular values, which are known
            to eps max(w), where the eigenvalues of a matrix are known to sqrt(eps) of that.

    Returns:
        A `TrustRegionStep` in the dtype of `eigenvalues`.

    Example:
        >>> import jax.numpy as jnp
        >>> from hesskit.linalg.more_sorensen import trust_region_step
        >>> saddle = jnp.array([-1.0, 2.0])
        >>> answer = trust_region_step(saddle, jnp.zeros(2), 0.5)
        >>> print(answer.step, answer.shift, answer.hard_case)
        [0.5 0. ] 1.0 True
    """
    radius = jnp.asarray(radius, eigenvalues.dtype)
    return _solve(eigenvalues, coefficients, radius, exact)[0]


def damped_step(eigenvalues: Array, coefficients: Array, damping: Scalar) -> TrustRegionStep:
    """-(W + shift)^{-1} c, with a shift of at least `damping` that makes W + shift positive.

    shift = max(damping, floor - w_1) where floor is |w_1| on an indefinite W, so that the lowest
    curvature enters with its modulus and the step keeps its natural length, and n eps max|w|, the
    rounding error of w, in any case. A W of condition below 1/(n eps) is not touched: damping = 0
    gives the Newton step. c = 0 gives a zero step, even at a saddle.

    Args:
        eigenvalues: w, ascending, shape (n,), float32 or float64.
        coefficients: c, shape (n,), same dtype.
        damping: shape (), at least 0.

    Returns:
        A `TrustRegionStep` with `on_boundary` and `hard_case` False.

    Example:
        >>> import jax.numpy as jnp
        >>> from hesskit.linalg.more_sorensen import damped_step
        >>> print(damped_step(jnp.array([-1.0, 2.0]), jnp.array([1.0, 4.0]), 0.5).step)
        [-1. -1.]
    """
    w, c = settle(eigenvalues, coefficients)
    noise = w.shape[0] * jnp.finfo(w.dtype).eps * largest(w)
    floor = jnp.maximum(noise, -w[0])
    shift = jnp.maximum(jnp.asarray(damping, w.dtype), floor - w[0])
    step = shifted_solve(w, c, shift)
    no = jnp.zeros((), bool)
    return TrustRegionStep(step, shift, no, no, predicted_decrease(c, step, shift))
