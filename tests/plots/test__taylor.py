"""The picture of a Taylor model: function, parabola, order of the remainder."""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import hesskit
from hesskit.plots import taylor


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_the_exponential_along_the_diagonal():
    """exp(c (x + y)) at 0 along (1, 1) is exp(2 c t), its model 1 + 2 c t + 2 (c t)^2."""
    model = hesskit.taylor(lambda p, c: jnp.exp(c * (p[0] + p[1])), jnp.zeros(2), args=(0.5,))
    _, ax = plt.subplots()
    assert taylor(model, ax, direction=jnp.ones(2), length=1.5) is ax
    function, parabola, point = ax.lines
    t = function.get_xdata()
    np.testing.assert_allclose(t[[0, -1]], [-1.5, 1.5])
    np.testing.assert_allclose(function.get_ydata(), np.exp(t), rtol=1e-5)
    np.testing.assert_allclose(parabola.get_ydata(), 1 + t + t * t / 2, rtol=1e-5)
    np.testing.assert_array_equal(point.get_xydata(), [[0, 1]])
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names[:2] == ["function", "second-order model"]
    assert 2.8 < float(names[2].removeprefix("remainder of order ")) < 3.2
    with pytest.raises(ValueError, match=r"direction has shape \(3,\), params \(2,\)"):
        taylor(model, direction=jnp.ones(3))
    with pytest.raises(ValueError, match="length must lie in"):
        taylor(model, length=0.0)


def test_a_quadratic_function_has_no_remainder():
    ax = taylor(hesskit.taylor(lambda p: jnp.sum(p["a"] ** 2), {"a": jnp.ones(3)}))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), ax.lines[1].get_ydata(), rtol=1e-5)
    assert len(ax.get_legend().get_texts()) == 2


def test_something_else():
    with pytest.raises(TypeError, match=r"plots\.taylor draws what hesskit\.taylor returns, got"):
        taylor(lambda p: p)
