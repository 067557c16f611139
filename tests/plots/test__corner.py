"""The ellipses of a corner plot hold what they say."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.path import Path

from hesskit.plots import corner
from tests.plots.test__axes import three
from tests.solvers.fits import straight_line


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_the_grid():
    axes = corner(three())
    assert axes.shape == (3, 3)
    visible = [[ax.get_visible() for ax in row] for row in axes]
    np.testing.assert_array_equal(visible, np.tril(np.ones((3, 3), bool)))
    assert [ax.get_xlabel() for ax in axes[-1]] == ["a", "b", "c"]
    assert axes[1, 0].get_ylabel() == "b"
    value = float(three().standard_errors["a"])
    assert axes[0, 0].get_title() == f"a\n1.00 ± {value:.2f}"


def test_ellipses_hold_the_share_they_say():
    fit = three()
    axes = corner(fit, names=["a", "c"])
    draws = fit.sample(0, 20_000)
    points = np.stack([draws["a"], draws["c"]], axis=1)
    patches = axes[1, 0].patches
    for patch, share in zip(patches, (0.95, 0.68), strict=True):
        inside = Path(patch.get_xy()).contains_points(points).mean()
        np.testing.assert_allclose(inside, share, atol=0.012)


def test_samples_lie_beneath():
    fit = three()
    axes = corner(fit, samples=fit.sample(0, 5000))
    counts = axes[0, 0].patches[0].get_data().values
    # The histogram has the height of the curve, 1 at its peak.
    np.testing.assert_allclose(counts[18:22].mean(), 1, atol=0.1)
    assert len(axes[1, 0].lines[0].get_xdata()) == 2000


def test_axes_that_are_given_and_names_that_are_chosen():
    _, axes = plt.subplots(2, 2)
    found = corner(straight_line(), axes, names=["b", "a"])
    assert found[0, 0] is axes[0, 0]
    assert found[1, 0].get_xlabel() == "b"
    _, ax = plt.subplots()
    assert corner(straight_line(), ax, names=["b"])[0, 0] is ax
    with pytest.raises(ValueError, match=r"there are 2 parameters: pass plt\.subplots"):
        corner(straight_line(), plt.subplots(3, 3)[1])
    with pytest.raises(
        ValueError, match="'c' is not among the entries with a standard error: a, b"
    ):
        corner(straight_line(), names=["c"])
