"""The line search behind other optimizers: never an increase, within its limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from hesskit.core.status import Status
from tests.marks import slow_but

CURVATURES = np.array([1.0, 3.0, 10.0])
NUM_STEPS = 60


def ellipse(x):
    return jnp.sum(jnp.asarray(CURVATURES, x.dtype) * (x - 1) ** 2) / 2


def waves(x):
    return ellipse(x) + 5 * jnp.sum(jnp.cos(3 * x))


def hyperbolas(x):
    return jnp.sum(jnp.sqrt(1 + jnp.asarray(CURVATURES, x.dtype) * x**2))


FUNCTIONS = [ellipse, waves, hyperbolas]


def chosen(x, which):
    return jax.lax.switch(which, FUNCTIONS, x)


def search(**options):
    return hesskit.scale_by_hager_zhang_linesearch(**options)


CHAINS = {
    "sgd": lambda: optax.chain(optax.sgd(1.0), search()),
    "momentum": lambda: optax.chain(optax.sgd(1.0, momentum=0.9), search()),
    "adam": lambda: optax.chain(optax.adam(1.0), search()),
    "lbfgs": lambda: optax.chain(hesskit.scale_by_lbfgs(), optax.scale(-1.0), search()),
    "uphill": lambda: optax.chain(optax.sgd(-1.0), search()),
    "noise": lambda: optax.chain(optax.set_to_zero(), search()),
}


@functools.cache
def program(name, dtype):
    """A scan over updates; with `dtype` as a part of the key."""
    del dtype
    opt = CHAINS[name]()

    def step(carry, _):
        x, state, which = carry
        value, grad = jax.value_and_grad(chosen)(x, which)
        updates, state = opt.update(
            grad, state, x, value=value, grad=grad, value_fn=chosen, which=which
        )
        row = x, value, updates, state[-1].info
        return (optax.apply_updates(x, updates), state, which), row

    return jax.jit(lambda x, k: jax.lax.scan(step, (x, opt.init(x), k), length=NUM_STEPS)[1])


@pytest.mark.standard_promotion("optax.adam promotes")
@pytest.mark.parametrize("name", slow_but(CHAINS, "momentum", "uphill"))
def test_never_an_increase(name, dtype):
    for which, fn in enumerate(FUNCTIONS):
        x = jnp.array([3.0, -2.0, 0.5], dtype)
        rows = program(name, str(dtype))(x, np.int32(which))
        points, values, updates, info = jax.device_get(rows)
        noise = 10 * float(jnp.finfo(dtype).eps) * np.abs(values[:-1])
        assert np.all(np.diff(values) <= noise)
        assert np.all(np.isfinite(points))
        moved = np.linalg.norm(updates, axis=1) > 0
        np.testing.assert_array_equal(info.accepted, moved)
        searched = info.num_values > 0
        assert np.all((info.num_values >= info.num_linesearch_steps)[searched])
        if fn is ellipse:
            np.testing.assert_allclose(
                points[-1], 1, atol={"adam": 0.5, "momentum": 0.02}.get(name, 1e-3)
            )


def once(opt, fn, x, **more):
    """One update, compiled: the updates and the Info."""

    @jax.jit
    def run(x):
        value, grad = jax.value_and_grad(fn)(x)
        more_ = {"value": value, "grad": grad, **more}
        updates, state = opt.update(grad, opt.init(x), x, value_fn=fn, **more_)
        return updates, state[-1].info

    return run(x)


@pytest.mark.slow
def test_an_uphill_direction_is_replaced_by_minus_the_gradient(float64):
    """Whatever comes in, what goes out is along -grad."""
    x = jnp.array([3.0, -2.0, 0.5])
    g = np.asarray(jax.grad(ellipse)(x))
    for rate in (-1.0, -1e-8, 0.0):
        updates, info = once(optax.chain(optax.sgd(rate), search()), ellipse, x)
        cosine = -(updates @ g) / np.linalg.norm(updates) / np.linalg.norm(g)
        np.testing.assert_allclose(cosine, 1, rtol=1e-12)
        assert info.accepted
    updates, _ = once(optax.chain(optax.scale(-jnp.array([1.0, 0.5, 0.1])), search()), ellipse, x)
    ratio = np.asarray(updates) / (np.array([1.0, 0.5, 0.1]) * g)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)  # a descent direction is kept


@pytest.mark.parametrize(("delta", "sigma"), [(0.1, 0.9), (0.4, 0.5), (0.01, 0.02)])
def test_the_two_conditions_are_met(delta, sigma, float64):
    """Computed here from x and x + u, for gradients and functions of three kinds."""
    opt = optax.chain(optax.sgd(1.0), search(slope_rtol=delta, curv_rtol=sigma))

    @jax.jit
    def run(x, which):
        value, grad = jax.value_and_grad(chosen)(x, which)
        more = {"value": value, "grad": grad, "which": which}
        updates, state = opt.update(grad, opt.init(x), x, value_fn=chosen, **more)
        return updates, state[-1].info

    for which, fn in enumerate(FUNCTIONS):
        x = jnp.array([3.0, -2.0, 0.5])
        updates, info = run(x, np.int32(which))
        g, after = (np.asarray(jax.grad(fn)(at)) for at in (x, x + updates))
        down, turned = g @ updates, after @ updates
        excess = float(fn(x + updates) - fn(x) - delta * down)
        assert turned >= sigma * down
        assert excess <= 0 or (fn(x + updates) < fn(x) and turned <= (2 * delta - 1) * down)
        np.testing.assert_allclose(info.decrease_error, max(excess, 0), atol=1e-12)
        assert info.curvature_error == 0
        np.testing.assert_allclose(updates, -info.learning_rate * g, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("most", [1e-3, 0.5, 3.0])
def test_the_longest_length_is_respected(most, float64):
    """Along a line that falls for ever, and in a valley that lies farther."""
    opt = optax.chain(optax.sgd(1.0), search(max_learning_rate=most))
    valley = lambda x: jnp.sum((x - 1) ** 2) / 200
    for fn in (lambda x: jnp.sum(x), valley):
        _, info = once(opt, fn, jnp.array([3.0, -2.0, 0.5]))
        assert info.accepted
        np.testing.assert_allclose(info.learning_rate, most, rtol=1e-12)


@pytest.mark.parametrize("most", [1, 2, 4])
def test_the_budget_is_respected(most):
    """Nothing is finite but the start: one search along what came, one along -grad, no step."""
    opt = optax.chain(optax.sgd(1.0), search(max_linesearch_steps=most))
    wall = lambda x: jnp.where(jnp.all(x == 1), jnp.sum(x), jnp.nan)
    updates, info = once(opt, wall, jnp.ones(3))
    assert info.num_linesearch_steps == most
    assert info.num_values == 2 * most
    np.testing.assert_array_equal(updates, 0)
    assert not info.accepted
    assert info.status == Status.NONFINITE_TRIALS
    # After a decrease the budget ends with the best point, asked again where it is not the last.
    edge = lambda x: jnp.where(jnp.max(jnp.abs(x - 1)) < 1.5, jnp.sum(x), jnp.nan)
    updates, info = once(opt, edge, jnp.ones(3))
    assert info.accepted
    assert most <= info.num_values <= most + 1
    assert np.all(np.asarray(updates) <= -1)


def test_the_first_evaluation_is_a_trial_if_value_and_gradient_come_along():
    opt, x = optax.chain(optax.sgd(0.1), search()), jnp.array([1.5, 0.5, 1.0])
    flat = lambda x: 5 * jnp.sum((x - 1) ** 2)
    _, known = once(opt, flat, x)
    _, alone = once(opt, flat, x, value=None, grad=None)
    assert (int(known.num_values), int(alone.num_values)) == (1, 2)


def test_bad_arguments():
    for options, words in [
        ({"max_linesearch_steps": 0}, "max_linesearch_steps"),
        ({"max_learning_rate": 0.0}, "max_learning_rate"),
        ({"max_learning_rate": -1.0}, "max_learning_rate"),
        ({"slope_rtol": 0.0}, "slope_rtol"),
        ({"slope_rtol": 0.6}, "slope_rtol"),
        ({"curv_rtol": 1.5}, "curv_rtol"),
        ({"curv_rtol": float("nan")}, "curv_rtol"),
    ]:
        with pytest.raises(ValueError, match=words):
            search(**options)
    with pytest.raises(TypeError, match="curv_rtol"):
        search(curv_rtol="strong")
