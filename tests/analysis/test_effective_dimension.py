"""Effective dimensions of known spectra."""

import jax.numpy as jnp
import numpy as np
import pytest

import hesskit

W = jnp.concatenate([jnp.full(5, 100.0), jnp.full(95, 1e-3), jnp.array([-1.0])])


@pytest.mark.slow
def test_outliers_count_and_the_bulk_does_not():
    expected = float(jnp.sum(jnp.maximum(W, 0) / (jnp.maximum(W, 0) + 1.0)))
    assert 4.9 < expected < 5.1
    found = hesskit.effective_dimension(jnp.diag(W), damping=1.0)
    np.testing.assert_allclose(float(found), expected, rtol=1e-5)
    found = hesskit.effective_dimension(jnp.diag(W), damping=1.0, dense=False, num_steps=10)
    assert abs(float(found) - expected) < 4 * float(found.standard_error) + 0.05
    with pytest.raises(ValueError, match="damping must lie in"):
        hesskit.effective_dimension(jnp.diag(W), damping=0.0)
