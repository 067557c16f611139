"""Starts are uniform in their box, leaf by leaf."""

import jax
import jax.numpy as jnp
import numpy as np

from hesskit.solvers.starts import drawn


def test_starts_are_uniform_in_the_box(x64):
    lower = {"a": jnp.array(-2.0), "b": jnp.array([0.0, 10.0])}
    upper = {"a": jnp.array(-1.0), "b": jnp.array([1.0, 30.0])}
    points = drawn(lower, upper, 4000, jax.random.key(0))
    for low, high, found in zip(*map(jax.tree.leaves, (lower, upper, points)), strict=True):
        assert found.shape == (4000, *low.shape)
        assert found.dtype == low.dtype
        unit = (np.asarray(found) - np.asarray(low)) / np.asarray(high - low)
        assert ((unit >= 0) & (unit <= 1)).all()
        five = 5 / np.sqrt(4000)  # standard errors of moments that are at most 1
        np.testing.assert_allclose(unit.mean(0), 1 / 2, atol=five * 12**-0.5)
        np.testing.assert_allclose(unit.var(0), 1 / 12, atol=five / 12)
    assert abs(np.corrcoef(np.asarray(points["b"]).T)[0, 1]) < five


def test_other_keys_are_other_starts():
    one, other = (drawn(jnp.zeros(3), jnp.ones(3), 2, jax.random.key(k)) for k in (0, 1))
    assert (one != other).all()
