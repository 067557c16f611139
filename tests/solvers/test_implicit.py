"""Derivatives of answers: closed forms, unrolled Newton steps, central differences in float64."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg

import hesskit
from tests.contracts.test_copies import _inner

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3))
LABELS = (X[:, 0] + RNG.normal(size=30) > 0).astype(int)
TARGET = X @ [1.0, -2.0, 0.5] + 0.5 * RNG.normal(size=30)


def logistic(w, log_tau, x, labels):
    z = x @ w
    prior = 0.5 * jnp.exp(log_tau) * jnp.sum(w**2)
    return jnp.sum(jax.nn.softplus(z) - labels.astype(z.dtype) * z) + prior


@jax.jit
def unrolled(log_tau):
    """Nine Newton steps, each differentiated."""

    def step(w, _):
        at = (w, log_tau, jnp.asarray(X), jnp.asarray(LABELS))
        return w - jnp.linalg.solve(jax.hessian(logistic)(*at), jax.grad(logistic)(*at)), None

    return jax.lax.scan(step, jnp.zeros(3), length=9)[0]


def close(found, expected, rtol=1e-8, atol=1e-10):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol), found, expected
    )


def central(fn, at, h=1e-5):
    return jax.tree.map(lambda a, b: (a - b) / (2 * h), fn(at + h), fn(at - h))


def by_args(log_tau):
    result = hesskit.minimize(logistic, jnp.zeros(3), args=(log_tau, X, LABELS))
    return result.params, result.value


@pytest.mark.slow
def test_all_modes_agree_with_unrolled_newton_steps(float64):
    def truth(t):
        w = unrolled(t)
        return w, logistic(w, t, jnp.asarray(X), jnp.asarray(LABELS))

    first, second = jax.jit(lambda t: (jax.jacfwd(truth)(t), jax.jacfwd(jax.jacfwd(truth))(t)))(0.3)
    forward = jax.jacfwd(by_args)(0.3)
    close(forward, first)
    close(jax.jacrev(by_args)(0.3), forward)
    close(jax.jacfwd(jax.jacrev(by_args))(0.3), second)


@pytest.mark.slow
def test_a_closure_is_data(float64):
    """Labels are traced integers of a jit inside; the loop is mapped, and the map derived."""

    @jax.jit
    def total(taus, labels):
        run = lambda t: hesskit.minimize(lambda w: logistic(w, t, X, labels), jnp.zeros(3))
        return jnp.sum(jax.vmap(lambda t: run(t).params)(taus))

    taus = jnp.array([0.3, -0.5])
    truth = jax.jit(jax.grad(lambda taus: jnp.sum(jax.vmap(unrolled)(taus))))
    close(jax.grad(total)(taus, jnp.asarray(LABELS)), truth(taus))


def ridge(log_lam):
    x, y = jnp.asarray(X[:20]), jnp.asarray(TARGET[:20])
    loss = hesskit.least_squares_loss(lambda w: x @ w - y) + hesskit.l2(jnp.exp(log_lam))
    return hesskit.minimize(loss, jnp.zeros(3)).params


def exact_ridge(log_lam):
    x, y = jnp.asarray(X[:20]), jnp.asarray(TARGET[:20])
    return jnp.linalg.solve(x.T @ x + jnp.exp(log_lam) * jnp.eye(3), x.T @ y)


@pytest.mark.slow
def test_a_validation_loss_of_ridge_regression(float64):
    """The strength stands in a structured objective; its gradient and Hessian are known."""

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(fit, t):
        loss = lambda t: jnp.mean((jnp.asarray(X[20:]) @ fit(t) - TARGET[20:]) ** 2)
        return jax.jvp(jax.grad(loss), (t,), (jnp.ones_like(t),))

    close(derivatives(ridge, jnp.array(0.7)), derivatives(exact_ridge, jnp.array(0.7)))


def decay(p, x):
    return p["a"] * jnp.exp(-p["k"] * x)


@pytest.mark.slow
def test_a_fit_in_its_data(float64):
    """Residuals that do not vanish: J'J in place of the Hessian would be 5 % wrong."""
    x, y = jnp.asarray(np.linspace(0, 2, 15)), 2 * np.exp(-1.3 * np.linspace(0, 2, 15))
    y = jnp.asarray(y + 0.3 * RNG.normal(size=15))

    def fit(t):
        """Data, places and errors move, one each."""
        sigma = jnp.full(15, 0.1).at[2].add(t[2])
        moved = (x.at[4].add(t[1]), y.at[3].add(t[0]))
        start = {"a": jnp.array(1.0), "k": jnp.array(1.0)}
        fit = hesskit.curve_fit(decay, *moved, start, sigma=sigma)
        return fit.params, fit.standard_errors, fit.chi2, fit.aux, fit.band(jnp.ones(1)).value

    found = jax.jacrev(fit)(jnp.zeros(3))
    for i in range(3):
        expected = central(lambda s, i=i: fit(jnp.zeros(3).at[i].set(s)), 0.0)
        close(jax.tree.map(lambda a, i=i: a[..., i], found), expected, rtol=1e-5, atol=1e-6)
    rows = jax.jacobian(lambda p: decay({"a": p[0], "k": p[1]}, x) / 0.1)
    params = fit(jnp.zeros(3))[0]
    j = rows(jnp.stack([params["a"], params["k"]]))
    wrong = np.linalg.solve(j.T @ j, j[3] / 0.1)
    assert abs(found[0]["k"][0] / wrong[1] - 1) > 0.05


