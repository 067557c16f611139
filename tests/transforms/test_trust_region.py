"""The exact trust region: its step against the optimality conditions, its radius and its scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from tests.transforms.runs import trace, update_once
from tests.transforms.test_newton import BENT, bent


@pytest.mark.slow
@pytest.mark.parametrize("radius", [0.05, 0.8, 30.0])
def test_one_step_is_that_of_the_dense_reference(radius, float64):
    """(H + shift I) s = -g, positive semidefinite, on the boundary (H is indefinite here)."""
    x = jnp.asarray(BENT)
    g, h = np.asarray(jax.grad(bent)(x)), np.asarray(jax.hessian(bent)(x))
    lowest = np.linalg.eigvalsh(h)[0]
    assert lowest < 0
    updates, info = update_once(hesskit.trust_region(1.0, radius=radius), bent, x)
    s = np.asarray(updates)
    np.testing.assert_allclose(np.linalg.norm(s), radius)
    shift = -(s @ (h @ s + g)) / (s @ s)
    assert shift >= -lowest * (1 - 1e-10)
    np.testing.assert_allclose((h + shift * np.eye(3)) @ s, -g, rtol=1e-7, atol=1e-9)
    assert info.radius == radius


def test_first_radius_is_the_largest_entry():
    fn = lambda x: jnp.sum((x + 100.0) ** 2)
    updates, _ = update_once(hesskit.trust_region(1.0), fn, jnp.array([3.0, 4.0]))
    np.testing.assert_allclose(np.linalg.norm(updates), 4.0, rtol=1e-6)


@pytest.mark.slow
def test_scaling_makes_the_units_of_parameters_irrelevant(float64):
    """With D from the curvature, f(x / c) takes the step c times that of f."""
    c = jnp.array([1e-4, 1.0, 1e3])
    stretched = lambda y: bent(y / c)
    x = jnp.asarray(BENT)
    optimizer = hesskit.trust_region(1.0, scaling="curvature", radius=0.3)
    near, _ = update_once(optimizer, bent, x)
    far, _ = update_once(optimizer, stretched, x * c)
    np.testing.assert_allclose(far / c, near, rtol=1e-8)
    with pytest.raises(ValueError, match="scaling must be one of None, 'curvature'; got 'jacobi'"):
        hesskit.trust_region(scaling="jacobi")


@pytest.mark.slow
def test_the_radius_shrinks_after_a_rejection_and_not_after_a_kept_step(float64):
    rows = trace("trust_region", "rosenbrock", [-1.2, 1.0, 1.0, 0.5], "float64")
    going = np.flatnonzero(rows.info.status == 0)
    before = np.concatenate([[np.max(np.abs(rows.x[0]))], rows.info.radius[:-1]])
    kept = rows.info.accepted[going]
    assert np.all(rows.info.ratio[going][kept] >= 0.01)  # below that a kept step shrinks it too
    assert np.all(rows.info.radius[going][kept] >= before[going][kept])
    assert np.all(rows.info.radius[going][~kept] <= before[going][~kept] / 2)
