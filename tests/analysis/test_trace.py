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
    with pytest.raises(ValueError, match="num_products must be an integer of at least 6"):
        hesskit.trace(fn, POINT, args=(1.0,), method="hutch++", num_products=5)
