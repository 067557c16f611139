"""Sampled bounds of convexity."""

import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit import ConvexityKind


@pytest.mark.parametrize(
    ("fn", "kind"),
    [
        (lambda p, c: jnp.sum(p["a"] ** 2) + c * p["b"] ** 4, "CONVEX_SO_FAR"),
        (lambda p, c: jnp.sum(jnp.cosh(p["a"])) + c * p["b"] ** 2, "STRONGLY_CONVEX_SO_FAR"),
        (lambda p, c: jnp.sum(jnp.cos(p["a"])) + c * p["b"] ** 2, "NEITHER"),
        (lambda p, c: -jnp.sum(p["a"] ** 2) - c * p["b"] ** 2, "CONCAVE_SO_FAR"),
    ],
)
def test_kinds(fn, kind):
    center = {"a": jnp.zeros(2), "b": jnp.array(0.0)}
    found = hesskit.convexity(fn, center, args=(1.0,), num_points=20)
    assert found.kind.name == kind
    assert int(found.num_points) == 21


def test_bounds_are_from_inside(float64):
    found = hesskit.convexity(lambda x: x**4, jnp.array(2.0), radius=1.0)
    assert 12 <= float(found.mu_at_most) < 14
    assert 100 < float(found.smoothness_at_least) <= 108
    np.testing.assert_allclose(12 * found.least_convex**2, found.mu_at_most)


def test_a_matrix_is_one_point():
    found = hesskit.convexity(jnp.diag(jnp.array([1.0, 4.0])))
    assert found.kind == ConvexityKind.STRONGLY_CONVEX_SO_FAR
    assert str(found).splitlines() == [
        "strongly convex so far, at 1 sampled points",
        "mu is at most 1, L at least 4",
    ]
