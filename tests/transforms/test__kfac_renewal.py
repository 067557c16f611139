"""When K-FAC renews its factors."""

import jax
import jax.numpy as jnp
import numpy as np

import hesskit
from hesskit.transforms import _kfac_renewal

X = jnp.asarray(np.random.default_rng(0).normal(size=(9, 3)), jnp.float32)
LOSS = hesskit.composite(hesskit.losses.squared_error(), lambda p, x: jnp.tanh(x @ p["w"]))


def test_factors_and_damping_change_at_renewals_alone():
    opt, params = hesskit.kfac(period=3), {"w": jnp.ones((3, 2))}
    args = (X, 0.5 * jnp.tanh(X[:, :2]))

    @jax.jit
    def step(carry, _):
        params, state = carry
        grads = jax.grad(LOSS)(params, *args)
        updates, state = opt.update(grads, state, params, value_fn=LOSS, args=args)
        params = jax.tree.map(jnp.add, params, updates)
        return (params, state), (state.info.renewed, state.model.num, state.size)

    _, (renewed, num, damping) = jax.lax.scan(step, (params, opt.init(params)), None, length=9)
    assert renewed.tolist() == [True] * 4 + [False] * 2 + [True] + [False] * 2
    assert num.tolist() == [1, 2, 3, 4, 4, 4, 5, 5, 5]
    assert np.all(np.diff(damping)[~renewed[1:]] == 0)
    assert damping[-1] < damping[0]


def test_renewals_become_rare_where_steps_are_judged():
    options = _kfac_renewal.Options
    counts = jnp.array([0, 19, 20, 100, 10_000])
    given = dict.fromkeys(options._fields)
    period = _kfac_renewal._period
    assert period(options(**given), counts, True).tolist() == [5, 5, 6, 10, 20]
    assert period(options(**given), counts, False) == 5
    assert period(options(**{**given, "period": 7}), counts, True) == 7
