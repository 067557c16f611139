"""The Hessian and its product against closed forms and jax.hessian, and the words of bad calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hesskit
from hesskit.core import pseudo_random, tree
from tests.core.test_derivatives import cubic, hessian_of_cubic, reverse_only

PARAMS = {"w": jnp.array([[0.5, -1.0], [2.0, 0.3]]), "b": (jnp.array(0.7), None)}


def fn(p, scale=1.0):
    return scale * jnp.sum(jnp.sin(p["w"] @ p["w"].T)) * jnp.exp(p["b"][0])


def reference(p) -> np.ndarray:
    flat, unravel = ravel_pytree(p)
    return jax.hessian(lambda x: fn(unravel(x)))(flat)


def cast(p, dtype):
    return jax.tree.map(lambda a: a.astype(dtype), p)


@pytest.mark.slow
def test_hessian_is_that_of_jax_in_the_order_of_ravel_pytree(dtype):
    p = cast(PARAMS, dtype)
    matrix = hesskit.hessian(fn, p)
    assert matrix.dtype == dtype
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(matrix, reference(p), rtol=100 * eps, atol=100 * eps)
    np.testing.assert_array_equal(matrix, matrix.T)


@pytest.mark.parametrize("chunk_size", [1, 2, 5])
def test_chunks(chunk_size: int):
    chunked = hesskit.hessian(fn, PARAMS, chunk_size=chunk_size)
    np.testing.assert_allclose(chunked, reference(PARAMS), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_as_tree_is_the_tree_of_jax_hessian(float64):
    p = cast(PARAMS, "float64")
    ours, theirs = hesskit.hessian(fn, p, as_tree=True), jax.hessian(fn)(p)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), ours, theirs)


def test_as_tree_of_a_bare_array():
    np.testing.assert_allclose(
        hesskit.hessian(cubic, jnp.ones(3), as_tree=True), hessian_of_cubic(jnp.ones(3)), rtol=1e-6
    )


def test_products_are_columns(dtype):
    p = cast(PARAMS, dtype)
    v = pseudo_random.like(p)
    ours = hesskit.hvp(fn, p, v, args=(2.0,))
    assert jax.tree.map(jnp.result_type, ours) == jax.tree.map(jnp.result_type, p)
    eps = float(jnp.finfo(dtype).eps)
    expected = 2 * reference(p) @ tree.ravel(v)
    np.testing.assert_allclose(tree.ravel(ours), expected, rtol=1e3 * eps, atol=1e3 * eps)


@pytest.mark.slow
def test_a_function_with_a_reverse_rule_alone(float64):
    x = jnp.array([0.3, -0.7, 1.1])
    np.testing.assert_allclose(hesskit.hessian(reverse_only, x), hessian_of_cubic(x), rtol=1e-13)
    looped = lambda x: jax.lax.scan(lambda c, a: (c + a * reverse_only(x), None), 0.0, x)[0]
    expected = jax.hessian(lambda x: jnp.sum(x) * cubic(x))(x)
    np.testing.assert_allclose(hesskit.hessian(looped, x), expected, rtol=1e-12)


@pytest.mark.slow
def test_complex_products_are_those_of_r_2n(float64):
    z, v = jnp.array([1 + 2j, -0.5j]), jnp.array([0.3 - 1j, 2 + 0j])
    fn = lambda z: jnp.sum(jnp.abs(z) ** 4) + jnp.real(z[0] * z[1] ** 2)
    real = lambda x: fn(jax.lax.complex(x[:2], x[2:]))
    split = lambda z: jnp.concatenate([z.real, z.imag])
    expected = jax.hessian(real)(split(z)) @ split(v)
    np.testing.assert_allclose(split(hesskit.hvp(fn, z, v)), expected, rtol=1e-13)
    with pytest.raises(TypeError, match=r"hesskit.hessian needs real params"):
        hesskit.hessian(fn, z)


def test_under_jit_and_vmap():
    points = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]])
    matrices = jax.jit(jax.vmap(lambda x: hesskit.hessian(cubic, x)))(points)
    np.testing.assert_allclose(matrices, [hessian_of_cubic(x) for x in points], rtol=1e-6)


def test_half_precision_gives_float32():
    matrix = hesskit.hessian(lambda x: jnp.sum(x**2), jnp.ones(2, "bfloat16"))
    assert matrix.dtype == "float32"
    np.testing.assert_array_equal(matrix, 2 * np.eye(2))


X = jnp.ones(3)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: hesskit.hessian(cubic)(X), TypeError, "hesskit.hessian needs the point"),
        (lambda: hesskit.hessian(cubic)(X), TypeError, "jax.hessian(f)(x) is the curried form"),
        (lambda: hesskit.hessian(cubic, jnp.array([0, 0])), TypeError, "params is int32; write"),
        (lambda: hesskit.hessian(cubic, {}), ValueError, "params has no leaves"),
        (lambda: hesskit.hessian(3, X), TypeError, "value_fn must be a function of params"),
        (lambda: hesskit.hessian(lambda x: x, X), ValueError, "returned shape (3,), expected ()"),
        (lambda: hesskit.hessian(lambda x: None, X), TypeError, "value_fn returned None"),
        (lambda: hesskit.hessian(lambda x: x[0] > 1, X), TypeError, "value_fn returned bool"),
        (lambda: hesskit.hessian(cubic, X, chunk_size=0), ValueError, "chunk_size must be an int"),
        (lambda: hesskit.hessian(lambda x, y: 0.0, X), TypeError, "it requires x and y"),
        (lambda: hesskit.hvp(cubic, X, X[:2]), ValueError, "v has shape (2,), params (3,)"),
        (lambda: hesskit.hvp(cubic, X, [X]), ValueError, "v must have the structure of params"),
        (lambda: hesskit.hvp(cubic, X, jnp.ones(3, "int32")), TypeError, "v is int32"),
        (
            lambda: hesskit.hvp(cubic, X, X.astype("bfloat16")),
            TypeError,
            "v is bfloat16, params float32; cast it",
        ),
        (
            lambda: hesskit.hvp(lambda p: p["a"] ** 2, {"a": 1.0}, {"a": jnp.ones(2)}),
            ValueError,
            "v['a'] has shape (2,), params ()",
        ),
    ],
)
def test_bad_calls(call, error: type, words: str):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


@pytest.mark.parametrize("call", [hesskit.hessian, lambda f, x: hesskit.hvp(f, x, x)])
def test_an_error_inside_gains_one_note(call):
    with pytest.raises(KeyError, match="width") as caught:
        call(lambda p: p["width"], {"mu": 1.0})
    ours = [note for note in caught.value.__notes__ if "hesskit" in note]
    assert len(ours) == 1
    assert "{'mu': float32[]}" in ours[0]
