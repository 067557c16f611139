"""Where a line-search run begins: no pairs, no direction, and an Info that says so."""

import jax.numpy as jnp
import numpy as np

from hesskit.core import course
from hesskit.transforms.lbfgs import line


def test_the_first_state_knows_nothing(dtype):
    params = {"a": jnp.ones(3, dtype), "b": jnp.ones((), dtype)}
    state = course.start(line(4, True), params)
    assert state.fresh
    assert state.info.num_pairs == 0
    assert state.info.num_linesearch_steps == 0
    assert np.isinf(state.level)
    np.testing.assert_array_equal(state.model.direction["a"], np.zeros(3))
    assert state.model.direction["a"].dtype == dtype


def test_begin_keeps_the_memory(dtype):
    params = jnp.ones(3, dtype)
    history, table = line(4, True).empty(params)
    begun = course.begin(history, table._replace(num_pairs=jnp.int32(2)), params)
    assert begun.table.num_pairs == 2
    assert not begun.steepest
    assert course.describe(begun)["num_pairs"] == 2
