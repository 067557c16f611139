r"""The cubic-regularized subproblem in the eigenbasis, solved to the hard case.

With the Hessian diagonalized, H = Q diag(w) Q', and c = Q'g, the subproblem is

    minimize  c.s + sum_i w_i s_i^2 / 2 + sigma |s|^3 / 3                   (1)

It has a global minimizer for every sigma > 0, and s is one iff with shift = sigma |s|

    (w_i + shift) s_i = -c_i,   w_i + shift >= 0                            (2)

The shift solves the secular equation 1 / |s(shift)| = sigma / shift, whose two sides differ by a
concave increasing function: the Newton iteration of `more_sorensen.secular_root` with the target
length shift / sigma in place of a radius. As there, the unknown is x = shift - max(0, -w_1), and in
the hard case the first eigenvector fills the step up to the length -w_1 / sigma.

Source: Nesterov & Polyak (2006), "Cubic regularization of Newton method"; Cartis, Gould & Toint
(2011), Mathematical Programming 127, section 6.1 (sigma |s|^3 / 3 is theirs; Nesterov and Polyak's
M is 2 sigma).
"""

from typing import NamedTuple

import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Scalar
from hesskit.linalg.more_sorensen import (
    fill,
    negligible,
    predicted_decrease,
    secular_root,
    settle,
    shifted_solve,
)


class CubicStep(NamedTuple):
    """The minimizer of the cubic model, in the eigenbasis: the step in R^n is `Q @ step`."""

    step: Array  # (n,)
    shift: Array  # (), sigma |step|
    predicted: Array  # (), the decrease of the cubic model, >= 0
    quadratic_predicted: Array  # (), the decrease of its quadratic part, >= predicted
    hard_case: Array  # (), bool: shift = -w_1 to rounding


def _lower_bound(gaps: Array, base: Array, coefficients: Array) -> Array:
    """The largest x_k >= 0 with (gap_k + x)(base + x) = |c_1..k|, below the root for every k."""
    # x^2 + b x = a without cancellation: x = 2 a / (b + sqrt(b^2 + 4 a)).
    partial = jnp.maximum(jnp.sqrt(jnp.cumsum(coefficients**2)), jnp.abs(coefficients))
    a, b = partial - gaps * base, gaps + base
    denominator = b + jnp.sqrt((gaps - base) ** 2 + 4 * partial)  # b^2 + 4 a
    return jnp.max(jnp.where(denominator > 0, 2 * a / denominator, 0), initial=0)


def _solve(eigenvalues: Array, coefficients: Array, sigma: Array) -> tuple[CubicStep, Array]:
    """The step and the number of Newton iterations."""
    # In units where lengths are shifts (t = sigma s) and max(|w|, sqrt(sigma |c|)) = 1.
    w, c = settle(eigenvalues, coefficients)
    w_max, c_max = jnp.max(jnp.abs(w)), jnp.max(jnp.abs(c))
    root_c = jnp.sqrt(sigma) * jnp.sqrt(c_max)
    unit = jnp.maximum(w_max, root_c)
    unit = jnp.where(unit == 0, 1, unit)
    scaled_c = jnp.where(c_max > 0, c / c_max, 0) * (root_c / unit) ** 2
    # Subtract before scaling: a fused multiply-add would leave gaps[0] not quite zero.
    base = jnp.maximum(-w[0], 0)
    gaps, base = (w + base) / unit, base / unit
    start, least = _lower_bound(gaps, base, scaled_c), negligible(base)
    short = tree.norm(shifted_solve(gaps, scaled_c, least))
    hard = (base > 0) & (start <= least) & (short <= base)
    start = jnp.maximum(start, least)
    active = ~hard & (base + start > 0)
    x, num_iterations = secular_root(gaps, scaled_c, start, (base, 1), active)
    shift = unit * (base + x)
    step = shifted_solve(gaps, c, x) / unit
    step = jnp.where(hard, fill(step, shift / sigma, c), step)
    quadratic = predicted_decrease(c, step, shift)
    is_hard = (base > 0) & (x <= jnp.finfo(w.dtype).eps * base)
    cubic = predicted_decrease(c, step, shift / 3)  # (-c.s) / 2 + (1/2 - 1/3) shift |s|^2
    return CubicStep(step, shift, cubic, quadratic, is_hard), num_iterations


def cubic_step(eigenvalues: Array, coefficients: Array, sigma: Scalar) -> CubicStep:
    """The global minimizer of c.s + s.Ws/2 + sigma |s|^3 / 3, W = diag(eigenvalues).

    Unchanged by the units of c, w and sigma. sigma -> 0 gives the Newton step if W is positive
    definite, and a step of length about -w_1 / sigma otherwise. c = 0 on an indefinite W gives a
    step along the lowest eigenvector. A NaN anywhere gives a NaN step.

    Args:
        eigenvalues: w, ascending as from `jnp.linalg.eigh`, shape (n,), float32 or float64.
        coefficients: c = Q'g, shape (n,), same dtype.
        sigma: shape (), positive; zero is allowed on a positive definite W (the Newton step).

    Returns:
        A `CubicStep` in the dtype of `eigenvalues`. The ratio of adaptive cubic regularization
        compares the actual decrease with `predicted`.

    Example:
        >>> import jax.numpy as jnp
        >>> from hesskit.linalg.cubic import cubic_step
        >>> answer = cubic_step(jnp.array([-1.0, 2.0]), jnp.zeros(2), 2.0)
        >>> print(answer.step, answer.shift, answer.hard_case)
        [0.5 0. ] 1.0 True
    """
    return _solve(eigenvalues, coefficients, jnp.asarray(sigma, eigenvalues.dtype))[0]
