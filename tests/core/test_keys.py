"""Every way to give a key is one, in a buffer of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core.keys import as_key


@pytest.mark.parametrize(
    "key", [7, np.int64(7), jnp.array(7), jax.random.key(7), jax.random.PRNGKey(7)]
)
def test_all_forms_draw_the_same(key):
    drawn = jax.random.normal(as_key(key), (3,))
    np.testing.assert_array_equal(drawn, jax.random.normal(jax.random.key(7), (3,)))


def test_a_key_is_copied():
    key = jax.random.key(0)
    assert as_key(key) is not key
    pointer = lambda k: jax.random.key_data(k).unsafe_buffer_pointer()
    assert pointer(as_key(key)) != pointer(key)


def test_traced():
    drawn = jax.jit(lambda seed: jax.random.normal(as_key(seed), (3,)))(7)
    np.testing.assert_array_equal(drawn, jax.random.normal(jax.random.key(7), (3,)))


@pytest.mark.parametrize("key", [None, 1.5, "a", True, jax.random.split(jax.random.key(0)), [1, 2]])
def test_words(key):
    with pytest.raises(TypeError, match="seed must be an int or one key"):
        as_key(key, name="seed")
