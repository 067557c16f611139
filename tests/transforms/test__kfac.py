"""The update of K-FAC: what it keeps of numbers that are none, and of a wall."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import hesskit


def _model(p, x, bump):
    return jnp.where(jnp.max(jnp.abs(p["w"])) > 1.5, bump, 0) + x @ p["w"]


LOSS = hesskit.composite(hesskit.losses.squared_error(), _model)
X = jnp.asarray(np.random.default_rng(0).normal(size=(9, 3)), jnp.float32)


def test_nothing_that_is_no_number_is_kept_and_a_wall_holds():
    opt = hesskit.kfac()
    params = {"w": jnp.ones((3, 2))}
    target = X @ jnp.full((3, 2), 2.0)  # beyond the wall

    @jax.jit
    def step(params, state, x, bump):
        data = {"x": x, "bump": bump, "targets": target}
        value, grad = jax.value_and_grad(LOSS)(params, **data)
        updates, state = opt.update(grad, state, params, value=value, value_fn=LOSS, **data)
        return optax.apply_updates(params, updates), state, value

    state = opt.init(params)
    values = []
    for _ in range(12):
        params, state, value = step(params, state, X, jnp.float32(jnp.nan))
        values.append(float(value))
    assert np.all(np.isfinite(values))
    assert np.all(np.diff(values) <= 0)
    assert values[-1] < 0.5 * values[0]
    after, broken, _ = step(params, state, X.at[0, 0].set(jnp.nan), jnp.float32(0))
    info = hesskit.last_info(broken)
    assert (int(info.status), bool(info.accepted)) == (5, False)
    np.testing.assert_array_equal(after["w"], params["w"])
    for old, new in zip(jax.tree.leaves(state.model), jax.tree.leaves(broken.model), strict=True):
        assert old.dtype == new.dtype
        np.testing.assert_array_equal(old, new)
