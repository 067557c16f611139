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


def test_value_and_gradient_that_are_given_are_all_it_needs_between_renewals():
    opt, params = hesskit.kfac(0.3, momentum=0.5, period=3), {"w": jnp.ones((3, 2))}
    target = X @ jnp.full((3, 2), 0.5)

    @jax.jit
    def both(params, x):
        def step(carry, _, *, told):
            params, state = carry
            data = {"x": X, "bump": jnp.float32(0), "targets": target}
            value, grad = jax.value_and_grad(LOSS)(params, **data)
            given = {"value": value, "grad": grad} if told else {}
            data["x"] = jnp.where(state.count % 3 == 0, X, x) if told else X
            updates, state = opt.update(grad, state, params, value_fn=LOSS, **given, **data)
            info = state.info
            return (optax.apply_updates(params, updates), state), (updates, info.num_grads)

        carry = jax.lax.scan(
            lambda c, _: step(c, _, told=False), (params, opt.init(params)), None, length=4
        )[0]
        return [
            jax.lax.scan(lambda c, _, t=told: step(c, _, told=t), carry, None, length=6)[1]
            for told in (False, True)
        ]

    (own, counts), (given, fewer) = both(params, jnp.full_like(X, jnp.nan))
    np.testing.assert_allclose(given["w"], own["w"], rtol=1e-5, atol=1e-7)
    assert np.all(np.any(given["w"] != 0, axis=(1, 2)))
    assert counts.tolist() == [1, 1, 2, 1, 1, 2]
    assert fewer.tolist() == [0, 0, 1, 0, 0, 1]
