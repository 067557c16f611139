"""Small factorizations against LAPACK's, on batches, to the rounding of the dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg import row_svd, small

BATCH = 20


def matrices(m, n, dtype):
    """Random ones, with columns of unequal size, one of rank n - 1 and one of zeros."""
    rng = np.random.default_rng(n)
    a = rng.normal(size=(BATCH, m, n)) * 10.0 ** rng.uniform(-3, 3, (BATCH, 1, n))
    a[0, :, -1] = a[0, :, 0]
    a[1] = 0
    return jnp.asarray(a, dtype), jnp.asarray(rng.normal(size=(BATCH, m)), dtype)


@pytest.mark.parametrize(("m", "n"), [(9, 4), (9, 3), (7, 1), (2, 4)])
def test_a_batch_is_taken_apart_as_by_lapack(m, n, dtype):
    a, b = matrices(m, n, dtype)
    s, vt, c = jax.jit(jax.vmap(row_svd.factor))(a, b)
    expected = np.linalg.svd(np.asarray(a, "float64"), compute_uv=False)
    top, eps = expected[:, :1], float(jnp.finfo(dtype).eps)
    assert np.all(np.abs(s - expected) <= 40 * eps * top)
    # (1) of row_svd.py: A'A = V S^2 V' and A'b = V S c.
    scale = np.linalg.norm(np.asarray(a, "float64"), axis=1)
    scale = np.where(scale > 0, scale, 1)
    rows = np.einsum("bk,bkn->bkn", s, vt).astype("float64")
    gram, rhs = (
        np.einsum("bmn,bmp->bnp", *(np.asarray(a, "float64"),) * 2),
        np.einsum("bmn,bm->bn", np.asarray(a, "float64"), np.asarray(b, "float64")),
    )
    size = np.linalg.norm(a, axis=(1, 2)).astype("float64")
    found = np.einsum("bkn,bkp->bnp", rows, rows)
    limit = 40 * eps * np.where(size > 0, size, 1)
    assert np.all(np.abs(found - gram) <= (limit * size)[:, None, None] + 1e-300)
    found = np.einsum("bkn,bk->bn", rows, np.asarray(c, "float64"))
    assert np.all(np.abs(found - rhs) <= (limit * np.linalg.norm(b, axis=1))[:, None])


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_eigenvalues_of_a_batch(n, dtype):
    rng = np.random.default_rng(n)
    h = rng.normal(size=(BATCH, n, n))
    h = h + np.swapaxes(h, 1, 2)
    h[0], h[1] = 0, np.eye(n)
    w, q = jax.jit(jax.vmap(small.eigh))(jnp.asarray(h, dtype))
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(w, np.linalg.eigvalsh(h), atol=100 * eps)
    w, q = np.asarray(w, "float64"), np.asarray(q, "float64")
    np.testing.assert_allclose(np.einsum("bij,bj,bkj->bik", q, w, q), h, atol=100 * eps)
    np.testing.assert_allclose(
        np.einsum("bij,bik->bjk", q, q), np.broadcast_to(np.eye(n), h.shape), atol=20 * eps
    )


@pytest.mark.slow
def test_extreme_units_and_nan():
    a, b = matrices(9, 4, "float32")
    s, _, _ = jax.vmap(row_svd.factor)(a, b)
    huge, _, _ = jax.vmap(row_svd.factor)(a * 2.0**90, b)
    np.testing.assert_array_equal(huge, s * 2.0**90)
    w, _ = jax.vmap(small.eigh)(jnp.full((2, 3, 3), jnp.nan))
    assert np.all(np.isnan(w))


def test_small_svd_keeps_small_singular_values():
    """Of a graded matrix, to relative accuracy, which its squares would lose."""
    a = np.triu(np.random.default_rng(0).normal(size=(4, 4))) * np.array([1, 1e-2, 1e-4, 1e-6])
    s, _, _ = small.svd(jnp.asarray(a, "float32"), jnp.zeros(4))
    exact = np.linalg.svd(np.asarray(a, "float32").astype("float64"), compute_uv=False)
    np.testing.assert_allclose(s, exact, rtol=1e-5)


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_rows_of_any_unit_become_orthogonal(unit):
    """And are then left alone, so that no lane sweeps in vain."""
    near = unit * jnp.array([[0.0, 1.0, 0.5], [0.0, 0.5, 1.0]])
    rows, _ = small._sweep([jnp.array([1.0, 0.0, 0.0]), *near], 3)
    assert abs(rows[1] @ rows[2]) < 1e-6 * unit**2
    assert not small._sweep(rows, 3)[1].any()
