"""`curve_fit_many` against one fit at a time: params, errors, chi2; padding; what is told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit

NUM = 6
X = np.linspace(-3, 3, 16)


def peak(p, x):
    return p["height"] * jnp.exp(-0.5 * (x - p["center"]) ** 2) + p["floor"]


def data():
    rng = np.random.default_rng(0)
    height, center = rng.uniform(1, 3, (NUM, 1)), rng.uniform(-1, 1, (NUM, 1))
    y = height * np.exp(-0.5 * (X - center) ** 2) + 0.5 + 0.05 * rng.normal(size=(NUM, X.size))
    sigma = np.full((NUM, X.size), 0.05)
    sigma[2, 12:] = np.inf  # a shorter data set
    y[2, 12:] = np.nan
    y[4, 0] = np.nan  # bad data: no fit
    return y, sigma


START = {"height": 1.0, "center": 0.1, "floor": 0.0}


@pytest.mark.slow
def test_each_fit_is_that_of_curve_fit(float64):
    y, sigma = data()
    axes = (None, 0, None, 0)
    fits = hesskit.curve_fit_many(
        peak, X, y, START, in_axes=axes, sigma=sigma, lanes=3, fixed="floor", absolute_sigma=True
    )
    assert fits.failed.tolist() == [4]
    assert np.all(np.isfinite(np.delete(fits.standard_errors["height"], 4)))
    assert "failed: 4" in str(fits)
    assert fits.names == ("center", "floor", "height")
    assert fits.data.x.shape == fits[1:3].data.x.shape == X.shape
    assert fits[1:3].band().value.shape == (2, X.size)
    band = fits.band()
    assert fits.covariance.shape == fits.correlation.shape == (NUM, 3, 3)
    for i in (0, 2):
        alone = hesskit.curve_fit(
            peak, X, y[i], START, sigma=sigma[i], fixed="floor", absolute_sigma=True
        )
        one = fits[i]
        assert type(one) is type(alone)
        for name in START:
            np.testing.assert_allclose(one.params[name], alone.params[name], rtol=1e-12)
        np.testing.assert_allclose(one.covariance, alone.covariance, rtol=1e-8, atol=1e-18)
        np.testing.assert_allclose(fits.covariance[i], alone.covariance, rtol=1e-8, atol=1e-18)
        np.testing.assert_allclose(fits.correlation[i], alone.correlation, rtol=1e-8, atol=1e-12)
        block = alone.block("height", "center")
        np.testing.assert_allclose(fits.block("height", "center")[i], block, rtol=1e-8)
        for name in ("chi2", "dof", "total"):
            np.testing.assert_allclose(getattr(one, name), getattr(alone, name), rtol=1e-10)
        np.testing.assert_allclose(one.band(X[:4])[1], alone.band(X[:4])[1], rtol=1e-8)
        np.testing.assert_allclose(band.upper[i], alone.band().upper, rtol=1e-8)
        np.testing.assert_array_equal(one.data.x, X)
        assert str(one).splitlines()[0] == str(alone).splitlines()[0]
    np.testing.assert_allclose(fits.band(X).upper, band.upper, rtol=1e-12)


def test_sigma_is_looked_at(float64):
    y, sigma = data()
    sigma[4, 3] = -1
    with pytest.raises(ValueError, match=r"\[4, 3\] is -1"):
        hesskit.curve_fit_many(peak, X, y, START, in_axes=(None, 0, None, 0), sigma=sigma)
    with pytest.raises(ValueError, match="mark what is shared"):
        hesskit.curve_fit_many(peak, X, y, START, in_axes=(0, 0, None))


@pytest.mark.slow
def test_a_covariance_matrix_that_all_share(float64):
    y, _ = data()
    y = np.delete(y, (2, 4), axis=0)
    matrix = 0.0025 * (np.eye(X.size) + 0.3)
    fits = jax.jit(
        lambda y: hesskit.curve_fit_many(
            peak, X, y, START, in_axes=(None, 0, None), sigma=matrix, absolute_sigma=True
        )
    )(y)
    alone = hesskit.curve_fit(peak, X, y[1], START, sigma=matrix, absolute_sigma=True)
    np.testing.assert_allclose(fits.params["center"][1], alone.params["center"], rtol=1e-10)
    np.testing.assert_allclose(fits.chi2[1], alone.chi2, rtol=1e-10)
    np.testing.assert_allclose(fits[1].covariance, alone.covariance, rtol=1e-7)
