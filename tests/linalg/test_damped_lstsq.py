"""Damped least squares against NumPy on the stacked system."""

import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg.damped_lstsq import damped_lstsq

RNG = np.random.default_rng(0)


def truth(a, damping, b, g, start):
    """The solution of the normal equations."""
    n = a.shape[1]
    return start + np.linalg.solve(a.T @ a + damping * np.eye(n), a.T @ (b - a @ start) + g)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5), (1, 3), (3, 1)])
@pytest.mark.parametrize("by_rows", [None, True, False])
@pytest.mark.parametrize("what", ["b", "g", "both", "start"])
def test_solution(float64, shape, what, by_rows):
    a = RNG.normal(size=shape)
    b = RNG.normal(size=shape[0]) * (what != "g")
    g = RNG.normal(size=shape[1]) * (what in ("g", "both"))
    start = RNG.normal(size=shape[1]) * (what == "start")
    found = damped_lstsq(
        jnp.asarray(a),
        0.1,
        residual=None if what == "g" else jnp.asarray(b),
        gradient=None if what == "b" else jnp.asarray(g),
        start=jnp.asarray(start) if what == "start" else None,
        by_rows=by_rows,
    )
    np.testing.assert_allclose(found, truth(a, 0.1, b, g, start), rtol=1e-9, atol=1e-12)


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
