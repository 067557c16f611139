"""The Laplace approximation: exact where the posterior is normal, honest where there is none."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import hesskit
from hesskit.solvers.laplace import laplace

X = np.random.default_rng(0).normal(size=(15, 3))
Y = X @ [1.0, -2.0, 0.5] + 0.3 * np.random.default_rng(1).normal(size=15)


def neg_log_joint(p, log_tau, x, y):
    """Linear regression with noise 0.3 and a normal prior of precision exp(log_tau)."""
    w = jnp.concatenate([p["w"], p["b"][None]])
    r = (y - x @ w) / 0.3
    tau = jnp.exp(log_tau)
    prior = 0.5 * tau * jnp.sum(w**2) - 1.5 * jnp.log(tau / (2 * jnp.pi))
    return 0.5 * jnp.sum(r**2) + y.size * jnp.log(0.3 * jnp.sqrt(2 * jnp.pi)) + prior


def exact(log_tau):
    """Posterior mean and covariance, and the log evidence, by numpy and SciPy."""
    precision = X.T @ X / 0.09 + np.exp(log_tau) * np.eye(3)
    covariance = np.linalg.inv(precision)
    marginal = 0.09 * np.eye(15) + X @ X.T * np.exp(-log_tau)
    evidence = scipy.stats.multivariate_normal(np.zeros(15), marginal).logpdf(Y)
    return covariance @ X.T @ Y / 0.09, covariance, float(evidence)


def posterior(log_tau, dtype="float64", **kwargs):
    mean = exact(log_tau)[0].astype(dtype)
    params = {"b": jnp.asarray(mean[2]), "w": jnp.asarray(mean[:2])}
    args = (jnp.asarray(log_tau, dtype), jnp.asarray(X, dtype), jnp.asarray(Y, dtype))
    return laplace(neg_log_joint, params, args=args, **kwargs)


ORDER = [2, 0, 1]  # "b" comes before "w"


@pytest.mark.slow
def test_a_normal_posterior_is_exact(dtype):
    post = posterior(0.7, dtype)
    _, covariance, evidence = exact(0.7)
    rtol = 1e-3 if dtype == "float32" else 1e-10
    np.testing.assert_allclose(post.covariance, covariance[np.ix_(ORDER, ORDER)], rtol=rtol)
    np.testing.assert_allclose(post.log_evidence, evidence, rtol=rtol / 10)
    np.testing.assert_allclose(post.standard_errors["w"] ** 2, np.diag(covariance)[:2], rtol=rtol)
    np.testing.assert_allclose(
        post.eigenvalues, np.linalg.eigvalsh(np.linalg.inv(covariance)), rtol=rtol
    )
    assert post.names == ("b", "w[0]", "w[1]")
    assert post.distance < 1e-2
    assert post.covariance.dtype == dtype


@pytest.mark.slow
def test_samples_and_derived(float64):
    post = posterior(0.7)
    draws = post.sample(0, 20_000)["w"]
    covariance = exact(0.7)[1][:2, :2]
    allowed = 5 * np.sqrt(2 * np.outer(np.diag(covariance), np.diag(covariance)) / 20_000)
    assert (abs(np.cov(draws.T) - covariance) < allowed).all()
    total = post.derived(lambda p: jnp.sum(p["w"]))
    np.testing.assert_allclose(total.standard_error, np.sqrt(covariance.sum()), rtol=1e-10)


@pytest.mark.slow
def test_the_evidence_is_differentiable(float64):
    fit = lambda t: posterior_at(t).log_evidence
    step = 1e-4
    exact_slope = (exact(0.3 + step)[2] - exact(0.3 - step)[2]) / (2 * step)
    exact_bend = (exact(0.3 + step)[2] - 2 * exact(0.3)[2] + exact(0.3 - step)[2]) / step**2
    np.testing.assert_allclose(jax.grad(fit)(0.3), exact_slope, rtol=1e-6)
    np.testing.assert_allclose(jax.hessian(fit)(0.3), exact_bend, rtol=1e-4)


def posterior_at(log_tau):
    """With the mean as a function of the hyperparameter, closed over."""
    precision = X.T @ X / 0.09 + jnp.exp(log_tau) * jnp.eye(3)
    mean = jnp.linalg.solve(precision, X.T @ Y / 0.09)
    fn = lambda p: neg_log_joint(p, log_tau, X, Y)
    return laplace(fn, {"b": mean[2], "w": mean[:2]})


def test_units_do_not_matter(float64):
    units = np.array([1e-9, 1.0, 1e9])
    fn = lambda p: 0.5 * jnp.sum((p * units) ** 2) + 0.25 * (p[0] * units[0]) * (p[2] * units[2])
    post = laplace(fn, jnp.zeros(3))
    matrix = np.eye(3)
    matrix[0, 2] = matrix[2, 0] = 0.25
    wanted = np.linalg.inv(matrix) / np.outer(units, units)
    np.testing.assert_allclose(post.covariance, wanted, rtol=1e-12)
    log_det = np.linalg.slogdet(matrix)[1]
    np.testing.assert_allclose(post.log_evidence, 1.5 * np.log(2 * np.pi) - log_det / 2, rtol=1e-12)


@pytest.mark.slow
def test_a_mean_times_the_number_of_data(float64):
    mean = lambda m: 0.5 * jnp.mean((Y - m) ** 2)
    total = lambda m: 0.5 * jnp.sum((Y - m) ** 2)
    ours = laplace(mean, jnp.array(Y.mean()), num_data=15)
    theirs = laplace(total, jnp.array(Y.mean()))
    for name in ("covariance", "log_evidence", "value", "eigenvalues"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-12)


@pytest.mark.slow
def test_other_curvatures(float64):
    loss = hesskit.least_squares_loss(lambda p: jnp.asarray(X) @ p - Y)
    params = jnp.asarray(np.linalg.lstsq(X, Y)[0])
    full = laplace(loss, params)
    for curvature in ("gauss_newton", hesskit.hessian_operator(loss, params)):
        post = laplace(loss, params, curvature=curvature)
        np.testing.assert_allclose(post.covariance, full.covariance, rtol=1e-10)
    damped = laplace(loss, params, curvature=hesskit.hessian_operator(loss, params).shift(1.0))
    wanted = np.linalg.inv(X.T @ X + np.eye(3))
    np.testing.assert_allclose(damped.covariance, wanted, rtol=1e-10)


# What goes wrong.

AB = {"a": jnp.array(1.0), "b": jnp.array(1.0)}
WRONG = [
    (
        lambda p: -(p["a"] ** 2) - p["b"] ** 2,
        r"negative definite: this is a maximum. laplace expects the negative log posterior; pass "
        r"lambda \*a: -logp\(\*a\)\.",
    ),
    (
        lambda p: p["a"] ** 2 - p["b"] ** 2,
        "the covariance is undefined: 1 of 2 eigenvalues of the Hessian negative, 0 zero; its "
        "curvature is -2 along b. Gradient norm 2.8e[+]00: run minimize first",
    ),
    (
        lambda p: (p["a"] - p["b"]) ** 2,
        "0 of 2 eigenvalues of the Hessian negative, 1 zero; .* along 0.71 [ab] [+]0.71 [ab]",
    ),
    (lambda p: jnp.log(-p["a"]) + p["b"] ** 2, "neg_log_posterior or its gradient is not finite"),
    (lambda p: jnp.abs(p["a"] - 1.0) ** 1.5 + p["b"] ** 2, "is not finite at params"),
]


@pytest.mark.parametrize(("fn", "words"), WRONG)
def test_outside_jit_it_raises(fn, words: str):
    with pytest.raises(ValueError, match=words):
        laplace(fn, AB)


@pytest.mark.parametrize(("fn", "words"), WRONG)
def test_inside_jit_it_is_nan_with_a_sentence(fn, words: str):
    post = jax.jit(lambda p: laplace(fn, p))(AB)
    assert np.isnan(post.log_evidence)
    assert np.isnan(post.covariance).all()
    assert re.search(words, post.message)
    assert jnp.isnan(post.standard_errors["a"])


def test_params_that_are_not_stationary():
    fn = lambda p: 2 * (p["a"] - 1.5) ** 2 + p["b"] ** 4 + p["b"] ** 2
    words = (
        r"gradient norm 2.0e\+00: not stationary, 1 standard deviations from the peak; Laplace is "
        "centered on params as given; run minimize first"
    )
    with pytest.warns(UserWarning, match=words):
        post = laplace(fn, {"a": jnp.array(1.0), "b": jnp.array(0.0)})
    np.testing.assert_allclose(post.covariance, np.diag([0.25, 0.5]), rtol=1e-6)
    assert post.mean["a"] == 1.0
    assert str(post).splitlines()[-1] == post.message


def test_print():
    text = str(posterior(0.7, "float32")).splitlines()
    assert text[0].startswith("Laplace: value ")
    assert ", log evidence " in text[0]
    assert [row.split()[0] for row in text[2:5]] == ["b", "w[0]", "w[1]"]
    assert text[5].endswith("standard deviations from the peak; the Hessian is positive definite")


@pytest.mark.slow
def test_many_under_vmap():
    fn = lambda p, s: 0.5 * s * jnp.sum(p**2)
    scales = jnp.array([1.0, 4.0, -1.0])
    many = jax.vmap(lambda s: laplace(fn, jnp.zeros(2), args=(s,)))(scales)
    np.testing.assert_allclose(many.standard_errors[:2], [[1, 1], [0.5, 0.5]])
    assert np.isnan(many.standard_errors[2]).all()
    assert many.message == "2 of 3 have a positive definite Hessian"
    assert str(many) == "Laplace: 2 of 3 have a positive definite Hessian"
    assert many.sample(0, 5).shape == (3, 5, 2)


def test_bad_calls():
    with pytest.raises(TypeError, match="neg_log_posterior must be a function"):
        laplace(3.0, jnp.ones(2))
    with pytest.raises(TypeError, match="laplace needs real params"):
        laplace(lambda p: jnp.sum(jnp.abs(p) ** 2), jnp.ones(2, complex))
    fn = lambda p: jnp.sum(p**2)
    with pytest.raises(ValueError, match=r"curvature .* must be one of 'hessian', 'gauss_newton'"):
        laplace(fn, jnp.ones(2), curvature="fisher")
    with pytest.raises(ValueError, match="the curvature's params has shape"):
        laplace(fn, jnp.ones(2), curvature=hesskit.hessian_operator(fn, jnp.ones(3)))
    with pytest.raises(ValueError, match=r"num_data must lie in \(0, inf\), got -1"):
        laplace(fn, jnp.ones(2), num_data=-1)
    with pytest.raises(TypeError, match="neg_log_posterior takes all params as one argument"):
        laplace(lambda a, b: a + b, jnp.ones(2))
