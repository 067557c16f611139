"""Losses in closed form: H, F and b against automatic differentiation, and at extreme outputs."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import closed_form
from tests.core.dense import check_outer, filled, matrices

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(3, 4)) * 2
MASK = np.array([[True, False, True, True], [False] * 4, [True] * 4])
NUMBERS = np.array([2, 0, 3])
SOFT = RNG.uniform(size=(3, 4)) * [[1.0], [0.0], [3.0]]  # weights of examples, so not of sum 1
SIGMA = RNG.uniform(0.5, 2.0, size=(3, 4))

CASES = {
    "squared": (closed_form.SquaredError, (RNG.normal(size=(3, 4)),)),
    "sigmoid": (closed_form.SigmoidCrossEntropy, (RNG.uniform(size=(3, 4)),)),
    "sigmoid-int": (closed_form.SigmoidCrossEntropy, (RNG.integers(2, size=(3, 4)),)),
    "poisson": (closed_form.Poisson, (RNG.poisson(3.0, size=(3, 4)),)),
    "gaussian": (closed_form.Gaussian, (RNG.normal(size=(3, 4)), SIGMA)),
    "gaussian-unit": (closed_form.Gaussian, (RNG.normal(size=(3, 4)),)),
    "softmax": (closed_form.SoftmaxCrossEntropy, (NUMBERS,)),
    "softmax-soft": (closed_form.SoftmaxCrossEntropy, (SOFT,)),
}
SQUARES = {"squared", "gaussian", "gaussian-unit"}


def case(name: str, dtype, **options):
    make, data = CASES[name]
    return make(**options), jnp.asarray(Z, dtype), [jnp.asarray(item) for item in data]


def mask_of(loss, mask=MASK):
    """One that fits: softmax counts examples."""
    return mask[:, 0] if isinstance(loss, closed_form.SoftmaxCrossEntropy) else mask


@pytest.mark.parametrize("name", CASES)
def test_curvature_factor_and_residual(name: str, dtype):
    loss, z, data = case(name, dtype, reduction="sum")
    found = check_outer(filled(loss, *data), z)
    assert (found.residual is not None) == (name in SQUARES)


def spoiled(item, counts: np.ndarray):
    """NaN, or a number that is no class, where `counts` is False."""
    item = np.asarray(item)
    bad = np.nan if item.dtype.kind == "f" else -100
    return np.where(counts if item.ndim == 2 else counts[:, 0], item, bad)


@pytest.mark.parametrize("name", CASES)
def test_a_mean_counts_what_the_mask_leaves_and_reads_nothing_else(name: str, float64):
    whole, z, data = case(name, "float64", reduction="sum")
    where = mask_of(whole)
    counts = where if where.ndim == 2 else np.repeat(where[:, None], 4, axis=1)
    mean = CASES[name][0](where=where)
    bad = [spoiled(item, counts) for item in data]
    masked = check_outer(filled(mean, *bad), spoiled(z, counts))
    full, counts = matrices(filled(whole, *data), z).hessian, counts.ravel()
    expected = np.where(counts[:, None] & counts[None, :], full, 0) / where.sum()
    np.testing.assert_allclose(masked.hessian, expected, atol=1e-14)
    assert not masked.gradient[~counts].any()
    rest = whole(z, *data, where=where)
    np.testing.assert_allclose(mean(z, *data), float(rest) / where.sum(), rtol=1e-12)
    assert mean(z, *data, where=np.zeros_like(where)) == 0


EXTREME = np.array([0.0, 1.0, 20.0, 80.0, 105.0, 1e4, 1e30], np.float32)


def check_finite(loss, z, *data):
    """Value, gradient, products and the Hessian by AD; one compiled program for all z and data."""

    @jax.jit
    def everything(z, data):
        outer, v = filled(loss, *data), jnp.ones_like(z)
        slope = jax.jvp(jax.grad(outer.value), (z,), (v,))
        return outer.value(z), *slope, outer.hessian_product(z, v), outer.whiten(z, v)

    for at, given in zip(z, zip(*data, strict=True), strict=True):
        for item in everything(at, given):
            assert jnp.all(jnp.isfinite(item)), (at, item)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_sigmoid_is_stable_and_keeps_digits_at_extreme_logits(t: float, sign: int):
    z = jnp.asarray(sign * EXTREME)
    loss = closed_form.SigmoidCrossEntropy("sum")
    check_finite(loss, z, jnp.full_like(z, t))
    z = z[:4]
    x = np.asarray(z, np.float64)
    value = np.logaddexp(0, x) - t * x if t == 0.3 else np.logaddexp(0, x if t == 0 else -x)
    np.testing.assert_allclose([loss(a, t) for a in z], value, rtol=1e-5)
    h = loss.hessian_product(z, jnp.ones_like(z), t)
    np.testing.assert_allclose(h, np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))) ** 2, rtol=1e-5)


def test_softmax_is_stable_at_extreme_logits():
    z = jnp.asarray([[s * size, 0.0, -s * size / 2] for size in EXTREME for s in (1, -1)])
    for target in (0, 2):
        check_finite(closed_form.SoftmaxCrossEntropy(), z, jnp.full(len(z), target))


def test_a_product_of_a_certain_class_keeps_its_digits():
    """p = 1 - 2e-9: in float32 p.v rounds to v_1, and v'Hv would lose half its value."""
    z, v = jnp.array([20.0, 0.0, -jnp.inf]), jnp.array([1.0, -1.0, 5.0])
    outer = filled(closed_form.SoftmaxCrossEntropy(), jnp.array(0))
    p = np.exp(-20.0) / (1 + np.exp(-20.0))
    expected = 4 * p * (1 - p)
    np.testing.assert_allclose(jnp.sum(v * outer.hessian_product(z, v)), expected, rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(outer.whiten(z, v) ** 2), expected, rtol=1e-5)


