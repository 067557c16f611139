"""Sharded params: explicit and automatic meshes over eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contracts.registry import ALL, DEFAULTS, few
from tests.contracts.support import squares
from tests.marks import slow_but

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")

TARGET = np.linspace(-1, 1, 8, dtype=np.float32).reshape(1, 8)


@squares
def loss(params):
    gap = (params["w"].astype("float32") - TARGET) * (1 + TARGET**2)
    return gap, gap * gap, params["b"]


def setup(kind, dtype="float32"):
    """A mesh, and params of which one leaf is split along its second axis."""
    types = (getattr(jax.sharding.AxisType, kind),)
    mesh = jax.make_mesh((8,), ("x",), axis_types=types)
    sharding = jax.sharding.NamedSharding(mesh, jax.P(None, "x"))
    weights = jax.device_put(jnp.full((1, 8), 0.1, dtype), sharding)
    whole = jax.sharding.NamedSharding(mesh, jax.P())
    return mesh, sharding, {"w": weights, "b": jax.device_put(jnp.ones((), "float32"), whole)}


def typed(tree):
    return jax.tree.map(jax.typeof, tree)


@pytest.mark.parametrize("case", ALL)
def test_types_on_an_explicit_mesh(case):
    """optax's sharding tests: float16, init and update, traced."""
    mesh, _, params = setup("Explicit", "float16")
    opt = case.make()
    with jax.set_mesh(mesh):
        state = opt.init(params)
        assert typed(state) == typed(jax.jit(opt.init)(params))
        update = lambda p, s: opt.update(p, s, p, value_fn=case.of(loss))
        program = jax.make_jaxpr(update, return_shape=True)(params, state)
        updates, after = program[0].out_avals[:2], program[0].out_avals[2:]
    assert [str(a) for a in updates] == [str(a) for a in jax.tree.leaves(typed(params))]
    assert [str(a) for a in after] == [str(a) for a in jax.tree.leaves(typed(state))]


@pytest.mark.parametrize("case", few(DEFAULTS))
@pytest.mark.parametrize("kind", slow_but(["Explicit", "Auto"], "Explicit"))
def test_steps_are_those_of_one_device(case, kind):
    mesh, sharding, params = setup(kind)
    opt = case.make()
    step = jax.jit(lambda p, s: opt.update(jax.grad(loss)(p), s, p, value_fn=case.of(loss)))
    state = opt.init(params)  # where no mesh is set, and still on that of params
    with jax.set_mesh(mesh):
        updates, after = step(params, state)
        assert typed(after) == typed(state)
        if kind == "Explicit":
            assert updates["w"].sharding == sharding
        step(jax.tree.map(jnp.add, params, updates), after)
        assert step._cache_size() == 1
    alone = jax.tree.map(lambda a: jnp.asarray(np.asarray(a)), params)
    expected, _ = step(alone, opt.init(alone))
    for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-4, atol=1e-5)
    assert np.abs(np.asarray(updates["w"])).max() > 1e-3


@pytest.mark.parametrize("case", few(DEFAULTS[:1] + DEFAULTS[5:]))
def test_eager_steps_on_an_explicit_mesh(case):
    mesh, sharding, params = setup("Explicit", "float16")
    opt = case.make()
    with jax.set_mesh(mesh):
        state = opt.init(params)
        updates, after = opt.update(jax.grad(loss)(params), state, params, value_fn=case.of(loss))
        assert typed(after) == typed(state)
        assert updates["w"].sharding == sharding
