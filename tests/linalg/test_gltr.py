"""The trust region in a Krylov space against dense eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg.gltr import gltr, krylov_absolute_step, krylov_step
from hesskit.linalg.lanczos import escape
from tests.linalg.reference import (
    N,
    as_product,
    as_tree,
    as_vector,
    check_lanes,
    finite,
    model,
    num_places,
    problem,
    stacked,
    steihaug_of,
    with_spectrum,
)


@jax.jit
def continued(matrix, gradient, radius, tol, *, scale=None, needed=True):
    """As many products as dimensions."""
    return gltr(
        as_product(matrix), gradient, radius, tol=tol, num_steps=N, scale=scale, needed=needed
    )


step_of = jax.jit(krylov_step)
absolute_step_of = jax.jit(krylov_absolute_step)


def exact_step(h, g, radius):
    """The trust-region step from the eigenvalues of H, by bisection; not the hard case."""
    w, q = np.linalg.eigh(h)
    c = q.T @ g
    if w[0] > 0 and np.linalg.norm(c / w) <= radius:
        return -q @ (c / w), 0.0
    low, high = max(0, -w[0]), max(0, -w[0]) + np.linalg.norm(g) / radius
    for _ in range(200):
        middle = (low + high) / 2
        longer = np.linalg.norm(c / (w + middle)) > radius
        low, high = (middle, high) if longer else (low, middle)
    return -q @ (c / (w + high)), high


@pytest.mark.parametrize("indefinite", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_gltr_solves_the_trust_region_problem(seed, indefinite, float64):
    h, g = problem(seed, indefinite=indefinite)
    for radius in (0.1, 1.0, 100.0):
        krylov = continued(jnp.asarray(h), as_tree(g, jnp.float64), radius, 1e-9)
        result = step_of(krylov, radius)
        expected, shift = exact_step(h, g, radius)
        s = as_vector(result.step)
        np.testing.assert_allclose(s, expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(result.shift, shift, rtol=1e-7, atol=1e-8)
        residual = (h + result.shift * np.eye(N)) @ s + g
        np.testing.assert_allclose(residual, 0, atol=1e-8)
        assert np.linalg.eigvalsh(h + result.shift * np.eye(N))[0] >= -1e-8
        np.testing.assert_allclose(as_vector(result.hessian_step), h @ s, atol=1e-10)
        np.testing.assert_allclose(result.predicted, -model(h, g, s), rtol=1e-9)
        np.testing.assert_allclose(result.step_norm, np.linalg.norm(s), rtol=1e-12)
        assert result.on_boundary == (np.linalg.norm(expected) > radius * (1 - 1e-9))
        steihaugs = steihaug_of(jnp.asarray(h), as_tree(g, jnp.float64), radius, 1e-9, N)
        assert result.predicted >= steihaugs.predicted * (1 - 1e-12)


def test_gltr_ends_early_where_the_residual_is_small():
    h, g = problem(1)
    matrix = jnp.asarray(h, jnp.float32)
    for radius in (0.1, 100.0):
        loose = continued(matrix, as_tree(g), radius, 0.3)
        tight = continued(matrix, as_tree(g), radius, 1e-4)
        assert 0 < loose.num_products < tight.num_products <= N
        answer = step_of(loose, radius)
        residual = (h + answer.shift * np.eye(N)) @ as_vector(answer.step) + g
        assert np.linalg.norm(residual) <= 0.3
        np.testing.assert_allclose(answer.residual_norm, np.linalg.norm(residual), rtol=1e-4)


@pytest.mark.parametrize("indefinite", [False, True])
def test_any_radius_without_products(indefinite, dtype):
    h, g = problem(5, indefinite=indefinite)
    krylov = continued(jnp.asarray(h, dtype), as_tree(g, dtype), 1.0, 0.0)
    tolerance = 1e-7 if dtype == jnp.float64 else 2e-3
    last = 0.0
    for radius in (1e-3, 0.1, 0.7, 3.0, 50.0):
        result = step_of(krylov, radius)
        expected, _ = exact_step(h, g, radius)
        np.testing.assert_allclose(as_vector(result.step), expected, atol=tolerance * radius)
        assert result.predicted >= last
        last = result.predicted


def test_gltr_with_scale(float64):
    h, g = problem(6, indefinite=True)
    d = np.exp(np.random.default_rng(6).normal(size=N))
    krylov = continued(
        jnp.asarray(h), as_tree(g, jnp.float64), 0.8, 1e-10, scale=as_tree(d, jnp.float64)
    )
    for radius in (0.8, 0.2):
        result = step_of(krylov, radius)
        s = as_vector(result.step)
        expected, _ = exact_step(h / d[:, None] / d[None, :], g / d, radius)
        np.testing.assert_allclose(d * s, expected, atol=1e-8)
        np.testing.assert_allclose(result.step_norm, radius, rtol=1e-12)
        np.testing.assert_allclose(as_vector(result.hessian_step), h @ s, atol=1e-9)
        np.testing.assert_allclose(result.predicted, -model(h, g, s), rtol=1e-9)


def test_singular_matrix_and_gradient_in_its_range(dtype):
    h, q = with_spectrum(7, [0, 0, 0, *range(1, 7)])
    g = q[:, 3:] @ np.ones(6)
    krylov = continued(jnp.asarray(h, dtype), as_tree(g, dtype), 10.0, 0.0)
    result = krylov_step(krylov, 10.0)
    tolerance = 1e-9 if dtype == jnp.float64 else 1e-3
    np.testing.assert_allclose(
        as_vector(result.step), -np.linalg.pinv(h, rcond=1e-9) @ g, atol=tolerance
    )
    assert not result.on_boundary


def test_nearly_hard_case(float64):
    h, q = with_spectrum(8, [-1, *range(1, N)])
    c = np.ones(N)
    c[0] = 1e-7
    g = q @ c
    krylov = continued(jnp.asarray(h), as_tree(g, jnp.float64), 3.0, 0.0)
    result = krylov_step(krylov, 3.0)
    w = np.array([-1, *range(1, N)])
    np.testing.assert_allclose(result.shift, 1, atol=1e-6)
    np.testing.assert_allclose(result.step_norm, 3.0, rtol=1e-10)
    rest = c[1:] / (w[1:] + 1)
    along = np.sqrt(9 - rest @ rest)
    best = rest @ c[1:] - 0.5 * rest @ (w[1:] * rest) + 0.5 * along**2 + 1e-7 * along
    np.testing.assert_allclose(result.predicted, best, rtol=1e-6)


def test_hard_case_of_the_krylov_space_is_that_of_the_gradient(float64):
    # g has no part along the lowest eigenvector: no Krylov space of g sees it (escape does).
    h, q = with_spectrum(8, [-1, *range(1, N)])
    g = q[:, 1:] @ np.ones(N - 1)
    krylov = continued(jnp.asarray(h), as_tree(g, jnp.float64), 3.0, 1e-10)
    s = as_vector(krylov_step(krylov, 3.0).step)
    np.testing.assert_allclose(q[:, 1:].T @ s, -1 / np.arange(1.0, N), atol=1e-6)
    found = escape(as_product(jnp.asarray(h)), as_tree(g, jnp.float64), num_steps=N)
    np.testing.assert_allclose(found.curvature, -1, rtol=1e-9)


def test_absolute_step(float64):
    h, g = problem(9, indefinite=True)
    w, q = np.linalg.eigh(h)
    krylov = continued(jnp.asarray(h), as_tree(g, jnp.float64), 1.0, 0.0)
    for damping in (0.0, 0.5):
        full = absolute_step_of(krylov, damping)
        expected = -q @ ((q.T @ g) / (np.abs(w) + damping))
        s = as_vector(full.step)
        np.testing.assert_allclose(s, expected, atol=1e-8)
        assert not full.on_boundary
        np.testing.assert_allclose(full.predicted, -model(h, g, s), rtol=1e-8)
        np.testing.assert_allclose(as_vector(full.hessian_step), h @ s, atol=1e-9)
        assert full.predicted > 0
    short = absolute_step_of(krylov, 0.5, 0.3)
    expected = -q @ ((q.T @ g) / (np.abs(w) + 0.5 + short.shift))
    np.testing.assert_allclose(as_vector(short.step), expected, atol=1e-9)
    np.testing.assert_allclose(short.step_norm, 0.3, rtol=1e-9)


def test_bad_gradient_gives_a_zero_step():
    h, g = problem(2, indefinite=True)
    g[3] = np.nan
    krylov = continued(jnp.asarray(h, jnp.float32), as_tree(g), 1.0, 0.0)
    assert krylov.num_products == 0
    for result in (krylov_step(krylov, 1.0), krylov_absolute_step(krylov, 0.0, 1.0)):
        assert finite(result)
        assert np.all(as_vector(result.step) == 0)
    krylov = continued(jnp.asarray(h, jnp.float32), as_tree(np.ones(N)), 1.0, 0.0)
    assert finite(step_of(krylov, jnp.inf))
    assert finite(step_of(krylov, jnp.nan))


@pytest.mark.parametrize("other", [jnp.float32, jnp.bfloat16])
def test_bfloat16_leaves(other):
    h, g = problem(4, indefinite=True)
    gradient = as_tree(g, jnp.bfloat16, other)
    krylov = continued(jnp.asarray(h, jnp.float32), gradient, 1.0, 1e-2)
    result = step_of(krylov, 1.0)
    dtypes = jax.tree.map(jnp.result_type, gradient)
    assert jax.tree.map(jnp.result_type, result.step) == dtypes
    assert result.predicted.dtype == jnp.float32
    expected, _ = exact_step(h, g, 1.0)
    np.testing.assert_allclose(as_vector(result.step), expected, atol=0.05)


def test_not_needed_costs_no_products():
    h, g = problem(0, indefinite=True)
    idle = continued(jnp.asarray(h, jnp.float32), as_tree(g), 1.0, 0.0, needed=False)
    assert idle.num_products == 0
    assert np.all(as_vector(krylov_step(idle, 1.0).step) == 0)
    assert np.all(as_vector(krylov_absolute_step(idle, 0.1, 1.0).step) == 0)


def test_product_is_called_at_one_place():
    def run(product, x):
        return krylov_step(gltr(product, x, 1.0, tol=0.0, num_steps=4), 0.5)

    assert num_places(run, jnp.ones(3)) == 1


@pytest.mark.slow
def test_lanes_equal_one_by_one(float64):
    problems = [problem(seed, indefinite=seed != 1) for seed in range(4)]
    problems[3] = (np.eye(N), problems[3][1])  # breaks down at once
    radius = jnp.array([0.1, 100.0, 10.0, 1.0])
    needed = jnp.array([True, True, False, True])

    def run(h, g, radius, needed):
        krylov = continued(h, g, radius, 0.5, needed=needed)
        return step_of(krylov, radius), krylov.num_products

    _, num_products = check_lanes(run, *stacked(problems), radius, needed, rtol=1e-8, atol=1e-10)
    assert num_products[2] == 0
    assert num_products[3] == 1
    assert len(set(np.asarray(num_products).tolist())) > 2


@pytest.mark.parametrize("unit", [1e-25, 1e25])
def test_units_do_not_matter_in_float32(unit):
    h, g = problem(1, indefinite=True)
    plain = continued(jnp.asarray(h, jnp.float32), as_tree(g), 1.0, 1e-3)
    scaled = continued(
        jnp.asarray(h * unit, jnp.float32), as_tree(g * unit), 1.0, jnp.float32(1e-3 * unit)
    )
    assert plain.num_products == scaled.num_products
    one, other = step_of(plain, 0.5), step_of(scaled, 0.5)
    np.testing.assert_allclose(as_vector(one.step), as_vector(other.step), atol=1e-4)
    np.testing.assert_allclose(one.predicted, float(other.predicted) / unit, rtol=1e-4)
