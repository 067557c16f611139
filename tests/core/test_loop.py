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


def test_steps_of_one_layer_are_positions_behind_the_first_and_parts_more_examples():
    values = jnp.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)

    def arranged(*roles, last=1):
        loops = tuple(zip((2, 3), roles, strict=True))
        return by_layer(lambda x: x, loops, last)(values)

    equal = np.testing.assert_array_equal
    equal(arranged("steps", "layers"), values.transpose(1, 2, 0, 3))
    equal(arranged("layers", "layers"), values.reshape(6, 4, 5))
    equal(arranged("parts", "layers"), values.transpose(1, 2, 0, 3).reshape(3, 8, 5))
    equal(arranged("parts", "steps"), values.transpose(2, 0, 1, 3).reshape(8, 3, 5))
    equal(arranged("steps", "layers", last=2), values.transpose(1, 0, 2, 3)[:, None])