MATRIX = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 2.0]])


@pytest.mark.slow
def test_bounds_and_held_leaves_are_data(float64):
    """On the face p[0] = u with s held: A_ff x_f = s b_f - A_fa u."""

    def fn(p, b):
        return 0.5 * p["x"] @ jnp.asarray(MATRIX) @ p["x"] - p["s"] * b @ p["x"]

    @jax.jacrev
    def found(t):
        start = {"s": t["s"], "x": jnp.zeros(3)}
        upper = {"s": jnp.inf, "x": jnp.array([jnp.inf, 9.0, 9.0]).at[0].set(t["u"])}
        result = hesskit.minimize(
            fn, start, args=(t["b"],), fixed="s", bounds=({"s": -jnp.inf, "x": -jnp.inf}, upper)
        )
        return result.params, result.value

    def truth(t):
        a = jnp.asarray(MATRIX)
        rest = jnp.linalg.solve(a[1:, 1:], t["s"] * t["b"][1:] - a[1:, 0] * t["u"])
        params = {"s": t["s"], "x": jnp.concatenate([t["u"][None], rest])}
        return params, fn(params, t["b"])

    at = {"b": jnp.array([5.0, 1.0, 1.0]), "s": jnp.array(1.5), "u": jnp.array(0.5)}
    close(found(at), jax.jacfwd(truth)(at))


@pytest.mark.slow
def test_aux_complex_leaves_and_keys(float64):
    """The answer is z = t w with w drawn from a key; counts in aux have no derivative."""

    def fn(z, t, key):
        w = jax.lax.complex(*jax.random.normal(key, (2, 2)))
        aux = {"count": jnp.sum(z.real > 0), "square": t * jnp.abs(z) ** 2}
        return jnp.sum((z - t * w).real ** 2 + (z - t * w).imag ** 2), aux

    def run(t):
        start = jnp.zeros(2, complex)
        result = hesskit.minimize(fn, start, args=(t, jax.random.key(0)), has_aux=True)
        return result.params, result.aux["square"]

    w = jax.lax.complex(*jax.random.normal(jax.random.key(0), (2, 2)))
    close(jax.jacfwd(run)(0.7), (w, 3 * 0.7**2 * jnp.abs(w) ** 2))
    close(jax.jacrev(lambda t: run(t)[1])(0.7), 3 * 0.7**2 * jnp.abs(w) ** 2)


@pytest.mark.slow
def test_no_tangent_where_there_is_none():
    """One lane converges, one may not, one has no single minimum; what is masked harms nobody."""

    def fn(p, t, curvature):
        return (p[0] + p[1] - t) ** 2 + curvature * jnp.sum(p**2)

    @functools.partial(jax.vmap, in_axes=(None, 0, 0))
    def run(t, curvature, max_steps):
        result = hesskit.minimize(fn, jnp.zeros(2), args=(t, curvature), max_steps=max_steps)
        return jnp.sum(result.params), result.value, result.success

    cases = jnp.array([1.0, 1.0, 0.0]), jnp.array([50, 0, 50])
    totals, values = jax.jacfwd(lambda t: run(t, *cases)[:2])(3.0)
    np.testing.assert_allclose(totals, [2 / 3, np.nan, np.nan], rtol=1e-5)
    np.testing.assert_allclose(values, [2.0, np.nan, 0.0], rtol=1e-5, atol=1e-5)

    def masked(t):
        total, _, success = run(t, *cases)
        return jnp.sum(jnp.where(success & (cases[0] > 0), total, 0))

    np.testing.assert_allclose(jax.grad(masked)(3.0), 2 / 3, rtol=1e-5)


