"""The second derivative test: its tolerances, its words, the ends of large spectra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit import CriticalKind

POINT = {"a": jnp.zeros(3), "b": jnp.zeros(2)}


def fn(p, c):
    return jnp.sum(p["a"] ** 2) + c * jnp.sum(p["b"] ** 2)


@pytest.mark.slow
def test_by_the_ends_of_the_spectrum():
    for c, kind in ((2.0, "MINIMUM"), (-2.0, "SADDLE"), (0.0, "INCONCLUSIVE")):
        found = hesskit.classify_critical_point(fn, POINT, args=(c,), dense=False)
        assert found.kind.name == kind
        assert found.eigenvectors is None
        np.testing.assert_allclose(found.eigenvalues, [min(2 * c, 2.0), max(2 * c, 2.0)], atol=1e-5)
    assert "they do not decide" in found.reason
    large = {"a": jnp.zeros(3), "b": jnp.zeros(1500)}
    assert hesskit.classify_critical_point(fn, large, args=(1.0,)).kind == CriticalKind.MINIMUM


def test_a_small_gradient_counts_as_zero_by_the_curvature_there():
    steep = lambda x: 1e4 * x**2
    near = hesskit.classify_critical_point(steep, jnp.array(1e-6))
    assert near.kind == CriticalKind.MINIMUM
    strict = hesskit.classify_critical_point(steep, jnp.array(1e-6), gtol=1e-3)
    assert strict.kind == CriticalKind.NOT_CRITICAL
    assert strict.reason == "gradient norm 0.02 is above 0.001"


def test_a_flat_slope_far_from_its_minimum_is_not_critical():
    """Gradients of 10 and 4e-6 are within the tolerance of float32; the minima are 10 and 2 off."""
    valley = lambda p: 5e4 * p[0] ** 2 + p[1] ** 2 / 2
    flat = lambda p: 1e-6 * (p[0] - 7) ** 2 + 0 * p[1]
    for f, x, step in ((valley, [0.0, 10.0], 10.0), (flat, [5.0, 0.0], 2.0)):
        found = hesskit.classify_critical_point(f, jnp.array(x))
        assert found.kind == CriticalKind.NOT_CRITICAL
        np.testing.assert_allclose(found.newton_step, step, rtol=1e-5)
        assert found.reason.endswith(f"a Newton step is {step:.2g}")
    given = hesskit.classify_critical_point(valley, jnp.array([0.0, 10.0]), gtol=20.0)
    assert given.kind == CriticalKind.MINIMUM


def test_under_jit_and_vmap():
    code = jax.jit(
        jax.vmap(lambda c: hesskit.classify_critical_point(fn, POINT, args=(c,), max_order=3).code)
    )(jnp.array([1.0, -1.0, 0.0]))
    np.testing.assert_array_equal(
        code, [CriticalKind.MINIMUM, CriticalKind.SADDLE, CriticalKind.INCONCLUSIVE]
    )


def test_a_function_that_is_not_finite_is_not_critical():
    found = hesskit.classify_critical_point(lambda x: jnp.log(x), jnp.array(0.0))
    assert found.kind == CriticalKind.NOT_CRITICAL
