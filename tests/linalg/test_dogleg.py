"""The dogleg against the Cauchy point, the model, and its own geometry."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import tree
from hesskit.linalg.dogleg import Plane, dogleg
from tests.linalg.reference import (
    REGIONS,
    N,
    as_tree,
    as_vector,
    model,
    problem,
    spd,
    steihaug_of,
)

shorter = jax.jit(dogleg)


def left_by_cg(result):
    return Plane(
        result.step,
        result.hessian_step,
        result.first_direction,
        result.first_product,
        result.step_norm,
        result.cosine,
    )


@pytest.mark.parametrize(("seed", "indefinite", "radius", "preconditioned"), REGIONS)
def test_lowers_the_model_at_least_as_far_as_the_cauchy_point(
    seed, indefinite, radius, preconditioned, float64
):
    h, g = problem(seed, indefinite=indefinite)
    inverse = spd(seed) if preconditioned else np.eye(N)
    gradient = as_tree(g, jnp.float64)
    run = functools.partial(steihaug_of, jnp.asarray(h), gradient, inverse=jnp.asarray(inverse))
    plane = left_by_cg(run(radius, 1e-8, 30))
    metric = np.linalg.inv(inverse)
    for fraction in (0.9, 0.5, 0.05):
        size = fraction * plane.s_norm
        answer = shorter(plane, gradient, size)
        s = as_vector(answer.step)
        np.testing.assert_allclose(answer.norm, np.sqrt(s @ metric @ s), rtol=1e-8)
        assert answer.norm <= size * (1 + 1e-12)
        np.testing.assert_allclose(as_vector(answer.product), h @ s, atol=1e-9)
        cauchy = as_vector(run(size, 0.0, 1).step)
        assert model(h, g, s) <= model(h, g, cauchy) * (1 - 1e-12)


def test_ends_of_the_path_are_the_cauchy_point_and_s(dtype):
    h, g = jnp.array([1.0, 4.0], dtype), jnp.array([-3.0, -4.0], dtype)
    s, u = -g / h, -g / 5
    norm = jnp.linalg.norm(s)
    plane = Plane(s, h * s, u, h * u, norm, jnp.dot(u, s) / norm)
    gamma = 5 / float(jnp.dot(u, h * u))
    rtol = 100 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(shorter(plane, g, 0.5 * gamma).step, 0.5 * gamma * u, rtol=rtol)
    np.testing.assert_allclose(shorter(plane, g, jnp.asarray(gamma)).step, gamma * u, rtol=rtol)
    np.testing.assert_allclose(shorter(plane, g, norm).step, s, rtol=rtol)
    between = shorter(plane, g, 0.9 * norm)
    np.testing.assert_allclose(jnp.linalg.norm(between.step), 0.9 * norm, rtol=rtol)


def test_a_line_is_shortened_along_itself():
    s = as_tree(np.arange(1.0, N + 1))
    zero, none = tree.zeros_like(s), jnp.zeros(())
    norm = tree.norm(s)
    plane = Plane(s, tree.scale(-2.0, s), zero, zero, norm, none)
    answer = shorter(plane, zero, norm / 4)
    np.testing.assert_allclose(as_vector(answer.step), as_vector(s) / 4, rtol=1e-5)
    np.testing.assert_allclose(as_vector(answer.product), -as_vector(s) / 2, rtol=1e-5)


def test_nothing_gives_no_step():
    zero, none = as_tree(np.zeros(N)), jnp.zeros(())
    answer = shorter(Plane(zero, zero, zero, zero, none, none), as_tree(np.ones(N)), 1.0)
    assert not np.any(as_vector(answer.step))
    assert answer.norm == 0


def test_lanes_equal_one_by_one(float64):
    planes, gradients = [], []
    for seed in range(4):
        h, g = problem(seed, indefinite=seed % 2 == 1)
        gradients.append(as_tree(g, jnp.float64))
        planes.append(left_by_cg(steihaug_of(jnp.asarray(h), gradients[-1], 1.0, 1e-8, 30)))
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    radii = jnp.linspace(0.1, 0.9, 4) * jnp.stack([plane.s_norm for plane in planes])
    lanes = jax.vmap(dogleg)(stack(planes), stack(gradients), radii)
    for i, (plane, gradient) in enumerate(zip(planes, gradients, strict=True)):
        one = as_vector(dogleg(plane, gradient, radii[i]).step)
        np.testing.assert_allclose(
            as_vector(jax.tree.map(lambda a, i=i: a[i], lanes.step)), one, rtol=1e-12, atol=1e-14
        )
