"""Masked and frozen: the chosen leaves move as if alone, the others pass through or stay."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from tests.contracts.support import assert_same, types

A, B = (np.random.default_rng(0).normal(size=(7, n)) for n in (3, 2))
Y = np.random.default_rng(1).normal(size=7)


def start(dtype="float32"):
    return {"u": jnp.array([0.5, -0.5, 1.0], dtype), "v": {"w": jnp.array([1.5, -2.0], dtype)}}


def loss(params, target):
    """Linear least squares in (u, w)."""
    dtype = params["u"].dtype
    model = jnp.asarray(A, dtype) @ params["u"] + jnp.asarray(B, dtype) @ params["v"]["w"]
    return jnp.sum((model - target) ** 2) / 2


def target(dtype="float32"):
    return jnp.asarray(Y, dtype)


def step(opt, params, state, fn=loss, **data):
    value, grad = jax.value_and_grad(fn)(params, **data)
    return opt.update(grad, state, params, value=value, grad=grad, value_fn=fn, **data)


def solution():
    """The minimizer over u at the start's w, by NumPy."""
    return np.linalg.lstsq(A, Y - B @ np.array([1.5, -2.0]))[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [hesskit.newton_cg, hesskit.trust_region], ids=["newton_cg", "trust_region"]
)
def test_freeze_finds_the_minimizer_over_the_free_leaves(make, dtype):
    opt, about = hesskit.freeze(make(), "v"), target(dtype)
    params, state = start(dtype), opt.init(start(dtype))
    run = jax.jit(functools.partial(step, opt))
    for _ in range(8):
        updates, state = run(params, state, target=about)
        params = optax.apply_updates(params, updates)
    error = np.abs(np.asarray(params["u"]) - solution()).max()
    assert error < 200 * float(jnp.finfo(dtype).eps)
    assert_same(params["v"], start(dtype)["v"])


@pytest.mark.slow
def test_freeze_is_the_inner_transform_alone():
    """The same updates, to the bit, as of `newton` on a function of u only."""
    alone, opt = hesskit.newton(), hesskit.freeze(hesskit.newton(), "v")
    phi = lambda params, target: loss({**start(), **params}, target)
    small = {"u": start()["u"]}
    run = jax.jit(functools.partial(step, opt, target=target()))
    updates, state = run(start(), opt.init(start()))
    same, kept = jax.jit(functools.partial(step, alone, fn=phi, target=target()))(
        small, alone.init(small)
    )
    assert_same(updates["u"], same["u"])
    assert_same(updates["v"]["w"], jnp.zeros(2))
    np.testing.assert_allclose(state.inner_state.info, kept.info, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_masked_passes_other_updates_through():
    opt = hesskit.masked(hesskit.newton(), "u")
    frozen = hesskit.freeze(hesskit.newton(), "v")
    updates, _ = step(opt, start(), opt.init(start()), target=target())
    grad = jax.grad(loss)(start(), target())
    assert_same(updates["v"], grad["v"])
    held, _ = step(frozen, start(), frozen.init(start()), target=target())
    assert_same(updates["u"], held["u"])


@pytest.mark.parametrize(
    "mask",
    [
        {"u": False, "v": True},
        {"u": np.False_, "v": {"w": True}},
        ["v/w"],
        "v/*",
        lambda path, leaf: leaf.shape == (2,),
    ],
)
def test_every_selector(mask):
    opt = hesskit.freeze(hesskit.newton(), mask)
    shape = jax.eval_shape(opt.init, start())
    assert jax.tree.map(jnp.shape, shape.inner_state.grad) == {"u": (3,), "v": {"w": None}}


@pytest.mark.standard_promotion("adam is optax's")
def test_a_transform_without_an_objective():
    """No value_fn, and no params: what `optax.masked` gives."""
    mask = {"u": True, "v": {"w": False}}
    ours, theirs = hesskit.masked(optax.adam(0.1), mask), optax.masked(optax.adam(0.1), mask)
    grad = jax.grad(loss)(start(), target())
    for params in (None, start()):
        updates, _ = ours.update(grad, ours.init(start()), params)
        assert_same(updates, theirs.update(grad, theirs.init(start()), params)[0])
    held, _ = hesskit.freeze(optax.adam(0.1), "v").update(grad, ours.init(start()), start())
    assert_same(held, {"u": updates["u"], "v": {"w": jnp.zeros(2)}})


@pytest.mark.slow
@pytest.mark.standard_promotion("lbfgs is optax's")
def test_optax_lbfgs_inside():
    """It needs value_fn on its own leaves, where `optax.masked` fails."""
    opt = hesskit.freeze(optax.lbfgs(), "v")
    params, state = start(), opt.init(start())
    run = jax.jit(functools.partial(step, opt, target=target()))
    for _ in range(15):
        updates, state = run(params, state)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["u"], solution(), atol=1e-3)
    assert_same(params["v"], start()["v"])


