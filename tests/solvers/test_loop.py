"""The loop's own rules, on a driver whose numbers are given: tolerances, the limit, the record."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core.status import Status
from hesskit.solvers import driver, loop
from hesskit.solvers.driver import Point

LIMITS = {"tolerance": 1e-6, "ftol": 0.0, "xtol": 0.0, "max_steps": 20}


def scripted(codes: dict[int, Status], accepted: bool = True) -> driver.Driver:
    """Step k is at x = 2^-k with value 1 + x, and reports the status given for it."""

    def advance(step, looking):
        del looking
        x = jnp.exp2(-step.astype("float32"))
        point = Point(x, 1 + x, x)
        code = jnp.zeros((), jnp.int32)
        for at, status in codes.items():
            code = jnp.where(step == at, jnp.int32(status), code)
        one, no = jnp.ones((), jnp.int32), jnp.array(False)
        kept = jnp.array(accepted)
        report = driver.Report(point, point, None, x, kept, code, no, no, no, one, one, 2 * one)
        return step + 1, report

    return driver.Driver(lambda params: jnp.int32(0), lambda carry, params: carry, advance)


def run(codes=None, accepted: bool = True, history=False, check="second_order", **limits):
    static = loop.Static(None, None, (), False, "test", False, check, history, 25, None, False)
    numbers = {**LIMITS, **limits}
    dtypes = {"max_steps": "int32"}
    given = loop.Limits(**{k: jnp.asarray(v, dtypes.get(k, "float32")) for k, v in numbers.items()})
    engine = scripted(codes or {}, accepted)
    empty = driver.blank(jnp.zeros(()), None)
    return loop.run(engine, jnp.int32(0), static, given, empty=empty, present=lambda p: p)


def test_the_limit_counts_steps_and_not_the_start():
    out = run(max_steps=3)
    assert out.status == Status.MAX_STEPS
    assert out.num_steps == 3
    assert (out.num_values, out.num_grads, out.num_products) == (4, 4, 8)


def test_the_drivers_word_comes_first():
    out = run({5: Status.ROUNDOFF_LIMITED}, xtol=2.0**-5, max_steps=5)
    assert out.status == Status.ROUNDOFF_LIMITED
    assert out.num_steps == 5
    assert run({0: Status.NONFINITE_START}).num_steps == 0


@pytest.mark.parametrize(
    ("limits", "code", "steps"),
    [
        # 2^-k <= 0.12 (1 + 2^-(k-1)) first at k = 3
        ({"ftol": 0.12}, Status.VALUE_TOL, 3),
        # step 2^-k against xtol (2^-k + xtol): satisfied for every k where xtol >= 1
        ({"xtol": 1.0}, Status.STEP_TOL, 1),
        # 2^-k <= xtol 2^-k + xtol^2 first at 2^-k <= 0.5
        ({"xtol": 0.5}, Status.STEP_TOL, 1),
        # 2^-k (1 - 0.25) <= 0.0625: 2^-4
        ({"xtol": 0.25}, Status.STEP_TOL, 4),
        ({"xtol": 0.25, "ftol": 0.12}, Status.VALUE_TOL, 3),
        ({}, Status.MAX_STEPS, 20),
    ],
)
def test_tolerances(limits: dict, code: Status, steps: int):
    out = run(**limits)
    assert (out.status, out.num_steps) == (code, steps)


def test_a_rejected_step_meets_no_tolerance():
    assert run(accepted=False, ftol=0.9, xtol=0.9).status == Status.MAX_STEPS


@pytest.mark.parametrize("history", [True, "params"])
def test_the_record(history):
    out = run({4: Status.GRADIENT_TOL}, history=history)
    h = out.history
    assert h.length == 5
    np.testing.assert_array_equal(h.value[:5], 1 + 2.0 ** -np.arange(5))
    np.testing.assert_array_equal(h.num_values[:5], np.arange(5) + 1)
    assert np.all(np.isnan(h.value[5:]))
    assert not np.any(h.accepted[5:])
    if history == "params":
        np.testing.assert_array_equal(h.params[:5], 2.0 ** -np.arange(5))
        assert np.all(np.isnan(h.params[5:]))
    else:
        assert h.params is None
    assert run().history is None


def test_lanes_stop_apart_and_stay_frozen():
    out = jax.vmap(lambda n: run(max_steps=n, history=True))(jnp.array([2, 6]))
    assert out.num_steps.tolist() == [2, 6]
    assert out.history.length.tolist() == [3, 7]
    assert np.isnan(out.history.value[0, 3:]).all()
    np.testing.assert_array_equal(out.report.now.params, [2.0**-2, 2.0**-6])
