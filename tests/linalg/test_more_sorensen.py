"""Trust-region steps against the optimality conditions, bisection, and brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg.more_sorensen import MAX_NEWTON, _solve, damped_step, trust_region_step

solve = jax.jit(trust_region_step)
solve_many = jax.jit(jax.vmap(trust_region_step))
damp = jax.jit(damped_step)


def model(w, c, s):
    return c @ s + 0.5 * s @ (w * s)


def reference(w, c, radius):
    """-model at the minimizer, by 300 bisections in extended precision."""
    w, c, radius = (np.asarray(a, np.longdouble) for a in (w, c, radius))
    base = max(-w[0], np.longdouble(0))
    gaps = w + base

    def step(x):
        return np.where(c == 0, 0, -c / np.where(c == 0, 1, gaps + x))

    length = np.linalg.norm(c)
    low, high = np.longdouble(0), length / radius
    if base == 0 and (gaps[c != 0] > 0).all() and np.linalg.norm(step(low)) <= radius:
        return -model(w, c, step(low))
    if (gaps[c != 0] > 0).all() and np.linalg.norm(step(low)) <= radius:
        s = step(low)
        s[0] += np.sqrt(radius**2 - s @ s)
        return -model(w, c, s)
    for _ in range(300):
        middle = np.sqrt(low * high) if low > 0 else high * np.longdouble(1e-8)
        if low == 0 and np.linalg.norm(step(middle)) <= radius:
            high = middle
        elif np.linalg.norm(step(middle)) > radius:
            low = middle
        else:
            high = middle
    s = step(high)
    return -model(w, c, s * (radius / np.linalg.norm(s)))


def random_problems(n, count, dtype, seed=0):
    """Spectra of both signs over three decades, gradients over eleven, some of them nearly hard."""
    rng = np.random.default_rng(seed)
    w = np.sort(rng.standard_normal((count, n)) * 10 ** rng.uniform(-3, 0, (count, n)), axis=1)
    c = rng.standard_normal((count, n)) * 10 ** rng.uniform(-8, 3, (count, 1))
    c[::5, 0] *= 10 ** rng.uniform(-12, 0, c[::5, 0].shape)
    radius = 10 ** rng.uniform(-3, 3, count)
    return tuple(a.astype(dtype) for a in (w, c, radius))


def check_optimality(w, c, radius, answer, factor=20):
    """(2) of the module, each to rounding."""
    eps = float(jnp.finfo(answer.step.dtype).eps)
    s, shift = np.asarray(answer.step, float), float(answer.shift)
    w, c, length = np.asarray(w, float), np.asarray(c, float), np.linalg.norm(s)
    size = np.abs(c).max() + np.abs(w).max() * length
    assert np.abs((w + shift) * s + c).max() <= factor * eps * size
    assert w[0] + shift >= -factor * eps * np.abs(w).max()
    assert shift >= 0
    if answer.on_boundary:
        np.testing.assert_allclose(length, float(radius), rtol=factor * eps)
    else:
        assert length <= radius * (1 + factor * eps)
        assert shift == 0


@pytest.mark.parametrize("n", [1, 2, 5, pytest.param(20, marks=pytest.mark.slow)])
def test_optimality_conditions(n, dtype):
    problems = random_problems(n, 400, dtype)
    answers = solve_many(*problems)
    for i, problem in enumerate(zip(*problems, strict=True)):
        check_optimality(*problem, jax.tree.map(lambda a, i=i: a[i], answers))


@pytest.mark.parametrize("n", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 5))])
def test_predicted_is_that_of_bisection(n, dtype):
    w, c, radius = random_problems(n, 150, dtype)
    answers = solve_many(w, c, radius)
    expected = [float(reference(*p)) for p in zip(w, c, radius, strict=True)]
    rtol = 50 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(answers.predicted, float), expected, rtol, atol=1e-35)
    assert answers.predicted.dtype == answers.step.dtype == dtype


@pytest.mark.parametrize("n", [2, 3])
def test_no_random_point_is_lower(n, float64):
    rng = np.random.default_rng(1)
    points = rng.standard_normal((20_000, n))
    points /= np.maximum(1, np.linalg.norm(points, axis=1, keepdims=True))
    for w, c, radius in zip(*random_problems(n, 30, "float64", seed=2), strict=True):
        answer = solve(w, c, radius)
        cloud = radius * points
        lowest = (cloud @ c + 0.5 * cloud**2 @ w).min()
        value = model(w, c, np.asarray(answer.step))
        assert value <= lowest + 1e-12 * abs(lowest)
        np.testing.assert_allclose(-answer.predicted, value, rtol=1e-10)


@pytest.mark.parametrize("bump", [0.0, 1e-300, 1e-30, 1e-16, 1e-12, 1e-8, 1e-6])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("rest", [0.5, 2 - 2e-9, 2.0, 2 + 1e-9])
def test_hard_case(rest, sign, bump, dtype):
    # At shift = 1 the second component is -rest / 2: inside, on and outside the unit sphere.
    w = np.array([-1, 1, 2], dtype)
    c = np.array([sign * bump, rest, 0], dtype)
    answer = solve(w, c, dtype.type(1))
    check_optimality(w, c, 1, answer)
    expected = float(reference(w, c, 1))
    np.testing.assert_allclose(answer.predicted, expected, rtol=20 * jnp.finfo(dtype).eps)
    assert answer.on_boundary
    if rest == 0.5:
        assert bool(answer.hard_case) == (bump <= float(jnp.finfo(dtype).eps))
        down = -sign if c[0] != 0 else 1.0
        np.testing.assert_allclose(answer.step[0], down * (15 / 16) ** 0.5, 1e-5)


@pytest.mark.parametrize("w", [[-1.0], [-1.0, 2.0], [-2.0, -1.0], [-1.0, -1.0, 1.0], [-1.0, 0.0]])
def test_zero_gradient_leaves_saddles_and_maxima(w, dtype):
    w = jnp.array(w, dtype)
    answer = solve(w, jnp.zeros_like(w), 0.5)
    np.testing.assert_array_equal(answer.step, jnp.zeros_like(w).at[0].set(0.5))
    np.testing.assert_allclose(answer.shift, -w[0])
    np.testing.assert_allclose(answer.predicted, -w[0] / 8)
    assert answer.hard_case
    assert answer.on_boundary


def test_zero_matrix(dtype):
    zero = jnp.zeros(2, dtype)
    still = solve(zero, zero, 1.0)
    np.testing.assert_array_equal(still.step, zero)
    assert not still.on_boundary
    steepest = solve(zero, jnp.array([3.0, 4.0], dtype), 2.0)
    np.testing.assert_allclose(steepest.step, [-1.2, -1.6], rtol=1e-6)
    np.testing.assert_allclose(steepest.predicted, 10, rtol=1e-6)


def test_semidefinite_takes_the_pseudo_inverse(dtype):
    eps = float(jnp.finfo(dtype).eps)
    for noise in (0.0, eps, -eps):
        for c1 in (0.0, eps, -eps):
            w, c = jnp.array([noise, 1.0], dtype), jnp.array([c1, 1.0], dtype)
            answer = solve(w, c, 5.0)
            np.testing.assert_allclose(answer.step, [0, -1], atol=1e-6)
            assert not answer.on_boundary
    # A gradient that the null space does see goes to the boundary.
    assert solve(jnp.array([0.0, 1.0], dtype), jnp.array([0.1, 1.0], dtype), 5.0).on_boundary


def test_infinite_radius(dtype):
    w, c = jnp.array([1e-3, 1.0], dtype), jnp.array([1.0, 1.0], dtype)
    np.testing.assert_allclose(solve(w, c, jnp.inf).step, [-1000, -1], rtol=1e-6)
    assert not jnp.isfinite(solve(-w[::-1], c, jnp.inf).step).all()


@pytest.mark.parametrize("where", range(3))
def test_nan_ends_the_loop_and_shows(where, dtype):
    problem = [jnp.array([-1.0, 2.0], dtype), jnp.ones(2, dtype), jnp.ones((), dtype)]
    problem[where] = problem[where].at[...].set(jnp.nan)
    answer, num_iterations = jax.jit(_solve)(*problem)
    assert num_iterations <= 1
    assert jnp.isnan(answer.step).any()
    assert jnp.isnan(answer.predicted)


def test_zero_radius(dtype):
    answer = solve(jnp.array([-1.0, 2.0], dtype), jnp.ones(2, dtype), 0.0)
    np.testing.assert_array_equal(answer.step, jnp.zeros(2, dtype))
    assert not jnp.isnan(answer.shift)


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
                dtype.type(length),
            )
            # The last digits of the scaled data differ, so shift - 1 does a little.
            np.testing.assert_allclose(scaled.step / dtype.type(length), plain.step, 10 * rtol)
            np.testing.assert_allclose(scaled.shift / dtype.type(scale), plain.shift, rtol)
            predicted = np.float64(scaled.predicted) / (scale * length**2)
            np.testing.assert_allclose(predicted, plain.predicted, rtol)


@pytest.mark.slow
def test_float32_against_float64(float64):
    w, c, radius = random_problems(8, 300, "float32", seed=3)
    narrow = solve_many(w, c, radius)
    wide = solve_many(*(a.astype("float64") for a in (w, c, radius)))
    predicted = np.asarray(narrow.predicted, "float64")
    np.testing.assert_allclose(predicted, wide.predicted, rtol=200 * 1.2e-7, atol=1e-35)


def test_lanes_equal_one_by_one(dtype):
    problems = random_problems(4, 40, dtype, seed=4)
    lanes = solve_many(*problems)
    for i, problem in enumerate(zip(*problems, strict=True)):
        alone = solve(*problem)
        rtol = 1000 * float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(lanes.step[i], alone.step, rtol, atol=rtol * problem[2])
        assert lanes.on_boundary[i] == alone.on_boundary


@pytest.mark.slow
def test_iterations_ledger(float64):
    # One counts the evaluations of |s(shift)|; zero is an interior step or the hard case.
    counts = {}
    for n in (1, 2, 5, 20):
        problems = random_problems(n, 2000, "float64", seed=5)
        counts[n] = np.asarray(jax.jit(jax.vmap(_solve))(*problems)[1])
        assert np.mean(counts[n] <= 6) > 0.98
        assert counts[n].max() <= 20 < MAX_NEWTON
    means = [counts[n][counts[n] > 0].mean() for n in counts]
    np.testing.assert_allclose(means, [1.0, 1.99, 2.19, 2.15], atol=0.1)


def test_damped_step(dtype):
    w, c = jnp.array([0.5, 2.0], dtype), jnp.array([1.0, 1.0], dtype)
    np.testing.assert_allclose(damp(w, c, 0.0).step, -c / w)
    answer = damp(w, c, 0.5)
    np.testing.assert_allclose(answer.step, -c / (w + 0.5), rtol=1e-6)
    np.testing.assert_allclose(answer.predicted, -model(w, c, answer.step), rtol=1e-6)
    assert not answer.on_boundary


def test_damped_step_on_an_indefinite_matrix(dtype):
    w, c = jnp.array([-1.0, 2.0], dtype), jnp.array([1.0, 4.0], dtype)
    answer = damp(w, c, 0.5)  # shift 2: the lowest curvature enters with its modulus
    np.testing.assert_allclose(answer.step, [-1, -1], rtol=1e-6)
    np.testing.assert_allclose(answer.shift, 2)
    np.testing.assert_allclose(answer.predicted, -model(w, c, answer.step), rtol=1e-6)
    np.testing.assert_allclose(damp(w, c, 7.0).shift, 7)
    singular = damp(jnp.array([0.0, 2.0], dtype), jnp.array([0.0, 4.0], dtype), 0.0)
    np.testing.assert_allclose(singular.step, [0, -2], rtol=1e-6)
