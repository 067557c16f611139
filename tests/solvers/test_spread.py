"""What follows from a factor of a covariance: images of gradients, blocks, quantities."""

import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.solvers import spread
from hesskit.solvers.spread import Derived, Spread, unformed

FACTOR = np.tril(np.random.default_rng(0).normal(size=(4, 4)))


def spread_of(dtype="float32", null=None):
    null = np.zeros((4, 4)) if null is None else null
    return Spread(jnp.asarray(FACTOR, dtype), jnp.asarray(null, dtype), jnp.zeros(4, bool))


def test_image_in_both_precisions(dtype):
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), dtype)
    found = spread.image(rows, spread_of(dtype))
    np.testing.assert_allclose(found, np.asarray(rows) @ FACTOR, rtol=1e-4, atol=1e-5)
    assert found.dtype == dtype


@pytest.mark.slow
def test_rows_and_columns_of_the_covariance():
    """In any order, some of them fixed or open."""
    null = np.zeros((4, 4))
    null[3, 0] = 1.0
    known = spread_of(null=null)
    covariance = FACTOR @ FACTOR.T
    found = spread.covariance(known.factor, known.open(), (2, None, 0), (1, 3, None))
    np.testing.assert_allclose(found[::2, 0], covariance[[2, 0], 1], rtol=1e-5)
    assert np.isnan(found[::2, 1]).all()
    assert not found[1].any()
    assert not found[:, 2].any()
    correlation = spread.correlation(known, (None, 0, 3))
    np.testing.assert_array_equal(np.isnan(correlation), np.array([[0] * 3, [0, 0, 1], [0, 1, 1]]))
    np.testing.assert_array_equal(correlation[:2, :2], np.eye(2))


def test_the_jacobian_is_that_of_what_is_free():
    params = {"a": jnp.array(2.0), "z": jnp.array([1 + 2j]), "w": jnp.ones(3)}
    fn = lambda p: p["a"] * jnp.abs(p["z"]) ** 2 + jnp.sum(p["w"])
    value, rows = spread.free_jacobian(fn, params, (True, True, False))
    np.testing.assert_allclose(value, [13.0], rtol=1e-6)
    np.testing.assert_allclose(rows, [[4.0, 8.0]], rtol=1e-6)


@pytest.mark.slow
def test_nothing_is_known_of_an_unformed_spread():
    nothing = unformed(jnp.array([False, True, False]), jnp.dtype("float32"))
    assert not nothing.is_formed
    assert spread_of().is_formed
    assert sum(leaf.size for leaf in nothing) == 9
    assert jnp.isnan(spread.image(jnp.array([[1.0, 0.0, -1.0]]), nothing)).all()
    assert not spread.image(jnp.zeros((1, 3)), nothing).any()


def test_derived_prints_one_line_an_entry():
    assert str(Derived(jnp.array(0.6898449), jnp.array(0.0153), jnp.eye(1))) == "0.6898449 +- 0.015"
    many = Derived({"a": jnp.ones(2), "b": jnp.ones(())}, {"a": jnp.ones(2), "b": jnp.ones(())}, 1)
    assert [row.split(":")[0] for row in str(many).splitlines()] == ["a[0]", "a[1]", "b"]
