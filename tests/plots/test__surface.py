"""The picture of a surface: heights, curves through a point, second derivatives."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from hesskit.plots import surface


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_saddle_with_its_second_derivatives():
    fn = lambda p: p[0] ** 2 - 2 * p[1] ** 2 + p[0] * p[1]
    ax = plt.figure().add_subplot(projection="3d")
    assert surface(fn, ax, xlim=(-3, 3), ylim=(-1, 1), at=(1, 0.5), num=7) is ax
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["∂²f/∂x² = 2", "∂²f/∂y² = −4", "∂²f/∂x∂y = 1 at (1, 0.5)"]
    lines = [np.stack(line.get_data_3d()) for line in ax.lines]
    for x, y, z in lines:
        np.testing.assert_allclose(z, x**2 - 2 * y**2 + x * y, atol=1e-5)
    assert set(lines[0][1]) == {0.5}
    assert set(lines[1][0]) == {1.0}
    np.testing.assert_allclose(lines[2][:, 0], [1, 0.5, 1])
    assert ax.lines[0].get_color() != ax.lines[1].get_color()
    assert len(ax.collections) == 1


def test_the_bowl_of_the_text_in_a_figure_of_its_own():
    ax = surface(lambda p: 3 * p[0] ** 2 + 2 * p[0] * p[1] + p[1] ** 2, num=5)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["∂²f/∂x² = 6", "∂²f/∂y² = 2", "∂²f/∂x∂y = 2 at (0, 0)"]


def test_mistakes():
    with pytest.raises(ValueError, match=r"use fig\.add_subplot\(projection='3d'\)"):
        surface(lambda p: p @ p, plt.subplots()[1])
    with pytest.raises(TypeError, match="it requires x and y"):
        surface(lambda x, y: x * y)
    with pytest.raises(ValueError, match=r"at must be a point \(x, y\), got 1"):
        surface(lambda p: p @ p, at=1)
    with pytest.raises(ValueError, match="num must be an integer of at least 2, got 1"):
        surface(lambda p: p @ p, num=1)
