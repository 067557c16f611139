"""The diagonal as a tree, exact and estimated."""

import jax.numpy as jnp
import numpy as np

import hesskit


def fn(p):
    return jnp.sum(p["a"] ** 3) + p["a"][0] * p["b"] + p["b"] ** 2


POINT = {"a": jnp.arange(1.0, 5.0), "b": jnp.array(2.0)}


def test_exact_and_estimated():
    exact = hesskit.diagonal(fn, POINT)
    np.testing.assert_allclose(exact.value["a"], 6 * POINT["a"], rtol=1e-6)
    np.testing.assert_allclose(exact.value["b"], 2.0)
    assert str(exact).splitlines()[1] == "exact, by 5 products"
    found = hesskit.diagonal(fn, POINT, num_products=4)
    for name in ("a", "b"):
        gap = np.abs(found.value[name] - exact.value[name])
        assert np.all(gap <= 4 * found.standard_error[name] + 1e-5)
    assert int(found.num_products) == 4


def test_probes_without_spread_do_not_make_it_exact():
    found = hesskit.diagonal(lambda p: jnp.sum(p**2), jnp.ones(9), num_products=3)
    assert not bool(found.exact)
    assert str(found).splitlines()[1] == "standard errors up to 0, by 3 products"
