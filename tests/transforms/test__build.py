"""The optax skeleton itself; what every transform owes optax is in tests/contracts/."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core.status import Status
from hesskit.transforms.trust_region import trust_region
from tests.contracts.support import advance, assert_same, data, start, world


def test_an_integer_learning_rate():
    params = start()
    opt, same = trust_region(1), trust_region(1.0)
    fn = lambda p: world(p, data())
    one, _ = opt.update(params, opt.init(params), params, value_fn=fn)
    assert_same(one, same.update(params, same.init(params), params, value_fn=fn)[0])


def test_a_kept_model_outlives_a_batch_of_nan():
    """Rejected, NaN, then the first batch again: no product is spent anew; the status is new."""
    opt = trust_region()
    step = jax.jit(lambda p, s, about: advance(opt, world, p, s, about))
    wall, bad = data(wall=1e-6, bump=1e6), data(wall=-1.0, bump=np.nan)
    params, state, spent, codes = start(), opt.init(start()), [], []
    for about in (wall, bad, wall):
        params, state, _, _ = step(params, state, about)
        spent.append(int(state.info.num_products))
        codes.append(Status(int(state.info.status)))
    assert spent == [3, 0, 0]
    assert codes == [Status.RUNNING, Status.NONFINITE_START, Status.RUNNING]


def test_a_state_of_other_params_is_refused():
    opt = trust_region()
    with pytest.raises(ValueError, match=r"it holds float32\[2\], params is float32\[3\]"):
        opt.update(jnp.ones(3), opt.init(jnp.ones(2)), jnp.ones(3), value_fn=jnp.sum)