def shapes(jaxpr):
    """Of all arrays in a program."""
    for eqn in jaxpr.eqns:
        yield from (v.aval.shape for v in eqn.outvars if hasattr(v.aval, "shape"))
        for inner in jax.tree.leaves(_inner(eqn.params)):
            yield from shapes(inner)


@pytest.mark.slow
def test_many_parameters_without_a_matrix(float64):
    n = 2000
    diagonal = jnp.linspace(2.0, 50.0, n)

    def fn(p, t):
        return 0.5 * jnp.sum(diagonal * p**2) + 0.5 * jnp.sum(p[1:] * p[:-1]) - t * jnp.sum(p)

    last = lambda t: hesskit.minimize(fn, jnp.zeros(n), args=(t,)).params[-1]
    program = jax.jit(jax.grad(last)).trace(1.0)
    sizes = {int(np.prod(shape)) for shape in shapes(program.jaxpr.jaxpr)}
    assert n in sizes
    assert max(sizes) < 100 * n
    banded = np.stack([np.full(n, 0.5), np.asarray(diagonal)])
    expected = scipy.linalg.solveh_banded(banded, np.ones(n))[-1]
    np.testing.assert_allclose(program.lower().compile()(1.0), expected, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.standard_promotion("optax.adam promotes")
def test_an_optimizer_of_another_library(float64):
    run = lambda t: hesskit.minimize(
        logistic, jnp.zeros(3), optax.adam(0.1), args=(t, X, LABELS), max_steps=3000
    )
    close(jax.jacrev(lambda t: run(t).params)(0.3), jax.jacfwd(unrolled)(0.3), rtol=1e-6)


@pytest.mark.slow
def test_a_loss_without_forward_mode(float64):
    """Inside a scan nothing but transposition gets through."""

    @jax.custom_vjp
    def fourth(x):
        return x**4

    fourth.defvjp(lambda x: (x**4, x), lambda x, g: (4 * g * x**3,))

    def fn(p, t):
        total, _ = jax.lax.scan(lambda c, x: (c + fourth(x * t), None), jnp.zeros(()), p)
        return total + jnp.sum(p**2) - t * jnp.sum(p)

    run = lambda t: hesskit.minimize(fn, jnp.zeros(2), args=(t,)).params[0]
    close(jax.grad(run)(1.0), central(run, 1.0), rtol=1e-7)


@pytest.mark.slow
def test_the_evidence_in_a_closure(float64):
    """Empirical Bayes as everyone writes it; second derivatives too."""

    def evidence(log_tau):
        def fn(p):
            w = jnp.concatenate([p["w"], p["b"][None]])
            prior = 0.5 * jnp.exp(log_tau) * jnp.sum(p["w"] ** 2) - log_tau  # none of b
            return logistic(w, -jnp.inf, jnp.asarray(X), jnp.asarray(LABELS)) + prior

        post = hesskit.laplace(
            fn, hesskit.minimize(fn, {"w": jnp.zeros(2), "b": jnp.zeros(())}).params
        )
        return post.log_evidence, post.standard_errors

    @jax.jit
    def derivatives(t):
        slope = lambda t: jax.jvp(evidence, (t,), (1.0,))
        return jax.jvp(slope, (t,), (1.0,))

    (_, slope), found = derivatives(0.2)
    close(found, central(lambda t: derivatives(t)[0], 0.2), rtol=1e-6)
    close(jax.jit(jax.grad(lambda t: evidence(t)[0]))(0.2), slope[0])


@pytest.mark.slow
def test_who_asks_for_no_derivative_pays_nothing(float64, caplog):
    """No trace of the function more than without; a second gradient compiles nothing."""
    calls = []

    def fn(w, t):
        calls.append(w)
        return jnp.sum((w - t) ** 4 + w**2)

    run = lambda t: hesskit.minimize(fn, jnp.zeros(2), args=(t,)).params
    eager = run(jnp.array(1.0))
    num_calls = len(calls)
    np.testing.assert_array_equal(jax.jit(run)(jnp.array(1.0)), eager)
    assert len(calls) == num_calls
    slope = jax.grad(lambda t: jnp.sum(run(t)))
    slope(jnp.array(1.0))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        slope(jnp.array(2.0))
    assert not [r for r in caplog.records if r.getMessage().startswith("Compiling")]
