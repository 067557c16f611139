"""States of K-FAC laid out by an objective: layers of a scan step as layers written out do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit

RNG = np.random.default_rng(0)
USER = pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")


def _normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def layer(h, p):
    return jnp.tanh(h @ p["w"] + p["b"]), None


def scanned(p, x):
    return jax.lax.scan(jax.checkpoint(layer), x, p["layers"])[0] @ p["last"]


def written(p, x):
    for own in p["layers"]:
        x = layer(x, own)[0]
    return x @ p["last"]


SCANNED, WRITTEN = (
    hesskit.composite(hesskit.losses.squared_error(), f) for f in (scanned, written)
)


def _start():
    layers = [{"b": _normal(3) / 2, "w": _normal(3, 3) / 2} for _ in range(2)]
    stack = jax.tree.map(lambda *each: jnp.stack(each), *layers)
    last = _normal(3, 2)
    return {"last": last, "layers": layers}, {"last": last, "layers": stack}


def _train(opt, loss, params, data, num=6):
    @jax.jit
    def go(params):
        def step(carry, _):
            params, state = carry
            grads = jax.grad(loss)(params, **data)
            updates, state = opt.update(grads, state, params, value_fn=loss, **data)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, opt.init(params)), None, length=num)[0]

    return go(params)


@USER
def test_layers_of_a_scan_take_the_steps_of_a_net_written_out(float64):
    layers, stack = _start()
    x = _normal(8, 3)
    data = {"x": x, "targets": jnp.tanh(x[:, :2])}
    opt = hesskit.kfac(objective=SCANNED, example=data)
    ours, state = _train(opt, SCANNED, stack, data)
    plain = hesskit.kfac(objective=WRITTEN, example=data)
    wanted, _ = _train(plain, WRITTEN, layers, data)
    moved = np.max(np.abs(ours["layers"]["w"] - stack["layers"]["w"]))
    assert moved > 1e-2
    for i, own in enumerate(wanted["layers"]):
        for name in ("b", "w"):
            np.testing.assert_allclose(ours["layers"][name][i], own[name], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours["last"], wanted["last"], rtol=1e-9, atol=1e-12)
    means = state.model.means
    assert [part["layers"]["w"].shape for part in means] == [(2, 4, 4), (2, 3, 3), (2,)]
    assert [part["last"].shape for part in means] == [(3, 3), (2, 2), ()]  # no bias, no row
    told = jax.eval_shape(opt.init, jax.eval_shape(lambda: stack))
    like = lambda a: (a.shape, a.dtype)
    assert jax.tree.map(like, told) == jax.tree.map(like, state)


@USER
def test_an_objective_that_does_not_fit_is_refused_by_name():
    _, stack = _start()
    x, t = jnp.ones((8, 3)), jnp.ones((8, 2))
    opt = hesskit.kfac(objective=SCANNED, example=(x, t))
    other = hesskit.composite(
        hesskit.losses.squared_error(), lambda p, x: x @ p["layers"]["w"][0] @ p["last"]
    )
    state = opt.init(stack)
    with pytest.raises(ValueError, match=r"params\['layers'\]\['b'\] has factors .* \(not used\)"):
        opt.update(stack, state, stack, value_fn=other, args=(x, t))


def test_equal_shapes_of_data_make_one_optimizer():
    make = lambda x: hesskit.kfac(objective=SCANNED, example={"x": x, "targets": x})
    assert make(jnp.ones((8, 3))) is make(np.zeros((8, 3), np.float32))
    assert make(jnp.ones((8, 3))) is not make(jnp.ones((9, 3)))
    spec = jax.ShapeDtypeStruct((8, 3), jnp.float32)
    assert make(jnp.ones((8, 3))) is make(spec)
    assert hesskit.scale_by_kfac(objective=SCANNED, example=(spec,)).name == "scale_by_kfac"


def test_arguments_that_mean_nothing_are_refused():
    x = jnp.ones((8, 3))
    with pytest.raises(ValueError, match=r"example is data of an objective: pass kfac\(objective="):
        hesskit.kfac(example=(x,))
    with pytest.raises(TypeError, match="objective must be a function of params"):
        hesskit.kfac(objective=3)
    with pytest.raises(TypeError, match=r"example\['x'\] is str"):
        hesskit.kfac(objective=SCANNED, example={"x": "x"})
    with pytest.raises(TypeError, match="needs `x`"):
        hesskit.kfac(objective=SCANNED, example={"targets": x}).init(x)
    with pytest.raises(TypeError, match=r"kfac reads the model, .* hesskit\.composite"):
        hesskit.kfac(objective=lambda p: jnp.sum(p)).init(x)


@USER
def test_map_params_asks_nothing_of_the_model():
    """optax makes a state of a tree without leaves."""
    params = jax.tree.map(lambda a: a.astype(jnp.float32), _start()[1])
    data = {"x": jnp.ones((8, 3)), "targets": jnp.ones((8, 2))}
    opt = hesskit.kfac(objective=SCANNED, example=data)
    state = opt.init(params)
    moved = optax.tree.map_params(opt, lambda leaf: leaf + 1, state)
    assert jax.tree.structure(moved) == jax.tree.structure(state)
    np.testing.assert_array_equal(moved.grad["last"], state.grad["last"] + 1)
    np.testing.assert_array_equal(moved.model.seed, state.model.seed)
