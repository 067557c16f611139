"""The picture of contours: levels, limits, paths."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from hesskit.plots import contours
from tests.plots.test__paths import POINTS, run


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


BOWL = lambda p, c: p[0] ** 2 + c * p[1] ** 2


def test_curves_of_equal_value_and_paths():
    _, ax = plt.subplots()
    runs = {"GD": run(), "Newton": run(POINTS[::2])}
    limits = {"xlim": (-4, 4), "ylim": (-2, 2)}
    assert contours(BOWL, ax, paths=runs, args=(4.0,), levels=[1.0, 4.0], **limits) is ax
    curves = ax.collections[1]
    assert curves.levels.tolist() == [1, 4]
    for level, path in zip(curves.levels, curves.get_paths(), strict=True):
        x, y = path.vertices.T
        np.testing.assert_allclose(x**2 + 4 * y**2, level, atol=0.02)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["GD", "Newton"]
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), POINTS)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-4, 4), (-2, 2))


def test_limits_hold_the_paths():
    ax = contours(BOWL, paths=run(), args=(1.0,), num=11)
    np.testing.assert_allclose(ax.get_xlim(), (-0.45, 3.45), rtol=1e-6)
    np.testing.assert_allclose(ax.get_ylim(), (0.1375, 1.1125), rtol=1e-6)
    ax = contours(BOWL, args=(1.0,), num=11)
    assert ax.get_xlim() == (-2, 2)
    assert ax.get_legend() is None


def test_mistakes():
    with pytest.raises(ValueError, match="r1 has 3 entries, contours two; plots"):
        contours(BOWL, paths=np.ones((4, 3)))
    with pytest.raises(TypeError, match=r"needs `c`; plots\.contours received|requires p and c"):
        contours(BOWL, num=3)
