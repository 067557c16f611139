"""Damped Newton: its step against numpy, and the rule of its damping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core.acceptance import Trial, next_damping
from tests.transforms.runs import trace, update_once
from tests.transforms.test_newton import BENT, bent


def trial(ratio, *, accepted, actual=0.0, slope=-1.0, finite=True):
    a = jnp.asarray
    return Trial(a(accepted), a(finite), a(ratio), a(actual), a(1.0), a(slope), a(False))


@pytest.mark.parametrize("damping", [0.0, 0.3, 50.0])
def test_one_step_is_that_of_the_dense_reference(damping, float64):
    x = jnp.asarray(BENT)
    g, h = np.asarray(jax.grad(bent)(x)), np.asarray(jax.hessian(bent)(x))
    lowest = np.linalg.eigvalsh(h)[0]
    assert lowest < 0
    updates, info = update_once(hesskit.damped_newton(1.0, damping=damping), bent, x)
    expected = -np.linalg.solve(h + (damping + 2 * abs(lowest)) * np.eye(3), g)
    np.testing.assert_allclose(updates, expected, rtol=1e-10)
    np.testing.assert_allclose(info.lowest_curvature, lowest)
    assert info.damping == damping


def test_first_damping_is_a_thousandth_of_the_largest_curvature(float64):
    fn = lambda x: 50 * x[0] ** 2 + x[1] ** 2
    updates, info = update_once(hesskit.damped_newton(1.0), fn, jnp.ones(2))
    np.testing.assert_allclose(info.damping, 0.1)
    np.testing.assert_allclose(updates, [-100 / 100.1, -2 / 2.1])


def test_a_kept_step_follows_nielsen_and_keeps_convergence_quadratic(float64):
    def factor(ratio):
        kept = trial(ratio, accepted=True)
        return float(next_damping(jnp.array(2.0), jnp.array(1.0), jnp.array(True), kept) / 2)

    for ratio in (0.1, 0.3, 0.5, 0.7, 2.0):
        np.testing.assert_allclose(factor(ratio), np.clip(1 - (2 * ratio - 1) ** 3, 1 / 3, 2))
    for error in (1e-2, -1e-3, 1e-6):
        np.testing.assert_allclose(factor(1 + error), 6 * abs(error))
    assert 0 < factor(1.0) <= 1e-15  # zero would ask for the first damping again


def test_a_rejected_step_is_shortened_to_the_minimizer_of_the_parabola(float64):
    """On H = h I: the step c / (h + damping) becomes `part` of itself."""
    h, c = 3.0, 5.0
    for damping in (0.0, 1e-8, 2.0, 1e6):
        stiffness = h + damping
        for actual, part in ((-0.5, 1 / 3), (-0.1, 5 / 11), (-100.0, 0.25)):
            new = next_damping(
                jnp.array(damping),
                jnp.array(stiffness),
                jnp.array(True),
                trial(-1.0, accepted=False, actual=actual, slope=-1.0),
            )
            np.testing.assert_allclose(c / (h + new), part * c / stiffness, rtol=1e-8)
    lost = trial(-jnp.inf, accepted=False, finite=False)
    nan = next_damping(jnp.array(2.0), jnp.array(3.0), jnp.array(True), lost)
    np.testing.assert_allclose(nan, 11.0)


def test_the_escape_from_a_saddle_shortens_as_the_damping_grows(float64):
    fn = lambda x: x[0] ** 2 - 0.25 * x[1] ** 2 + x[1] ** 4
    lengths = []
    for damping in (0.0, 0.5, 5.0):
        updates, _ = update_once(hesskit.damped_newton(1.0, damping=damping), fn, jnp.zeros(2))
        assert updates[0] == 0
        lengths.append(abs(float(updates[1])))
    np.testing.assert_allclose(lengths, [1.0, 0.5, 0.5 / 5.5])


@pytest.mark.slow
def test_damping_vanishes_where_the_model_is_good_and_returns_where_it_is_not(float64):
    rows = trace("damped_newton", "wood", [-3.0, -1.0, -3.0, -1.0], "float64")
    at = np.flatnonzero(~rows.info.accepted & (rows.info.status == 0))
    at = at[at > 0]
    assert np.all(rows.info.damping[at] > rows.info.damping[at - 1])
    assert np.min(rows.info.damping) < 1e-6


def test_quadratic_from_far_away(float64):
    rows = trace("damped_newton", "quadratic", [1e6, -3e5, 7.0, 2e6], "float64")
    np.testing.assert_allclose(rows.x[3], 1.0, atol=1e-6)
