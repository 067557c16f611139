"""The picture of a quadratic form: every point of a curve has the value that it says."""

from types import SimpleNamespace

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import hesskit
from hesskit.plots import eigen_ellipse


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def values(line, matrix):
    h = line.get_xydata()
    h = h[np.isfinite(h).all(axis=1)]
    assert len(h) > 100
    return np.einsum("ki,ij,kj->k", h, matrix, h) / 2


def names(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_an_ellipse_and_its_axes():
    """The example of the text: eigenvalues 4 -+ sqrt 8."""
    matrix = np.array([[6.0, 2.0], [2.0, 2.0]])
    _, ax = plt.subplots()
    assert eigen_ellipse(matrix, ax, rise=2.0) is ax
    np.testing.assert_allclose(values(ax.lines[0], matrix), 2, rtol=1e-6)
    assert names(ax) == ["rises by 2", "eigenvalue 1.172", "eigenvalue 6.828"]
    for line, w in ((ax.lines[1], 4 - 8**0.5), (ax.lines[3], 4 + 8**0.5)):
        tip = line.get_xydata()[1]
        np.testing.assert_allclose(tip @ tip, 2 * 2 / w, rtol=1e-6)
        np.testing.assert_allclose(matrix @ tip, w * tip, rtol=1e-6)


def test_hyperbolas_at_a_saddle_from_an_answer():
    saddle = hesskit.classify_critical_point(lambda p: p[0] ** 2 - 3 * p[0] * p[1], jnp.zeros(2))
    ax = eigen_ellipse(saddle)
    matrix = np.array([[2.0, -3.0], [-3.0, 0.0]])
    np.testing.assert_allclose(values(ax.lines[0], matrix), 1, rtol=1e-4)
    np.testing.assert_allclose(values(ax.lines[1], matrix), -1, rtol=1e-4)
    assert names(ax)[:2] == ["rises by 1", "falls by 1"]


def test_lines_where_an_eigenvalue_is_zero_and_the_ends_of_three():
    ax = eigen_ellipse(-np.diag([0.0, 4.0]))
    np.testing.assert_allclose(values(ax.lines[0], np.diag([0.0, -4.0])), -1, rtol=1e-6)
    assert names(ax) == ["falls by 1", "eigenvalue −4", "eigenvalue 0"]
    ax = eigen_ellipse(np.diag([1.0, 9.0, 4.0]))
    np.testing.assert_allclose(values(ax.lines[0], np.diag([1.0, 9.0])), 1, rtol=1e-6)
    assert ax.get_xlabel() == "displacement along the lowest"


def test_mistakes():
    with pytest.raises(TypeError, match=r"or a matrix; got float"):
        eigen_ellipse(1.0)
    with pytest.raises(ValueError, match=r"must be square and symmetric, got shape \(2, 3\)"):
        eigen_ellipse(np.ones((2, 3)))
    with pytest.raises(ValueError, match="all eigenvalues are zero"):
        eigen_ellipse(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="needs two eigenvalues, there is one"):
        eigen_ellipse(np.ones((1, 1)))
    large = SimpleNamespace(eigenvalues=np.ones(2), eigenvectors=None)
    with pytest.raises(ValueError, match="no matrix of eigenvectors; classify it with dense=True"):
        eigen_ellipse(large)
    batch = SimpleNamespace(eigenvalues=np.ones((3, 2)), eigenvectors=np.ones((3, 2, 2)))
    with pytest.raises(ValueError, match="the answer is a batch; plot one of it"):
        eigen_ellipse(batch)
