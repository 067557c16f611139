"""The search for a zero of the gradient: its two ways of solving, its ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.solvers.critical_point import search


def fn(p):
    return jnp.sum(jnp.cos(p["a"])) + jnp.sum(p["a"]) * p["b"] / 4 + p["b"] ** 2 / 2


@pytest.mark.parametrize("by_matrix", [True, False])
def test_both_ways_lead_to_a_zero_of_the_gradient(float64, by_matrix):
    start = {"a": jnp.array([0.3, 2.9, -0.2]), "b": jnp.array(0.1)}
    found = jax.jit(lambda p: search(fn, p, 60, by_matrix=by_matrix))(start)
    grad = jax.flatten_util.ravel_pytree(jax.grad(fn)(found.params))[0]
    assert np.linalg.norm(grad) < 1e-13
    np.testing.assert_allclose(found.grad_norm, np.linalg.norm(grad), atol=1e-15)
    assert found.num_steps < 30


def test_it_ends_where_nothing_is_finite():
    found = search(lambda x: jnp.log(x), jnp.array(-1.0), 9, by_matrix=True)
    assert found.num_steps == 0 or np.isfinite(found.params)
