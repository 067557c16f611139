"""The picture of a spectrum: a density that integrates to 1, and stems."""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from hesskit.analysis.spectral_density import SpectralDensity
from hesskit.plots import spectrum


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def density():
    """Two probes of a matrix of ten eigenvalues, at -1, 0 and 4."""
    return SpectralDensity(
        nodes=jnp.array([[-1.0, 0.0, 4.0], [-1.0, 0.0, 4.0]]),
        weights=jnp.array([[0.2, 0.7, 0.1], [0.1, 0.8, 0.1]]),
        size=jnp.asarray(10, jnp.int32),
        num_products=jnp.asarray(6, jnp.int32),
    )


def names(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_density_with_stems():
    _, ax = plt.subplots()
    assert spectrum(density(), ax, eigenvalues=jnp.array([4.0, -1.0]), width=0.2) is ax
    x, y = ax.lines[0].get_data()
    assert np.trapezoid(y, x) == pytest.approx(1, abs=1e-3)
    assert y.max() == pytest.approx(0.75 / (0.2 * np.sqrt(2 * np.pi)), rel=0.02)
    expected = ["density", "one standard error", "eigenvalues", "negative eigenvalues"]
    assert names(ax) == expected
    assert ax.lines[1].get_xdata().tolist() == [4]
    assert ax.lines[2].get_xdata().tolist() == [-1]
    assert ax.lines[1].get_marker() != ax.lines[2].get_marker()
    assert (ax.get_yscale(), ax.get_xlabel()) == ("log", "eigenvalue")
    # One eigenvalue of ten is seen.
    low, high = ax.get_ylim()
    assert low < 0.1 / (0.2 * np.sqrt(2 * np.pi)) < high
    assert spectrum(density(), log=False).get_yscale() == "linear"


def test_stems_are_as_high_as_eigenvalues_are_many():
    ax = spectrum(jnp.array([8.0, -4.0, 8.00001, -4.0, 8.0, 0.0]))
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 1], [8, 3]], atol=1e-4)
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[-4, 2]])
    assert names(ax) == ["eigenvalues", "negative eigenvalues"]
    assert ax.get_ylabel() == "number of eigenvalues"


def test_mistakes():
    with pytest.raises(TypeError, match=r"eigenvalues \(k,\); got float"):
        spectrum(1.0)
    with pytest.raises(ValueError, match=r"eigenvalues must be of shape \(k,\), got \(2, 2\)"):
        spectrum(jnp.eye(2))
    with pytest.raises(ValueError, match="no eigenvalue is finite"):
        spectrum(jnp.array([jnp.nan]))
    with pytest.raises(ValueError, match="the density is a batch; plot one of it"):
        spectrum(jax.tree.map(lambda a: jnp.stack([a, a]), density()))
