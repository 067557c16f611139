"""The queue of lanes, on tasks whose length and answer are known: counting down."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.solvers import lanes


def countdown():
    """From data n: n steps to 0, with the number of the task and of the steps as its record."""
    return lanes.Task(
        first=lambda n, index: (n, index, jnp.zeros((), jnp.int32)),
        step=lambda n, state: (state[0] - 1, state[1], state[2] + 1),
        running=lambda state: state[0] > 0,
        record=lambda state: {"index": state[1], "steps": state[2]},
    )


@pytest.mark.parametrize(("num", "count"), [(37, 5), (37, 1), (3, 8), (1, 1), (16, 16)])
def test_every_task_runs_to_its_own_end(num, count):
    lengths = jnp.asarray(np.random.default_rng(0).integers(1, 40, num), jnp.int32)
    out = lanes.run(countdown(), lambda index: lengths[index], num=num, lanes=count)
    np.testing.assert_array_equal(out["index"], np.arange(num))
    np.testing.assert_array_equal(out["steps"], lengths)


@pytest.mark.slow
def test_no_lane_waits_for_the_longest():
    """One task of 400 steps and 63 of 10 on 8 lanes: the trips are bounded by (1)."""
    lengths = jnp.full((64,), 10, jnp.int32).at[0].set(400)
    trips = []

    def step(n, state):
        jax.debug.callback(lambda _: trips.append(0), state[0])
        return countdown().step(n, state)

    task = countdown()._replace(step=step)
    out = lanes.run(task, lambda index: lengths[index], num=64, lanes=8)
    jax.block_until_ready(out)
    assert len(trips) == 8 * 400  # all others end beside the long one


@pytest.mark.slow
def test_mapped_keeps_the_order_and_drops_what_fills_the_last_block():
    data = jnp.arange(11.0)
    for count in (4, 11, 100):
        out = lanes.mapped(lambda x: x**2, lambda index: data[index], num=11, lanes=count)
        np.testing.assert_array_equal(out, data**2)
