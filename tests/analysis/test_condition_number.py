"""Condition numbers of known spectra, exact and estimated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit import DefiniteKind

W = jnp.concatenate([jnp.linspace(1.0, 10.0, 40), jnp.array([20.0])])


@pytest.mark.parametrize(
    ("w", "kappa", "kind"),
    [(W, 20.0, "POSITIVE_DEFINITE"), (W * (-1) ** jnp.arange(41), 20.0, "INDEFINITE")],
)
def test_dense_and_estimated(w, kappa, kind):
    exact = hesskit.condition_number(jnp.diag(w))
    estimated = hesskit.condition_number(jnp.diag(w), dense=False)
    assert bool(exact.exact)
    assert not bool(estimated.exact)
    for found in (exact, estimated):
        assert found.definiteness.name == kind
        np.testing.assert_allclose(float(found), kappa, rtol=1e-4)
    assert "at least that" in str(estimated)


def test_a_singular_matrix_and_one_of_nan():
    assert float(hesskit.condition_number(jnp.diag(jnp.array([1.0, 0.0])))) == np.inf
    found = hesskit.condition_number(jnp.full((2, 2), jnp.nan))
    assert np.isnan(float(found))
    assert found.definiteness == DefiniteKind.UNDECIDED


def test_estimates_of_singular_matrices():
    """Zero is at an end, or inside, where H^2 tells it from sqrt(eps) of the largest no more."""
    w = W.at[:5].set(0)
    found = hesskit.condition_number(jnp.diag(w), dense=False)
    assert found.definiteness == DefiniteKind.POSITIVE_SEMIDEFINITE
    assert float(found) == np.inf
    turned = jnp.where(jnp.arange(41) % 2 == 0, w, -w)
    within = hesskit.condition_number(jnp.diag(turned), dense=False)
    np.testing.assert_allclose(float(within), np.finfo("float32").eps ** -0.5, rtol=1e-3)
    assert str(within).startswith("condition number at least 289")


def test_inside_jit():
    fn = lambda p, a: a * p[0] ** 2 + p[1] ** 2
    value = jax.jit(lambda a: hesskit.condition_number(fn, jnp.ones(2), args=(a,)).value)
    np.testing.assert_allclose(value(3.0), 3.0, rtol=1e-6)
