"""Passes back carry the curvature of the outputs: all of it, if every column has one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core import blocks, objective
from hesskit.linalg import kronecker_reading


@pytest.mark.slow
def test_columns_sum_to_the_hessian_by_rows_of_outputs(float64):
    """What is between rows, which have no curvature in common, has the mean 0 over signs."""
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(2, 3)))}
    args = jnp.asarray(rng.normal(size=(4, 2))), jnp.arange(4) % 3
    loss = hesskit.composite(hesskit.losses.softmax_cross_entropy(), lambda p, x: x @ p["w"])
    fn = objective.drop_aux(objective.bind(loss, args=args, caller="test"))
    plan = blocks.plan(lambda p: fn.inner(p)[0], params, max_dim=9, shared="sum")
    at = kronecker_reading.read(fn, params, plan)
    assert at.num_columns == 3

    def outer(passed):
        (v,) = passed.outputs
        return jnp.outer(v.reshape(-1), v.reshape(-1))

    draw = jax.jit(jax.vmap(lambda s: kronecker_reading.estimate(at, s, "exact", outer)))
    found = np.asarray(draw(jnp.arange(400, dtype=jnp.uint32)))
    outputs = args[0] @ params["w"]
    hessian = jax.hessian(lambda z: fn.outer.value(z.reshape(4, 3)))(outputs.reshape(-1))
    inside = np.kron(np.eye(4), np.ones((3, 3))) > 0
    np.testing.assert_allclose(found[0][inside], hessian[inside], rtol=1e-12, atol=1e-15)
    assert np.all(hessian[~inside] == 0)
    size = np.max(np.abs(found[0][~inside]))
    assert size > 0.01
    assert np.max(np.abs(found.mean(0)[~inside])) < 4 * size / 400**0.5


def test_examples_in_parts_are_no_columns(float64):
    """One output an example is one pass, however the batch is cut."""
    params, args = {"w": jnp.ones(2)}, (jnp.ones((8, 2)), jnp.zeros(8))
    loss = hesskit.composite(hesskit.losses.squared_error(), lambda p, x: x @ p["w"])
    for value_fn in (loss, hesskit.microbatched(loss, 2)):
        fn = objective.drop_aux(objective.bind(value_fn, args=args, caller="test"))
        plan = blocks.plan(lambda p, fn=fn: fn.inner(p)[0], params, max_dim=9, shared="sum")
        assert kronecker_reading.read(fn, params, plan).num_columns == 1


def test_a_mean_of_passes_is_of_vectors_of_their_own(float64):
    params, args = jnp.ones((2, 2)), (jnp.arange(8.0).reshape(4, 2), jnp.zeros((4, 2)))
    loss = hesskit.composite(hesskit.losses.squared_error(), lambda p, x: x @ p)
    fn = objective.drop_aux(objective.bind(loss, args=args, caller="test"))
    plan = blocks.plan(lambda p: fn.inner(p)[0], params, max_dim=9, shared="sum")
    at, seed = kronecker_reading.read(fn, params, plan), jnp.uint32(7)

    def slope(passed):
        return passed.leaves[0] ** 2

    def mean(num):
        return kronecker_reading.estimate(at, seed, "sampled", slope, num=num)

    singles = [
        slope(at.sampled(seed + jnp.uint32(i * kronecker_reading.STRIDE % 2**32), None))
        for i in range(3)
    ]
    assert not np.allclose(singles[0], singles[1])
    np.testing.assert_allclose(mean(1), singles[0], rtol=1e-12)
    np.testing.assert_allclose(mean(jnp.int32(3)), sum(singles) / 3, rtol=1e-12)
