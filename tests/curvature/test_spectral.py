"""The dense model of a Hessian: its eigen-decomposition, its scale, its steps."""

import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import tree
from hesskit.core.derivatives import linearized
from hesskit.core.rule import Context
from hesskit.curvature import spectral

PARAMS = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
MATRIX = np.array([[4.0, 1.0, 0.0], [1.0, -3.0, 2.0], [0.0, 2.0, 100.0]])


def quadratic(p):
    x = tree.ravel(p)
    return 0.5 * x @ (jnp.asarray(MATRIX, x.dtype) @ x)


def built(params=PARAMS, fn=quadratic, **kwargs):
    at = linearized(fn, params)
    context = Context(params, jnp.ones(()), jnp.array(False))
    return at, spectral.build(at, at.grad, spectral.empty(params), context, **kwargs)


def test_eigenvalues_and_coefficients_rebuild_hessian_and_gradient(float64):
    params = {"a": PARAMS["a"].astype("float64"), "b": PARAMS["b"].astype("float64")}
    at, found = built(params)
    w, q, c, d = found.model
    np.testing.assert_allclose(q @ jnp.diag(w) @ q.T, MATRIX, atol=1e-12)
    np.testing.assert_allclose(q @ c, tree.ravel(at.grad), rtol=1e-12)
    np.testing.assert_array_equal(d, np.ones(3))
    assert found.indefinite
    assert found.num_products == 3


def test_scaling_by_the_curvature_seen_so_far(float64):
    params = {"a": PARAMS["a"].astype("float64"), "b": PARAMS["b"].astype("float64")}
    at, found = built(params, scale=spectral.curvature_scale)
    w, q, c, d = found.model
    np.testing.assert_allclose(d, np.sqrt([4.0, 3.0, 100.0]), rtol=1e-12)
    scaled = MATRIX / d[:, None] / d[None, :]
    np.testing.assert_allclose(q @ jnp.diag(w) @ q.T, scaled, atol=1e-12)
    np.testing.assert_allclose(d * (q @ c), tree.ravel(at.grad), rtol=1e-12)


def test_the_scale_never_falls_and_is_positive():
    matrix = jnp.diag(jnp.array([4.0, 0.0, 9.0]))
    scale = spectral.curvature_scale(matrix, jnp.array([5.0, 0.0, 1.0]))
    np.testing.assert_array_equal(scale[jnp.array([0, 2])], [5.0, 3.0])
    assert scale[1] > 0
    assert jnp.all(spectral.curvature_scale(jnp.zeros((3, 3)), jnp.zeros(3)) > 0)


@pytest.mark.parametrize("scale", [None, spectral.curvature_scale])
def test_a_step_carries_its_product_and_length(scale):
    _, found = built(scale=scale)
    t = jnp.array([0.3, -0.2, 0.7])
    step = spectral.to_step(found.model, t, PARAMS, on_boundary=jnp.array(True))
    s = tree.ravel(step.step)
    np.testing.assert_allclose(tree.ravel(step.product), MATRIX @ s, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(step.norm, np.linalg.norm(found.model.scale * s), rtol=1e-5)
    # The model separates: g.s = c.t and s.Hs = t.Wt.
    _, found_at = built(), linearized(quadratic, PARAMS)
    np.testing.assert_allclose(
        tree.vdot(found_at.grad, step.step), found.model.coefficients @ t, rtol=1e-4
    )
    np.testing.assert_allclose(
        tree.vdot(step.step, step.product), t @ (found.model.eigenvalues * t), rtol=1e-4, atol=1e-5
    )


def test_a_hessian_that_is_not_finite_becomes_the_identity():
    fn = lambda p: jnp.sum(jnp.abs(p["a"]) ** 1.5) + 0.0 * p["b"]  # infinite curvature at 0
    _, found = built({"a": jnp.zeros(2), "b": jnp.array(0.5)}, fn)
    np.testing.assert_array_equal(found.model.eigenvalues, np.ones(3))
    assert not found.indefinite


@pytest.mark.parametrize(
    ("eigenvalues", "negative"),
    [
        ([-1.0, 2.0], True),
        ([0.0, 2.0], False),
        ([-1e-9, 1.0], False),  # rounding
        ([-1e-3, 1.0], True),
        ([-1.0, -0.5], True),
        ([0.0, 0.0], False),
    ],
)
def test_negative_curvature_is_told_from_rounding(eigenvalues: list[float], negative: bool):
    assert bool(spectral.is_indefinite(jnp.array(eigenvalues), jnp.ones(2))) is negative


def test_empty_has_the_shapes_of_a_build():
    _, found = built()
    empty = spectral.empty(PARAMS)
    for a, b in zip(empty, found.model, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


def test_a_saddle_is_left_along_the_lowest_eigenvector():
    _, found = built({"a": jnp.zeros(2), "b": jnp.zeros(())})
    w = found.model.eigenvalues
    context = Context({"a": jnp.zeros(2), "b": jnp.zeros(())}, jnp.ones(()), jnp.array(True))
    pushed = spectral.roused(found.model, context)
    np.testing.assert_allclose(jnp.abs(pushed), [-w[0], 0.0, 0.0], rtol=1e-5, atol=1e-5)
    calm = spectral.roused(built()[1].model, context._replace(at_rest=jnp.array(False)))
    np.testing.assert_array_equal(calm, built()[1].model.coefficients)
