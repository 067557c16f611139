"""The layout of a scan, and where its steps go."""

import jax
import jax.numpy as jnp
import numpy as np

from hesskit.core.loop import by_layer, counts


def test_what_is_constant_carried_and_sliced():
    def fn(a, c, x):
        return jax.lax.scan(lambda c, x: (c * a + x, (x, c)), c, x)

    (equation,) = jax.make_jaxpr(fn)(2.0, jnp.ones(3), jnp.ones((4, 3))).eqns
    assert counts(equation) == (4, (False, None, True))


def test_steps_of_one_layer_are_positions_behind_the_first():
    values = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    each = lambda x: x
    found = by_layer(each, ((2, False), (3, True)), 1)(jnp.asarray(values))
    np.testing.assert_array_equal(found, values.transpose(1, 2, 0, 3))
    both = by_layer(each, ((2, True), (3, True)), 1)(jnp.asarray(values))
    np.testing.assert_array_equal(both, values.reshape(6, 4, 5))
    places = by_layer(each, ((2, False), (3, True)), 2)(jnp.asarray(values))
    np.testing.assert_array_equal(places, values.transpose(1, 0, 2, 3)[:, None])
