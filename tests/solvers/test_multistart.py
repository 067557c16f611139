"""`multistart`: every minimum of a function whose minima are known, and the best of them."""

import jax.numpy as jnp
import numpy as np
import pytest

import hesskit


def wells(p):
    """x^4 + y^4 - 2 x^2 - 2 y^2 + 1 with a tilt: minima near (+-1, +-1), the lowest at (-1, -1)."""
    x, y = p["x"], p["y"]
    return x**4 + y**4 - 2 * x**2 - 2 * y**2 + 1 + 0.02 * x + 0.01 * y


@pytest.mark.slow
def test_the_four_minima_are_listed_by_value(float64):
    start = {"x": jnp.array(0.3), "y": jnp.array(0.1)}
    found = hesskit.multistart(wells, start, box={"x": (-2, 2), "y": (-1.5, 1.5)}, num_starts=40)
    points = np.stack([found.runs.params["x"], found.runs.params["y"]], 1)[found.minima]
    np.testing.assert_allclose(points, [[-1, -1], [-1, 1], [1, -1], [1, 1]], atol=0.01)
    assert np.all(np.diff(found.runs.value[found.minima]) > 0)
    assert int(found.counts.sum()) == int(found.runs.num_success) == 40
    assert found.runs[0].num_steps > 0  # from params itself
    np.testing.assert_array_equal(found.params["x"], found.runs.params["x"][found.best])
    assert found.value == found.runs.value.min()
    assert str(found).startswith("4 distinct minima; trust_region: 40 of 40 succeeded")
    again = hesskit.multistart(wells, start, box={"x": (-2, 2), "y": (-1.5, 1.5)}, num_starts=40)
    np.testing.assert_array_equal(again.first, found.first)


def test_starts_that_are_given_and_one_that_fails_and_a_leaf_that_is_held():
    starts = {"x": jnp.array([2.0, -2.0, jnp.nan]), "y": jnp.array([1.0, 1.0, 1.0])}
    frozen = hesskit.freeze(hesskit.trust_region(), "y")
    found = hesskit.multistart(wells, starts, frozen)
    assert found.first.tolist() == [0, 1, -1]
    assert found.best == 1
    assert found.minima.tolist() == [1, 0]
    start = {"x": jnp.array(0.3), "y": jnp.array(0.7)}
    drawn = hesskit.multistart(wells, start, frozen, box={"x": (-2, 2)}, num_starts=3)
    np.testing.assert_array_equal(drawn.runs.params["y"], jnp.full(3, 0.7))
    np.testing.assert_allclose(abs(drawn.runs.params["x"]), 1, atol=0.01)


def test_a_box_without_an_end_is_told():
    with pytest.raises(ValueError, match="box must be finite"):
        hesskit.multistart(wells, {"x": 0.0, "y": 0.0}, box=(None, 1))
