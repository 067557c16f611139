"""The L-BFGS step in a box: the dense matrix, its faces, and SciPy's bounded minimizer."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import hesskit
from hesskit.curvature import secant_box

N, M = 6, 4


def pairs(seed, num):
    """Pairs of a quadratic, the ring turned so that its newest row is 1."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(N, N))
    hessian = a @ a.T + np.eye(N)
    s = rng.normal(size=(M, N))
    age = (1 - np.arange(M)) % M
    s[age >= num] = 7.0  # rows that are not held must not count
    return hessian, s, s @ hessian, age


def dense(s, y, age, num, theta):
    """The BFGS update formula, pair after pair, oldest first."""
    b = theta * np.eye(N)
    for row in np.argsort(-age):
        if age[row] < num:
            u, v = s[row], y[row]
            b = b - np.outer(b @ u, b @ u) / (u @ b @ u) + np.outer(v, v) / (u @ v)
    return b


def matrix(seed=0, num=M, scaled=True):
    _, s, y, age = pairs(seed, num)
    rows = jnp.asarray(s), jnp.asarray(y), jnp.asarray(age, jnp.int32)
    b = secant_box.compact(*rows, jnp.int32(num), scaled=scaled)
    newest = int(np.argmin(age))
    theta = y[newest] @ y[newest] / (s[newest] @ y[newest]) if scaled and num else 1.0
    return b, dense(s, y, age, num, theta)


@pytest.mark.slow
def test_products_are_those_of_the_update_formula(float64):
    del float64
    for num in (0, 1, 3, M):
        for scaled in (True, False):
            b, expected = matrix(num=num, scaled=scaled)
            v = jnp.asarray(np.random.default_rng(1).normal(size=N))
            np.testing.assert_allclose(secant_box._product(b, v), expected @ v, rtol=1e-9)


@pytest.mark.slow
def test_solves_on_a_face(float64):
    del float64
    b, expected = matrix()
    free = np.array([True, False, True, True, False, True])
    v = np.where(free, np.random.default_rng(2).normal(size=N), 0)
    found = secant_box._solve_on(b, jnp.asarray(free), jnp.asarray(v))
    block = np.linalg.solve(expected[np.ix_(free, free)], v[free])
    np.testing.assert_allclose(np.asarray(found)[free], block, rtol=1e-8)
    np.testing.assert_array_equal(np.asarray(found)[~free], 0)


@pytest.mark.slow
def test_the_step_is_feasible_descends_and_is_newton_without_bounds(float64):
    del float64
    rng, inf = np.random.default_rng(3), jnp.full(N, jnp.inf)
    for seed in range(20):
        b, expected = matrix(seed)
        g = rng.normal(size=N)
        free = secant_box.boxed_step(b, jnp.asarray(g), -inf, inf)
        np.testing.assert_allclose(free, -np.linalg.solve(expected, g), rtol=1e-7, atol=1e-10)
        lower = -rng.random(N) * (rng.random(N) > 0.3)
        upper = rng.random(N)
        step = np.asarray(secant_box.boxed_step(b, *map(jnp.asarray, (g, lower, upper))))
        assert np.all((lower <= step) & (step <= upper))
        assert g @ step < 0
        t = secant_box.reach(*map(jnp.asarray, (step, lower, upper)))
        assert t >= 1


def test_a_corner_is_no_step(float64):
    del float64
    b, _ = matrix()
    zero = jnp.zeros(N)
    np.testing.assert_array_equal(secant_box.boxed_step(b, jnp.ones(N), zero, zero + 1), zero)


@pytest.mark.slow
def test_minimize_reaches_the_bounded_minimizer(float64):
    """SciPy's L-BFGS-B as the truth; bounds are met exactly, the rest agrees."""
    del float64
    rng = np.random.default_rng(4)
    a = rng.normal(size=(40, 20))
    h, c = a.T @ a / 40 + 0.05 * np.eye(20), 2 * rng.normal(size=20)
    lower, upper = -0.3 * np.ones(20), 0.5 * np.ones(20)

    def fn(x):
        return 0.5 * x @ h @ x + c @ x + 0.1 * jnp.sum(x**4)

    found = hesskit.minimize(fn, jnp.zeros(20), hesskit.lbfgs(), bounds=(lower, upper))
    truth = scipy.optimize.minimize(
        lambda x: (0.5 * x @ h @ x + c @ x + 0.1 * np.sum(x**4), h @ x + c + 0.4 * x**3),
        np.zeros(20),
        jac=True,
        bounds=list(zip(lower, upper, strict=True)),
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-12},
    )
    assert found.success
    np.testing.assert_allclose(found.params, truth.x, atol=1e-7)
    at = (truth.x == lower) | (truth.x == upper)
    assert at.sum() >= 5
    np.testing.assert_array_equal(np.asarray(found.params)[at], truth.x[at])
    np.testing.assert_allclose(found.value, truth.fun, rtol=1e-12)
