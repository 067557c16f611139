"""The picture of a path: two entries, or the two main directions."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from hesskit.plots import trajectory
from tests.plots.test__paths import POINTS, run


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_two_entries_as_they_are():
    _, ax = plt.subplots()
    assert trajectory({"GD": run(), "Newton": run(POINTS[::2])}, ax) is ax
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), POINTS)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b[0]")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["GD", "Newton"]
    assert trajectory(run(), ax).get_xlabel() == "a"


def test_main_directions_of_a_path_in_a_plane():
    """Shares are 9 : 1; a path in a turned plane of five entries comes out but for signs."""
    plane = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 2)))[0]
    flat = np.array([[-3.0, 0.0], [0.0, 1.0], [0.0, -1.0], [3.0, 0.0]])
    points = (flat @ plane.T + 7).astype("float32")
    ax = trajectory(run(points))
    np.testing.assert_allclose(np.abs(ax.lines[0].get_xydata()), np.abs(flat), atol=1e-5)
    assert (ax.get_xlabel(), ax.get_ylabel()) == (
        "first direction (90 %)",
        "second direction (10 %)",
    )
    ax = trajectory(run(points), entries=["b[3]", "a"])
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), points[:, [4, 0]])
    assert ax.get_xlabel() == "b[3]"


def test_mistakes():
    with pytest.raises(ValueError, match=r"entries must be two of a, b\[0\]; got \['c', 'a'\]"):
        trajectory(run(), entries=["c", "a"])
    with pytest.raises(ValueError, match="r2 has other entries than r1"):
        trajectory([run(), np.ones((4, 3))])
    with pytest.raises(ValueError, match=r"params have one entry; plots\.convergence draws"):
        trajectory(np.ones((4, 1)))
    with pytest.raises(ValueError, match="fewer than two finite points"):
        trajectory(np.full((4, 3), np.nan))
