"""Layouts on an explicit mesh of eight devices, on an automatic one, and on none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import layout

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")


def split(kind, spec=("x", None)):
    """A mesh, and a matrix of which one axis is split over it."""
    types = (getattr(jax.sharding.AxisType, kind),)
    mesh = jax.make_mesh((8,), ("x",), axis_types=types)
    sharding = jax.sharding.NamedSharding(mesh, jax.P(*spec))
    return mesh, jax.device_put(jnp.arange(64.0).reshape(8, 8), sharding)


@pytest.mark.parametrize("traced", [False, True])
def test_on_an_explicit_mesh(traced):
    mesh, x = split("Explicit")
    run = jax.jit if traced else lambda fn: fn
    with jax.set_mesh(mesh):
        assert layout.explicit(x).spec == jax.P("x", None)
        whole = run(layout.gathered)(x)
        assert jax.typeof(whole).sharding.spec == jax.P(None, None)
        np.testing.assert_array_equal(whole, np.arange(64.0).reshape(8, 8))
        back = run(layout.like)(whole, x)
        assert jax.typeof(back).sharding == jax.typeof(x).sharding
        assert {shard.data.shape for shard in back.addressable_shards} == {(1, 8)}
        np.testing.assert_array_equal(back, x)
        assert layout.like(x, x) is x
        for ndim in (0, 1, 3):
            assert layout.replicated(x, ndim).spec == jax.P(*[None] * ndim)
        # A product laid out by the types: each device keeps its rows, then all know the sum.
        rows = run(lambda a: jnp.einsum("ij,j->i", a, jnp.ones(8)))(x)
        assert jax.typeof(layout.gathered(rows)).sharding.spec == jax.P(None)


def test_a_whole_array_on_an_explicit_mesh_has_no_layout_to_keep():
    mesh, x = split("Explicit", (None, None))
    with jax.set_mesh(mesh):
        assert layout.explicit(x) is None
        assert layout.replicated(x, 1) is None
        assert layout.gathered(x) is x


@pytest.mark.parametrize("kind", ["Auto", None])
def test_where_the_compiler_decides_nothing_acts(kind):
    x = jnp.ones((8, 8)) if kind is None else split(kind)[1]
    assert layout.explicit(x) is None
    assert layout.replicated(x, 2) is None
    assert layout.gathered(x) is x
    other = jnp.zeros((8, 8))
    assert layout.like(other, x) is other
    jaxpr = jax.make_jaxpr(lambda a, b: layout.gathered(layout.like(a, b)))(other, x)
    assert jaxpr.eqns == []
