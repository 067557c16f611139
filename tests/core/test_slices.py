"""A function on a line or a plane, against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import slices
from hesskit.core.slices import on_slice


def test_a_plane_through_a_tree(monkeypatch):
    """f = c (a^3 + b0 b1) along two directions, all at once and two points at a time."""
    params = {"a": jnp.array(2.0), "b": jnp.array([1.0, -1.0])}
    directions = {"a": jnp.array([1.0, 0.0]), "b": jnp.array([[0.0, 0.0], [1.0, 2.0]])}
    t = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, -1.0]])

    def fn(p, c):
        return c * (p["a"] ** 3 + p["b"][0] * p["b"][1])

    def found():
        return on_slice(
            fn, params, directions, coefficients=t, args=(3.0,), order=2, caller="surface"
        )

    a, s = 2 + t[:, 0], t[:, 1]
    for at_once in (slices.AT_ONCE, 6):
        monkeypatch.setattr(slices, "AT_ONCE", at_once)
        values, slopes, bends = found()
        np.testing.assert_allclose(values, 3 * (a**3 + (1 + s) * (-1 + 2 * s)), rtol=1e-6)
        np.testing.assert_allclose(slopes, 3 * np.stack([3 * a**2, 1 + 4 * s], 1), rtol=1e-6)
        np.testing.assert_allclose(bends[:, 0, 0], 18 * a, rtol=1e-6)
        np.testing.assert_allclose(bends[:, 0, 1], 0, atol=1e-6)
        np.testing.assert_allclose(bends[:, 1, 1], 12, rtol=1e-6)


def test_values_alone_and_a_complex_leaf():
    point, way = jnp.array([1.0 + 1.0j]), jnp.array([[1.0j]])
    found = on_slice(
        lambda z: jnp.abs(z[0]) ** 2, point, way, coefficients=[[0.0], [2.0]], caller="landscape"
    )
    np.testing.assert_allclose(found.values, [2, 10], rtol=1e-6)
    assert found.slopes is None
    assert found.bends is None


def test_a_function_of_two_arguments():
    with pytest.raises(TypeError, match="takes all params as one argument; it requires x and y"):
        on_slice(
            lambda x, y: x * y, np.zeros(2), np.eye(2), coefficients=[[0, 0]], caller="surface"
        )


def test_directions_stacked_and_picked():
    rows = slices.stacked({"a": jnp.ones(2)}, {"a": jnp.zeros(2)}, {"a": jnp.full(2, 3.0)})
    np.testing.assert_array_equal(slices.picked(rows, (-1, 0))["a"], [[3, 3], [1, 1]])
