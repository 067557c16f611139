"""The picture of one number: curve, parabola, second derivative."""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from hesskit.plots import curvature_1d


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawn(line):
    x, y = line.get_xdata(), line.get_ydata()
    return x[np.isfinite(y)], y[np.isfinite(y)]


def test_up_and_down():
    """f = c (x^3 - x) bends with 6 c x: down left of 0, up right of it, -3 at -1/4."""
    _, ax = plt.subplots()
    fn = lambda x, c: c * (x**3 - x)
    assert curvature_1d(fn, ax, xlim=(-1, 2), args=(2.0,), at=-0.25) is ax
    up, down, touching, point = ax.lines
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["curves up", "curves down", "f″(−0.25) = −3"]
    for line, ends in ((up, (0, 2)), (down, (-1, 0))):
        x, y = drawn(line)
        np.testing.assert_allclose(y, 2 * (x**3 - x), atol=2e-6)
        np.testing.assert_allclose(x[[0, -1]], ends, atol=0.02)
    assert up.get_linestyle() != down.get_linestyle()
    h = touching.get_xdata() + 0.25
    value, slope = 2 * (-1 / 64 + 1 / 4), 2 * (3 / 16 - 1)
    np.testing.assert_allclose(touching.get_ydata(), value + slope * h - 1.5 * h * h, atol=1e-5)
    np.testing.assert_allclose(point.get_xydata(), [[-0.25, value]], rtol=1e-6)
    assert ax.get_xlabel() == "x"


def test_a_straight_line():
    assert curvature_1d(lambda x: 2 * x).lines[0].get_label() == "straight"


def test_mistakes():
    with pytest.raises(ValueError, match=r"xlim must be \(low, high\) with low < high, got"):
        curvature_1d(lambda x: x, xlim=(1, 1))
    with pytest.raises(ValueError, match=r"value_fn returned shape \(1,\)"):
        curvature_1d(lambda x: jnp.atleast_1d(x))
