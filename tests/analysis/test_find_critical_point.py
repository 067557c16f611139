"""Critical points from a start and in a box (the nine points are in the checklist)."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit import CriticalKind


def test_a_saddle_of_a_tree_with_data(float64):
    fn = lambda p, c: (p["x"] - c) ** 2 - (p["y"] + c) ** 2 + (p["x"] - c) ** 3
    found = hesskit.find_critical_point(fn, {"x": 1.2, "y": 0.5}, args=(1.0,))
    assert found.kind == CriticalKind.SADDLE
    np.testing.assert_allclose([found.params["x"], found.params["y"]], [1, -1], atol=1e-12)


def test_a_degenerate_minimum_is_seen_through_the_way(float64):
    """Newton is linear there, and the Hessian at the end is tiny and not zero."""
    found = hesskit.find_critical_point(lambda p: jnp.sum(p**4), jnp.array([0.3, 0.1]))
    assert found.kind == CriticalKind.DEGENERATE_MINIMUM


def test_a_least_gradient_is_no_critical_point(float64):
    found = hesskit.find_critical_point(lambda x: x + x**3, jnp.array(0.5))
    assert found.kind == CriticalKind.NOT_CRITICAL
    assert abs(float(found.params)) < 0.2


def test_a_box_of_a_tree_in_float32():
    fn = lambda p: jnp.sin(p["x"]) + p["y"] ** 2
    box = {"x": 0.0, "y": -1.0}, {"x": 6.28, "y": 1.0}
    points = hesskit.find_critical_points(fn, box, num_starts=24)
    by_name = {"x": (0.0, 6.28), "y": [-1.0, 1.0]}
    chex.assert_trees_all_equal(hesskit.find_critical_points(fn, by_name, num_starts=24), points)
    assert [point.kind.name for point in points] == ["MINIMUM", "SADDLE"]
    np.testing.assert_allclose(
        [point.params["x"] / np.pi for point in points], [1.5, 0.5], atol=1e-5
    )


@pytest.mark.parametrize(
    ("box", "said"),
    [
        (jnp.zeros(3), "box must be"),
        ((0.0, jnp.inf), "box must be finite"),
        ({"x": 1.0}, r"box must have \(low, high\) at each leaf"),
    ],
)
def test_wrong_boxes(box, said):
    with pytest.raises(ValueError, match=said):
        hesskit.find_critical_points(lambda x: x**2, box)
