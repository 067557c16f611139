"""Cubic steps against the optimality conditions, brute force and the trust-region step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg.cubic import _solve, cubic_step
from hesskit.linalg.more_sorensen import MAX_NEWTON, trust_region_step

solve = jax.jit(cubic_step)
solve_many = jax.jit(jax.vmap(cubic_step))


def random_problems(n, count, dtype, seed=0):
    """Spectra of both signs over three decades, gradients over eleven, some of them nearly hard."""
    rng = np.random.default_rng(seed)
    w = np.sort(rng.standard_normal((count, n)) * 10 ** rng.uniform(-3, 0, (count, n)), axis=1)
    c = rng.standard_normal((count, n)) * 10 ** rng.uniform(-8, 3, (count, 1))
    c[::5, 0] *= 10 ** rng.uniform(-12, 0, c[::5, 0].shape)
    sigma = 10 ** rng.uniform(-3, 3, count)
    return tuple(a.astype(dtype) for a in (w, c, sigma))


def cubic_model(w, c, sigma, s):
    """At every row of s."""
    return s @ c + 0.5 * s**2 @ w + sigma / 3 * np.linalg.norm(s, axis=-1) ** 3


def check_optimality(w, c, sigma, answer, factor=20):
    """(2) of the module, each to rounding."""
    eps = float(jnp.finfo(answer.step.dtype).eps)
    s, shift = np.asarray(answer.step, float), float(answer.shift)
    w, c, sigma = np.asarray(w, float), np.asarray(c, float), float(sigma)
    length = np.linalg.norm(s)
    size = np.abs(c).max() + (np.abs(w).max() + shift) * length
    assert np.abs((w + shift) * s + c).max() <= factor * eps * size
    assert w[0] + shift >= -factor * eps * np.abs(w).max()
    np.testing.assert_allclose(shift, sigma * length, rtol=factor * eps)


@pytest.mark.parametrize("n", [1, 2, 5, pytest.param(20, marks=pytest.mark.slow)])
def test_optimality_conditions(n, dtype):
    problems = random_problems(n, 300, dtype)
    answers = solve_many(*problems)
    for i, problem in enumerate(zip(*problems, strict=True)):
        check_optimality(*problem, jax.tree.map(lambda a, i=i: a[i], answers))


@pytest.mark.parametrize("n", [2, 3])
def test_no_random_point_is_lower(n, float64):
    rng = np.random.default_rng(1)
    cloud = rng.standard_normal((20_000, n))
    cloud *= rng.uniform(0, 1.5, (20_000, 1)) / np.linalg.norm(cloud, axis=1, keepdims=True)
    for w, c, sigma in zip(*random_problems(n, 30, "float64", seed=2), strict=True):
        answer = solve(w, c, sigma)
        step = np.asarray(answer.step)
        value = cubic_model(w, c, sigma, step)
        lowest = cubic_model(w, c, sigma, cloud * np.linalg.norm(step)).min()
        assert value <= lowest + 1e-12 * abs(lowest)
        np.testing.assert_allclose(-answer.predicted, value, rtol=1e-10)
        quadratic = cubic_model(w, c, 0.0, step)
        np.testing.assert_allclose(-answer.quadratic_predicted, quadratic, rtol=1e-10)


@pytest.mark.slow
def test_is_the_trust_region_step_of_its_own_length(float64):
    for w, c, sigma in zip(*random_problems(5, 20, "float64", seed=3), strict=True):
        answer = solve(w, c, sigma)
        region = trust_region_step(w, c, jnp.linalg.norm(answer.step))
        np.testing.assert_allclose(answer.step, region.step, rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(answer.quadratic_predicted, region.predicted, rtol=1e-9)


@pytest.mark.parametrize("bump", [0.0, 1e-300, 1e-30, 1e-16, 1e-12, 1e-8, 1e-6])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("rest", [0.5, 2 - 2e-9, 2.0, 2 + 1e-9])
def test_hard_case(rest, sign, bump, dtype):
    w = np.array([-1, 1, 2], dtype)
    c = np.array([sign * bump, rest, 0], dtype)
    answer = solve(w, c, dtype.type(1))
    check_optimality(w, c, 1, answer)
    if rest == 0.5:
        assert bool(answer.hard_case) == (bump <= float(jnp.finfo(dtype).eps))
        down = -sign if c[0] != 0 else 1.0
        np.testing.assert_allclose(answer.step[0], down * (15 / 16) ** 0.5, rtol=1e-5)
        np.testing.assert_allclose(answer.predicted, 9 / 16 - 1 / 3, rtol=1e-5)


def test_zero_gradient(dtype):
    w = jnp.array([-1.0, 2.0], dtype)
    answer = solve(w, jnp.zeros_like(w), 4.0)
    np.testing.assert_array_equal(answer.step, [0.25, 0])
    np.testing.assert_allclose(answer.predicted, 1 / 96, rtol=1e-6)
    assert answer.hard_case
    for w in (jnp.zeros(2, dtype), jnp.array([1.0, 2.0], dtype)):
        still = solve(w, jnp.zeros_like(w), 4.0)
        np.testing.assert_array_equal(still.step, [0, 0])
        assert still.predicted == still.shift == 0


def test_zero_matrix_and_one_dimension(dtype):
    steepest = solve(jnp.zeros(2, dtype), jnp.array([3.0, 4.0], dtype), 5.0)
    np.testing.assert_allclose(steepest.step, [-0.6, -0.8], rtol=1e-6)
    one = solve(jnp.array([-3.0], dtype), jnp.array([1.0], dtype), 2.0)
    np.testing.assert_allclose(one.step, [-(3 + 17**0.5) / 4], rtol=1e-6)


def test_small_sigma(dtype):
    w, c = jnp.array([0.1, 2.0], dtype), jnp.array([1.0, -1.0], dtype)
    for sigma in (0.0, 1e-30, 1e-12):
        answer = solve(w, c, sigma)
        np.testing.assert_allclose(answer.step, -c / w, rtol=1e-5)
        np.testing.assert_allclose(answer.predicted, 5.25, rtol=1e-5)
    long = solve(-w[::-1], c, 1e-6)
    np.testing.assert_allclose(jnp.linalg.norm(long.step), 2e6, rtol=1e-5)


@pytest.mark.parametrize("where", range(3))
def test_nan_ends_the_loop_and_shows(where, dtype):
    problem = [jnp.array([-1.0, 2.0], dtype), jnp.ones(2, dtype), jnp.ones((), dtype)]
    problem[where] = problem[where].at[...].set(jnp.nan)
    answer, num_iterations = jax.jit(_solve)(*problem)
    assert num_iterations <= 1
    assert jnp.isnan(answer.step).any()
    assert jnp.isnan(answer.predicted)


def test_units_do_not_matter(dtype):
    up = 1e20 if dtype == jnp.float64 else 1e8
    w, c = np.array([-1, 0.5, 2]), np.array([1e-3, 1, -2])
    plain = solve(w.astype(dtype), c.astype(dtype), dtype.type(1))
    rtol = 20 * float(jnp.finfo(dtype).eps)
    for scale in (up, 1 / up):
        for length in (1e10, 1e-10):
            scaled = solve(
                (w * scale).astype(dtype),
                (c * scale * length).astype(dtype),
                dtype.type(scale / length),
            )
            np.testing.assert_allclose(scaled.step / dtype.type(length), plain.step, 10 * rtol)
            predicted = np.float64(scaled.predicted) / (scale * length**2)
            np.testing.assert_allclose(predicted, plain.predicted, rtol)


def test_float32_against_float64(float64):
    w, c, sigma = random_problems(8, 300, "float32", seed=4)
    narrow = solve_many(w, c, sigma)
    wide = solve_many(*(a.astype("float64") for a in (w, c, sigma)))
    for name in ("predicted", "quadratic_predicted"):
        predicted = np.asarray(getattr(narrow, name), "float64")
        np.testing.assert_allclose(predicted, getattr(wide, name), 200 * 1.2e-7, atol=1e-35)


def test_lanes_equal_one_by_one(dtype):
    problems = random_problems(4, 40, dtype, seed=5)
    lanes = solve_many(*problems)
    for i, problem in enumerate(zip(*problems, strict=True)):
        alone = solve(*problem)
        rtol = 1000 * float(jnp.finfo(dtype).eps)
        length = jnp.linalg.norm(alone.step)
        np.testing.assert_allclose(lanes.step[i], alone.step, rtol, atol=rtol * length)
        np.testing.assert_allclose(lanes.predicted[i], alone.predicted, rtol)


def test_iterations_ledger(float64):
    # One counts the evaluations of |s(shift)|; zero is the hard case.
    counts = {}
    for n in (1, 2, 5, 20):
        problems = random_problems(n, 2000, "float64", seed=6)
        counts[n] = np.asarray(jax.jit(jax.vmap(_solve))(*problems)[1])
        assert np.mean(counts[n] <= 6) > 0.98
        assert counts[n].max() <= 20 < MAX_NEWTON
    means = [counts[n][counts[n] > 0].mean() for n in counts]
    np.testing.assert_allclose(means, [1.0, 2.54, 2.75, 2.61], atol=0.1)
