"""The compiled solves: each problem has a key of its own, and data have lanes by their size."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from hesskit.solvers.batch import batched
from hesskit.solvers.solve_many import lanes_of


def noisy(scale):
    """Steps of about 1 with noise, from a key in its state."""

    def update(updates, state, params=None, **more):
        del params, more
        key, sub = jax.random.split(state)
        return jax.tree.map(lambda u: 1 + scale * jax.random.normal(sub, u.shape), updates), key

    return optax.GradientTransformationExtraArgs(lambda params: jax.random.key(0), update)


@pytest.mark.slow
def test_each_problem_has_its_own_key():
    start = jnp.zeros((5, 2))
    walk = hesskit.minimize_many(
        lambda p: jnp.sum((p - 9.0) ** 2),
        start,
        noisy(0.1),
        max_steps=1,
        lanes=2,
        check="first_order",
    )
    assert len(np.unique(walk.value)) == 5


def test_the_number_of_lanes_follows_the_size_of_the_data():
    for entries, expected in ((2, 256), (80, 204), (1000, 128)):
        batch = batched({"params": jnp.zeros((3, entries), "float32")}, 0)
        assert lanes_of(None, batch) == expected
        assert lanes_of(7, batch) == 7
