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

from hesskit.core.types import Array

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
    """
    bend = -trial.actual - trial.slope
    factor = -trial.slope / jnp.where(bend > 0, 2 * bend, 1)
    inside = trial.finite & (bend > 0) & (trial.slope < 0)
    return jnp.where(inside, jnp.clip(factor, low, high), low)


def next_radius(radius: Array, step_norm: Array, trial: Trial, *, on_boundary: Array) -> Array:
    """The next trust-region radius (Conn, Gould & Toint 2000, section 17.1).

    A bad trial shrinks to a part of the step actually tried; a very good one on the boundary
    grows. NaN shrinks.
    """
    shrunk = step_norm * interpolated_shrink(trial)
    poor = jnp.minimum(radius, 0.5 * step_norm)
    good = jnp.where(
        (trial.ratio >= 0.75) & on_boundary,
        jnp.maximum(radius, jnp.where(trial.ratio >= 0.9, 4.0, 2.0) * step_norm),
        radius,
    )
    return jnp.where(trial.accepted, jnp.where(trial.ratio >= 0.25, good, poor), shrunk)
