"""The monitor leaves updates alone and follows the top eigenvalue of a run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit


def loss(p, x, y):
    return jnp.mean((jnp.tanh(x @ p["w"]) @ p["v"] - y) ** 2)


def problem():
    rng = np.random.default_rng(0)
    make = lambda *shape: jnp.asarray(rng.normal(size=shape), "float32")
    return {"w": make(4, 6) / 2, "v": make(6)}, {"x": make(30, 4), "y": make(30)}


@pytest.mark.slow
def test_it_follows_the_largest_eigenvalue_and_changes_nothing():
    params, data = problem()
    opt, records = hesskit.curvature_monitor(every=4, num_products=6), []

    @jax.jit
    def step(params, state):
        grad = jax.grad(loss)(params, **data)
        updates, state = opt.update(grad, state, params, value_fn=loss, **data)
        same = jax.tree.map(lambda a, b: jnp.array_equal(a, b), updates, grad)
        after = jax.tree.map(lambda p, u: p - 0.05 * u, params, updates)
        return after, state, jnp.stack(jax.tree.leaves(same)).all()

    state = opt.init(params)
    assert np.isnan(state.sharpness)
    for i in range(13):
        before = params
        params, state, same = step(params, state)
        assert bool(same)
        assert int(state.step) == i - i % 4
        if i % 4 == 0:
            top = np.linalg.eigvalsh(hesskit.hessian(loss, before, args=data))[-1]
            records.append(abs(float(state.sharpness) / top - 1))
            assert abs(float(state.sharpness) - top) <= float(state.residual_norm) + 1e-4 * top
    assert records[-1] < 1e-3
    assert step._cache_size() == 1


def test_another_eigenvector_that_comes_to_the_top_is_seen():
    """The first stays exact to rounding, 6; the others grow from 0.03 to 12 * 1.2^2."""
    fn = lambda p: (3 * p[0] ** 2 + jnp.sum(p[1:] ** 4), "aux")
    opt = hesskit.curvature_monitor(every=1, has_aux=True)
    x = jnp.full(30, 0.05).at[0].set(1)
    step = jax.jit(lambda x, state: opt.update(x, state, x, value_fn=fn)[1])
    state = opt.init(x)
    for _ in range(25):
        state = step(x, state)
    np.testing.assert_allclose(state.sharpness, 6, rtol=1e-4)
    for _ in range(25):
        state = step(x.at[1:].set(1.2), state)
    np.testing.assert_allclose(state.sharpness, 17.28, rtol=1e-3)


def test_in_a_chain_with_complex_params_and_what_is_missing():
    fn = lambda z: jnp.sum(jnp.real(z) ** 2 + 3 * jnp.imag(z) ** 2)
    z = jnp.array([1 + 1j, 2 - 1j], "complex64")
    opt = optax.chain(hesskit.curvature_monitor(), optax.sgd(0.1))
    _, state = opt.update(z, opt.init(z), z, value_fn=fn)
    np.testing.assert_allclose(state[0].sharpness, 6.0, rtol=1e-5)
    one = hesskit.curvature_monitor()
    with pytest.raises(TypeError, match=r"^curvature_monitor\.update\(\) .*value_fn"):
        one.update(z, one.init(z), z)
    with pytest.raises(ValueError, match="needs the current params"):
        one.update(z, one.init(z), value_fn=fn)
    with pytest.raises(ValueError, match="every must be an integer"):
        hesskit.curvature_monitor(every=0)
