"""per_example: rows of a Jacobian by one mapped pass, where outputs are those of examples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core import per_example
from hesskit.core.per_example import PerExample

X = np.linspace(-1.0, 1.0, 7)


def one(p, x):
    return jnp.tanh(p["w"] @ jnp.stack([x, jnp.ones_like(x)])) @ p["v"] - x**2


def pair(p, x):
    return {"a": one(p, x), "b": x * p["v"]}


def params(dtype):
    rng = np.random.default_rng(0)
    return {
        "v": jnp.asarray(rng.normal(size=3), dtype),
        "w": jnp.asarray(rng.normal(size=(3, 2)), dtype),
    }


def dense(inner, p):
    flat, unravel = jax.flatten_util.ravel_pytree(p)
    outputs = lambda v: jax.flatten_util.ravel_pytree(inner(unravel(v))[0])[0]
    return jax.jacobian(outputs)(flat)


def test_it_is_vmap(dtype):
    p, x = params(dtype), jnp.asarray(X, dtype)
    found = hesskit.per_example(one)(p, x)
    np.testing.assert_array_equal(found, jax.vmap(one, (None, 0))(p, x))
    shifted = hesskit.per_example(lambda p, x, shift=0.0: one(p, x) + shift)
    np.testing.assert_allclose(shifted(p, x, shift=jnp.ones((), dtype)), found + 1, rtol=1e-6)
    weighed = hesskit.per_example(lambda p, x, w: w * one(p, x))
    np.testing.assert_allclose(weighed(p, x, w=x), x * found, rtol=1e-6)  # an entry for each
    np.testing.assert_array_equal(weighed(p, w=x, x=x), weighed(p, x, x))
    columns = hesskit.per_example(lambda p, a: a @ p["v"], in_axes=1)(p, jnp.ones((3, 4), dtype))
    assert columns.shape == (4,)


@pytest.mark.slow
def test_rows_are_those_of_the_jacobian(dtype):
    p, x = params(dtype), jnp.asarray(X, dtype)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    inners = [
        lambda p: (hesskit.per_example(one)(p, x), None),
        lambda p: (hesskit.per_example(pair)(p, x), None),
        lambda p: (hesskit.per_example(lambda p, x: (one(p, x)[None],))(p, x), None),
        lambda p: (
            {"z": hesskit.per_example(one)(p, x), "a": hesskit.per_example(pair)(p, 2 * x)},
            None,
        ),
        lambda p: (hesskit.per_example(lambda p, x, c=1.0: one(p, x) * c)(p, x, c=x[0]), None),
    ]
    for inner in inners:
        rows = per_example.rows(inner, p)
        np.testing.assert_allclose(rows, dense(inner, p), rtol=tolerance, atol=tolerance)


def test_other_outputs_have_no_rows(float64):
    del float64
    p, x = params("float64"), jnp.asarray(X)
    mapped = hesskit.per_example(one)
    assert per_example.rows(lambda p: (2 * mapped(p, x), None), p) is None
    assert per_example.rows(lambda p: ((mapped(p, x), p["v"]), None), p) is None
    # The data of an example depends on params: its rows are not those of `one` alone.
    assert per_example.rows(lambda p: (mapped(p, x * p["v"][0]), None), p) is None
    shared = hesskit.per_example(lambda p, x, c=1.0: one(p, x) * c)
    assert per_example.rows(lambda p: (shared(p, x, c=p["v"][0]), None), p) is None


def test_rows_go_back_through_a_change_of_variables(float64):
    del float64
    p, x = params("float64"), jnp.asarray(X)
    flat, unravel = jax.flatten_util.ravel_pytree(p)
    inner = lambda v: (hesskit.per_example(one)(unravel(2 * v), x), None)
    rows = per_example.rows(inner, flat)
    np.testing.assert_allclose(rows, jax.jacobian(lambda v: inner(v)[0])(flat), rtol=1e-12)


@pytest.mark.slow
def test_a_fit_takes_the_rows(monkeypatch, float64):
    """The same steps with and without; the path is proven by counting."""
    del float64
    taken = []
    whole = per_example.rows
    monkeypatch.setattr(
        per_example, "rows", lambda *args: taken.append(whole(*args) is not None) or whole(*args)
    )
    p, x = params("float64"), jnp.asarray(X)
    results = []
    for mapped in (hesskit.per_example(one), jax.vmap(one, (None, 0))):
        loss = hesskit.least_squares_loss(functools.partial(mapped))
        opt = hesskit.levenberg_marquardt()
        results.append(hesskit.minimize(loss, p, opt, args=(x,), max_steps=5))
    assert taken == [True, False]
    np.testing.assert_allclose(results[0].value, results[1].value, rtol=1e-9)


def test_equal_parts_are_equal():
    assert PerExample(one) == hesskit.per_example(one)
    assert hash(PerExample(one)) == hash(hesskit.per_example(one))
    assert PerExample(one) != PerExample(pair)


def test_errors():
    with pytest.raises(TypeError, match="fn must be a function"):
        hesskit.per_example(3)
