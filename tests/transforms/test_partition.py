"""A transform for each label: as apart where nothing judges, and never up where one does."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from tests.contracts.support import all_finite, assert_same, types

A = np.random.default_rng(0).normal(size=(9, 3))
Y = np.random.default_rng(1).normal(size=9) + 2
LABELS = {"u": "second", "rate": "first"}


def start(dtype="float32"):
    return {"u": jnp.zeros(3, dtype), "rate": jnp.full((1,), 0.5, dtype)}


def loss(params, target):
    """Separable: a linear model in u whose target is bent by the rate."""
    dtype = params["u"].dtype
    bent = target * (1 + 0.1 * jnp.sin(params["rate"]))
    away = jnp.asarray(A, dtype) @ params["u"] - bent
    return jnp.sum(away**2) / 2 + jnp.sum((params["rate"] - 1) ** 2)


def target(dtype="float32"):
    return jnp.asarray(Y, dtype)


def step(opt, params, state, fn=loss, **data):
    value, grad = jax.value_and_grad(fn)(params, **data)
    return opt.update(grad, state, params, value=value, grad=grad, value_fn=fn, **data)


def best_u(rate):
    return np.linalg.lstsq(A, Y * (1 + 0.1 * np.sin(np.float64(rate))))[0]


@pytest.mark.slow
@pytest.mark.standard_promotion("adam is optax's")
def test_adam_and_newton():
    """After each update u solves the least squares at the *new* rate, and the rate is Adam's."""
    opt = hesskit.partition({"first": optax.adam(0.05), "second": hesskit.newton()}, LABELS)
    adam, params, state = optax.adam(0.05), start(), opt.init(start())
    apart = adam.init(params["rate"])
    run = jax.jit(functools.partial(step, opt, target=target()))
    for _ in range(5):
        grad = jax.grad(loss)(params, target())
        alone, apart = adam.update(grad["rate"], apart)
        updates, state = run(params, state)
        np.testing.assert_allclose(updates["rate"], alone, rtol=1e-4)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["u"], best_u(params["rate"][0]), atol=2e-5)


@pytest.mark.slow
def test_the_judge_never_raises_what_the_others_reached():
    """Nonconvex in u, with a wild rate: f(u+, v+) <= f(u, v+) at every update."""

    def wild(params):
        u, v = params["u"], params["rate"]
        return jnp.sum(jnp.sin(3 * u) * jnp.cos(v[0]) + 0.1 * u**2) + jnp.sum(v**2)

    opt = hesskit.partition({"first": optax.sgd(0.9), "second": hesskit.trust_region()}, LABELS)
    params = {"u": jnp.array([2.0, -1.0, 0.4]), "rate": jnp.full((1,), 1.5)}
    state = opt.init(params)
    run = jax.jit(lambda p, s: step(opt, p, s, fn=wild))
    accepted = []
    for _ in range(12):
        updates, state = run(params, state)
        halfway = {**params, "rate": params["rate"] + updates["rate"]}
        params = optax.apply_updates(params, updates)
        assert wild(params) <= wild(halfway) + 1e-6
        accepted.append(bool(state.inner_states["second"].info.accepted))
    assert any(accepted)


@pytest.mark.standard_promotion("adam is optax's")
def test_first_order_ones_are_those_of_optax_partition():
    each = {"first": optax.sgd(0.1), "second": optax.adam(0.2)}
    label = lambda params: {key: LABELS[key] for key in params}
    for labels in (LABELS, label):
        ours, theirs = hesskit.partition(each, labels), optax.partition(each, labels)
        grad = jax.grad(loss)(start(), target())
        for params in (None, start()):
            updates, _ = ours.update(grad, ours.init(start()), params)
            assert_same(updates, theirs.update(grad, theirs.init(start()), params)[0])


def test_unjudged_second_order_ones_step_side_by_side():
    """With learning_rate= any number may call the objective, each at the old point."""
    rated = hesskit.newton(1.0)
    opt = hesskit.partition({"first": hesskit.newton(0.5), "second": rated}, LABELS)
    updates, _ = jax.jit(functools.partial(step, opt, target=target()))(start(), opt.init(start()))
    np.testing.assert_allclose(updates["u"], best_u(0.5), atol=2e-5)
    assert updates["rate"] != 0


def test_a_chain_that_judges_goes_last_too():
    inner = optax.chain(optax.clip_by_global_norm(1e9), hesskit.newton())
    opt = hesskit.partition({"second": inner, "first": optax.sgd(0.1)}, LABELS)
    updates, _ = step(opt, start(), opt.init(start()), target=target())
    rate = 0.5 + float(updates["rate"][0])
    np.testing.assert_allclose(updates["u"], best_u(rate), atol=2e-5)


def test_aux_data_and_unknown_keywords():
    pair = lambda params, target, **data: (loss(params, target), data["extra"])
    judge = hesskit.newton(has_aux=True)
    opt = hesskit.partition({"second": judge, "first": optax.sgd(0.1)}, LABELS)
    assert opt.has_aux
    grad = jax.grad(loss)(start(), target())
    state = opt.init(start())
    give = functools.partial(opt.update, grad, state, start(), value_fn=pair)
    by_name, _ = give(target=target(), extra=jnp.ones(2), unknown=None)
    assert_same(by_name, give(args={"target": target(), "extra": jnp.ones(2)})[0])


