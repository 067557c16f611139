"""A function on lanes is that of one problem, whichever axis is mapped, and mapped again."""

import jax
import jax.numpy as jnp
import numpy as np

from hesskit.linalg.on_lanes import on_each, on_lanes

calls = []


def lanes(a, x):
    calls.append(a.shape)
    return {"ax": jnp.sum(a * x[None], 1), "size": jnp.sum(x * x, 0)}


fn = on_lanes(lambda a, x: {"ax": a @ x, "size": x @ x}, lanes)


def test_a_batch_goes_to_the_lanes_with_its_axis_last(float64):
    rng = np.random.default_rng(0)
    a, x = rng.normal(size=(2, 3)), rng.normal(size=(3, 7))
    alone = fn(jnp.asarray(a), jnp.asarray(x[:, 0]))
    assert not calls
    found = jax.jit(jax.vmap(fn, in_axes=(None, 1), out_axes=-1))(a, x)
    assert calls == [(2, 3, 7)]
    np.testing.assert_allclose(found["ax"], a @ x, atol=1e-14)
    np.testing.assert_allclose(found["size"], np.sum(x * x, 0), atol=1e-14)
    np.testing.assert_allclose(alone["ax"], found["ax"][:, 0], atol=1e-14)
    twice = jax.vmap(jax.vmap(fn, in_axes=(None, 0)), in_axes=(0, None))
    found = twice(jnp.stack([a, -a]), jnp.asarray(x.T))
    np.testing.assert_allclose(found["ax"][1], -(a @ x).T, atol=1e-14)


def test_derivatives_where_some_of_the_tangents_have_lanes(float64):
    """JAX's own rule for `custom_vmap` mixes up lanes here."""
    rng = np.random.default_rng(1)
    a, x = rng.normal(size=(5, 2, 3)), rng.normal(size=(5, 3))
    da = rng.normal(size=(2, 3))
    moved = jax.vmap(lambda a, x: jax.jvp(fn, (a, x), (da, x)))
    values, tangents = jax.jit(moved)(a, x)
    np.testing.assert_allclose(values["ax"], np.einsum("kij,kj->ki", a, x), atol=1e-14)
    np.testing.assert_allclose(tangents["ax"], np.einsum("kij,kj->ki", a + da, x), atol=1e-14)
    np.testing.assert_allclose(tangents["size"], 2 * np.sum(x * x, 1), atol=1e-14)


def test_a_batch_is_mapped_by_other_means(float64):
    """The second function serves the batch, with the derivatives of the first."""
    fn = on_each(lambda a, x: a @ x, lambda a, x: jnp.sum(a * x[None, :], 1) + 1)
    rng = np.random.default_rng(2)
    a, x = rng.normal(size=(2, 3)), rng.normal(size=(7, 3))
    np.testing.assert_allclose(fn(jnp.asarray(a), jnp.asarray(x[0])), a @ x[0], atol=1e-14)
    found = jax.jit(jax.vmap(fn, in_axes=(None, 0)))(a, x)
    np.testing.assert_allclose(found, x @ a.T + 1, atol=1e-14)
    slopes = jax.vmap(jax.jacfwd(fn, 1), in_axes=(None, 0))(jnp.asarray(a), jnp.asarray(x))
    np.testing.assert_allclose(slopes, np.broadcast_to(a, (7, 2, 3)), atol=1e-14)
