"""The targets of optax's alias and contrib tests, one entry a factory: tolerance 3e-2."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.contracts.registry import DEFAULTS, GLOBALIZED, SCALED, few
from tests.contracts.support import squares

START = jnp.array([-1.0, 10.0, 1.0], jnp.float32)
END = jnp.array([1.0, -1.0, 1.0], jnp.float32)
MATRIX = jnp.array([[3.0, -2.0], [1.0, 4.0]], jnp.float32)


@squares
def parabola(params):
    return params - END.astype(params.dtype)


@squares
def rosenbrock(params):
    return 1 - params[0], 10 * (params[1] - params[0] ** 2)


@squares
def mixed(params):
    return params[0] - END, params[1] - MATRIX


TARGETS = {
    "parabola": (parabola, START, END),
    "rosenbrock": (rosenbrock, jnp.zeros(2, jnp.float32), jnp.ones(2, jnp.float32)),
    "tensors": (mixed, (jnp.zeros(3, jnp.float32), jnp.zeros((2, 2), jnp.float32)), (END, MATRIX)),
}


def run(opt, fn, params, num_steps):
    """Steps, with `map_params` called amid them as optax's test does."""

    @jax.jit
    def step(params, state):
        value, grad = jax.value_and_grad(fn)(params)
        updates, state = opt.update(grad, state, params, value=value, grad=grad, value_fn=fn)
        return optax.apply_updates(params, updates), state

    state = opt.init(params)
    state = optax.tree.map_params(opt, lambda leaf: leaf, state)
    for _ in range(num_steps):
        params, state = step(params, state)
    assert step._cache_size() == 1
    return params


def assert_near(params, target):
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(target), strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("case", few(GLOBALIZED))
@pytest.mark.parametrize("name", ["parabola", "rosenbrock"])
def test_globalized(case, name):
    fn, params, target = TARGETS[name]
    assert_near(run(case.make(), case.of(fn), params, 60), target)


@pytest.mark.parametrize("case", few(DEFAULTS))
def test_tensors(case):
    fn, params, target = TARGETS["tensors"]
    assert_near(run(case.make(), case.of(fn), params, 30), target)


@pytest.mark.parametrize("case", SCALED)
def test_not_globalized(case):
    fn, params, target = TARGETS["parabola"]
    assert_near(run(case.make(), case.of(fn), params, 60), target)


@pytest.mark.parametrize("case", few(DEFAULTS))
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(case, dtype):
    params = run(case.make(), case.of(parabola), START.astype(dtype), 30)
    assert params.dtype == dtype
    np.testing.assert_allclose(params.astype("float32"), END, atol=0.1)


@pytest.mark.parametrize("case", few(DEFAULTS))
def test_learning_rate_schedule(case):
    """The rate is that of the count: 0 at first, then 1."""
    opt = case.factory(lambda count: jnp.where(count < 2, 0.0, 1.0))
    state, params, moved = opt.init(START), START, []
    step = jax.jit(lambda p, s: opt.update(p, s, p, value_fn=case.of(parabola)))
    for _ in range(3):
        updates, state = step(params, state)
        moved.append(float(jnp.max(jnp.abs(updates))))
    assert moved[:2] == [0, 0]
    assert moved[2] > 0.1


SIZES = {
    "trust_region": "radius",
    "newton_cg": "radius",
    "damped_newton": "damping",
    "saddle_free_newton": "damping",
    "cubic_newton": "sigma",
    "gauss_newton": "radius",
    "levenberg_marquardt": "radius",
}


@pytest.mark.parametrize("case", few([case for case in DEFAULTS if case.id in SIZES]))
def test_size_schedule_and_bad_sizes(case):
    name = SIZES[case.name]
    opt = case.factory(**{name: lambda count: jnp.where(count < 2, 0.5, 0.25)})
    state = opt.init(START)
    _, state = jax.jit(lambda s: opt.update(START, s, START, value_fn=case.of(parabola)))(state)
    assert jnp.isfinite(state.size)
    for bad in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=f"{name} must lie in"):
            case.factory(**{name: bad})
    with pytest.raises(TypeError, match=f"{name} must be a number"):
        case.factory(**{name: "large"})
