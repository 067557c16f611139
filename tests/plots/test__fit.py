"""The picture of a fit holds its data, curve and band."""

import dataclasses

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from hesskit.plots import fit
from hesskit.solvers.band import Data
from tests.solvers.fits import SIGMA, X, Y, line, straight_line


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def band_of(ax):
    return ax.collections[-1].get_paths()[0].get_extents()


def test_data_curve_and_band():
    result = straight_line(absolute_sigma=True)
    ax = fit(result)
    assert texts(ax) == ["data", "fit", "68.3 % confidence"]
    points, curve = ax.lines[0], ax.lines[1]
    np.testing.assert_allclose(points.get_ydata(), Y, rtol=1e-6)
    np.testing.assert_allclose(
        curve.get_ydata(), line(result.params, curve.get_xdata().astype("float32")), rtol=1e-5
    )
    band = result.band(jnp.array([0.0, 2.0], "float32"))
    np.testing.assert_allclose(band_of(ax).y0, band.lower[0], rtol=1e-5)
    np.testing.assert_allclose(band_of(ax).y1, band.upper[1], rtol=1e-5)
    bars = ax.containers[0][2][0].get_segments()
    np.testing.assert_allclose(bars[3][:, 1], Y[3] + np.array([-1, 1]) * SIGMA[3], rtol=1e-5)


def test_bars_are_scaled_as_the_errors_are():
    result = straight_line()
    bars = fit(result).containers[0][2][0].get_segments()
    half = SIGMA[3] * float(result.scale)
    np.testing.assert_allclose(bars[3][:, 1], Y[3] + np.array([-half, half]), rtol=1e-5)


def test_where_and_how_it_is_drawn():
    _, axes = plt.subplots(1, 2)
    x = np.linspace(-1, 3, 7)
    ax = fit(straight_line(), axes[1], x=x, level=0.95, kind="prediction", labels=("t", "flux"))
    assert ax is axes[1]
    assert texts(ax)[-1] == "95 % prediction"
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), x)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("t", "flux")


def test_the_curve_follows_a_logarithmic_axis():
    _, ax = plt.subplots()
    ax.set_xscale("log")
    x = fit(straight_line(), ax).lines[1].get_xdata()
    np.testing.assert_allclose(np.diff(np.log(x)), np.log(x[1] / x[0]), rtol=1e-6)
    assert x[0] == pytest.approx(X[1])


def test_points_that_do_not_count_are_hollow():
    result = straight_line()
    sigma = jnp.asarray(np.where(np.arange(12) == 4, np.inf, SIGMA), "float32")
    result = dataclasses.replace(result, data=result.data._replace(sigma=sigma))
    ax = fit(result, residuals=True)
    assert texts(ax)[:2] == ["data", "data, not counted"]
    assert len(ax.lines[0].get_xdata()) == 11
    hollow = ax.lines[-1]
    assert (hollow.get_marker(), hollow.get_xydata()[0].tolist()) == (
        "o",
        list(map(float, (result.data.x[4], result.data.y[4]))),
    )
    # One far away leaves the scale to the others.
    data = result.data._replace(y=result.data.y.at[4].set(-50.0))
    ax = fit(dataclasses.replace(result, data=data))
    assert ax.lines[-1].get_marker() == "v"
    assert ax.get_ylim()[0] > 0


def test_residuals_below():
    result = straight_line(absolute_sigma=True)
    ax = fit(result, residuals=True)
    below = ax.figure.axes[1]
    assert below.get_xlabel() == "x"
    found = below.lines[1].get_ydata()
    np.testing.assert_allclose(found, (Y - line(result.params, X)) / SIGMA, atol=1e-4)
    assert found @ found == pytest.approx(float(result.chi2), rel=1e-3)
    plain = dataclasses.replace(result, data=result.data._replace(sigma=None))
    below = fit(plain, residuals=True).figure.axes[1]
    np.testing.assert_allclose(below.lines[1].get_ydata(), Y - line(result.params, X), atol=1e-5)


def test_no_band_is_no_band():
    result = straight_line()
    spread = result.spread._replace(at_bound=jnp.array([True, False]))
    assert texts(fit(dataclasses.replace(result, spread=spread))) == ["data", "fit"]


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match=r"plots\.fit needs a model of x; plot the result of"):
        fit(straight_line(with_model=False))
    result = straight_line()
    square = jnp.ones((3, 4))
    for x, y in (({"t": square}, square), (square, square)):
        other = dataclasses.replace(result, data=Data(x, y, None))
        with pytest.raises(ValueError, match=r"plots.fit draws ydata \(m,\) over xdata \(m,\)"):
            fit(other)
    with pytest.raises(ValueError, match=r"residuals=True needs an ax made by plt\.subplots"):
        fit(result, plt.figure().add_axes((0.1, 0.1, 0.8, 0.8)), residuals=True)
