"""The dense Jacobian agrees with JAX's, in either mode, on any tree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.curvature.jacobian import jacobian
from tests.core.test_derivatives import reverse_only

A = np.arange(6.0, dtype="float32").reshape(3, 2)


def test_trees_in_the_order_of_vectors():
    params = {"a": jnp.array(2.0), "w": jnp.array([1.0, 3.0])}
    fn = lambda p: {"u": p["a"] * p["w"], "v": jnp.sum(p["w"] ** 2)}
    out, matrix = jacobian(fn, params)
    np.testing.assert_array_equal(out["u"], [2, 6])
    np.testing.assert_allclose(matrix, [[1, 2, 0], [3, 0, 2], [0, 2, 6]])


def test_it_is_that_of_jax(dtype):
    fn = lambda x: jnp.sin(jnp.asarray(A, dtype) @ x)
    x = jnp.array([0.3, -0.5], dtype)
    np.testing.assert_allclose(jacobian(fn, x)[1], jax.jacfwd(fn)(x), rtol=1e-6)
    assert jacobian(fn, x)[1].dtype == dtype


@pytest.mark.slow
def test_without_a_forward_rule():
    x = jnp.array([1.0, 2.0, 3.0])
    fn = lambda x: jnp.stack([reverse_only(x), 2 * reverse_only(x)])
    _, matrix = jacobian(fn, x)
    np.testing.assert_allclose(matrix, jax.jacrev(fn)(x), rtol=1e-6)
    one = lambda a: reverse_only(jnp.full(3, a))  # a column alone is not mapped
    found = jax.jit(lambda a: jacobian(one, a)[1])(jnp.array(0.5))
    np.testing.assert_allclose(found, [[3 * 3 * 0.25 + 3 * 0.25]], rtol=1e-6)


@pytest.mark.slow
def test_a_complex_leaf_is_two_real_ones():
    _, matrix = jacobian(lambda z: jnp.abs(z[0]) ** 2, jnp.array([3 + 4j]))
    np.testing.assert_allclose(matrix, [[6, 8]], rtol=1e-6)


def test_outputs_must_be_real_floats():
    with pytest.raises(TypeError, match=r"the result\['n'\] is int32; its error needs a real"):
        jacobian(lambda p: {"n": jnp.int32(1), "x": p}, jnp.array(1.0))
    with pytest.raises(TypeError, match="complex64"):
        jacobian(lambda p: p, jnp.array(1j))


def test_an_error_of_the_user_comes_through():
    with pytest.raises(TypeError, match="unexpected keyword"):
        jacobian(lambda p: (lambda: p)(missing=1), jnp.array(1.0))
