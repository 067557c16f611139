"""Softmax cross entropy at the edges: extreme logits, certain and excluded classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core.categorical import SoftmaxCrossEntropy
from tests.core.dense import filled
from tests.core.test_closed_form import EXTREME, Z, check_finite


def test_softmax_is_stable_at_extreme_logits():
    z = jnp.asarray([[s * size, 0.0, -s * size / 2] for size in EXTREME for s in (1, -1)])
    for target in (0, 2):
        check_finite(SoftmaxCrossEntropy(), z, jnp.full(len(z), target))


def test_a_product_of_a_certain_class_keeps_its_digits():
    """p = 1 - 2e-9: in float32 p.v rounds to v_1, and v'Hv would lose half its value."""
    z, v = jnp.array([20.0, 0.0, -jnp.inf]), jnp.array([1.0, -1.0, 5.0])
    outer = filled(SoftmaxCrossEntropy(), jnp.array(0))
    p = np.exp(-20.0) / (1 + np.exp(-20.0))
    expected = 4 * p * (1 - p)
    np.testing.assert_allclose(jnp.sum(v * outer.hessian_product(z, v)), expected, rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(outer.whiten(z, v) ** 2), expected, rtol=1e-5)


def test_a_logit_of_minus_infinity_excludes_its_class():
    z, numbers, rest = Z.astype("float32"), np.array([0, 2, 3]), np.array([0, 2, 3])
    z[:, 1] = -np.inf
    loss = SoftmaxCrossEntropy()
    step = jax.jit(jax.value_and_grad(loss))
    (value, grad), (less, short) = step(z, numbers), step(z[:, rest], np.array([0, 1, 2]))
    np.testing.assert_allclose(value, less, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(grad)[:, rest], short, rtol=1e-5)
    check_finite(loss, z, numbers)


def test_a_class_number_that_is_none_makes_the_loss_nan():
    loss, z = jax.jit(SoftmaxCrossEntropy()), Z.astype("float32")
    for bad in (-1, 4, 300):
        numbers = np.array([0, bad, 1])
        assert jnp.isnan(loss(z, numbers))
        assert jnp.isfinite(loss(z, numbers, where=np.array([True, False, True])))


@pytest.mark.slow
@pytest.mark.parametrize("num", [37, 500])
def test_mapped_products_are_those_one_by_one(num):
    """At 500 x 10 a product and a sum of it, mapped, are compiled wrongly by XLA of jax 0.10."""
    z, t = jax.random.normal(jax.random.key(0), (num, 10)), jnp.arange(num) % 10
    v = jax.random.normal(jax.random.key(1), (8, num, 10))
    outer = filled(SoftmaxCrossEntropy(), t)
    for product in (outer.hessian_product, outer.whiten):
        mapped = jax.jit(jax.vmap(lambda u, product=product: product(z, u)))(v)
        alone = jnp.stack([product(z, u) for u in v])
        np.testing.assert_allclose(mapped, alone, atol=1e-6)
