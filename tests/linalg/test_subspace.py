"""The trust region in a plane against brute force and the Cauchy point."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import tree
from hesskit.linalg.subspace import subspace_step
from tests.linalg.reference import (
    REGIONS,
    N,
    as_tree,
    as_vector,
    check_lanes,
    model,
    problem,
    spd,
    steihaug_of,
)

plane = jax.jit(subspace_step)


def brute_force(h, g, radius, u, v, metric):
    """The least model value over a fine grid of the disk in span{u, v}."""
    root = np.linalg.cholesky(metric)
    q, _ = np.linalg.qr(root.T @ np.stack([u, v], axis=1))
    basis = np.linalg.solve(root.T, q)
    angle, length = np.meshgrid(np.linspace(0, 2 * np.pi, 721), np.linspace(0, radius, 101))
    y = np.stack([length * np.cos(angle), length * np.sin(angle)]).reshape(2, -1)
    s = basis @ y
    return np.min(g @ s + np.sum(s * (h @ s), axis=0) / 2)


@pytest.mark.parametrize(("seed", "indefinite", "radius", "preconditioned"), REGIONS)
def test_shorter_radius_costs_no_products(seed, indefinite, radius, preconditioned, float64):
    h, g = problem(seed, indefinite=indefinite)
    inverse = spd(seed) if preconditioned else np.eye(N)
    gradient = as_tree(g, jnp.float64)
    run = functools.partial(steihaug_of, jnp.asarray(h), gradient, inverse=jnp.asarray(inverse))
    full = run(radius, 1e-8, 30)
    metric = np.linalg.inv(inverse)
    pairs = ((full.step, full.hessian_step), (full.first_direction, full.first_product))
    u, v = as_vector(full.step), as_vector(full.first_direction)
    parallel = abs(full.metric.cosine) > 1 - 1e-8
    for shorter in (0.5 * radius, 0.05 * radius):
        answer = plane(gradient, shorter, pairs, metric=full.metric)
        s = as_vector(answer.step)
        np.testing.assert_allclose(answer.step_norm, np.sqrt(s @ metric @ s), rtol=1e-8)
        assert answer.step_norm <= shorter * (1 + 1e-12)
        np.testing.assert_allclose(as_vector(answer.hessian_step), h @ s, atol=1e-10)
        np.testing.assert_allclose(answer.predicted, -model(h, g, s), rtol=1e-9)
        cauchy = run(shorter, 0.0, 1)
        assert answer.predicted >= cauchy.predicted * (1 - 1e-12)
        if not parallel:
            least = brute_force(h, g, shorter, u, v, metric)
            assert -answer.predicted <= least + 1e-12
            assert -answer.predicted >= least - 1e-3 * abs(least)


def test_plane_measures_in_scale():
    h, g = problem(5, indefinite=True)
    d = np.linspace(0.5, 3, N)
    u, v = np.random.default_rng(5).normal(size=(2, N))
    pairs = tuple((as_tree(x), as_tree(h @ x)) for x in (u, v))
    answer = plane(as_tree(g), 0.7, pairs, scale=as_tree(d))
    s = as_vector(answer.step)
    np.testing.assert_allclose(np.linalg.norm(d * s), 0.7, rtol=1e-5)
    np.testing.assert_allclose(answer.step_norm, 0.7, rtol=1e-5)
    least = brute_force(h, g, 0.7, u, v, np.diag(d**2))
    np.testing.assert_allclose(-answer.predicted, least, rtol=1e-3)


def test_plane_in_the_hard_case(dtype):
    h = jnp.diag(jnp.array([-1.0, 2.0, 1.0], dtype))
    g = jnp.array([0.0, 1.0, 0.0], dtype)
    u, v = jnp.array([1.0, 1.0, 0.0], dtype), -g
    answer = plane(g, 2.0, ((u, h @ u), (v, h @ v)))
    # s_2 = -1 / (2 + 1), the rest along the first axis.
    expected = [np.sqrt(4 - 1 / 9), -1 / 3]
    np.testing.assert_allclose(np.abs(answer.step[:2]), np.abs(expected), rtol=1e-5)
    np.testing.assert_allclose(answer.predicted, 1 / 3 * 0.5 + 0.5 * 4, rtol=1e-5)
    assert answer.on_boundary


@pytest.mark.parametrize("factor", [0.0, 1.0, -3.0, 1 + 1e-7])
def test_plane_that_is_a_line(factor):
    h, g = problem(6)
    v = -g
    u = factor * v
    pairs = ((as_tree(u), as_tree(h @ u)), (as_tree(v), as_tree(h @ v)))
    for radius in (0.01, 100.0):
        for order in (pairs, pairs[::-1]):
            answer = plane(as_tree(g), radius, order)
            length = min((g @ g) / (g @ h @ g), radius / np.linalg.norm(g))
            np.testing.assert_allclose(as_vector(answer.step), -length * g, rtol=1e-4)


def test_plane_that_is_a_point():
    h, g = problem(6)
    zero = as_tree(np.zeros(N))
    answer = plane(as_tree(g), 1.0, ((zero, zero), (zero, zero)))
    assert np.all(as_vector(answer.step) == 0)
    assert answer.predicted == 0
    nan = as_tree(np.full(N, np.nan))
    answer = plane(as_tree(g), 1.0, ((nan, nan), (as_tree(g), as_tree(h @ g))))
    assert bool(tree.all_finite(answer.step))


def test_plane_lanes_equal_one_by_one(float64):
    problems = [problem(seed, indefinite=seed % 2 == 1) for seed in range(5)]
    rng = np.random.default_rng(0)
    g = np.stack([g for _, g in problems])
    u = rng.normal(size=(5, N))
    u[1], u[2] = 0, -2 * g[2]
    hu, hg = (np.stack([h @ x[i] for i, (h, _) in enumerate(problems)]) for x in (u, -g))

    def run(g, radius, u, hu, v, hv):
        return plane(g, radius, ((u, hu), (v, hv)))

    arguments = [jnp.asarray(x) for x in (g, np.array([0.1, 1, 1, 10, 100]), u, hu, -g, hg)]
    check_lanes(run, *arguments, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("force", "length"), [(1e-20, 1e-8), (1e-25, 1e8), (1e20, 1e-5), (1e-12, 1e-15)]
)
def test_units_do_not_matter_in_float32(force, length):
    h, g = problem(1)

    def shorter(force, length):
        matrix = jnp.asarray(h * (force / length), jnp.float32)
        result = steihaug_of(matrix, as_tree(g * force), 0.6 * length, 1e-4 * force, 9)
        u, v = result.step, result.first_direction
        pairs = ((u, result.hessian_step), (v, result.first_product))
        return plane(as_tree(g * force), 0.3 * length, pairs, metric=result.metric)

    plain, scaled = shorter(1.0, 1.0), shorter(force, length)
    np.testing.assert_allclose(as_vector(scaled.step) / length, as_vector(plain.step), rtol=1e-3)
    np.testing.assert_allclose(scaled.step_norm / length, plain.step_norm, rtol=1e-5)


@pytest.mark.parametrize("other", [jnp.float32, jnp.bfloat16])
def test_bfloat16_leaves(other):
    h, g = problem(4)
    gradient = as_tree(g, jnp.bfloat16, other)
    result = steihaug_of(jnp.asarray(h, jnp.float32), gradient, 1.0, 1e-3, 20)
    (u, hu), (v, hv) = (
        (result.step, result.hessian_step),
        (result.first_direction, result.first_product),
    )
    sub = plane(gradient, 0.5, ((u, hu), (v, hv)), metric=result.metric)
    assert jax.tree.map(jnp.result_type, sub.step) == jax.tree.map(jnp.result_type, gradient)
    assert sub.predicted > 0
