"""The picture of a correlation matrix holds its numbers."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from hesskit.plots import correlation
from hesskit.solvers.laplace import laplace
from tests.plots.test__axes import three
from tests.solvers.fits import straight_line


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_cells_and_names():
    fit = straight_line()
    ax = correlation(fit)
    np.testing.assert_allclose(ax.images[0].get_array(), fit.correlation, rtol=1e-6)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    r = f"{float(fit.correlation[0, 1]):.2f}".replace("-", "−")
    assert [text.get_text() for text in ax.texts] == ["1", r, r, "1"]


def test_it_draws_where_it_is_told_and_leaves_out_what_is_fixed():
    _, ax = plt.subplots()
    assert correlation(three(held=(False, True, False)), ax) is ax
    assert ax.images[0].get_array().shape == (2, 2)


def test_of_a_laplace_approximation():
    post = laplace(lambda p: (p["u"] - p["v"]) ** 2 + p["v"] ** 2, {"u": 0.0, "v": 0.0})
    ax = correlation(post)
    np.testing.assert_allclose(ax.images[0].get_array()[0, 1], 0.5**0.5, rtol=1e-5)


@pytest.mark.slow
def test_many_rows_have_no_numbers():
    post = laplace(lambda p: (p**2).sum(), np.zeros(20, "float32"))
    assert not correlation(post).texts
