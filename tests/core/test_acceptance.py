"""The ratio test by its properties: what is kept, what is rejected, what NaN does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import acceptance
from hesskit.core.acceptance import judge, rounding_floor

NAN, INF = float("nan"), float("inf")
BAD = [NAN, INF, -INF]


def trial_of(**changes):
    """A perfect step on f = x^2 / 2 from x = 2 to x = 1, with some numbers changed."""
    numbers = dict(
        value=2.0,
        reference=2.0,
        trial_value=0.5,
        predicted=1.5,
        slope=-2.0,
        trial_slope=-1.0,
        calmer=True,
        finite=True,
        floor=0.0,
    )
    return judge(**{key: jnp.asarray(item) for key, item in {**numbers, **changes}.items()})


def test_a_quadratic_is_predicted_exactly():
    trial = trial_of()
    assert trial.accepted
    assert trial.ratio == 1.0
    assert trial.actual == 1.5
    assert not trial.limited


@pytest.mark.parametrize(
    "changes",
    [
        {"trial_value": 2.5},  # uphill
        {"trial_value": 2.0 - 1e-5},  # less than eta of the prediction
        {"reference": 0.25},  # above the lowest value so far
        {"predicted": 0.0},  # the model promises nothing
        {"predicted": -1.0},
        {"finite": False},
        *({"trial_value": bad, "finite": False} for bad in BAD),
        {"predicted": NAN},
        {"reference": NAN},
    ],
)
def test_what_is_rejected(changes):
    trial = trial_of(**changes)
    assert not trial.accepted
    assert not jnp.isnan(trial.ratio)


def test_below_the_floor_the_slopes_decide():
    # The values cannot be told apart; the trapezoidal rule still sees the decrease.
    below = dict(trial_value=2.0, predicted=1e-9, slope=-2e-9, trial_slope=-1e-9, floor=1e-6)
    trial = trial_of(**below)
    assert trial.accepted
    assert trial.limited
    np.testing.assert_allclose(trial.actual, 1.5e-9, rtol=1e-6)
    assert not trial_of(**below, calmer=False).accepted  # the gradient must not grow
    assert not trial_of(**{**below, "trial_slope": 3e-9}).accepted  # the slopes see an increase
    assert not trial_of(**below, reference=2.0 - 1e-5).accepted  # no drift above the lowest


def test_the_floor_is_ten_ulps_of_the_larger_value():
    eps = float(jnp.finfo("float32").eps)
    floor = rounding_floor(jnp.float32(-3.0), jnp.float32(2.0), eps)
    np.testing.assert_allclose(floor, 30 * eps, rtol=1e-6)


def parabola_trial(curvature: float, step: float = 1.0):
    """A rejected step of f = -t + curvature t^2 / 2, which has its minimum at 1/curvature."""
    change = -step + curvature * step**2 / 2
    return trial_of(
        value=0.0,
        reference=0.0,
        trial_value=change,
        predicted=step,
        slope=-step,
        trial_slope=(-1 + curvature * step) * step,
    )


@pytest.mark.parametrize("curvature", [2.5, 4.0, 8.0])
def test_shrinking_goes_to_the_minimum_of_the_parabola(curvature: float):
    factor = acceptance.interpolated_shrink(parabola_trial(curvature))
    np.testing.assert_allclose(factor, 1 / curvature, rtol=1e-6)


def test_shrinking_is_safeguarded():
    shrink = acceptance.interpolated_shrink
    assert shrink(parabola_trial(1000.0)) == np.float32(0.1)
    assert shrink(parabola_trial(1.1)) == 0.5
    assert shrink(trial_of(trial_value=NAN, finite=False)) == np.float32(0.1)
    assert shrink(parabola_trial(8.0), low=0.2, high=0.3) == np.float32(0.2)


@pytest.mark.parametrize("changes", [{"trial_value": 3.0}, {"trial_value": NAN, "finite": False}])
def test_a_rejected_step_shrinks_the_radius(changes):
    for step_norm in (1.0, 0.3):
        radius = acceptance.next_radius(
            jnp.float32(1.0), jnp.float32(step_norm), jnp.array(True), trial_of(**changes)
        )
        assert 0 < radius <= step_norm / 2


def test_a_very_good_step_on_the_boundary_grows_the_radius_and_no_other():
    one, edge = jnp.float32(1.0), jnp.array(True)
    grown = acceptance.next_radius(one, one, edge, trial_of())
    assert 2 <= grown <= 10
    inside = acceptance.next_radius(one, one / 2, ~edge, trial_of())
    assert inside == 1.0
    poor = trial_of(trial_value=1.9)  # a ratio of 0.07: kept, but no reason to grow
    assert poor.accepted
    assert acceptance.next_radius(one, one, edge, poor) == 1.0
    hardly = trial_of(trial_value=1.995)
    assert hardly.accepted
    assert acceptance.next_radius(one, one, edge, hardly) == 0.5


def test_negative_curvature_is_told_from_rounding(dtype):
    eps, one = float(jnp.finfo(dtype).eps), jnp.ones((), dtype)
    assert acceptance.is_negative(-2 * eps ** (2 / 3) * one, one, eps)
    assert not acceptance.is_negative(-0.5 * eps ** (2 / 3) * one, one, eps)
    assert not acceptance.is_negative(one * jnp.nan, one, eps)


def test_the_first_radius_is_the_scale_of_one_parameter():
    assert acceptance.first_radius({"a": jnp.ones(100), "b": jnp.array(-7.0)}) == 7
    assert acceptance.first_radius(jnp.zeros(3)) == 1


def test_damping_falls_after_good_steps_and_grows_after_bad_ones():
    damping, stiffness, edge = jnp.float32(1.0), jnp.float32(2.0), jnp.array(True)
    good = trial_of(trial_value=0.6)
    assert acceptance.next_damping(damping, stiffness, edge, good) < damping
    for bad in (trial_of(trial_value=3.0), trial_of(trial_value=NAN, finite=False)):
        assert not bad.accepted
        assert acceptance.next_damping(damping, stiffness, edge, bad) > damping


def test_everything_is_one_program():
    compiled = jax.jit(lambda value: trial_of(trial_value=value))
    assert compiled(0.5).accepted
    assert not compiled(NAN).accepted
