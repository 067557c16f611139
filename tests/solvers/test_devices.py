"""Many problems over eight devices: the same answers, and no word between the devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")

NUM = 16
STARTS = {"x": jnp.linspace(-2, 2, NUM), "y": jnp.ones(NUM)}
SCALES = jnp.linspace(1, 100, NUM)


def rosenbrock(p, scale):
    return (1 - p["x"]) ** 2 + scale * (p["y"] - p["x"] ** 2) ** 2


def solve(starts, scales):
    return hesskit.minimize_many(rosenbrock, starts, args=(scales,), lanes=2)


def over(kind):
    """A mesh, and what spreads the leading axis over it."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(getattr(jax.sharding.AxisType, kind),))
    return mesh, jax.sharding.NamedSharding(mesh, jax.P("x"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_each_device_solves_its_own(kind):
    mesh, split = over(kind)
    with jax.set_mesh(mesh):
        many = solve(jax.device_put(STARTS, split), jax.device_put(SCALES, split))
        assert many.params["x"].sharding == split
        assert many.status.sharding == split
    alone = solve(STARTS, SCALES)
    assert many.num_success == NUM
    np.testing.assert_array_equal(many.num_steps, alone.num_steps)
    for a, b in zip(jax.tree.leaves(many.params), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.slow
def test_devices_do_not_wait_for_one_another():
    mesh, split = over("Explicit")
    with jax.set_mesh(mesh):
        data = jax.device_put((STARTS, SCALES), split)
        program = jax.jit(lambda *given: solve(*given).params).lower(*data).compile().as_text()
    assert "while" in program
    assert not [word for word in ("all-reduce", "all-gather", "permute") if word in program]


@pytest.mark.slow
def test_fits_keep_the_layout_of_their_data():
    _, split = over("Auto")
    x, rates = jnp.linspace(0, 3, 20), jnp.linspace(0.5, 2, NUM)
    ys = 2 * jnp.exp(-rates[:, None] * x[None, :]) + 0.01 * jnp.cos(9 * x)[None, :]
    decay = lambda p, x: p["a"] * jnp.exp(-p["k"] * x)
    start = {"a": jnp.array(1.0), "k": jnp.array(1.0)}
    fit = lambda ys: hesskit.curve_fit_many(decay, x, ys, start, in_axes=(None, 0, None))
    many, alone = fit(jax.device_put(ys, split)), fit(ys)
    assert many.standard_errors["k"].sharding == split
    np.testing.assert_allclose(many.params["k"], alone.params["k"], rtol=1e-5)
    np.testing.assert_allclose(many.standard_errors["k"], alone.standard_errors["k"], rtol=1e-3)
