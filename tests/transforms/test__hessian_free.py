"""Hessian-free steps against dense algebra; turning back; damping; curvature of other data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit import losses

RNG = np.random.default_rng(0)
X, T = RNG.normal(size=(12, 3)), RNG.normal(size=(12, 2))
P = RNG.normal(size=(3, 2)) / 2
LOSS = hesskit.composite(losses.squared_error(), lambda p, x: jnp.tanh(x @ p))


def data(rows=slice(None)):
    return jnp.asarray(X[rows]), jnp.asarray(T[rows])


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


def test_the_step_is_that_of_the_damped_matrix(float64):
    params, args = jnp.asarray(P), data()
    updates, state = one(hesskit.hessian_free(learning_rate=0.5, damping=0.1), params, args)
    np.testing.assert_allclose(updates.ravel(), 0.5 * dense(params, args, 0.1), rtol=1e-6)
    assert hesskit.last_info(state).num_products <= 10


def test_the_curvature_may_be_that_of_other_data(float64):
    params, args, part = jnp.asarray(P), data(), data(slice(0, 4))
    opt = hesskit.hessian_free(learning_rate=1.0, damping=0.1)
    updates, _ = one(opt, params, args, curvature_args=part)
    np.testing.assert_allclose(updates.ravel(), dense(params, args, 0.1, part), rtol=1e-6)
    named = {"x": part[0], "targets": part[1]}
    again, _ = one(opt, params, args, curvature_args=named)
    np.testing.assert_array_equal(again, updates)


def test_rejected_steps_turn_back_along_the_path_and_spend_no_product(float64):
    """A wall keeps out all but short steps: each rejection raises lambda, and the last is -g."""

    def wall(p, x):
        return jnp.where(jnp.max(jnp.abs(p - P)) < 1e-3, jnp.tanh(x @ p), 1e6 * (1 + x @ p))

    loss = hesskit.composite(losses.squared_error(), wall)
    params, args, opt = jnp.asarray(P), data(), hesskit.hessian_free(damping=1e-3)
    updates, state = one(opt, params, args, loss=loss)
    assert not np.any(updates)
    spent = [int(hesskit.last_info(state).num_products)]
    damping = [float(hesskit.last_info(state).damping)]
    for _ in range(20):
        updates, state = one(opt, params, args, state, loss)
        if np.any(updates):
            break
        spent.append(int(hesskit.last_info(state).num_products))
        damping.append(float(hesskit.last_info(state).damping))
    assert hesskit.last_info(state).accepted
    assert spent[0] > 0
    assert not any(spent[1:])
    np.testing.assert_allclose(np.array(damping[1:]) / damping[:-1], 1.5, rtol=1e-6)
    g = jax.grad(loss)(params, *args)
    cosine = -jnp.vdot(updates, g) / jnp.linalg.norm(updates) / jnp.linalg.norm(g)
    assert cosine > 0.9


def test_damping_follows_the_ratio(float64):
    """Of a linear model the promise is kept: lambda falls by 2/3."""
    loss = hesskit.composite(losses.squared_error(), lambda p, x: x @ p)
    opt, params = hesskit.hessian_free(damping=0.3), jnp.asarray(P)
    _, state = one(opt, params, data(), loss=loss)
    info = hesskit.last_info(state)
    assert info.accepted
    assert info.ratio > 0.75
    assert info.damping == pytest.approx(0.2)


def test_a_warm_start_begins_where_the_last_solution_ended(float64):
    """At the same point and data with warm_start=1 nothing is left to do."""
    params, args = jnp.asarray(P), data()
    products = {}
    for warm in (0.0, 1.0):
        opt = hesskit.hessian_free(learning_rate=1.0, damping=0.1, warm_start=warm)
        _, state = one(opt, params, args)
        _, state = one(opt, params, args, state)
        products[warm] = int(hesskit.last_info(state).num_products)
    assert products[1.0] <= 4 < products[0.0]


def test_it_needs_the_outputs():
    opt, p = hesskit.hessian_free(), jnp.ones(2)
    for extra in ({}, {"curvature_args": ()}):
        with pytest.raises(TypeError, match=r"hessian_free.* needs the residuals"):
            opt.update(p, opt.init(p), p, value_fn=lambda p: jnp.sum(p**2), **extra)
