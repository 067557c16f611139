"""The dense matrix of a product: every chunk size gives the same, and memory stays in chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import tree
from hesskit.linalg.dense import CHUNK_SIZE, dense

N = 7
PARAMS = {"a": jnp.zeros((2, 2)), "b": jnp.zeros(3)}


def matrix_of(n: int, seed: int = 0) -> np.ndarray:
    a = np.random.default_rng(seed).normal(size=(n, n))
    return a + a.T


def product_of(matrix: np.ndarray, like):
    return lambda v: tree.unravel(
        jnp.asarray(matrix, tree.result_dtype(like)) @ tree.ravel(v), like
    )


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 3, 6, 7, 100])
def test_every_chunk_size_gives_the_matrix(chunk_size: int | None):
    a = matrix_of(N).astype("float32")
    result = dense(product_of(a, PARAMS), PARAMS, chunk_size=chunk_size)
    np.testing.assert_allclose(result, a, rtol=1e-6)


def test_more_columns_than_a_chunk():
    n = CHUNK_SIZE + 9
    a = matrix_of(n).astype("float32")
    like = jnp.zeros(n)
    np.testing.assert_allclose(dense(product_of(a, like), like), a, rtol=1e-6, atol=1e-6)


def test_the_result_is_symmetric_in_at_least_float32():
    a = np.random.default_rng(1).normal(size=(3, 3))  # the product is not quite symmetric
    like = jnp.zeros(3, "bfloat16")
    result = dense(product_of(a, like), like)
    assert result.dtype == "float32"
    np.testing.assert_array_equal(result, result.T)
    np.testing.assert_allclose(result, (a + a.T) / 2, rtol=0.02, atol=0.02)


def test_float64(float64):
    like = jnp.zeros(N)
    a = matrix_of(N)
    np.testing.assert_allclose(dense(product_of(a, like), like, chunk_size=4), a, rtol=1e-14)


def test_a_chunk_is_all_that_is_mapped():
    like, n = jnp.zeros(100), 100
    seen = []

    def product(v: jax.Array) -> jax.Array:
        jaxpr = jax.make_jaxpr(jax.vmap(lambda e: 2 * e))(jnp.zeros((1, n)))
        seen.append(jaxpr)
        return 2 * v

    jaxpr = jax.make_jaxpr(lambda p: dense(product, p, chunk_size=8))(like)
    shapes = {tuple(v.aval.shape) for eqn in equations(jaxpr.jaxpr) for v in eqn.outvars}
    assert (8, n) in shapes
    assert len(seen) == 1  # one linear program, mapped


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)
