"""The machine itself: what `tell` keeps, what it refuses, what it spends, when it says stop."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import trial
from hesskit.core.derivatives import linearized
from hesskit.core.status import Status
from tests.core.rules import STEEPEST

MACHINE = trial.machine(STEEPEST)
NAN = float("nan")


def quadratic(x: jax.Array) -> jax.Array:
    """Gradient (x0, 4 x1)."""
    return 0.5 * x[0] ** 2 + 2 * x[1] ** 2


def run(fn, params: jax.Array, steps: int) -> list:
    """All states; the first is that after the evaluation of the start."""

    @jax.jit
    def advance(state):
        return MACHINE.tell(state, linearized(fn, MACHINE.ask(state)))

    states = [advance(MACHINE.start(params))]
    for _ in range(steps):
        states.append(advance(states[-1]))
    return states


def test_the_first_tell_evaluates_the_start_and_proposes():
    (state,) = run(quadratic, jnp.array([2.0, 0.0]), 0)
    assert state.level == 2.0
    assert state.reference == 2.0
    assert state.info.grad_norm == 2.0
    assert (state.count, state.info.num_values, state.info.num_products) == (0, 1, 1)
    np.testing.assert_allclose(state.step.step, [-1.0, 0.0], rtol=1e-6)  # radius 1 holds it back
    assert bool(state.step.on_boundary)


def test_values_fall_and_counts_add_up(dtype):
    states = run(quadratic, jnp.array([2.0, 1.0], dtype), 12)
    levels = np.array([state.level for state in states])
    assert np.all(np.diff(levels) <= 0)
    assert levels[-1] < 1e-2 * levels[0]
    assert states[-1].count == 12
    for before, after in itertools.pairwise(states):
        assert after.info.num_values == after.info.num_grads == 1
        assert after.info.num_products == int(after.info.accepted)  # a rejection spends none
        if after.info.accepted:
            moved = np.linalg.norm(after.params - before.params)
            np.testing.assert_allclose(after.info.step_norm, moved, rtol=1e-5)


def test_a_rejected_step_is_undone_bitwise_and_shrinks():
    # The wall turns every first step into NaN.
    fn = lambda x: jnp.where(x[0] < 1.9, NAN, quadratic(x))
    before, after = run(fn, jnp.array([2.0, 0.0]), 1)
    assert not after.info.accepted
    np.testing.assert_array_equal(after.params, before.params)
    np.testing.assert_array_equal(after.grad, before.grad)
    assert after.level == before.level
    assert after.size <= before.size / 2
    assert after.info.step_norm == 0
    assert after.info.status == Status.RUNNING


def test_a_start_that_is_not_finite_commits_nothing():
    (state,) = run(lambda x: jnp.log(x[0]), jnp.array([-1.0, 0.0]), 0)
    assert state.info.status == Status.NONFINITE_START
    assert not state.modeled
    assert jnp.all(jnp.isfinite(state.grad))
    np.testing.assert_array_equal(state.step.step, [0.0, 0.0])


def stop(fn, params: list[float], steps: int) -> int:
    """The first status that is not RUNNING."""
    codes = (int(state.info.status) for state in run(fn, jnp.array(params), steps))
    return next((code for code in codes if code), Status.RUNNING)


def test_statuses():
    assert stop(quadratic, [0.0, 0.0], 0) == Status.GRADIENT_TOL
    assert stop(lambda x: -jnp.exp(x[0]), [3.0, 0.0], 9) == Status.UNBOUNDED
    assert stop(lambda x: jnp.where(x[0] == 1, x[0], NAN), [1.0, 0.0], 15) == (
        Status.NONFINITE_TRIALS
    )


@jax.custom_vjp
def misled(x: jax.Array) -> jax.Array:
    """A value whose gradient has the wrong sign."""
    return 1 + quadratic(x)


misled.defvjp(lambda x: (misled(x), x), lambda x, v: (-v * jnp.array([1.0, 4.0]) * x,))


def test_a_wrong_gradient_is_told_from_rounding():
    assert stop(misled, [1.0, 1.0], 15) == Status.LINE_SEARCH_FAILED
    # A small slope under a large value, and a kink: short steps promise less than f's rounding.
    kink = lambda x: 1e3 + 0.1 * jnp.abs(x[0])
    assert stop(kink, [0.3, 0.0], 12) == Status.ROUNDOFF_LIMITED


def test_the_reference_never_rises():
    states = run(lambda x: 5 + quadratic(x), jnp.array([0.3, 0.2]), 15)
    references = np.array([state.reference for state in states])
    assert np.all(np.diff(references) <= 0)
    floor = 10 * float(jnp.finfo("float32").eps) * 6
    assert np.all(np.array([state.level for state in states]) <= references + floor)


@pytest.mark.parametrize("bad", [NAN, float("inf")])
def test_a_gradient_that_is_not_finite_rejects(bad: float):
    # The value is fine beyond the wall, its gradient is not: sqrt(0) has an infinite slope.
    fn = lambda x: quadratic(x) + 0.0 * jnp.sqrt(jnp.maximum(x[0] - 1.5, 0.0))
    after = run(fn, jnp.array([2.0, 0.0]), 1)[1]
    assert not after.info.accepted
    assert jnp.all(jnp.isfinite(after.grad))


@pytest.mark.slow
def test_lanes_are_independent():
    starts = jnp.array([[2.0, 1.0], [NAN, 0.0], [0.0, 0.0]])
    tell = lambda state: MACHINE.tell(state, linearized(quadratic, MACHINE.ask(state)))
    state = jax.vmap(lambda p: tell(tell(MACHINE.start(p))))(starts)
    alone = run(quadratic, starts[0], 1)[1]
    np.testing.assert_array_equal(state.params[0], alone.params)
    assert list(state.info.status) == [0, Status.NONFINITE_START, Status.GRADIENT_TOL]
