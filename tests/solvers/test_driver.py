"""Both engines by their protocol: the first advance evaluates, the best point is never lost."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from hesskit.core.status import Status
from hesskit.solvers import driver

START = jnp.array([2.0, -1.0])
NAN = float("nan")


def fn(x):
    return jnp.sum(x**2 * jnp.array([1.0, 0.3])), {"x": x}


def problem(objective=fn, gtol: float = 1e-4) -> driver.Problem:
    return driver.Problem(objective, jnp.array(gtol), {"x": jnp.zeros(2)})


def engine_of(name: str, objective=fn) -> driver.Driver:
    made = problem(objective)
    if name == "machine":
        return driver.machine(hesskit.trust_region().method, made)
    return driver.updated(optax.with_extra_args_support(optax.sgd(0.1)), made, START)


def run(engine: driver.Driver, steps: int, carry=None) -> tuple:
    advance = jax.jit(engine.advance)
    carry = engine.start(START) if carry is None else carry
    reports = []
    for _ in range(steps + 1):
        carry, report = advance(carry)
        reports.append(report)
    return carry, reports


@pytest.fixture(params=["machine", "updated"])
def name(request) -> str:
    return request.param


@pytest.mark.standard_promotion("optax.sgd promotes")
def test_the_first_advance_evaluates_the_start(name: str):
    _, (report,) = run(engine_of(name), 0)
    assert report.best.value == report.now.value == fn(START)[0]
    np.testing.assert_allclose(report.best.grad_norm, np.hypot(4.0, 0.6), rtol=1e-6)
    np.testing.assert_array_equal(report.best.params, START)
    np.testing.assert_array_equal(report.aux["x"], START)
    assert (report.step_norm, report.num_values, report.num_grads) == (0, 1, 1)
    assert bool(report.accepted)
    assert report.status == Status.RUNNING


@pytest.mark.standard_promotion("optax.sgd promotes")
def test_reports_have_the_shapes_of_a_blank_one(name: str):
    _, (report,) = run(engine_of(name), 0)
    blank = driver.blank(START, {"x": jnp.zeros(2)})
    assert jax.tree.map(lambda a: (a.shape, a.dtype), report) == jax.tree.map(
        lambda a: (a.shape, a.dtype), blank
    )


@pytest.mark.standard_promotion("optax.sgd promotes")
def test_aux_belongs_to_the_best_point(name: str):
    for report in run(engine_of(name), 4)[1]:
        np.testing.assert_array_equal(report.aux["x"], report.best.params)
        np.testing.assert_allclose(report.best.value, fn(report.best.params)[0], rtol=1e-6)


@pytest.mark.standard_promotion("optax.sgd promotes")
def test_a_start_that_is_not_finite(name: str):
    _, (report,) = run(engine_of(name, lambda x: (jnp.log(-jnp.sum(x**2)), {"x": x})), 0)
    assert report.status == Status.NONFINITE_START
    assert jnp.isnan(report.best.value)
    assert not report.at_rest
    np.testing.assert_array_equal(report.best.params, START)


@pytest.mark.standard_promotion("optax.sgd promotes")
def test_the_best_point_survives_bad_updates():
    # A learning rate of 1.5 makes x_0 grow by -2 each step.
    made = driver.updated(optax.with_extra_args_support(optax.sgd(1.5)), problem(), START)
    reports = run(made, 5)[1]
    values = np.array([report.now.value for report in reports])
    best = np.array([report.best.value for report in reports])
    assert values[-1] > values[0]
    np.testing.assert_array_equal(best, np.minimum.accumulate(values))


@pytest.mark.standard_promotion("optax.sgd promotes")
def test_an_update_to_nan_ends_the_run_at_the_best_point():
    wall = lambda x: (jnp.where(x[0] < 1.5, NAN, fn(x)[0]), {"x": x})
    reports = run(engine_of("updated", wall), 2)[1]
    assert reports[-1].status == Status.NONFINITE_TRIALS
    assert jnp.isfinite(reports[-1].best.value)
    assert reports[-1].best.params[0] >= 1.5


@pytest.mark.standard_promotion("optax.sgd promotes")
def test_resuming_evaluates_anew_and_goes_on(name: str):
    engine = engine_of(name)
    carry, reports = run(engine, 2)
    point = reports[-1].best.params
    again = run(engine, 2, engine.resume(carry, point))[1]
    whole = run(engine, 4)[1]
    assert again[0].now.value == reports[-1].now.value
    assert again[0].num_values == 1
    np.testing.assert_array_equal(again[-1].now.params, whole[-1].now.params)
    # At another point the value is that point's.
    elsewhere = run(engine, 0, engine.resume(carry, START + 1))[1][0]
    assert elsewhere.best.value == fn(START + 1)[0]


@pytest.mark.slow
def test_a_machine_looks_again_for_curvature_where_the_tolerance_grew():
    made = driver.machine(hesskit.newton_cg().method, problem(gtol=1e-6))
    carry = run(made, 1)[0]
    loose = driver.machine(hesskit.newton_cg().method, problem(gtol=1e3))
    assert bool(carry.state.modeled)
    assert not loose.resume(carry, carry.state.params).state.modeled
    assert bool(made.resume(carry, carry.state.params).state.modeled)
