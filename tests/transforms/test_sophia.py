"""Sophia against a plain transcription of algorithm 3, its clip, its two estimators."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from tests.contracts.support import assert_same
from tests.transforms.separable import START, curvature, run, slope, waves


def transcription(x, num, *, rate, b1, b2, eps, gamma, clip, decay, interval):
    """Liu et al. (2023), algorithm 3, line by line."""
    m, h, points = np.zeros_like(x), np.zeros_like(x), []
    for t in range(1, num + 1):
        lr = rate(t - 1) if callable(rate) else rate
        m = b1 * m + (1 - b1) * slope(x)
        if interval == 1 or t % interval == 1:
            h = b2 * h + (1 - b2) * curvature(x)
        x = x - lr * decay * x - lr * np.clip(m / np.maximum(gamma * h, eps), -clip, clip)
        points.append(x)
    return np.array(points)


@pytest.mark.parametrize(
    ("interval", "decay", "clip", "gamma"),
    [(10, 0.0, 1.0, 0.01), (1, 0.1, 1.0, 0.05), (3, 0.2, 0.3, 0.5)],
)
def test_steps_are_those_of_the_published_algorithm(float64, interval, decay, clip, gamma):
    given = {"b1": 0.9, "b2": 0.8, "eps": 1e-12, "gamma": gamma}
    opt = hesskit.sophia(
        0.05, clip_threshold=clip, weight_decay=decay, update_interval=interval, **given
    )
    points, infos = run(opt, waves, jnp.asarray(START), 25)
    rows = {"rate": 0.05, "clip": clip, "decay": decay, "interval": interval}
    expected = transcription(START, 25, **given, **rows)
    np.testing.assert_allclose(np.array(points), expected, rtol=1e-9)
    assert [bool(info.renewed) for info in infos] == [t % interval == 0 for t in range(25)]


def test_defaults_are_the_published_ones(float64):
    points, _ = run(hesskit.sophia(0.05), waves, jnp.asarray(START), 25)
    given = {"b1": 0.96, "b2": 0.99, "eps": 1e-12, "gamma": 0.01, "clip": 1.0}
    expected = transcription(START, 25, rate=0.05, decay=0.0, interval=10, **given)
    np.testing.assert_allclose(np.array(points), expected, rtol=1e-9)


def test_a_schedule_sees_the_count(float64):
    rate = lambda count: 0.1 * 0.5 ** jnp.asarray(count, float)
    points, _ = run(hesskit.sophia(rate), waves, jnp.asarray(START), 6)
    given = {"b1": 0.96, "b2": 0.99, "eps": 1e-12, "gamma": 0.01, "clip": 1.0}
    expected = transcription(START, 6, rate=rate, decay=0.0, interval=10, **given)
    np.testing.assert_allclose(np.array(points), expected, rtol=1e-9)


def test_negative_and_small_curvature_is_a_step_by_signs(float64):
    fn = lambda x: (
        jnp.sum(jnp.array([-3.0, 1e-9, 0.0, 50.0]) * x**2) / 2
        + jnp.sum(jnp.array([0.0, 0.0, -2.0, 0.0]) * x)
    )
    x = jnp.array([0.2, 0.3, 0.4, 0.5])
    opt = hesskit.sophia(0.01, b1=0.0, b2=0.0, gamma=1.0)
    updates, state = opt.update(jax.grad(fn)(x), opt.init(x), x, value_fn=fn)
    np.testing.assert_allclose(updates, [0.01, -0.003, 0.01, -0.005], rtol=1e-6)
    assert state.info.unclipped == 0.5
    assert np.all(np.abs(updates) <= 0.01)
    free = hesskit.sophia(0.01, b1=0.0, b2=0.0, gamma=1.0, eps=1e-2, clip_threshold=None)
    updates, state = free.update(jax.grad(fn)(x), free.init(x), x, value_fn=fn)
    np.testing.assert_allclose(updates, [0.6, -0.3e-9, 2.0, -0.005], rtol=1e-6)
    assert state.info.unclipped == 1


def logits(p, x):
    return x @ p["w"] + jnp.broadcast_to(p["b"], (x.shape[0], 3))


LOSS = hesskit.composite(hesskit.losses.softmax_cross_entropy(), logits)


def regression(num=8):
    rng = np.random.default_rng(4)
    x, t = jnp.asarray(rng.normal(size=(num, 2))), jnp.asarray(rng.integers(0, 3, num))
    return {"w": jnp.asarray(rng.normal(size=(2, 3))), "b": jnp.zeros(3)}, (x, t)


@pytest.mark.slow
@pytest.mark.parametrize("num_samples", [1, 4])
def test_gauss_newton_bartlett_is_unbiased_and_no_squared_gradient(float64, num_samples):
    params, data = regression()
    ravel = lambda p: jax.flatten_util.ravel_pytree(p)[0]
    grad = jax.grad(LOSS)(params, *data)

    def estimate(key):
        opt = hesskit.sophia(
            0.1, b2=0.0, estimator="gnb", num_samples=num_samples, key=key, update_interval=1
        )
        _, state = opt.update(grad, opt.init(params), params, value_fn=LOSS, args=data)
        return ravel(state.nu), state.info

    rows, info = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(1), 4000))
    rows = np.asarray(rows)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    truth = np.diag(jax.hessian(lambda v: LOSS(unravel(v), *data))(flat))
    error = rows.std(axis=0) / len(rows) ** 0.5
    assert np.all(np.abs(rows.mean(axis=0) - truth) <= 5 * error)
    assert rows.min() >= 0
    assert np.linalg.norm(len(data[0]) * np.asarray(ravel(grad)) ** 2 - truth) > 20 * error.max()
    assert np.all(info.num_products == 0)
    assert np.all(info.num_grads == num_samples)


def test_gnb_needs_a_distribution():
    opt = hesskit.sophia(0.1, estimator="gnb")
    x = jnp.ones(2)
    said = r'sophia\(estimator="gnb"\) needs the distribution of the outputs'
    for fn in (waves, hesskit.composite(lambda z: jnp.sum(z**4), lambda p: p)):
        with pytest.raises(TypeError, match=said):
            opt.update(x, opt.init(x), x, value_fn=fn)


@pytest.mark.slow
def test_gnb_of_some_leaves_is_their_block():
    """`hesskit.freeze` keeps the structure: the same draws as with b closed over."""
    params, (x, t) = regression()
    params, x = jax.tree.map(lambda a: a.astype("float32"), (params, x))
    frozen = hesskit.freeze(hesskit.sophia(0.1, estimator="gnb"), "b")
    held = hesskit.composite(LOSS.outer, lambda w, x: logits({**params, "w": w}, x))
    grad = jax.grad(LOSS)(params, x, t)
    _, state = frozen.update(grad, frozen.init(params), params, value_fn=LOSS, args=(x, t))
    alone = hesskit.sophia(0.1, estimator="gnb")
    _, other = alone.update(
        grad["w"], alone.init(params["w"]), params["w"], value_fn=held, args=(x, t)
    )
    np.testing.assert_allclose(state.inner_state.nu["w"], other.nu, rtol=1e-5)
    assert jnp.all(other.nu > 0)


def test_gnb_with_a_penalty_and_least_squares(float64):
    """Residuals r = x - 3 and the prior: curvature 1 + 0.5 in the mean."""
    loss = hesskit.least_squares_loss(lambda x: x - 3.0) + hesskit.l2(0.5)
    opt = hesskit.sophia(0.1, b2=0.0, estimator="gnb", num_samples=4000)
    x = jnp.zeros(2)
    _, state = opt.update(jax.grad(loss)(x), opt.init(x), x, value_fn=loss)
    np.testing.assert_allclose(state.nu, 1.5, rtol=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["gnb", "hutchinson"])
def test_training_comes_near_the_minimum(estimator):
    params, (x, t) = regression(64)
    params, x = jax.tree.map(lambda a: a.astype("float32"), (params, x))
    points, _ = run(hesskit.sophia(0.02, estimator=estimator), LOSS, params, 200, x, t)
    first, last = (LOSS(p, x, t) for p in (params, points[-1]))
    best = hesskit.minimize(LOSS, params, args=(x, t)).value
    assert last - best < 0.1 * (first - best)


def test_scale_by_sophia_is_for_chains(float64):
    given = {"b1": 0.9, "gamma": 0.05, "key": 3, "update_interval": 2}
    chain = optax.chain(hesskit.scale_by_sophia(**given), optax.scale_by_learning_rate(0.05))
    one, _ = run(chain, waves, jnp.asarray(START), 5)
    whole, _ = run(hesskit.sophia(0.05, **given), waves, jnp.asarray(START), 5)
    np.testing.assert_allclose(np.array(one), np.array(whole), rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"learning_rate": None}, TypeError, r"pass learning_rate, .* sophia\(1e-3\)"),
        ({"learning_rate": -1.0}, ValueError, r"learning_rate must lie in \[0, inf\)"),
        ({"b1": 1.5}, ValueError, r"b1 must lie in \[0, 1\]"),
        ({"b2": -0.1}, ValueError, r"b2 must lie in \[0, 1\]"),
        ({"eps": 0.0}, ValueError, r"eps must lie in \(0, inf\)"),
        ({"gamma": 0.0}, ValueError, r"gamma must lie in \(0, inf\)"),
        ({"clip_threshold": 0.0}, ValueError, r"clip_threshold must lie in \(0, inf\)"),
        ({"weight_decay": -1.0}, ValueError, r"weight_decay must lie in \[0, inf\)"),
        ({"update_interval": 0}, ValueError, "update_interval must be an integer of at least 1"),
        ({"num_samples": 0.5}, ValueError, "num_samples must be an integer of at least 1"),
        ({"estimator": "exact"}, ValueError, "estimator must be one of 'hutchinson', 'gnb'"),
        ({"key": "one"}, TypeError, "key must be an int"),
    ],
    ids=str,
)
def test_wrong_arguments(given, error, said):
    with pytest.raises(error, match=said):
        hesskit.sophia(**{"learning_rate": 0.1, **given})


@pytest.mark.slow
def test_only_the_learning_rate_is_positional():
    with pytest.raises(TypeError, match="positional"):
        hesskit.sophia(0.1, 0.9)
    with pytest.raises(TypeError, match="learning_rate"):
        hesskit.sophia()
    assert hesskit.sophia(0.1) is hesskit.sophia(0.1)
    assert_same(hesskit.sophia(0.1).init(jnp.ones(2)), hesskit.sophia(0.2).init(jnp.ones(2)))
