"""The optax skeleton of the line-search transforms, with L-BFGS as the line."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from hesskit.core.derivatives import value_and_grad
from hesskit.core.status import Status
from tests.contracts.support import assert_same

NAN = float("nan")
OPT = hesskit.lbfgs()
ALONE = hesskit.lbfgs(0.5)


def world(x, wall=jnp.inf, shift=0.0):
    """Rosenbrock, NaN where |x| passes the wall, shifted along the value."""
    value = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
    return jnp.where(jnp.max(jnp.abs(x)) > wall, NAN, value) + shift


@functools.partial(jax.jit, static_argnames="known")
def update(x, state, wall=np.inf, shift=0.0, *, known=True):
    """One update, with value and gradient or without; the new point and state."""
    value, grad = jax.value_and_grad(world)(x, wall, shift)
    more = {"value": value, "grad": grad} if known else {}
    data = {"wall": wall, "shift": shift}
    updates, state = OPT.update(grad, state, x, value_fn=world, **more, **data)
    return optax.apply_updates(x, updates), state


START = np.array([-1.2, 1.0])


@pytest.mark.slow
def test_updates_visit_the_accepted_points_of_the_machine(float64):
    machine = OPT.method
    tell = jax.jit(lambda s: machine.tell(s, value_and_grad(world, machine.ask(s))))
    inner, x = tell(machine.start(jnp.asarray(START))), jnp.asarray(START)
    state = OPT.init(x)
    for _ in range(15):
        trials = 0
        while trials == 0 or not inner.info.accepted:
            inner, trials = tell(inner), trials + 1
        x, state = update(x, state)
        np.testing.assert_allclose(x, inner.params, rtol=1e-7)
        assert state.info.num_values == state.info.num_linesearch_steps == trials
        assert state.info.accepted


@pytest.mark.slow
def test_value_and_gradient_of_the_call_save_one_evaluation(float64):
    x = jnp.asarray(START)
    (one, known), (two, alone) = (update(x, OPT.init(x), known=k) for k in (True, False))
    np.testing.assert_allclose(one, two, rtol=1e-12)
    assert alone.info.num_values == known.info.num_values + 1
    assert alone.count == known.count == 1
    assert_same(known.reference, alone.reference)


def test_a_state_between_updates_holds_no_direction():
    x = jnp.asarray(START)
    for state in (OPT.init(x), update(x, OPT.init(x))[1]):
        assert state.params is None
        assert state.step is None
        assert state.model.direction is None
        assert state.model.search is None
    assert jax.tree.structure(OPT.init(x)) == jax.tree.structure(update(x, OPT.init(x))[1])


@pytest.mark.slow
def test_a_batch_that_is_not_finite_moves_nothing_and_forgets_nothing():
    x = jnp.asarray(START, jnp.float32)
    state = OPT.init(x)
    for _ in range(4):
        x, state = update(x, state)
    for known in (True, False):
        y, after = update(x, state, wall=0.0, known=known)
        np.testing.assert_array_equal(y, x)
        assert after.info.status == Status.NONFINITE_START
        assert not after.info.accepted
        assert_same(after.model.history, state.model.history)
        assert after.info.num_pairs == state.info.num_pairs == 4
        y, again = update(y, after)
        assert again.info.accepted
        assert again.info.status == Status.RUNNING


def test_another_value_of_the_same_point_is_another_objective():
    """A higher level than ever is no reason to reject: the reference follows the batch."""
    x = jnp.asarray(START, jnp.float32)
    state = OPT.init(x)
    for shift in (0.0, 50.0, -50.0, 100.0):
        x, state = update(x, state, shift=shift)
        assert state.info.accepted
        np.testing.assert_allclose(state.reference, world(x, shift=shift), rtol=1e-5)


def test_at_rest_nothing_is_evaluated():
    x = jnp.ones(2)
    y, state = update(x, OPT.init(x))
    np.testing.assert_array_equal(y, x)
    assert state.info.status == Status.GRADIENT_TOL
    assert state.info.num_values == 0
    assert not state.info.accepted


def test_one_copy_of_the_objective_in_the_program():
    x = jnp.asarray(START, jnp.float32)
    step = lambda x, state: OPT.update(x, state, x, value_fn=lambda x: jnp.sum(jnp.sinh(x)))
    assert str(jax.make_jaxpr(step)(x, OPT.init(x))).count("= sinh") == 1


def test_without_a_search_a_pair_is_the_difference_of_two_calls(float64):
    weights = jnp.array([1.0, 4.0])
    step = jax.jit(lambda g, s, x: ALONE.update(g, s, x))
    x, points = jnp.array([0.2, 0.1]), []
    state = ALONE.init(x)
    for k in range(3):
        points.append(np.asarray(x))
        updates, state = step(weights * x, state, x)
        np.testing.assert_array_equal(state.params, x)
        np.testing.assert_array_equal(state.updates, weights * x)
        assert (state.count, state.info.num_pairs) == (k + 1, k)
        x = x + updates
    s, y = np.diff(points, axis=0)[-1], np.asarray(weights) * np.diff(points, axis=0)[-1]
    row = int(state.table.newest)
    ratio = np.asarray(state.history.steps[row]) / s
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)  # a power of two
    np.testing.assert_allclose(state.history.changes[row], ratio[0] * y, rtol=1e-12)


@pytest.mark.slow
def test_without_a_search_bad_input_gives_zeros():
    step = jax.jit(ALONE.update)
    x = jnp.array([0.2, 0.1])
    state = step(x, ALONE.init(x), x)[1]
    for grad, point, value in [
        (jnp.array([NAN, 1.0]), x, 1.0),
        (jnp.array([jnp.inf, 1.0]), x, 1.0),
        (x, jnp.array([NAN, 1.0]), 1.0),
        (x, x, NAN),
    ]:
        updates, after = step(grad, state, point, value=jnp.float32(value))
        np.testing.assert_array_equal(updates, [0, 0])
        assert after.info.status == Status.NONFINITE_START
        assert_same(after.history, state.history)
        assert_same((after.params, after.updates), (state.params, state.updates))
        assert after.count == 2


def test_a_schedule_sees_the_count():
    opt = hesskit.lbfgs(lambda count: 1.0 / (1 + count.astype(jnp.float32)))
    x = jnp.array([0.2, 0.1])
    state, rates = opt.init(x), []
    step = jax.jit(opt.update)
    for _ in range(3):
        _, state = step(x, state, x)
        rates.append(float(state.info.learning_rate))
    np.testing.assert_allclose(rates, [1, 1 / 2, 1 / 3], rtol=1e-6)


def test_params_are_required():
    with pytest.raises(ValueError, match="params"):
        ALONE.update(jnp.ones(2), ALONE.init(jnp.ones(2)))
    with pytest.raises(ValueError, match="params"):
        OPT.update(jnp.ones(2), OPT.init(jnp.ones(2)), value_fn=world)
