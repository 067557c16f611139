"""The update of natural gradient against dense algebra, and one form against another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import hesskit
from hesskit import losses
from hesskit.core.status import Status
from tests.marks import slow_but

RNG = np.random.default_rng(0)
X, T = RNG.normal(size=(6, 3)), RNG.integers(0, 4, 6)
W = {"w": RNG.normal(size=(3, 4)) / 2, "b": RNG.normal(size=(4,)) / 5}


def model(p, x):
    z = x @ p["w"]
    return z + jnp.broadcast_to(p["b"], z.shape)


LOSS = hesskit.composite(losses.softmax_cross_entropy(), model)
SQUARES = hesskit.composite(losses.squared_error(), model)


def problem(loss):
    targets = T if loss is LOSS else RNG.normal(size=(6, 4))
    return jax.tree.map(jnp.asarray, W), (jnp.asarray(X), jnp.asarray(targets))


def one(opt, loss, p, args, state=None, **more):
    """Updates and state after one update."""
    state = opt.init(p) if state is None else state
    grads = jax.grad(loss)(p, *args)
    return opt.update(grads, state, p, value_fn=loss, args=args, **more)


def dense_direction(loss, p, args, damping):
    """(F + damping)^{-1} g."""
    f = np.asarray(hesskit.fisher_operator(loss, p, args=args).dense())
    g = np.asarray(ravel_pytree(jax.grad(loss)(p, *args))[0])
    return np.linalg.solve(f + damping * np.eye(len(g)), g)


@pytest.mark.parametrize(
    "linear_solver", slow_but(["auto", "dense", "sample", "cg"], "sample", "cg")
)
@pytest.mark.parametrize("loss", [LOSS, SQUARES], ids=["softmax", "squares"])
def test_the_step_is_that_of_dense_algebra(float64, loss, linear_solver):
    p, args = problem(loss)
    opt = hesskit.natural_gradient(0.5, damping=0.1, linear_solver=linear_solver, max_products=100)
    updates, state = one(opt, loss, p, args)
    expected = -0.5 * dense_direction(loss, p, args, 0.1)
    rtol = 2e-3 if linear_solver == "cg" else 1e-9
    found = ravel_pytree(updates)[0]
    assert np.linalg.norm(found - expected) <= rtol * np.linalg.norm(expected)
    info = hesskit.last_info(state)
    # 24 outputs and 16 parameters: "sample" is the longer side here, whose form is the other.
    assert info.linear_solver == ("dense" if linear_solver == "auto" else linear_solver)
    assert info.accepted
    assert info.damping == 0.1


def test_upstream_changes_of_the_gradient_are_heeded(float64):
    p, args = problem(LOSS)
    opt = optax.chain(optax.scale(3.0), hesskit.natural_gradient(1.0, damping=0.1))
    plain, _ = one(hesskit.natural_gradient(1.0, damping=0.1), LOSS, p, args)
    scaled, _ = one(opt, LOSS, p, args)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-8),
        scaled,
        jax.tree.map(lambda a: 3 * a, plain),
    )


@pytest.mark.parametrize("fisher", ["sampled", "empirical"])
def test_scores_give_one_row_for_each_example(float64, fisher):
    p, args = problem(LOSS)
    opt = hesskit.natural_gradient(1.0, damping=0.1, fisher=fisher, key=3)
    updates, state = one(opt, LOSS, p, args)
    info = hesskit.last_info(state)
    assert info.linear_solver == "sample"  # 6 rows, 16 parameters
    assert info.num_products == 6
    if fisher == "empirical":
        f = np.asarray(hesskit.fisher_operator(LOSS, p, args=args, kind=fisher).dense())
        g = ravel_pytree(jax.grad(LOSS)(p, *args))[0]
        expected = -np.linalg.solve(f + 0.1 * np.eye(16), g)
        np.testing.assert_allclose(ravel_pytree(updates)[0], expected, rtol=1e-9)
    else:
        again, _ = one(opt, LOSS, p, args, state)
        assert not np.allclose(ravel_pytree(again)[0], ravel_pytree(updates)[0])  # a new draw


def test_schedules(float64):
    p, args = problem(LOSS)
    opt = hesskit.natural_gradient(lambda k: 0.5**k, damping=lambda k: 0.1 * 2.0**k)
    updates, state = one(opt, LOSS, p, args)
    np.testing.assert_allclose(ravel_pytree(updates)[0], -dense_direction(LOSS, p, args, 0.1))
    updates, _ = one(opt, LOSS, p, args, state)
    expected = -0.5 * dense_direction(LOSS, p, args, 0.2)
    np.testing.assert_allclose(ravel_pytree(updates)[0], expected, rtol=1e-9)


@pytest.mark.slow
def test_a_batch_of_nan_gives_a_zero_update_and_harms_nothing():
    p, (x, t) = problem(LOSS)
    p, x = jax.tree.map(lambda a: a.astype("float32"), (p, x))
    opt = hesskit.natural_gradient(0.5, momentum=0.9)
    _, state = one(opt, LOSS, p, (x, t))
    updates, after = one(opt, LOSS, p, (x * jnp.nan, t), state)
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(updates))
    assert hesskit.last_info(after).status == Status.NONFINITE_START
    jax.tree.map(np.testing.assert_array_equal, after.model.direction, state.model.direction)


def test_a_loss_without_a_distribution_is_named():
    loss = hesskit.composite(lambda y: jnp.sum(y**4), lambda p: p)
    opt, p = hesskit.natural_gradient(1.0, fisher="empirical"), jnp.ones(2)
    with pytest.raises(TypeError, match="natural_gradient needs the distribution of the outputs"):
        opt.update(p, opt.init(p), p, value_fn=loss)


@pytest.mark.slow
def test_microbatched_data_give_the_same_step(float64):
    p, args = problem(LOSS)
    opt = hesskit.natural_gradient(1.0, damping=0.1)
    whole, _ = one(opt, LOSS, p, args)
    parts, _ = one(opt, hesskit.microbatched(LOSS, 3), p, args)
    np.testing.assert_allclose(ravel_pytree(parts)[0], ravel_pytree(whole)[0], rtol=1e-9)
