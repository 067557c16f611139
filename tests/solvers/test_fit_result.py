"""The errors of a fit against the closed form of a straight line."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from hesskit.core.bounds import parse
from hesskit.solvers.fit_result import FitResult, fit_result
from tests.solvers.fits import SIGMA, X, Y, closed_form, line, result_of, straight_line


@pytest.mark.parametrize("absolute_sigma", [False, True])
def test_a_straight_line(absolute_sigma: bool, dtype):
    fit = straight_line(dtype, absolute_sigma=absolute_sigma)
    _, inverse, chi2, _ = closed_form(X, Y, SIGMA)
    scale = 1 if absolute_sigma else chi2 / 10
    np.testing.assert_allclose(fit.covariance, inverse * scale, rtol=1e-4)
    np.testing.assert_allclose(fit.standard_errors["b"] ** 2, inverse[1, 1] * scale, rtol=1e-4)
    np.testing.assert_allclose(fit.chi2, chi2, rtol=1e-5)
    assert fit.dof == 10
    np.testing.assert_allclose(fit.reduced_chi2, chi2 / 10, rtol=1e-5)
    mean = np.average(Y, weights=SIGMA**-2.0)
    r_squared = 1 - chi2 / np.sum(((Y - mean) / SIGMA) ** 2)
    np.testing.assert_allclose(fit.r_squared, r_squared, rtol=1e-5)
    np.testing.assert_allclose(fit.scale, np.sqrt(scale), rtol=1e-5)
    assert fit.names == ("a", "b")
    assert fit.covariance.dtype == fit.p_value.dtype == dtype


def test_p_value(dtype):
    fit = straight_line(dtype, absolute_sigma=True)
    _, _, chi2, _ = closed_form(X, Y, SIGMA)
    np.testing.assert_allclose(fit.p_value, scipy.stats.chi2.sf(chi2, 10), rtol=1e-5)
    assert jnp.isnan(straight_line(dtype).p_value)


def test_slope_and_intercept_by_scipy(float64):
    fit = straight_line("float64", sigma=1.0)
    known = scipy.stats.linregress(X, Y)
    np.testing.assert_allclose(fit.standard_errors["b"], known.stderr, rtol=1e-12)
    np.testing.assert_allclose(fit.standard_errors["a"], known.intercept_stderr, rtol=1e-12)


def three(rows, **kwargs):
    """A fit of a, b and c with these rows and chi2 = 5."""
    params = {"a": 1.0, "b": 2.0, "c": 3.0}
    return fit_result(
        result_of(params, 2.5), jnp.asarray(rows, "float32"), chi2=jnp.array(5.0), **kwargs
    )


ROWS = np.random.default_rng(0).normal(size=(8, 3))


def test_fixed_entries_and_entries_at_a_bound():
    fit = three(
        ROWS[:, 1:],
        num_residuals=jnp.array(7),
        held=(True, False, False),
        at_bound=jnp.array([True, False]),
    )
    assert fit.dof == 6
    assert fit.fixed == (True, False, False)
    np.testing.assert_array_equal(fit.at_bound, [False, True, False])
    np.testing.assert_array_equal(fit.undetermined, [False, True, False])
    variance = 5 / 6 / np.sum(ROWS[:, 2] ** 2)
    np.testing.assert_allclose(fit.covariance[2, 2], variance, rtol=1e-5)
    np.testing.assert_array_equal(fit.covariance[0], 0)
    assert np.isnan(fit.covariance[1, 1:]).all()
    errors = fit.standard_errors
    assert errors["a"] == 0
    assert np.isnan(errors["b"])


@pytest.mark.slow
def test_what_the_data_do_not_determine():
    rows = ROWS.copy()
    rows[:, 1] = -2 * rows[:, 0]
    fit = three(rows, num_residuals=8)
    assert np.isnan(fit.standard_errors["a"])
    assert np.isnan(fit.standard_errors["b"])
    assert np.isfinite(fit.standard_errors["c"])
    assert np.isfinite(fit.derived(lambda p: p["a"] - 2 * p["b"]).standard_error)


@pytest.mark.parametrize("num", [3, 2, 0])
def test_without_degrees_of_freedom(num: int):
    relative = three(ROWS[:num], num_residuals=num)
    assert np.isnan(np.diagonal(relative.covariance)).all()
    assert np.isnan(relative.reduced_chi2)
    absolute = three(ROWS[:3], num_residuals=num, absolute_sigma=True)
    np.testing.assert_allclose(absolute.covariance, np.linalg.inv(ROWS[:3].T @ ROWS[:3]), rtol=1e-3)
    assert np.isnan(absolute.p_value)


def test_a_perfect_fit_has_no_errors():
    fit = dataclasses.replace(three(ROWS, num_residuals=8), chi2=jnp.array(0.0))
    again = fit_result(fit, jnp.asarray(ROWS, "float32"), chi2=fit.chi2, num_residuals=8)
    np.testing.assert_array_equal(again.covariance, 0)
    np.testing.assert_array_equal(again.correlation, np.eye(3))


def make(scale, rows):
    params = {"a": scale, "b": jnp.array(2.0), "c": jnp.array(3.0)}
    return fit_result(
        result_of(params, 2.5),
        rows,
        chi2=scale,
        num_residuals=8,
        bounds=parse((0.0, 5.0), {"a": 1.0, "b": 2.0, "c": 3.0}),
    )


@pytest.mark.slow
def test_a_pytree_under_jit_and_vmap():
    rows = jnp.asarray(ROWS, "float32")
    scales = jnp.array([1.0, 4.0])
    many = jax.jit(jax.vmap(lambda scale: make(scale, rows)))(scales)
    assert isinstance(many, FitResult)
    alone = make(scales[1], rows)
    np.testing.assert_allclose(many.covariance[1], alone.covariance, rtol=1e-5)
    np.testing.assert_allclose(many.standard_errors["c"][1], alone.standard_errors["c"], rtol=1e-5)
    np.testing.assert_allclose(many.reduced_chi2, scales / 5)
    assert str(many) == f"{many.method}: 2 of 2 succeeded: 2 GRADIENT_TOL"
    one = jax.tree.map(lambda a: a[1], many)
    np.testing.assert_allclose(one.covariance, alone.covariance, rtol=1e-5)
    assert str(one) == str(alone)


@pytest.mark.slow
def test_errors_are_differentiable(float64):
    rows = jnp.asarray(ROWS)

    def error(t):
        return make(jnp.array(2.0), rows * (1 + t)).standard_errors["c"]

    np.testing.assert_allclose(jax.grad(error)(0.0), -error(0.0), rtol=1e-10)


def sandwich(rows, residual):
    """HC0 by its formula."""
    bread = np.linalg.inv(rows.T @ rows)
    return bread @ (rows * residual[:, None] ** 2).T @ rows @ bread


@pytest.mark.parametrize("absolute_sigma", [False, True])
def test_the_sandwich(absolute_sigma: bool, dtype):
    u = np.random.default_rng(1).normal(size=8)
    make = lambda rows, **more: three(
        rows, num_residuals=8, residual=jnp.asarray(u, "float32"), **more
    )
    fit = make(ROWS, absolute_sigma=absolute_sigma)
    np.testing.assert_allclose(fit.covariance, sandwich(ROWS, u), rtol=1e-4, atol=1e-6)
    assert fit.sandwich
    held = make(ROWS[:, 1:], held=(True, False, False), at_bound=jnp.array([False, True]))
    np.testing.assert_allclose(held.covariance[1, 1], sandwich(ROWS[:, 1:2], u)[0, 0], rtol=1e-4)
    assert np.isnan(held.standard_errors["c"])
    assert held.standard_errors["a"] == 0
    singular = make(ROWS * [1.0, 0.0, 1.0])
    assert np.isnan(singular.standard_errors["b"])
    two = singular.covariance[np.ix_([0, 2], [0, 2])]
    np.testing.assert_allclose(two, sandwich(ROWS[:, ::2], u), rtol=1e-4)


def test_the_sandwich_needs_degrees_of_freedom():
    """A perfect fit of as many residuals as parameters has zero scores, and not zero errors."""
    u = jnp.zeros(3)
    fit = three(ROWS[:3], num_residuals=3, residual=u, absolute_sigma=True)
    assert np.isnan(np.diagonal(fit.covariance)).all()
    few = three(ROWS[:2], num_residuals=2, residual=u[:2])
    assert np.isnan(np.diagonal(few.covariance)).all()


@pytest.mark.slow
def test_the_sandwich_is_differentiable(float64):
    rows, u = jnp.asarray(ROWS), jnp.arange(8.0)

    def error(t):
        params = {"a": jnp.ones(3)}
        more = {"chi2": jnp.array(2.0), "num_residuals": 8, "residual": (1 + t) * u}
        return fit_result(result_of(params, 2.5), rows * (1 + t), **more).standard_errors["a"][1]

    np.testing.assert_allclose(jax.grad(error)(0.0), 0, atol=1e-12)
    assert error(0.0) > 0


@pytest.mark.slow
def test_nothing_is_formed_for_too_many():
    params = {"w": jnp.zeros(10_000), "b": jnp.array(2.0)}
    more = {"chi2": jnp.array(2.0), "num_residuals": 20_000, "held": (True, False)}
    fit = fit_result(result_of(params, 1.0), None, **more)
    assert max(leaf.size for leaf in jax.tree.leaves(fit)) == 10_000
    assert jnp.isnan(fit.standard_errors["w"]).all()
    assert fit.standard_errors["b"] == 0
    assert fit.dof == 10_000
    with pytest.raises(ValueError, match="formed for at most 4000 entries, and 10000 were fitted"):
        assert fit.covariance


# Bands.


@pytest.mark.slow
def test_the_band_of_a_line(dtype):
    fit = straight_line(dtype)
    new = np.array([0.5, 3.0])
    band = fit.band(jnp.asarray(new, dtype), level=0.9)
    _, inverse, chi2, _ = closed_form(X, Y, SIGMA)
    gradient = np.stack([np.ones(2), new], axis=1)
    half = scipy.stats.t.ppf(0.95, 10) * np.sqrt(
        np.einsum("ki,ij,kj->k", gradient, inverse * chi2 / 10, gradient)
    )
    np.testing.assert_allclose(band.upper - band.value, half, rtol=1e-3)
    np.testing.assert_allclose(band.value - band.lower, half, rtol=1e-3)
    np.testing.assert_allclose(band.value, line(fit.params, new.astype(dtype)))
    absolute = straight_line(dtype, absolute_sigma=True).band(jnp.asarray(new, dtype), level=0.9)
    z = scipy.stats.norm.ppf(0.95) * np.sqrt(np.einsum("ki,ij,kj->k", gradient, inverse, gradient))
    np.testing.assert_allclose(absolute.upper - absolute.value, z, rtol=1e-3)


def test_no_x_means_that_of_the_data():
    fit = straight_line()
    np.testing.assert_array_equal(fit.band().upper, fit.band(fit.data.x).upper)


@pytest.mark.slow
def test_the_prediction_adds_the_noise():
    fit = straight_line("float32", sigma=0.2)
    quantile = scipy.stats.t.ppf((1 + 0.683) / 2, 10)
    size = lambda band: (np.asarray(band.upper) - band.value) / quantile
    x = jnp.array([0.1, 5.0])
    noise = np.hypot(size(fit.band(x)), 0.2 * float(fit.scale))
    np.testing.assert_allclose(size(fit.band(x, kind="prediction")), noise, rtol=1e-4)
    other = fit.band(x, kind="prediction", sigma=jnp.array([1.0, 2.0]))
    noise = np.hypot(size(fit.band(x)), [1.0 * float(fit.scale), 2.0 * float(fit.scale)])
    np.testing.assert_allclose(size(other), noise, rtol=1e-4)


@pytest.mark.slow
def test_bands_of_a_batch():
    lanes = [straight_line(absolute_sigma=True), straight_line(absolute_sigma=True)]
    many = jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes)
    x = jnp.array([0.1, 0.7, 5.0])
    for kwargs in ({}, {"kind": "prediction", "sigma": 0.3}):
        band = many.band(x, **kwargs)
        assert band.value.shape == (2, 3)
        np.testing.assert_allclose(band.upper[1], lanes[1].band(x, **kwargs).upper, rtol=1e-6)
    assert many.band(kind="prediction").lower.shape == (2, 12)
    inside = jax.vmap(lambda fit: fit.band(x).upper)(many)
    np.testing.assert_allclose(inside[0], lanes[0].band(x).upper, rtol=1e-6)


@pytest.mark.slow
def test_bad_bands():
    with pytest.raises(ValueError, match="band needs a model of x, and least_squares knows"):
        straight_line(with_model=False).band(jnp.ones(2))
    fit = straight_line()
    with pytest.raises(ValueError, match="kind must be one of 'confidence', 'prediction'"):
        fit.band(jnp.ones(2), kind="simultaneous")
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\], got 95"):
        fit.band(jnp.ones(2), level=95)
    with pytest.raises(ValueError, match="sigma differs from point to point"):
        fit.band(jnp.ones(2), kind="prediction")
    with pytest.raises(ValueError, match="a confidence band has none"):
        fit.band(jnp.ones(2), sigma=1.0)
