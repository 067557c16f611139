"""Curvatures along eigenvectors, and those of the graph where it is tilted."""

import jax.numpy as jnp
import numpy as np

import hesskit


def test_a_hemisphere_has_one_curvature_everywhere(float64):
    """The graph of -sqrt(4 - |p|^2), a sphere of radius 2."""
    fn = lambda p: -jnp.sqrt(4 - jnp.sum(p**2))
    for at in ([0.0, 0.0], [1.0, -0.5]):
        found = hesskit.principal_curvatures(fn, jnp.array(at))
        np.testing.assert_allclose(found.of_graph, [0.5, 0.5], rtol=1e-12)
    assert found.values[1] > 0.6
    np.testing.assert_allclose(
        hesskit.hessian(fn, jnp.array(at)) @ found.directions,
        found.directions * found.values[None, :],
        atol=1e-12,
    )


def test_a_matrix_has_no_graph():
    found = hesskit.principal_curvatures(jnp.diag(jnp.array([3.0, -1.0])))
    assert found.of_graph is None
    assert str(found).splitlines() == ["curvatures -1, 3", "-1 along (0, 1)", "3 along (1, 0)"]
