"""Signs of eigenvalues, and the kinds they name."""

import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg import inertia
from hesskit.linalg.inertia import DefiniteKind


@pytest.mark.parametrize(
    ("w", "kind"),
    [
        ([1.0, 2.0], "POSITIVE_DEFINITE"),
        ([1e-9, 2.0], "POSITIVE_SEMIDEFINITE"),
        ([0.0, 0.0], "ZERO"),
        ([-2.0, 1e-9], "NEGATIVE_SEMIDEFINITE"),
        ([-2.0, -1.0], "NEGATIVE_DEFINITE"),
        ([-1.0, 2.0], "INDEFINITE"),
        ([float("nan"), 2.0], "UNDECIDED"),
    ],
)
def test_kind_of_all_eigenvalues(w, kind):
    w = jnp.array(w)
    counts = inertia.count(w, jnp.asarray(1e-8))
    assert DefiniteKind(int(inertia.kind_of(counts, 2))).name == kind


@pytest.mark.parametrize(
    ("ends", "errors", "kind"),
    [
        ([-1.0, 1.0], [9.0, 9.0], "INDEFINITE"),
        ([1.0, 2.0], [0.1, 0.1], "POSITIVE_DEFINITE"),
        ([1.0, 2.0], [2.0, 0.1], "UNDECIDED"),
        ([-2.0, -1.0], [0.1, 0.1], "NEGATIVE_DEFINITE"),
        ([0.0, 1.0], [1e-7, 0.1], "POSITIVE_SEMIDEFINITE"),
        ([-1.0, 0.0], [0.1, 1e-7], "NEGATIVE_SEMIDEFINITE"),
        ([0.0, 0.0], [0.0, 0.0], "ZERO"),
        ([float("nan"), 1.0], [0.0, 0.0], "UNDECIDED"),
    ],
)
def test_kind_of_two_ends(ends, errors, kind):
    found = inertia.kind_of_ends(jnp.array(ends), jnp.array(errors), jnp.asarray(1e-6))
    assert DefiniteKind(int(found)).name == kind


def test_a_matrix_that_is_not_finite_has_no_eigenvalues():
    w, q = inertia.eigen(jnp.array([[jnp.inf, 0.0], [0.0, 1.0]]))
    assert np.isnan(w).all()
    assert np.isnan(q).all()


def test_the_tolerance_grows_with_size_and_rounding():
    found = inertia.zero_tolerance(jnp.asarray(2.0), 4, 1e-7)
    np.testing.assert_allclose(found, 10 * 2 * 1e-7 * 2, rtol=1e-5)
