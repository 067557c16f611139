"""The score objective against sums over all configurations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit

STATES = np.array([[i >> k & 1 for k in range(3)] for i in range(8)], float)
ENERGY = np.random.default_rng(0).normal(size=8)
P = np.random.default_rng(1).normal(size=3)


def log_weight(p, x):
    """Not normalized."""
    return jnp.sum(p * x) + jnp.prod(x) * p[0] ** 2


def samples():
    """Configurations in numbers close to their probabilities, so that means are sums over all."""
    counts = np.random.default_rng(2).integers(1, 5, size=8)
    return np.repeat(STATES, counts, axis=0), np.repeat(ENERGY, counts)


def test_value_and_gradient_are_those_of_the_samples(float64):
    """With every configuration as often as it is probable, those of the expectation."""
    x, f = (jnp.asarray(a) for a in samples())
    loss = hesskit.score_objective(hesskit.per_example(log_weight))
    value, grad = jax.value_and_grad(loss)(jnp.asarray(P), x, f)
    scores = jax.vmap(jax.grad(log_weight), (None, 0))(jnp.asarray(P), x)
    assert value == pytest.approx(jnp.mean(f))
    np.testing.assert_allclose(grad, (f - f.mean()) @ scores / len(f), rtol=1e-12)


@pytest.mark.slow
def test_the_gradient_is_that_of_the_expectation(float64):
    """In the limit of many samples: weights that are exact."""
    x, energy, p = jnp.asarray(STATES), jnp.asarray(ENERGY), jnp.asarray(P)

    def expectation(p):
        return jax.nn.softmax(jax.vmap(log_weight, (None, 0))(p, x)) @ energy

    weights = np.asarray(jax.nn.softmax(jax.vmap(log_weight, (None, 0))(p, x)))
    counts = np.round(weights * 200_000).astype(int)
    many, f = np.repeat(STATES, counts, axis=0), np.repeat(ENERGY, counts)
    loss = hesskit.score_objective(hesskit.per_example(log_weight))
    grad = jax.grad(loss)(p, jnp.asarray(many), jnp.asarray(f))
    np.testing.assert_allclose(grad, jax.grad(expectation)(p), atol=1e-4)


@pytest.mark.parametrize("centered", [True, False])
def test_the_metric_is_the_covariance_of_scores(float64, centered):
    x, f = (jnp.asarray(a) for a in samples())
    loss = hesskit.score_objective(hesskit.per_example(log_weight), centered=centered)
    scores = np.asarray(jax.vmap(jax.grad(log_weight), (None, 0))(jnp.asarray(P), x))
    scores = scores - centered * scores.mean(axis=0)
    expected = scores.T @ scores / len(f)
    for make in (hesskit.fisher_operator, hesskit.gauss_newton_operator):
        found = make(loss, jnp.asarray(P), args=(x, f)).dense()
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-15)


def test_a_constant_shift_of_the_local_values_changes_no_gradient():
    x, f = (jnp.asarray(a, "float32") for a in samples())
    loss = hesskit.score_objective(hesskit.per_example(log_weight))
    p = jnp.asarray(P, "float32")
    np.testing.assert_allclose(jax.grad(loss)(p, x, f), jax.grad(loss)(p, x, f + 64.0), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda f: hesskit.score_objective(3), TypeError, "log_prob_fn must be a function"),
        (
            lambda f: f(jnp.ones(3), jnp.ones((2, 3)), jnp.ones(2, "complex64")),
            TypeError,
            "the real part",
        ),
        (lambda f: f(jnp.ones(3), jnp.ones((2, 3)), jnp.ones(3)), ValueError, "has shape (3,)"),
        (lambda f: f(jnp.ones(3), jnp.ones((3,)), jnp.ones(3)), ValueError, "(num_samples,)"),
    ],
)
def test_words(call, error, words):
    loss = hesskit.score_objective(lambda p, x: x @ p)
    with pytest.raises(error) as caught:
        call(loss)
    assert words in str(caught.value)
