"""The picture of a gradient: where the arrows stand and what they are."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from hesskit.plots import gradient_field


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def field(unit=False):
    fn = lambda p, c: p[0] ** 2 - c * p[1] ** 2
    ax = gradient_field(fn, xlim=(-3, 3), ylim=(-1, 1), args=(2.0,), num=5, unit=unit)
    return ax, ax.collections[0]


def test_arrows_are_the_gradient():
    ax, arrows = field()
    x, y = arrows.XY.T
    assert set(x) == {-3, -1.5, 0, 1.5, 3}
    np.testing.assert_allclose(arrows.U, 2 * x, rtol=1e-6)
    np.testing.assert_allclose(arrows.V, -4 * y, rtol=1e-6)
    np.testing.assert_allclose(arrows.get_array(), np.hypot(2 * x, 4 * y), rtol=1e-6)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
    assert ax.figure.axes[1].get_ylabel() == "norm of the gradient"
    ax.figure.canvas.draw()


def test_arrows_of_one_length():
    """The middle, where there is no direction, has none."""
    ax, arrows = field(unit=True)
    lengths = np.hypot(arrows.U, arrows.V)
    assert lengths[12] == 0
    np.testing.assert_allclose(np.delete(lengths, 12), 1, rtol=1e-6)
    ax.figure.canvas.draw()


def test_no_interval():
    with pytest.raises(ValueError, match="ylim must be"):
        gradient_field(lambda p: p @ p, ylim=(0, np.inf))


def test_no_gradient_anywhere():
    ax = gradient_field(lambda p: 0 * p[0], num=3, unit=True)
    assert not ax.collections[0].U.any()
    ax.figure.canvas.draw()