SPELLINGS = {
    "by name": (loss, {"target": target()}),
    "args": (loss, {"args": (target(),)}),
    "args by name": (loss, {"args": {"target": target()}}),
    "unknown keyword": (loss, {"target": target(), "other": 1.0}),
    "keywords": (lambda params, **data: loss(params, data["target"]), {"target": target()}),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_data_in_every_spelling(spelling):
    fn, data = SPELLINGS[spelling]
    params, opt = start(), hesskit.masked(hesskit.newton(), "u")
    grad = jax.grad(loss)(params, target())
    updates, _ = opt.update(grad, opt.init(params), params, value_fn=fn, **data)
    np.testing.assert_allclose(params["u"] + updates["u"], solution(), atol=1e-5)


@pytest.mark.slow
def test_aux():
    pair = lambda params, target: (loss(params, target), {"norm": jnp.sum(params["v"]["w"])})
    opt = hesskit.freeze(hesskit.newton_cg(has_aux=True), "v")
    assert opt.has_aux
    result = hesskit.minimize(pair, start(), opt, args=(target(),), has_aux=True, max_steps=5)
    assert result.aux["norm"] == -0.5
    np.testing.assert_allclose(result.params["u"], solution(), atol=1e-4)


@pytest.mark.slow
def test_minimize_leaves_what_is_held_out_of_its_tests():
    """Neither its gradient, 20, nor its curvature, -2, keeps the run from being a success."""
    fn = lambda p: jnp.sum((p["u"] - 1) ** 2) - 10 * jnp.sum(p["v"]["w"] ** 2)
    opt = hesskit.freeze(hesskit.newton_cg(), "v")
    whole = hesskit.minimize(fn, start(), opt)
    fixed = hesskit.minimize(fn, start(), hesskit.newton_cg(), fixed="v")
    assert whole.success
    assert whole.num_steps < 10
    assert whole.method == "newton_cg"
    assert_same(whole.params, fixed.params)
    assert_same(whole.params["v"], start()["v"])
    both = hesskit.minimize(fn, {**start(), "x": jnp.ones(())}, opt, fixed="x")
    assert both.success


@pytest.mark.standard_promotion("adam is optax's")
@pytest.mark.parametrize("inner", [hesskit.newton(), hesskit.lbfgs(), optax.adam(0.1)])
def test_no_leaf_chosen_is_no_transform(inner):
    """As in `optax.masked`; `freeze` holds all."""
    grad = jax.grad(loss)(start(), target())
    for opt, expected in (
        (hesskit.masked(inner, {"u": False, "v": False}), grad),
        (hesskit.freeze(inner, True), jax.tree.map(jnp.zeros_like, grad)),
    ):
        state = opt.init(start())
        updates, after = step(opt, start(), state, target=target())
        assert_same(updates, expected)
        assert_same(after, state)


@pytest.mark.slow
def test_state_is_stable_in_a_scan_and_under_vmap():
    """Each lane is the run alone."""
    opt = hesskit.freeze(hesskit.newton_cg(), "v")

    def run(target):
        def body(carry, _):
            updates, state = step(opt, *carry, target=target)
            return (optax.apply_updates(carry[0], updates), state), None

        carry, _ = jax.lax.scan(body, (start(), opt.init(start())), length=6)
        return carry[0]

    targets = jnp.stack([target(), -target()])
    lanes = jax.jit(jax.vmap(run))(targets)
    for i, sign in enumerate((1, -1)):
        expected = np.linalg.lstsq(A, sign * Y - B @ np.array([1.5, -2.0]))[0]
        np.testing.assert_allclose(lanes["u"][i], expected, atol=1e-4)
    assert_same(lanes["v"]["w"][1], start()["v"]["w"])


def test_init_from_shapes_map_params_and_pickle():
    opt = hesskit.masked(hesskit.newton_cg(), "u")
    state = opt.init(start())
    assert_same(opt.init(jax.eval_shape(start)), state)
    moved = optax.tree.map_params(opt, lambda leaf: leaf + 1, state)
    assert types(moved) == types(state)
    assert_same(moved.inner_state.grad, {"u": jnp.ones(3), "v": {"w": None}})
    assert_same(moved.inner_state.info, state.inner_state.info)
    assert_same(pickle.loads(pickle.dumps(state)), state)


@pytest.mark.slow
def test_the_derivative_of_a_step_by_a_held_leaf():
    """du/dw of one Newton step is that of the least-squares solution, -A^+ B."""
    opt = hesskit.masked(hesskit.newton(), "u")

    def moved(w):
        params = {**start(), "v": {"w": w}}
        updates, _ = step(opt, params, opt.init(params), target=target())
        return params["u"] + updates["u"]

    jacobian = jax.jacfwd(moved)(start()["v"]["w"])
    np.testing.assert_allclose(jacobian, -np.linalg.pinv(A) @ B, atol=1e-4)


def test_what_is_said_when_it_does_not_fit():
    opt = hesskit.masked(hesskit.newton(), "u")
    state, params = opt.init(start()), start()
    with pytest.raises(ValueError, match=r"mask='x' matches no leaf; the paths are u, v/w"):
        hesskit.masked(hesskit.newton(), "x").init(params)
    with pytest.raises(ValueError, match="mask is no prefix of params"):
        hesskit.freeze(hesskit.newton(), {"u": True}).init(params)
    with pytest.raises(ValueError, match=r"masked.update needs the current params"):
        opt.update(params, state, value_fn=loss)
    with pytest.raises(TypeError, match="value_fn"):
        opt.update(params, state, params)
    with pytest.raises(TypeError, match=r"needs `target`; .*received `Target`.* Did you mean"):
        opt.update(params, state, params, value_fn=loss, Target=target())
    with pytest.raises(TypeError, match=r"args=\{'state': ...\}"):
        opt.update(params, state, params, value_fn=loss, state=target())
    with pytest.raises(ValueError, match=r"selects no leaf; the paths are u, v/w"):
        hesskit.masked(hesskit.newton(), lambda path, leaf: leaf.ndim > 1).init(params)
    still = hesskit.freeze(hesskit.freeze(hesskit.newton(), "u"), "v")
    with pytest.raises(ValueError, match="freeze holds every leaf of params"):
        hesskit.minimize(loss, start(), still, args=(target(),))
    for wrap, wrong in ((hesskit.masked, "u"), (hesskit.freeze, None)):
        with pytest.raises(TypeError, match=f"takes a transform, .* got {wrong!r}"):
            wrap(wrong, hesskit.newton())


def test_inside_optax_masked():
    opt = optax.masked(hesskit.freeze(hesskit.newton(), "u"), {"u": True, "v": False})
    with pytest.raises(TypeError, match=r"use hesskit.masked instead"):
        opt.update(start(), opt.init(start()), start(), value_fn=loss, target=target())
