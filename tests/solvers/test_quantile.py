"""Quantiles of Student's t and the normal distribution agree with SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from hesskit.solvers.quantile import normal, student

LEVELS = [0.5, 0.683, 0.95, 0.999]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dof", [1, 2, 3, 7, 30, 31, 100, 10**6])
def test_student(dof: int, level: float, dtype):
    wanted = scipy.stats.t.ppf((1 + level) / 2, dof)
    np.testing.assert_allclose(student(level, jnp.array(dof), dtype), wanted, rtol=2e-5)


@pytest.mark.parametrize("level", LEVELS)
def test_normal(level: float, dtype):
    wanted = scipy.stats.norm.ppf((1 + level) / 2)
    np.testing.assert_allclose(normal(level, dtype), wanted, rtol=1e-6)


def test_no_degrees_of_freedom():
    assert jnp.isnan(student(0.9, jnp.array(0), jnp.float32))
    assert jnp.isnan(student(0.9, jnp.array(-3), jnp.float32))


def test_under_vmap_and_jit():
    dofs = jnp.array([1, 10, 1000])
    found = jax.jit(jax.vmap(lambda dof: student(0.95, dof, jnp.float32)))(dofs)
    np.testing.assert_allclose(found, scipy.stats.t.ppf(0.975, dofs), rtol=5e-6)
