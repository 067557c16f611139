"""Estimates of traces and diagonals: exact cases, errors within their standard errors, order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg import stochastic

N = 200
Q = np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))[0]
W = 1 / np.arange(1, N + 1) ** 1.5
MATRIX = ((Q * W) @ Q.T).astype("float32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "rms"),
    [(stochastic.hutchinson, 0.3), (stochastic.hutchpp, 0.03), (stochastic.xtrace, 0.02)],
)
def test_traces_of_a_falling_spectrum(estimator, rms):
    run = lambda key: estimator(lambda v: MATRIX @ v, jnp.zeros(N), key, num_products=60)
    found = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), 12))
    gaps = np.asarray(found.value) - W.sum()
    assert np.sqrt(np.mean(gaps**2)) < rms
    assert np.all(np.abs(gaps) < 6 * np.asarray(found.standard_error))
    assert np.mean(np.asarray(found.standard_error)) < rms
    assert found.num_products[0] == 60


@pytest.mark.slow
def test_xtrace_is_exact_where_probes_span_the_range():
    for diagonal in ([5.0, 3, 0, 0, 0, 0, 0, 0], [1.0] * 8):
        d = jnp.array(diagonal)
        found = stochastic.xtrace(lambda v, d=d: d * v, d, jax.random.key(0), num_products=8)
        np.testing.assert_allclose(found.value, sum(diagonal), rtol=1e-4)


@pytest.mark.slow
def test_a_diagonal_with_its_errors():
    matrix = {"a": jnp.zeros(150), "b": jnp.zeros((5, 10))}
    flat = lambda p: jax.flatten_util.ravel_pytree(p)[0]
    unravel = jax.flatten_util.ravel_pytree(matrix)[1]
    product = lambda v: unravel(MATRIX @ flat(v))
    found = stochastic.diagonal(product, matrix, jax.random.key(0), num_products=40)
    ratio = (flat(found.value) - np.diag(MATRIX)) / flat(found.standard_error)
    assert np.max(np.abs(ratio)) < 5
    assert 0.8 < np.std(ratio) < 1.3
    one = stochastic.diagonal(product, matrix, jax.random.key(0), num_products=1)
    assert np.isinf(flat(one.standard_error)).all()
