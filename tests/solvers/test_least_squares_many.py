"""`least_squares_many` against one fit at a time: robust losses, bounds, sigma, sandwich."""

import jax.numpy as jnp
import numpy as np
import pytest

import hesskit

NUM = 5
T = np.arange(8.0)


def decay(p, y):
    return p["a"] * jnp.exp(-p["k"] * T) - y


@pytest.mark.slow
def test_each_fit_is_that_of_least_squares(float64):
    rng = np.random.default_rng(1)
    y = 2 * np.exp(-rng.uniform(0.2, 0.8, (NUM, 1)) * T) + 0.02 * rng.normal(size=(NUM, T.size))
    y[:, 3] += 0.5
    sigma = 0.02 * (1 + np.arange(NUM)[:, None] * np.ones(T.size))
    options = {
        "loss": "soft_l1",
        "covariance": "sandwich",
        "bounds": {"a": (0, 1.9)},
        "absolute_sigma": True,
    }
    start = {"a": jnp.array(1.0), "k": jnp.array(1.0)}
    fits = hesskit.least_squares_many(
        decay, start, args=(y,), in_axes=(None, 0, 0), sigma=sigma, lanes=2, **options
    )
    for i in (1, NUM - 1):
        alone = hesskit.least_squares(decay, start, args=(y[i],), sigma=sigma[i], **options)
        one = fits[i]
        np.testing.assert_allclose(one.params["k"], alone.params["k"], rtol=1e-9)
        np.testing.assert_array_equal(one.at_bound, alone.at_bound)
        np.testing.assert_allclose(one.standard_errors["k"], alone.standard_errors["k"], rtol=1e-6)
        assert one.status == alone.status
        assert one.dof == alone.dof
    assert fits.chi2.shape == (NUM,)
    assert len(fits) == NUM


@pytest.mark.slow
def test_complex_params_are_told():
    with pytest.raises(TypeError, match="least_squares_many needs real params"):
        hesskit.least_squares_many(decay, {"a": jnp.ones(2, "complex64"), "k": jnp.ones(2)})


def test_axes_that_mark_nothing_are_told(float64):
    with pytest.raises(ValueError, match="marks nothing as batched"):
        hesskit.least_squares_many(decay, {"a": 1.0, "k": 1.0}, args=(T,), in_axes=None)
