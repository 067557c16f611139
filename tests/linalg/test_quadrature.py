"""The rule of a probe: weights that sum to one, exact moments, few nodes where few are there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg.quadrature import quadrature


@pytest.mark.slow
def test_moments_up_to_twice_the_steps(float64):
    rng = np.random.default_rng(0)
    w, z = jnp.asarray(rng.normal(size=50)), jnp.asarray(rng.normal(size=50))
    found = jax.jit(lambda w, z: quadrature(lambda v: w * v, z, 6))(w, z)
    np.testing.assert_allclose(jnp.sum(found.weights), 1, rtol=1e-14)
    share = z**2 / jnp.sum(z**2)
    for k in range(12):
        moment = jnp.sum(found.weights * found.nodes**k)
        np.testing.assert_allclose(moment, jnp.sum(share * w**k), rtol=1e-11)


@pytest.mark.slow
def test_many_steps_without_orthogonalization_stay_right():
    """Copies of the outer node share its weight."""
    w = jnp.concatenate([jnp.linspace(0.0, 1.0, 99), jnp.array([50.0])])
    found = quadrature(lambda v: w * v, jnp.ones(100), 60)
    copies = jnp.abs(found.nodes - 50) < 1e-2
    np.testing.assert_allclose(jnp.sum(jnp.where(copies, found.weights, 0)), 0.01, rtol=1e-4)
    assert jnp.sum(copies) > 1
    mean = jnp.sum(found.weights * found.nodes)
    np.testing.assert_allclose(mean, jnp.mean(w), rtol=1e-4)


def test_a_probe_of_two_eigenvectors_and_a_product_of_nan():
    w = jnp.array([1.0, 3.0, 9.0])
    found = quadrature(lambda v: w * v, jnp.array([1.0, 1.0, 0.0]), 5)
    seen = found.weights > 1e-6
    np.testing.assert_allclose(found.nodes[seen], [1, 3], rtol=1e-5)
    bad = quadrature(lambda v: v * jnp.nan, w, 4)
    assert np.isnan(bad.nodes).all()
    assert np.isnan(bad.weights).all()
