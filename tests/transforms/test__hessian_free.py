"""Hessian-free steps against dense algebra; turning back; damping; curvature of other data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit import losses
from hesskit.core import objective

RNG = np.random.default_rng(0)
X, T = RNG.normal(size=(12, 3)), RNG.normal(size=(12, 1))
P = RNG.normal(size=(3, 1)) / 2  # three numbers: conjugate gradients end by themselves
LOSS = hesskit.composite(losses.squared_error(), lambda p, x: jnp.tanh(x @ p))


def data(rows=slice(None)):
    return jnp.asarray(X[rows]), jnp.asarray(T[rows])


@functools.partial(jax.jit, static_argnames=("opt", "loss"))
def one(opt, params, args, state=None, loss=LOSS, **more):
    value, grad = jax.value_and_grad(loss)(params, *args)
    state = opt.init(params) if state is None else state
    given = {"value": value, "grad": grad, "value_fn": loss, "args": args}
    updates, state = opt.update(grad, state, params, **given, **more)
    return updates, state


def dense(params, args, damping, curvature=None):
    """-(G + damping)^{-1} g."""
    g = np.asarray(jax.grad(LOSS)(params, *args)).ravel()
    matrix = hesskit.gauss_newton_operator(LOSS, params, args=curvature or args).dense()
    return -np.linalg.solve(np.asarray(matrix) + damping * np.eye(len(g)), g)


@pytest.mark.slow
def test_the_step_is_that_of_the_damped_matrix(float64):
    params, args = jnp.asarray(P), data()
    updates, state = one(hesskit.hessian_free(learning_rate=0.5, damping=0.1), params, args)
    np.testing.assert_allclose(updates.ravel(), 0.5 * dense(params, args, 0.1), rtol=1e-6)
    info = hesskit.last_info(state)
    assert (info.num_products, info.cg_products) == (4, 3)  # one is the preconditioner's
    assert info.cg_residual < 1e-6
    bare = hesskit.hessian_free(learning_rate=0.5, damping=0.1, preconditioner=None)
    again, state = one(bare, params, args)
    np.testing.assert_allclose(again, updates, rtol=1e-6)
    assert hesskit.last_info(state).num_products == 3


@pytest.mark.slow
def test_a_schedule_gives_the_damping_of_the_step(float64):
    params, args = jnp.asarray(P), data()
    schedule = lambda count: 0.1 * 10.0 ** jnp.asarray(count, float)
    opt = hesskit.hessian_free(learning_rate=1.0, damping=schedule, preconditioner=None)
    state = None
    for damping in (0.1, 1.0, 10.0):
        updates, state = one(opt, params, args, state)
        np.testing.assert_allclose(updates.ravel(), dense(params, args, damping), rtol=1e-6)


@pytest.mark.slow
def test_the_first_damping_is_the_mean_curvature(float64):
    """Of a matrix with equal eigenvalues it is that value, found by one product."""
    loss = hesskit.least_squares_loss(lambda p: (3.0**0.5 * p["a"], 3.0**0.5 * p["b"]))
    opt, p = hesskit.hessian_free(preconditioner=None), {"a": jnp.ones(2), "b": jnp.ones(())}
    updates, state = opt.update(jax.grad(loss)(p), opt.init(p), p, value_fn=loss)
    np.testing.assert_allclose(updates["a"], -0.5, rtol=1e-12)
    info = hesskit.last_info(state)
    assert (info.num_products, info.cg_products) == (2, 1)


@pytest.mark.slow
def test_the_curvature_may_be_that_of_other_data(float64):
    params, args, part = jnp.asarray(P), data(), data(slice(0, 4))
    opt = hesskit.hessian_free(learning_rate=1.0, damping=0.1, preconditioner=None)
    updates, _ = one(opt, params, args, curvature_args=part)
    np.testing.assert_allclose(updates.ravel(), dense(params, args, 0.1, part), rtol=1e-6)
    named = {"x": part[0], "targets": part[1]}
    again, _ = one(opt, params, args, curvature_args=named)
    np.testing.assert_array_equal(again, updates)


@pytest.mark.slow
def test_rejected_steps_turn_back_and_spend_no_product(float64):
    """A wall keeps out all but short steps: trials are iterates that were passed, or shortened."""
    scales = np.repeat([1, 0.2], 6)  # the first iterates are short, the last is long
    x = RNG.normal(size=(40, 12)) * scales
    t, damping = x @ (RNG.normal(size=12) / scales**1.5), 1e-3

    def wall(p, x):
        return jnp.where(jnp.max(jnp.abs(p)) < 1e-3, x @ p, 1e6 * (1 + x @ p))

    loss = hesskit.composite(losses.squared_error(), wall)
    fn = objective.real(loss, jnp.zeros(12), args=(jnp.asarray(x), jnp.asarray(t)), caller="t")[0]
    method = hesskit.hessian_free(damping=damping, preconditioner=None).method
    tell = jax.jit(lambda state: method.tell(state, method.evaluate(fn, method.ask(state))))
    state = tell(method.start(jnp.zeros(12)))
    num = int(state.info.num_products)
    g, matrix = np.asarray(state.grad), x.T @ x / 20 + damping * np.eye(12)
    iterates = [krylov(matrix, -g, k) for k in range(1, num + 1)]
    lengths = [np.linalg.norm(s) for s in iterates]
    turned, shortened, whole = 0, 0, lengths[-1]
    for _ in range(30):
        trial, part = np.asarray(method.ask(state)), damping / float(state.info.damping)
        fits = [s for s, length in zip(iterates, lengths, strict=True) if length <= part * whole]
        expected = fits[-1] if fits and part < 1 else part * iterates[-1]
        turned, shortened = turned + (bool(fits) and part < 1), shortened + (not fits)
        np.testing.assert_allclose(trial, expected, rtol=1e-5, atol=1e-7 * whole)
        before, state = state, tell(state)
        if state.info.accepted:
            break
        assert state.info.num_products == 0
        assert 2 <= state.info.damping / before.info.damping <= 4 * (1 + 1e-12)
    assert state.info.accepted
    assert turned
    assert shortened


def krylov(a, b, k):
    """The solution of a x = b by Galerkin's condition in the first k powers: CG's iterate."""
    basis = [b]
    for _ in range(k - 1):
        v = a @ basis[-1]
        basis.append(v / np.linalg.norm(v))
    v = np.linalg.qr(np.stack(basis, 1))[0]
    return v @ np.linalg.solve(v.T @ a @ v, v.T @ b)


@pytest.mark.slow
def test_damping_follows_the_ratio(float64):
    """Of a linear model the promise is kept: lambda falls to a third (Nielsen 1999)."""
    loss = hesskit.composite(losses.squared_error(), lambda p, x: x @ p)
    opt, params = hesskit.hessian_free(damping=0.3, preconditioner=None), jnp.asarray(P)
    _, state = one(opt, params, data(), loss=loss)
    info = hesskit.last_info(state)
    assert info.accepted
    np.testing.assert_allclose(info.ratio, 1.0, rtol=1e-9)
    assert info.damping == pytest.approx(0.1)


@pytest.mark.slow
def test_a_warm_start_begins_along_the_last_solution(float64):
    """At the same point and data one product, of the last direction, finds it again."""
    params, args = jnp.asarray(P), data()
    products = {}
    for warm in (0.0, 0.5, None):
        opt = hesskit.hessian_free(
            learning_rate=1.0, damping=0.1, warm_start=warm, preconditioner=None
        )
        first, state = one(opt, params, args)
        again, state = one(opt, params, args, state)
        np.testing.assert_allclose(again, first, rtol=1e-6)
        products[warm] = int(hesskit.last_info(state).num_products)
    assert products == {0.0: 3, 0.5: 1, None: 1}


def test_it_needs_the_outputs():
    opt, p = hesskit.hessian_free(), jnp.ones(2)
    for extra in ({}, {"curvature_args": ()}):
        with pytest.raises(TypeError, match=r"hessian_free.* needs the residuals"):
            opt.update(p, opt.init(p), p, value_fn=lambda p: jnp.sum(p**2), **extra)
