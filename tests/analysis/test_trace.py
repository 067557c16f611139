"""The trace of a function's Hessian: exact where n products do, else within its error."""

import jax.numpy as jnp
import numpy as np
import pytest

import hesskit


def fn(p, c):
    return c * jnp.sum(p["a"] ** 4) + p["a"][0] * jnp.sum(p["b"] ** 3)


POINT = {"a": jnp.ones(50), "b": jnp.full((6, 10), 0.5)}
EXACT = 12 * 50 + 6 * 0.5 * 60


@pytest.mark.parametrize("method", ["xtrace", "hutch++", "hutchinson"])
def test_estimates(method):
    found = hesskit.trace(fn, POINT, args=(1.0,), method=method, num_products=30)
    assert abs(float(found) - EXACT) <= 5 * float(found.standard_error) + 1e-2
    assert int(found.num_products) == 30


def test_exact_and_in_words():
    found = hesskit.trace(fn, POINT, args=(1.0,), num_products=110)
    np.testing.assert_allclose(float(found), EXACT, rtol=1e-6)
    assert str(found) == "trace 780, exact, by 110 products"
    assert bool(hesskit.trace(fn, POINT, args=(1.0,), num_products=110).exact)
    with pytest.raises(ValueError, match="num_products must be an integer of at least 6"):
        hesskit.trace(fn, POINT, args=(1.0,), method="hutch++", num_products=5)


def test_equal_probes_do_not_make_it_exact():
    """All samples are 2 or -2 by chance, where the trace is 0."""
    matrix = jnp.zeros((4, 4)).at[0, 1].set(1).at[1, 0].set(1)
    ask = lambda key: hesskit.trace(matrix, method="hutchinson", num_products=3, key=key)
    lucky = next(found for found in map(ask, range(20)) if found.standard_error == 0)
    assert abs(float(lucky)) == 2
    assert not bool(lucky.exact)
    assert "standard error 0, by 3 products" in str(lucky)
