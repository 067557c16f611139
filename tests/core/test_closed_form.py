"""Losses in closed form: H, F and b against automatic differentiation, and at extreme outputs."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import closed_form
from hesskit.core.categorical import SoftmaxCrossEntropy
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
    "softmax": (SoftmaxCrossEntropy, (NUMBERS,)),
    "softmax-soft": (SoftmaxCrossEntropy, (SOFT,)),
}
SQUARES = {"squared", "gaussian", "gaussian-unit"}


def case(name: str, dtype, **options):
    make, data = CASES[name]
    return make(**options), jnp.asarray(Z, dtype), [jnp.asarray(item) for item in data]


def mask_of(loss, mask=MASK):
    """One that fits: softmax counts examples."""
    return mask[:, 0] if isinstance(loss, SoftmaxCrossEntropy) else mask


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
