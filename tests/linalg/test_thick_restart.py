"""Eigenpairs at the ends, against dense matrices of known spectra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg.thick_restart import eigenpairs


def symmetric(w, seed=0):
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(w), len(w))))[0]
    return jnp.asarray((q * w) @ q.T)


def solve(matrix, **given):
    given = {"tol": 1e-10, "max_products": 2000, "lowest": 1, "highest": 2, **given}
    start = jnp.asarray(np.random.default_rng(2).normal(size=len(matrix)), matrix.dtype)
    run = lambda m: eigenpairs(lambda v: m @ v, m[0], start, **given)
    return jax.jit(run)(matrix)


@pytest.mark.parametrize(
    ("n", "lowest", "highest", "num_rows"),
    [(8, 1, 2, 6), (3, 1, 1, 3), (1, 0, 1, 1), (2, 1, 0, 2), (30, 2, 2, 17), (200, 2, 5, 24)],
)
def test_pairs_are_those_of_the_matrix(float64, n, lowest, highest, num_rows):
    w = np.sort(np.random.default_rng(1).normal(size=n) ** 3)
    matrix = symmetric(w)
    found = solve(matrix, lowest=lowest, highest=highest, num_rows=num_rows)
    expected = np.concatenate([w[:lowest], w[n - highest :]])
    np.testing.assert_allclose(found.values, expected, atol=1e-12 * np.abs(w).max())
    v = np.asarray(found.vectors)
    np.testing.assert_allclose(v @ v.T, np.eye(lowest + highest), atol=1e-12)
    residuals = np.linalg.norm(v @ matrix - np.asarray(found.values)[:, None] * v, axis=1)
    assert np.all(residuals <= 2 * np.asarray(found.residual_norms) + 1e-14)
    assert np.all(np.asarray(found.residual_norms) <= 1e-10 * found.norm)
    assert found.num_products <= (n if num_rows == n else 3 * num_rows)


@pytest.mark.slow
def test_multiple_eigenvalues_are_found_as_often_as_they_are(float64):
    found = solve(symmetric([1.0, 1, 1, 5, 5, 5]), lowest=2, highest=3, num_rows=6)
    np.testing.assert_allclose(found.values, [1, 1, 5, 5, 5], atol=1e-13)
    np.testing.assert_array_equal(solve(jnp.zeros((5, 5)), num_rows=5).values, 0)


@pytest.mark.slow
def test_a_bound_on_products_leaves_the_truth_in_the_residuals(float64):
    w = np.linspace(-1, 1, 100)
    found = solve(symmetric(w), num_rows=40, max_products=15)
    assert found.num_products == 15
    distance = np.min(np.abs(w[:, None] - np.asarray(found.values)[None, :]), axis=0)
    assert np.all(distance <= found.residual_norms)
    assert np.all(np.isnan(solve(symmetric(w), num_rows=40, max_products=2).values))


def test_no_pairs_where_products_are_not_finite():
    found = solve(jnp.full((9, 9), jnp.nan), num_rows=6)
    assert not found.finite
    assert np.all(np.isnan(found.values))
    assert np.all(np.isinf(found.residual_norms))
    assert found.num_products == 1