def test_a_logit_of_minus_infinity_excludes_its_class():
    z, numbers, rest = Z.astype("float32"), np.array([0, 2, 3]), np.array([0, 2, 3])
    z[:, 1] = -np.inf
    loss = closed_form.SoftmaxCrossEntropy()
    step = jax.jit(jax.value_and_grad(loss))
    (value, grad), (less, short) = step(z, numbers), step(z[:, rest], np.array([0, 1, 2]))
    np.testing.assert_allclose(value, less, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(grad)[:, rest], short, rtol=1e-5)
    check_finite(loss, z, numbers)


def test_poisson_is_stable_where_the_rate_is_a_number():
    z = jnp.array([80.0, 0.0, -90.0, -1e4, -1e30])
    for t in (0.0, 7.0):
        check_finite(closed_form.Poisson(), z, jnp.full_like(z, t))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_infinite_sigma_drops_an_entry(reduction: str):
    z, t, sigma = np.array([[1, 2, 3], [0, np.nan, 1], [1, np.inf, 2]], "float32")
    step = jax.jit(jax.value_and_grad(closed_form.Gaussian(reduction)))
    (value, grad), (less, short) = step(z, t, sigma), step(z[::2], t[::2], sigma[::2])
    np.testing.assert_allclose(value, less, rtol=1e-6)
    np.testing.assert_allclose(grad, [short[0], 0, short[1]], rtol=1e-6)


def test_a_class_number_that_is_none_makes_the_loss_nan():
    loss, z = jax.jit(closed_form.SoftmaxCrossEntropy()), Z.astype("float32")
    for bad in (-1, 4, 300):
        numbers = np.array([0, bad, 1])
        assert jnp.isnan(loss(z, numbers))
        assert jnp.isfinite(loss(z, numbers, where=np.array([True, False, True])))


@pytest.mark.parametrize("name", CASES)
def test_half_precision_accumulates_in_float32(name: str):
    loss, z, data = case(name, "bfloat16")
    outer = filled(loss, *data)

    @jax.jit
    def everything(z):
        value, grad = jax.value_and_grad(outer.value)(z)
        wide = outer.value(z.astype("float32"))
        return value, wide, grad, outer.hessian_product(z, z), outer.whiten(z, z)

    value, wide, grad, product, white = everything(z)
    assert (value, value.dtype) == (wide, "float32")
    assert (grad.dtype, product.dtype) == ("bfloat16", "bfloat16")
    assert jnp.all(jnp.isfinite(white))


def test_losses_are_equal_by_their_parts():
    mask = jnp.asarray(MASK)
    for make in {make for make, _ in CASES.values()}:
        assert make("sum", mask) == make("sum", mask)
        assert hash(make("sum", mask)) == hash(make("sum", mask))
        assert make("sum", mask) != make("sum", jnp.asarray(MASK))
        assert make("sum") != make("mean")
        assert pickle.loads(pickle.dumps(make("sum"))) == make("sum")
    assert closed_form.SquaredError() != closed_form.Poisson()
