"""Kronecker factors of the Gauss-Newton matrix, against that matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core import blocks, objective
from hesskit.curvature import kronecker
from hesskit.linalg import kronecker as factors
from hesskit.linalg.dense import dense

RNG = np.random.default_rng(0)
USER = pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")


def _normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def mean_factors(loss, params, args, *, num=1, sharing="expand", shared="sum", max_dim=99):
    """The plan and the mean factors of some draws."""
    fn = objective.drop_aux(objective.bind(loss, args=args, caller="test"))
    plan = blocks.plan(lambda p: fn.inner(p)[0], params, max_dim=max_dim, shared=shared)
    empty = factors.empty(params, max_dim)

    @jax.jit
    def of(key):
        at = kronecker.read(fn, params, plan)
        return kronecker.statistics(plan, at.sampled(key), empty, sharing=sharing)

    found = [of(key) for key in jax.random.split(jax.random.key(0), num)]
    return plan, jax.tree.map(lambda *a: sum(a) / num, *found)


def matrix(plan, slots, params):
    """The dense matrix of the blocks."""
    return np.asarray(dense(lambda v: factors.apply(slots, plan.blocks, v), params))


@USER
def test_one_example_of_a_linear_layer_is_exact(float64):
    """With one output a random sign has no say, so one draw is all there is."""
    params = {"w": _normal(3, 1), "b": _normal(1)}
    args = _normal(1, 3), jnp.ones((1, 1))
    loss = hesskit.composite(
        hesskit.losses.sigmoid_cross_entropy(), lambda p, x: x @ p["w"] + p["b"]
    )
    plan, slots = mean_factors(loss, params, args)
    exact = hesskit.gauss_newton_operator(loss, params, args=args).dense()
    np.testing.assert_allclose(matrix(plan, slots, params), exact, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(factors.trace(slots, plan.blocks), np.trace(exact), rtol=1e-10)
