r"""Is a trial point to be kept? The ratio test, the rounding floor, the next radius.

With the value f, its lowest so far f_ref, the trial value f+, gradients g and g+, the step s and
the decrease p that the model predicts,

    floor  =  10 eps max(|f|, |f_ref|)                                      (1)
    a      =  f - f+             where |f - f+| > floor
              -(g + g+).s / 2    else, if |g+| <= |g|                       (2)
    keep   =  f+ <= f_ref + floor  and  a >= eta p                          (3)

Below the floor the difference of two values is rounding noise, while the trapezoidal rule (2)
still sees the decrease: the approximate Wolfe idea of Hager & Zhang (2005), section 3. Every
comparison is written so that NaN rejects.

Source: Nocedal & Wright (2006), Algorithm 4.1; Conn, Gould & Toint (2000), sections 6.1, 17.4.2.
"""

from typing import NamedTuple

import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Params, Scalar

FLOOR_ULPS = 10.0  # Conn, Gould & Toint (2000), section 17.4.2
ACCEPT_RATIO = 1e-4  # eta: Nocedal & Wright (2006), Algorithm 4.1 asks for [0, 1/4)


class Trial(NamedTuple):
    """What was found at a trial point; every field is ().

    `predicted` and `actual` are decreases, positive downhill; `ratio` is actual over predicted;
    `slope` is g.s; `limited` says that the predicted decrease is below the rounding floor.
    """

    accepted: Array
    finite: Array
    ratio: Array
    actual: Array
    predicted: Array
    slope: Array
    limited: Array


def rounding_floor(value: Array, reference: Array, eps: float) -> Array:
    """(1): the change of value below which a difference is rounding noise."""
    return FLOOR_ULPS * eps * jnp.maximum(jnp.abs(value), jnp.abs(reference))


def is_negative(curvature: Array, largest: Array, eps: float) -> Array:
    """Whether a curvature is negative beyond rounding: below -eps^(2/3) of the largest |one|."""
    return curvature < -(eps ** (2 / 3)) * largest


def judge(
    *,
    value: Array,
    reference: Array,
    trial_value: Array,
    predicted: Array,
    slope: Array,
    trial_slope: Array,
    calmer: Array,
    finite: Array,
    floor: Array,
    accept_ratio: float = ACCEPT_RATIO,
) -> Trial:
    """The test (3).

    Args:
      value: f at the kept point, ().
      reference: the lowest value kept so far, ().
      trial_value: f+ at the trial point, ().
      predicted: the decrease that the model promises, ().
      slope: g.s, ().
      trial_slope: g+.s, ().
      calmer: whether |g+| <= |g|, () bool.
      finite: whether trial value and gradient are finite, () bool.
      floor: the rounding floor (1), ().
      accept_ratio: eta.

    Returns:
      A `Trial`.
    """
    change = value - trial_value
    seen = jnp.abs(change) > floor
    actual = jnp.where(seen, change, -(slope + trial_slope) / 2)
    ratio = actual / jnp.where(predicted > 0, predicted, 1)
    ratio = jnp.where(finite & (predicted > 0), ratio, -jnp.inf)
    keep = finite & (trial_value <= reference + floor) & (ratio >= accept_ratio) & (seen | calmer)
    return Trial(
        accepted=keep,
        finite=finite,
        ratio=ratio,
        actual=actual,
        predicted=predicted,
        slope=slope,
        limited=predicted <= floor,
    )


def interpolated_shrink(trial: Trial, low: float = 0.1, high: float = 0.5) -> Array:
    """The factor for a rejected step: the minimizer of the parabola through f, g.s and f+.

    Safeguarded to [low, high]; `low` where the trial was not finite (Dennis & Schnabel 1983,
    section 6.3.2).

    Args:
      trial: the rejected trial.
      low: the least factor.
      high: the largest factor.

    Returns:
      The factor, ().
    """
    bend = -trial.actual - trial.slope
    factor = -trial.slope / jnp.where(bend > 0, 2 * bend, 1)
    inside = trial.finite & (bend > 0) & (trial.slope < 0)
    return jnp.where(inside, jnp.clip(factor, low, high), low)


def next_radius(radius: Array, step_norm: Array, on_boundary: Array, trial: Trial) -> Array:
    """The next trust-region radius.

    A rejected trial shrinks to a part of the step actually tried, never below a quarter of it. A
    kept one shrinks only if its decrease was less than a hundredth of the prediction, then by
    half: a trial costs one evaluation, a Hessian n products, so a step too long is cheaper than
    many too short (with the usual quarter in place of the hundredth, landscapes of many humps took
    several times more steps). A good step at the boundary doubles the radius (four or eight times,
    where the model was right to ten percent, saved nothing). NaN shrinks. Measured on
    tests/problems.py, published and moved starts.

    Args:
      radius: the radius that bounded the step, ().
      step_norm: the length of the step, in the unit of the radius, ().
      on_boundary: whether the radius held the step back, () bool.
      trial: what was found at its end.

    Returns:
      The next radius, ().

    References:
      Conn, Gould & Toint (2000), sections 6.1 and 17.1, with their gamma_1 = 1/4, gamma_3 = 2.
    """
    shrunk = step_norm * interpolated_shrink(trial, low=0.25)
    good = (trial.ratio >= 0.75) & on_boundary
    grown = jnp.where(good, jnp.maximum(radius, 2 * step_norm), radius)
    kept = jnp.where(trial.ratio >= 0.01, grown, jnp.minimum(radius, 0.5 * step_norm))
    return jnp.where(trial.accepted, kept, shrunk)


def next_damping(damping: Array, stiffness: Array, on_boundary: Array, trial: Trial) -> Array:
    """The next damping of (B + damping) s = -g, whose step met `stiffness` = |g| / |s|.

    A kept step multiplies it by 1 - (2 ratio - 1)^3 in [1/3, 2] (Nielsen 1999; Madsen, Nielsen &
    Tingleff 2004, section 2.2), but by no more than 6 |ratio - 1|, the slope of that cubic: it is
    O(|s|) near a minimum and keeps the convergence quadratic, where a factor of 1/3 would not.
    After a rejected step the damping is what shortens it to the minimizer of the parabola in
    [0.25, 0.5] (0.1 for 0.25 took 10 % more steps over 17 published problems): stiffness / factor
    in place of stiffness. NaN grows.

    Args:
      damping: the damping of the step, ().
      stiffness: |g| / |s|, ().
      on_boundary: not read; every rule of a size is called alike.
      trial: what was found at its end.

    Returns:
      The next damping, ().
    """
    del on_boundary
    off = jnp.abs(trial.ratio - 1)
    gain = jnp.clip(1 - (2 * trial.ratio - 1) ** 3, 1 / 3, 2)
    least = jnp.finfo(damping.dtype).eps * stiffness
    kept = jnp.maximum(damping * jnp.minimum(gain, 6 * off), least)
    factor = interpolated_shrink(trial, low=0.25)
    return jnp.where(trial.accepted, kept, damping + stiffness * (1 / factor - 1))


def first_radius(params: Params, unit: Scalar = 1.0) -> Array:
    """The largest entry of params, or `unit` where that is more: the scale of one parameter."""
    return jnp.maximum(tree.max_abs(params), unit)
