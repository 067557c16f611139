"""Sums over a spectrum: exact from the matrix, and by quadrature within standard errors."""

import jax.numpy as jnp
import numpy as np

import hesskit
from hesskit.analysis import _entry, _spectrum


def test_a_sum_by_both_ways():
    w = jnp.linspace(1.0, 4.0, 120)
    op = _entry.as_operator(jnp.diag(w), caller="test")
    exact = _spectrum.spectral_sum(op, jnp.sqrt, True, 9, 20, 0)
    np.testing.assert_allclose(exact.value, jnp.sum(jnp.sqrt(w)), rtol=1e-6)
    assert float(exact.standard_error) == 0
    found = _spectrum.spectral_sum(op, jnp.sqrt, False, 9, 20, 0)
    assert abs(found.value - exact.value) <= 4 * found.standard_error + 1e-3
    assert int(found.num_products) == 180


def test_tolerances():
    op = hesskit.hessian_operator(lambda p: jnp.sum(p**2), jnp.ones(4))
    eps = float(jnp.finfo("float32").eps)
    assert _spectrum.accuracy(op, None) == eps ** (2 / 3)
    assert _spectrum.accuracy(op, 0.5) == 0.5
    np.testing.assert_allclose(_spectrum.tolerance_of(None, jnp.ones(()), 4, eps), 20 * eps)
    np.testing.assert_allclose(_spectrum.tolerance_of(0.1, jnp.ones(()), 4, eps), 0.1)
