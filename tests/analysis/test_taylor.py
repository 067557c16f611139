"""The Taylor model: exact for quadratics, of order three and four beyond, complex, under jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit


def test_a_quadratic_is_its_own_model(float64):
    fn = lambda p, c: c * p["a"] @ p["a"] + p["a"][0] * p["b"] - 3 * p["b"]
    at = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
    model = hesskit.taylor(fn, at, args=(2.0,))
    x = {"a": jnp.array([4.0, 0.0]), "b": jnp.array(-7.0)}
    np.testing.assert_allclose(model(x), fn(x, 2.0), rtol=1e-14)
    h = jax.tree.map(jnp.subtract, x, at)
    np.testing.assert_allclose(model.displaced(h), fn(x, 2.0), rtol=1e-14)
    np.testing.assert_allclose(model.error(h), 0, atol=1e-13)
    assert float(model.remainder_order()) == np.inf
    assert "no order is seen" in str(model.remainder_order())


@pytest.mark.parametrize(("fn", "order"), [(jnp.exp, 3), (jnp.cos, 4)])
def test_orders(dtype, fn, order):
    model = hesskit.taylor(lambda p: jnp.sum(fn(p)), jnp.zeros(2))
    found = model.remainder_order(jnp.array([1.0, 0.5]), length=0.5)
    assert float(found) == pytest.approx(order, abs=0.1)


def test_complex_params():
    fn = lambda z: jnp.sum(jnp.abs(z) ** 2 * jnp.real(z))
    z, h = jnp.array([1 + 2j, 0.5 - 1j]), jnp.array([0.01 + 0.02j, -0.01j])
    model = hesskit.taylor(fn, z)
    np.testing.assert_allclose(model.grad, jax.grad(fn)(z))
    np.testing.assert_allclose(model.displaced(h), fn(z + h), atol=2e-5)


def test_it_passes_through_jit_and_prints():
    model = hesskit.taylor(lambda p: jnp.exp(p[0] + p[1]), jnp.zeros(2))
    seen = []

    @jax.jit
    def at(model, h):
        seen.append(repr(model))
        return model.displaced(h)

    np.testing.assert_allclose(at(model, jnp.array([0.1, 0.2])), 1.345, rtol=1e-6)
    shapes = jax.eval_shape(lambda m: m, model)
    assert [*seen, repr(shapes)] == ["TaylorModel: not known inside jit and vmap"] * 2
    assert str(model).splitlines()[-1] == "Hessian  1, 1"
    assert model._repr_html_().startswith("<pre>second-order")
    with pytest.raises(ValueError, match="x has shape"):
        model(jnp.ones(3))
