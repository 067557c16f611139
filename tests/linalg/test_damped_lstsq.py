"""Damped least squares against NumPy on the stacked system."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg.damped_lstsq import _factored, damped_lstsq

RNG = np.random.default_rng(0)


def truth(a, damping, b, g, start):
    """The solution of the normal equations."""
    n = a.shape[1]
    return start + np.linalg.solve(a.T @ a + damping * np.eye(n), a.T @ (b - a @ start) + g)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5), (1, 3), (3, 1)])
@pytest.mark.parametrize("by_rows", [True, False])
def test_solution(float64, shape, by_rows):
    a, solve = RNG.normal(size=shape), jax.jit(functools.partial(damped_lstsq, by_rows=by_rows))
    for what in ("b", "g", "both", "start"):
        b = RNG.normal(size=shape[0]) * (what != "g")
        g = RNG.normal(size=shape[1]) * (what in ("g", "both"))
        start = RNG.normal(size=shape[1]) * (what == "start")
        found = solve(a, 0.1, residual=b, gradient=g, start=start)
        np.testing.assert_allclose(found, truth(a, 0.1, b, g, start), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_what_is_not_given_is_zero(shape):
    a, b, g = (jnp.asarray(RNG.normal(size=s), "float32") for s in (shape, shape[0], shape[1]))
    zero, none = jnp.zeros_like(g), jnp.zeros_like(b)
    expected = damped_lstsq(a, 0.1, residual=b, gradient=zero, start=zero)
    np.testing.assert_allclose(damped_lstsq(a, 0.1, residual=b), expected, rtol=1e-6)
    expected = damped_lstsq(a, 0.1, residual=none, gradient=g)
    np.testing.assert_allclose(damped_lstsq(a, 0.1, gradient=g), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_a_residual_survives_a_small_damping_in_float32(shape):
    """Rank one less than full, damping far below the squares of the others."""
    a = RNG.normal(size=shape)
    a[1] = a[0]
    a[:, 1] = a[:, 0]
    b = a @ RNG.normal(size=shape[1])
    damping = 3e-5 * np.linalg.norm(a, 2) ** 2
    found = damped_lstsq(jnp.asarray(a, "float32"), damping, residual=jnp.asarray(b, "float32"))
    expected = truth(a, damping, b, np.zeros(shape[1]), np.zeros(shape[1]))
    assert np.linalg.norm(found - expected) <= 1e-2 * np.linalg.norm(expected)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_no_damping_of_a_singular_matrix_is_finite(dtype, shape):
    a = np.zeros(shape)
    a[0, 0] = 2.0
    found = damped_lstsq(jnp.asarray(a, dtype), 0.0, residual=jnp.ones(shape[0], dtype))
    expected = np.zeros(shape[1])
    expected[0] = 0.5
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 3), (3, 2)])
def test_a_matrix_of_zeros_keeps_the_start(shape):
    start = jnp.arange(float(shape[1]))
    found = damped_lstsq(jnp.zeros(shape), 0.0, residual=jnp.ones(shape[0]), start=start)
    np.testing.assert_array_equal(found, start)


@pytest.mark.parametrize("shape", [(1, 3), (30, 200), (200, 30), (80, 80)])
def test_rank_deficient_rows_in_float32_of_every_scale(shape):
    """Without damping: the least solution, to what a damping of eps |A|^2 leaves of it."""
    for by_rows in {True, shape[0] < shape[1]}:
        solve = jax.jit(functools.partial(damped_lstsq, by_rows=by_rows))
        for rank in {1, min(shape) // 3 or 1, min(shape)}:
            u, _ = np.linalg.qr(RNG.normal(size=(shape[0], rank)))
            v, _ = np.linalg.qr(RNG.normal(size=(shape[1], rank)))
            a = (u * np.geomspace(0.2, 1, rank)) @ v.T
            truth = v @ RNG.normal(size=rank)
            for scale in (1e-12, 1.0, 1e12):
                wide = np.asarray(scale * a, np.float32)
                found = solve(wide, 0.0, residual=jnp.asarray(scale * (a @ truth), "float32"))
                error = np.linalg.norm(found - truth) / np.linalg.norm(truth)
                assert error < 2e-3, (by_rows, rank, scale)


def test_a_kernel_that_cannot_be_factored_is_damped_more():
    """Rounding left it indefinite: ten times the damping, as often as it takes."""
    kernel = np.diag([1.0, -3e-5]).astype("float32")
    factor, damping = jax.jit(_factored)(kernel, jnp.float32(1e-7))
    np.testing.assert_allclose(damping, 1e-4, rtol=1e-5)
    np.testing.assert_allclose(factor @ factor.T, kernel + damping * np.eye(2), rtol=1e-4)
    factor, damping = jax.jit(_factored)(kernel * jnp.nan, jnp.float32(1e-7))
    assert np.all(np.isnan(factor[0, 0]))
    assert np.isfinite(damping)
