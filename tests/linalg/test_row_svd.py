"""Least squares by singular values: against numpy, at any rank and shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg import row_svd

RNG = np.random.default_rng(0)


def problem(m: int, n: int, rank: int | None = None):
    """A of given shape and rank, with columns of very different length, and b."""
    k = min(m, n) if rank is None else rank
    a = RNG.normal(size=(m, k)) @ RNG.normal(size=(k, n)) * np.logspace(-1, 1, n)
    return a, RNG.normal(size=m)


@pytest.mark.parametrize(("m", "n"), [(4, 9), (6, 6), (9, 4)])
@pytest.mark.parametrize("rank", [None, 3])
def test_samples_give_what_singular_values_give(m, n, rank, float64, monkeypatch):
    a, b = (jnp.asarray(item) for item in problem(m, n, rank))
    expected = row_svd.factor(a, b)
    calls, real = [], row_svd._by_samples
    monkeypatch.setattr(row_svd, "_by_samples", lambda *x: calls.append(1) or real(*x))
    monkeypatch.setattr(row_svd, "WIDE", 2)
    s, vt, c = map(np.asarray, row_svd.factor(a, b))
    assert len(calls) == (m < n)
    np.testing.assert_allclose(s, expected[0], rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose((vt.T * s**2) @ vt, a.T @ a, atol=1e-10)
    np.testing.assert_allclose(vt.T @ (s * c), a.T @ b, atol=1e-10)
    best = -vt.T @ np.where(s > 0, c / np.where(s > 0, s, 1), 0)
    np.testing.assert_allclose(best, np.linalg.lstsq(a, -b, rcond=1e-10)[0], atol=1e-8)


def test_samples_are_taken_from_wide_rows_of_float64_alone(x64, monkeypatch):
    calls, real = [], row_svd._by_samples
    monkeypatch.setattr(row_svd, "_by_samples", lambda *x: calls.append(1) or real(*x))
    for m, n in ((row_svd.WIDE - 1, 300), (row_svd.WIDE, 300), (300, row_svd.WIDE)):
        jax.eval_shape(row_svd.factor, jnp.zeros((m, n)), jnp.zeros(m))
    assert len(calls) == x64
