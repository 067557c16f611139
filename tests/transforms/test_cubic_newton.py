"""Cubic regularization: its step against the optimality conditions, and the rule of sigma."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core.acceptance import Trial
from hesskit.transforms.cubic_newton import RELAX, _adapt
from tests.transforms.runs import FUNCTIONS, trace, update_once
from tests.transforms.test_newton import BENT, bent


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.01, 1.0, 300.0])
def test_one_step_is_that_of_the_dense_reference(sigma, float64):
    """(H + sigma |s| I) s = -g with a positive semidefinite matrix, and no point is lower."""
    x = jnp.asarray(BENT)
    g, h = np.asarray(jax.grad(bent)(x)), np.asarray(jax.hessian(bent)(x))
    assert np.linalg.eigvalsh(h)[0] < 0
    updates, info = update_once(hesskit.cubic_newton(1.0, sigma=sigma), bent, x)
    s = np.asarray(updates)
    matrix = h + sigma * np.linalg.norm(s) * np.eye(3)
    np.testing.assert_allclose(matrix @ s, -g, rtol=1e-8)
    assert np.linalg.eigvalsh(matrix)[0] >= -1e-10
    assert info.sigma == sigma


@pytest.mark.slow
def test_the_ratio_is_that_of_the_cubic_model(float64):
    rows = trace("cubic_newton", "wood", [-3.0, -1.0, -3.0, -1.0], "float64")
    sigmas = np.concatenate([[1.0], rows.info.sigma[:-1]])
    from_wood = jax.hessian(FUNCTIONS["wood"])
    kept = np.flatnonzero(rows.info.accepted & (rows.info.status == 0))[:10]
    for k in kept:
        s, h = rows.updates[k], np.asarray(from_wood(jnp.asarray(rows.x[k])))
        promised = -(rows.grad[k] @ s + s @ h @ s / 2 + sigmas[k] * np.linalg.norm(s) ** 3 / 3)
        actual = rows.value[k] - rows.value[k + 1]
        np.testing.assert_allclose(rows.info.ratio[k], actual / promised, rtol=1e-6)


def test_escape_from_a_maximum_has_the_length_of_the_model(float64):
    """At g = 0 the minimizer of w_1 t^2 / 2 + sigma t^3 / 3 is t = -w_1 / sigma."""
    fn = lambda x: x[0] ** 2 - 0.25 * x[1] ** 2 + x[1] ** 4
    updates, _ = update_once(hesskit.cubic_newton(1.0, sigma=2.0), fn, jnp.zeros(2))
    np.testing.assert_allclose(np.abs(updates), [0.0, 0.25], atol=1e-12)


def test_sigma_relaxes_stays_and_stiffens(float64):
    def after(ratio, *, accepted, actual=0.0, finite=True):
        a = jnp.asarray
        trial = Trial(a(accepted), a(finite), a(ratio), a(actual), a(1.0), a(-1.0), a(False))
        return float(_adapt(jnp.array(2.0), jnp.array(3.0), jnp.array(True), trial))

    assert after(0.95, accepted=True) == 2.0 * RELAX
    assert after(0.5, accepted=True) == 2.0
    np.testing.assert_allclose(after(-1.0, accepted=False, actual=-0.5), (2 + 3 * 2) * 3)
    np.testing.assert_allclose(after(-jnp.inf, accepted=False, finite=False), (2 + 3 * 3) * 4)


def test_a_rejected_step_is_shortened_to_the_minimizer_of_the_parabola(float64):
    """On H = h I the next step is exactly `part` of the last, whatever sigma was."""
    h, g = 3.0, 5.0
    for sigma in (1e-6, 0.5, 40.0):
        length = 2 * g / (h + np.sqrt(h * h + 4 * sigma * g))  # (h + sigma t) t = g
        a = jnp.asarray
        trial = Trial(a(False), a(True), a(-1.0), a(-0.5), a(1.0), a(-1.0), a(False))
        new = float(_adapt(a(sigma), a(g / length**2), a(True), trial))
        shorter = 2 * g / (h + np.sqrt(h * h + 4 * new * g))
        np.testing.assert_allclose(shorter, length / 3, rtol=1e-8)


def test_quadratic_from_far_away(float64):
    rows = trace("cubic_newton", "quadratic", [1e6, -3e5, 7.0, 2e6], "float64")
    arrived = np.flatnonzero(np.max(np.abs(rows.x - 1.0), axis=1) < 1e-6)[0]
    assert arrived <= 15
