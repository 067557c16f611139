"""Log-determinants against the dense ones."""

import jax.numpy as jnp
import numpy as np
import pytest

import hesskit

W = jnp.geomspace(1.0, 30.0, 150)


@pytest.mark.slow
def test_exact_estimated_damped_and_indefinite():
    matrix = jnp.diag(W)
    np.testing.assert_allclose(float(hesskit.logdet(matrix)), jnp.sum(jnp.log(W)), rtol=1e-5)
    found = hesskit.logdet(matrix, damping=0.5, dense=False, num_steps=30)
    gap = abs(float(found) - float(jnp.sum(jnp.log(W + 0.5))))
    assert gap <= 4 * float(found.standard_error) + 1e-2
    assert str(found).startswith("log det ")
    assert np.isnan(float(hesskit.logdet(matrix, damping=-2.0)))