def test_complex_leaves():
    """The judge's gradient is conjugated, as optax passes it."""
    mix = np.asarray(A + 1j * A[::-1], "complex64")

    def fn(params):
        away = mix @ params["u"] - params["rate"] * jnp.asarray(Y, "complex64")
        return jnp.sum(jnp.real(away) ** 2 + jnp.imag(away) ** 2)

    both = optax.chain(optax.clip_by_global_norm(1e9), hesskit.newton())
    start = {"u": jnp.array([1j, 2.0, 0.5], "complex64"), "rate": jnp.array([1j], "complex64")}
    for judge in (hesskit.newton(), both):
        opt = hesskit.partition({"first": optax.set_to_zero(), "second": judge}, LABELS)
        updates, _ = step(opt, start, opt.init(start), fn=fn)
        expected = np.linalg.lstsq(mix, 1j * Y)[0]
        np.testing.assert_allclose(start["u"] + updates["u"], expected, atol=1e-4)


def test_state_is_stable_in_a_scan_and_under_vmap():
    opt = hesskit.partition({"first": optax.sgd(0.2), "second": hesskit.newton()}, LABELS)

    def run(target):
        def body(carry, _):
            updates, state = step(opt, *carry, target=target)
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(body, (start(), opt.init(start())), length=5)[0]

    params, state = jax.jit(jax.vmap(run))(jnp.stack([target(), 2 * target()]))
    for lane in (0, 1):
        rate = float(params["rate"][lane, 0])
        expected = (lane + 1) * best_u(rate)
        np.testing.assert_allclose(params["u"][lane], expected, atol=1e-4)
    assert all_finite(state.inner_states["second"].value)


def test_init_from_shapes_map_params_and_pickle():
    opt = hesskit.partition({"first": optax.sgd(0.2), "second": hesskit.newton_cg()}, LABELS)
    state = opt.init(start())
    assert_same(opt.init(jax.eval_shape(start)), state)
    moved = optax.tree.map_params(opt, lambda leaf: leaf + 1, state)
    assert types(moved) == types(state)
    assert_same(moved.inner_states["second"].grad, {"u": jnp.ones(3), "rate": None})
    assert_same(pickle.loads(pickle.dumps(state)), state)


def test_a_label_without_leaves_does_nothing():
    each = {"first": optax.sgd(0.2), "second": optax.sgd(0.1), "third": hesskit.newton()}
    opt = hesskit.partition(each, LABELS)
    state = opt.init(start())
    grad = jax.grad(loss)(start(), target())
    _, after = opt.update(grad, state, start())
    assert_same(after.inner_states["third"], state.inner_states["third"])


def test_what_is_said_when_it_does_not_fit():
    two = {"first": hesskit.newton(), "second": hesskit.newton_cg()}
    with pytest.raises(ValueError, match=r"one transform that accepts .* got 2: 'first', 'second'"):
        hesskit.partition(two, LABELS).init(start())
    one = {"first": optax.sgd(0.1), "second": hesskit.newton()}
    with pytest.raises(ValueError, match=r"param_labels has 'third'; .* 'first', 'second'"):
        hesskit.partition(one, {"u": "first", "rate": "third"}).init(start())
    with pytest.raises(ValueError, match="param_labels is no prefix of params"):
        hesskit.partition(one, {"u": "first"}).init(start())
    with pytest.raises(TypeError, match="transforms must be a dict by label, got list"):
        hesskit.partition(list(one.values()), LABELS)
    with pytest.raises(TypeError, match=r"partition, for 'second', takes a transform, .* got None"):
        hesskit.partition({**one, "second": None}, LABELS)
    opt = hesskit.partition(one, LABELS)
    grad, state = start(), opt.init(start())
    with pytest.raises(ValueError, match=r"partition.update needs the current params"):
        opt.update(grad, state)
    with pytest.raises(TypeError, match=r"partition.update\(\) needs value_fn=, for a tra"):
        opt.update(grad, state, start())
    with pytest.raises(TypeError, match=r"got obj_fn; pass it as value_fn="):
        opt.update(grad, state, start(), obj_fn=loss)
    with pytest.raises(TypeError, match="needs `target`"):
        opt.update(grad, state, start(), value_fn=loss, Target=target())
    with pytest.raises(ValueError, match=r"value_fn returned shape \(1,\)"):
        opt.update(grad, state, start(), value_fn=lambda p: p["rate"])


def test_a_judge_inside_a_wrapper_is_counted():
    """Two that judge, in masks or with a line search of optax, would climb together."""
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    labels = {"a": "x", "b": "y"}
    zoom = hesskit.lbfgs(linesearch=optax.scale_by_zoom_linesearch(5))
    for one in (hesskit.masked(hesskit.newton(), "a"), zoom):
        opt = hesskit.partition({"x": one, "y": hesskit.newton()}, labels)
        with pytest.raises(ValueError, match="one transform that accepts its own steps, got 2"):
            opt.init(params)
