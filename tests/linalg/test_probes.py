"""Probe vectors have mean zero, variance one, and the shape of params."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg import probes

LIKE = {"a": jnp.zeros((40, 50)), "b": jnp.zeros(3)}


@pytest.mark.parametrize("draw", [probes.signs, probes.normal])
def test_moments_and_shapes(draw):
    found = draw(jax.random.key(0), LIKE)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, LIKE)
    a = np.asarray(found["a"])
    assert abs(a.mean()) < 4 / 2000**0.5
    assert abs((a**2).mean() - 1) < 4 * (2 / 2000) ** 0.5
    other = draw(jax.random.key(1), LIKE)
    assert np.any(np.asarray(other["a"]) != a)


def test_signs_are_signs():
    found = np.asarray(probes.signs(jax.random.key(0), LIKE)["a"])
    assert set(np.unique(found)) == {-1.0, 1.0}
