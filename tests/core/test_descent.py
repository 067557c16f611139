"""The line-search machine by hand: its points, what it forgets, and every way in which it ends."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core import descent, line_search
from hesskit.core.course import Line
from hesskit.core.derivatives import value_and_grad
from hesskit.core.status import Status

MACHINE = hesskit.lbfgs().method
NAN, INF = float("nan"), float("inf")
ROSENBROCK = [-1.2, 1.0]


def quadratic(x):
    """Gradient (x0, 100 x1)."""
    return 0.5 * x[0] ** 2 + 50 * x[1] ** 2


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


@jax.custom_vjp
def misled(x):
    """A value whose gradient has the wrong sign."""
    return 1 + quadratic(x)


misled.defvjp(lambda x: (misled(x), x), lambda x, v: (-v * jnp.array([1.0, 100.0], x.dtype) * x,))

FUNCTIONS = {
    "quadratic": quadratic,
    "rosenbrock": rosenbrock,
    "line": lambda x: x[0],
    "exponential": lambda x: -jnp.exp(x[0]),
    "concave": lambda x: -(x[0] ** 2),
    "log": lambda x: jnp.log(x[0]) + x[1] ** 2,
    "only here": lambda x: jnp.where(jnp.all(x == 1), jnp.sum(x), NAN),
    "misled": misled,
    # The value is about 1000, and no float32 near the minimum has a gradient of 0.
    "shifted": lambda x: 1e3 + jnp.exp(x[0] / 3 - 0.1) - 0.7 * x[0] + (x[1] / 7 - x[0] + 0.3) ** 2,
    # A quadratic whose gradient is wrong within 0.3 of the origin.
    "switched": lambda x: jnp.where(jnp.sum(x**2) < 0.09, misled(x) - 1, quadratic(x)),
    # log(x) ends the domain close to the minimum.
    "barrier": lambda x: -jnp.log(x[0]) + 20 * x[0] + (x[1] - x[0]) ** 2,
}


@functools.cache
def advance(dtype):
    """One compiled `tell . evaluate . ask` for all objectives, in one precision."""
    del dtype

    @jax.jit
    def step(state, which):
        fn = lambda x: jax.lax.switch(which, list(FUNCTIONS.values()), x)
        return MACHINE.tell(state, value_and_grad(fn, MACHINE.ask(state)))

    return step


def run(name, params, steps, *, tolerance=None):
    """All states, the first after the evaluation of the start, to the first status."""
    which = np.int32(list(FUNCTIONS).index(name))
    state = MACHINE.start(jnp.asarray(params))
    if tolerance is not None:
        state = state._replace(tolerance=jnp.asarray(tolerance, state.tolerance.dtype))
    states = []
    for _ in range(steps + 1):
        state = advance(str(state.level.dtype))(state, which)
        states.append(jax.device_get(state))
        if state.info.status != Status.RUNNING:
            break
    return states


def check_states(states):
    """What holds along any run."""
    for before, after in itertools.pairwise(states):
        assert after.info.num_values == after.info.num_grads == 1
        assert after.info.num_products == 0
        assert after.count == before.count + after.info.accepted
        noise = 10 * float(jnp.finfo(after.level.dtype).eps) * abs(float(after.level))
        assert after.level <= after.reference + noise
        assert after.reference <= before.reference
        assert np.all(np.isfinite(after.params))
        if after.info.accepted:
            moved = np.linalg.norm(np.asarray(after.params) - np.asarray(before.params))
            rounding = float(np.finfo(after.params.dtype).eps) * np.linalg.norm(after.params)
            np.testing.assert_allclose(after.info.step_norm, moved, rtol=1e-5, atol=rounding)
        else:
            np.testing.assert_array_equal(after.params, before.params)
            np.testing.assert_array_equal(after.grad, before.grad)
            assert after.level == before.level
            assert after.info.step_norm == 0


@pytest.mark.slow
def test_the_first_tell_evaluates_the_start_and_aims_along_the_gradient(dtype):
    (state,) = run("quadratic", jnp.array([3.0, 0.04], dtype), 0)
    assert state.level == np.dtype(dtype).type(4.5 + 50 * 0.04**2)
    assert (state.count, state.info.num_values, state.info.num_pairs) == (0, 1, 0)
    assert state.modeled
    assert not state.fresh
    step = np.asarray(state.step.step)
    np.testing.assert_allclose(step, [-0.6, -0.8], rtol=1e-5)  # -g / |g|: of length 1


def test_a_first_gradient_below_1_is_the_first_step_unless_params_are_smaller():
    (state,) = run("quadratic", [0.1, 0.0002], 0)
    np.testing.assert_allclose(state.step.step, [-0.1, -0.02], rtol=0.03)
    (state,) = run("quadratic", [0.1, 0.002], 0)
    np.testing.assert_allclose(np.linalg.norm(state.step.step), np.hypot(0.1, 0.002), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quadratic", "rosenbrock"])
def test_it_is_the_run_of_minimize(name, dtype):
    x = jnp.asarray(ROSENBROCK, dtype)
    result = hesskit.minimize(FUNCTIONS[name], x, hesskit.lbfgs(), history="params", max_steps=100)
    states = run(name, x, 100, tolerance=float(jnp.finfo(dtype).eps) ** (2 / 3))
    assert result.success
    same = 10 if dtype == jnp.float32 else 20  # then roundings of two programs have grown
    rtol = 1e-3 if dtype == jnp.float32 else 1e-8
    points = np.stack([state.params for state in states])[:same]
    np.testing.assert_allclose(points, result.history.params[:same], rtol=rtol, atol=rtol)
    flags = [bool(state.info.accepted) for state in states[:same]]
    assert flags == list(result.history.accepted[:same])
    assert abs(len(states) - int(result.num_values)) <= 4
    assert states[-1].info.status == result.status == Status.GRADIENT_TOL
    check_states(states)


def test_accepted_steps_satisfy_wolfe_and_rejected_ones_stay_on_the_line(float64):
    states = run("rosenbrock", ROSENBROCK, 60)
    check_states(states)
    for before, after in itertools.pairwise(states):
        s, g = np.asarray(before.step.step), np.asarray(before.grad)
        if after.info.accepted and after.level > 1e-10:
            assert after.level <= before.level + line_search.DELTA * g @ s
            assert after.grad @ s >= line_search.SIGMA * g @ s
        elif not after.info.accepted:
            t = np.asarray(after.step.step)
            np.testing.assert_allclose(t[0] * s[1] - t[1] * s[0], 0, atol=1e-12)
    assert states[-1].info.status == Status.GRADIENT_TOL
    assert sum(not s.info.accepted for s in states) >= 3


def test_a_memory_learns_only_from_kept_steps(float64):
    states = run("rosenbrock", ROSENBROCK, 60)
    for before, after in itertools.pairwise(states):
        if not after.info.accepted:
            for a, b in zip(*map(jax.tree.leaves, (before.model, after.model)), strict=False):
                if np.shape(a) and np.shape(a)[0] == 10:
                    np.testing.assert_array_equal(a, b)
        else:
            assert after.info.num_pairs == min(int(before.info.num_pairs) + 1, 10)


def last(name, params, steps=100, **more):
    states = run(name, params, steps, **more)
    check_states(states)
    return states


def test_at_the_minimum_already():
    (state,) = last("quadratic", [0.0, 0.0], 3)
    assert state.info.status == Status.GRADIENT_TOL


@pytest.mark.parametrize("name", ["line", "exponential", "concave"])
def test_unbounded(name):
    state = last(name, [1.0, 0.0])[-1]
    assert state.info.status == Status.UNBOUNDED
    assert state.level < -1e13


def test_a_start_that_is_not_finite_commits_nothing():
    for start in ([-1.0, 0.0], [NAN, 1.0], [INF, 1.0]):
        (state,) = run("log", start, 5)
        assert state.info.status == Status.NONFINITE_START
        assert state.fresh
        assert not state.modeled
        assert jnp.all(jnp.isfinite(state.grad))
        assert state.level == INF


def test_only_the_start_is_finite():
    states = last("only here", [1.0, 1.0])
    assert states[-1].info.status == Status.NONFINITE_TRIALS
    np.testing.assert_array_equal(states[-1].params, [1, 1])
    assert states[-1].level == 2
    assert len(states) <= line_search.MAX_TRIALS + 1


def test_a_gradient_of_the_wrong_sign(dtype):
    states = last("misled", jnp.array([1.0, 1.0], dtype))
    assert states[-1].info.status == Status.LINE_SEARCH_FAILED
    np.testing.assert_array_equal(states[-1].params, [1, 1])
    assert len(states) <= line_search.MAX_TRIALS + 1


def test_the_rounding_floor_of_float32():
    for name, start in (("shifted", [3.0, -1.0]), ("rosenbrock", ROSENBROCK)):
        states = last(name, start, tolerance=0.0)
        assert states[-1].info.status in (Status.ROUNDOFF_LIMITED, Status.GRADIENT_TOL)
        assert states[-1].info.grad_norm < 1e-4
    state = run("shifted", [3.0, -1.0], 100, tolerance=0.0)[-1]
    assert state.info.status == Status.ROUNDOFF_LIMITED
    first = 0.3 + 3 * np.log(2.1)  # where exp(x0 / 3 - 0.1) / 3 = 0.7; values alone see 1e-2
    np.testing.assert_allclose(state.params, [first, 7 * (first - 0.3)], atol=2e-4)


def test_a_failed_search_costs_the_pairs_before_it_ends_the_run():
    states = last("switched", [2.0, 1.0], 200)
    pairs = [int(state.info.num_pairs) for state in states]
    assert states[-1].info.status == Status.LINE_SEARCH_FAILED
    assert max(pairs) > 1
    assert pairs[-1] == 0
    forgotten = [k for k in range(1, len(pairs)) if pairs[k] < pairs[k - 1]]
    assert len(forgotten) >= 1
    at = states[forgotten[0]]
    assert at.info.status == Status.RUNNING
    g, size = np.asarray(at.grad), np.linalg.norm(at.params)
    norm = np.linalg.norm(g)  # and the next step is along -grad, of length 1 or |params| at most
    length = np.clip(min(norm, 1), 1e-3 * size, size)
    np.testing.assert_allclose(at.step.step, -g * length / norm, rtol=1e-5)


class Held(NamedTuple):
    """A memory that claims a pair."""

    num_pairs: jax.Array


def uphill():
    """A machine whose direction points uphill."""
    return descent.machine(
        Line(
            empty=lambda params: ((), Held(jnp.ones((), jnp.int32))),
            learn=lambda history, table, pair, kept: (history, table),
            direct=lambda history, table, rhs: (table, rhs),
        )
    )


def test_an_uphill_direction_falls_back_to_minus_the_gradient():
    machine = uphill()
    state = machine.start(jnp.array([3.0, 0.04]))
    for _ in range(2):  # the start; then the trial that tells the slope
        state = machine.tell(state, value_and_grad(quadratic, machine.ask(state)))
    np.testing.assert_allclose(state.step.step, [-0.6, -0.8], rtol=1e-5)
    assert state.model.table.num_pairs == 0


def test_the_best_point_is_never_worse_and_a_wall_is_met(dtype):
    states = last("barrier", jnp.array([5.0, 1.0], dtype))
    assert states[-1].info.status == Status.GRADIENT_TOL or dtype == jnp.float32
    np.testing.assert_allclose(states[-1].params, [0.05, 0.05], rtol=1e-3)
    bad = [state for state in states if (state.params + state.step.step)[0] <= 0]
    assert bad


@pytest.mark.slow
def test_lanes_are_independent():
    starts = jnp.array([[2.0, 1.0], [NAN, 0.0], [0.0, 0.0]])
    tell = lambda state: MACHINE.tell(state, value_and_grad(quadratic, MACHINE.ask(state)))
    state = jax.jit(jax.vmap(lambda p: tell(tell(MACHINE.start(p)))))(starts)
    alone = run("quadratic", starts[0], 1)[1]
    np.testing.assert_allclose(state.params[0], alone.params, rtol=1e-6)
    assert list(state.info.status) == [0, Status.NONFINITE_START, Status.GRADIENT_TOL]
