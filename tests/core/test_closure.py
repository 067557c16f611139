"""What a function closes over, as data."""

import jax
import jax.numpy as jnp

from hesskit.core.closure import Hoisted, is_eager


def test_tracers_in_a_closure_become_arguments():
    """Integers too, of an outer program that ended when the derivative is taken."""
    seen = []

    @jax.jit
    def outer(t, labels):
        hoisted = Hoisted(lambda p: {"value": p["x"] * t + labels.astype(t.dtype)}, {"x": 1.0})
        seen.append((hoisted.has_tracers, len(hoisted.consts)))
        return hoisted(hoisted.consts, {"x": 3.0})["value"]

    assert jax.grad(outer)(2.0, jnp.array(1)) == 3.0
    assert outer(2.0, jnp.array(1)) == 7.0
    assert set(seen) == {(True, 2)}
    assert not Hoisted(lambda x: x + jnp.arange(3.0), jnp.ones(3)).has_tracers


def test_is_eager():
    said = []

    def fn(x):
        said.append(is_eager())
        return x

    fn(1.0)
    for transformed in (jax.jit(fn), jax.grad(fn), lambda x: jax.vmap(fn)(jnp.full(2, x))):
        transformed(1.0)
    fn(1.0)
    assert said == [True, False, False, False, True]
