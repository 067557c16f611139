"""The picture of a landscape: the plane of the extreme eigenvectors, through any params."""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import hesskit
from hesskit.plots import landscape


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def loss(p, c):
    """Curvatures c along b, -4 along a[0], 1 along a[1]."""
    return c * p["b"] ** 2 / 2 - 2 * p["a"][0] ** 2 + p["a"][1] ** 2 / 2


POINT = {"a": jnp.zeros(2), "b": jnp.array(0.0)}


@pytest.mark.slow
def test_the_plane_of_the_extremes():
    _, ax = plt.subplots()
    found = landscape(
        loss, ax, params=POINT, args=(6.0,), xlim=(-1, 1), ylim=(-2, 2), levels=[-2.0, 1.0]
    )
    assert found is ax
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("eigenvector of 6", "eigenvector of −4")
    curves = ax.collections[1]
    assert curves.levels.tolist() == [-2, 1]
    for level, path in zip(curves.levels, curves.get_paths(), strict=True):
        x, y = path.vertices.T
        np.testing.assert_allclose(3 * x**2 - 2 * y**2, level, atol=0.02)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-1, 1), (-2, 2))


def test_a_surface_of_pairs_that_are_known():
    pairs = hesskit.eigenpairs(loss, POINT, 1, args=(6.0,), which="both")
    ax = plt.figure().add_subplot(projection="3d")
    assert landscape(loss, ax, params=POINT, args=(6.0,), pairs=pairs, num=5) is ax
    assert ax.get_zlabel() == "value"
    one = pairs._replace(eigenvalues=pairs.eigenvalues[:1])
    with pytest.raises(ValueError, match="pairs must be two or more"):
        landscape(loss, params=POINT, args=(6.0,), pairs=one)


def test_mistakes():
    with pytest.raises(TypeError, match=r"needs the point: landscape\(f, params=x\)"):
        landscape(loss)
