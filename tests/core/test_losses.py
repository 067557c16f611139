"""Losses of outputs: values of optax and scipy, data and masks, the words of bad calls."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import hesskit
from hesskit.core import losses

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(6, 3)).astype("float32") * 3
T = RNG.normal(size=(6, 3)).astype("float32")
NUMBERS = RNG.integers(3, size=6)
WHERE = np.array([True, True, False, True, False, True])
ALL = (
    losses.squared_error,
    losses.sigmoid_cross_entropy,
    losses.softmax_cross_entropy,
    losses.poisson,
    losses.gaussian,
)


@pytest.mark.slow
@pytest.mark.standard_promotion("the reference is optax's")
def test_values_are_those_of_optax_and_scipy():
    p, soft = jax.nn.sigmoid(T), jax.nn.softmax(T)
    normal = -scipy.stats.norm.logpdf(T, Z, 1.5)
    counts = np.round(np.exp(T))
    rates = -scipy.stats.poisson.logpmf(counts, np.exp(Z)) - scipy.special.gammaln(counts + 1)
    for make, data, entries in (
        (losses.squared_error, (T,), optax.squared_error(Z, T)),
        (losses.sigmoid_cross_entropy, (p,), optax.sigmoid_binary_cross_entropy(Z, p)),
        (losses.softmax_cross_entropy, (soft,), optax.softmax_cross_entropy(Z, soft)),
        (
            losses.softmax_cross_entropy,
            (NUMBERS,),
            optax.softmax_cross_entropy_with_integer_labels(Z, NUMBERS),
        ),
        (losses.gaussian, (T, 1.5), normal),
        (losses.poisson, (counts.astype("int32"),), rates),
    ):
        np.testing.assert_allclose(make()(Z, *data), np.mean(entries), rtol=1e-5)
        np.testing.assert_allclose(make(reduction="sum")(Z, *data), np.sum(entries), rtol=1e-5)
        masked = make(where=WHERE)(Z, *data)
        np.testing.assert_allclose(masked, np.mean(entries[WHERE]), rtol=1e-5)


@pytest.mark.slow
def test_integer_labels_are_one_hot():
    loss = losses.softmax_cross_entropy()
    hot = np.eye(3)[NUMBERS]
    value = loss(Z, NUMBERS)
    for labels in (hot.astype("float32"), hot.astype("int32"), hot.astype(bool)):
        np.testing.assert_allclose(loss(Z, labels), value, rtol=1e-6)
    sequences = Z.reshape(2, 3, 3)
    np.testing.assert_allclose(loss(sequences, NUMBERS.reshape(2, 3)), value, rtol=1e-6)


@pytest.mark.slow
def test_a_mask_of_examples_covers_their_entries():
    entries = np.repeat(WHERE[:, None], 3, axis=1)
    for make in (losses.squared_error, losses.gaussian):
        assert make(where=WHERE)(Z, T) == make(where=entries)(Z, T)
        assert make()(Z, T, where=list(map(bool, WHERE))) == make(where=WHERE)(Z, T)
        np.testing.assert_allclose(make(where=WHERE)(Z, T), make()(Z[WHERE], T[WHERE]), rtol=1e-6)


def linear(p, x):
    return x @ p["w"] + p["b"][None]


X = RNG.normal(size=(6, 2)).astype("float32")
P = {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)}


@pytest.mark.slow
def test_a_classifier_is_fit(float64):
    """Logistic regression with decay: the Gauss-Newton matrix is the Hessian."""
    loss = hesskit.composite(losses.softmax_cross_entropy(), linear) + hesskit.l2(0.1)
    params = jax.tree.map(lambda a: a.astype("float64"), P)
    args = (X.astype("float64"), NUMBERS)
    fit = hesskit.minimize(loss, params, hesskit.levenberg_marquardt(), args=args)
    assert fit.success
    truth = lambda p: (
        jnp.mean(optax.softmax_cross_entropy_with_integer_labels(linear(p, args[0]), NUMBERS))
        + 0.05 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(p))
    )
    slopes = jax.jit(jax.grad(truth))(fit.params)
    np.testing.assert_allclose(jax.tree.leaves(slopes)[1], 0, atol=1e-9)
    matrix = hesskit.gauss_newton_operator(loss, fit.params, args=args).dense()
    np.testing.assert_allclose(matrix, hesskit.hessian(truth, fit.params), atol=1e-12)


def test_a_mask_is_data_and_compiles_once():
    loss = hesskit.composite(losses.gaussian(), linear)
    traces = []

    @jax.jit
    def value(p, x, y, where, sigma):
        traces.append(where)
        return loss(p, x, y, sigma, where=where)

    p = jax.tree.map(jnp.ones_like, P)
    for where, sigma in ((WHERE, 1.0), (~WHERE, 2.0)):
        expected = losses.gaussian()(linear(p, X[where]), T[where], sigma)
        np.testing.assert_allclose(value(p, X, T, where, sigma), expected, rtol=1e-5)
    assert len(traces) == 1


def test_data_by_position_and_by_name():
    loss = hesskit.composite(losses.gaussian(), linear)
    assert list(inspect.signature(loss).parameters) == ["p", "x", "targets", "sigma", "where"]
    value = loss(P, X, T, 2.0)
    assert value == loss(P, X, targets=T, sigma=2.0)
    assert value == loss(P, x=X, targets=T, sigma=jnp.full(T.shape, 2.0), where=jnp.array(True))
    assert value != loss(P, X, T)


@pytest.mark.parametrize("make", ALL)
def test_words_of_every_factory(make):
    with pytest.raises(ValueError, match="reduction must be one of 'mean', 'sum'; got 'max'"):
        make(reduction="max")
    with pytest.raises(TypeError, match="where must be a mask of bools, got float32"):
        make(where=jnp.ones(3))
    with pytest.raises(TypeError, match="takes 0 positional arguments"):
        make("mean")
    with pytest.raises(TypeError, match=r"got {'a': float32\[6, 3\]} for outputs; this loss"):
        make()({"a": jnp.asarray(Z)}, T)
    with pytest.raises(TypeError, match="got None for targets; this loss takes one array"):
        make()(Z, None)
    with pytest.raises(TypeError, match="got complex64 for outputs; this loss takes real"):
        make()(Z.astype("complex64"), T)
    with pytest.raises(ValueError, match=r"where has shape \(3,\), expected the leading axes of"):
        make()(Z, T, where=np.ones(3, bool))


@pytest.mark.parametrize("make", [f for f in ALL if f is not losses.softmax_cross_entropy])
def test_shapes_are_never_broadcast(make):
    words = r"got shape \(6,\) for targets, \(6, 1\) for outputs; reshape one"
    with pytest.raises(ValueError, match=words):
        make()(Z[:, :1], T[:, 0])
    assert jnp.isfinite(make()(Z, 1.0))  # one number for all is no accident


@pytest.mark.parametrize(
    ("outputs", "targets", "error", "words"),
    [
        (Z, NUMBERS[:5], ValueError, "got shape (5,) for targets, (6, 3) for outputs; expected"),
        (Z, NUMBERS[:, None], ValueError, "class numbers of shape (6,) or labels of shape (6, 3)"),
        (Z, T[:, 0], TypeError, "got float32 for targets; class numbers are integers"),
        (Z, WHERE, TypeError, "got bool for targets; class numbers are integers"),
        (Z[0, 0], 1, ValueError, "got shape () for outputs, expected (..., classes)"),
    ],
)
def test_words_of_labels(outputs, targets, error: type, words: str):
    with pytest.raises(error) as caught:
        losses.softmax_cross_entropy()(outputs, targets)
    assert words in str(caught.value)


def test_sigma_has_a_shape_of_its_own():
    with pytest.raises(ValueError, match=r"got shape \(3,\) for sigma, \(6, 3\) for outputs"):
        losses.gaussian()(Z, T, np.ones(3))
