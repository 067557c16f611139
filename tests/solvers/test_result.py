"""A result is a value: a pytree with sentences."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from hesskit.core.residuals import least_squares_loss
from hesskit.core.status import TOLERANCES, Status
from hesskit.solvers.minimize import minimize
from hesskit.solvers.result import Result, count_statuses
from hesskit.transforms.levenberg_marquardt import levenberg_marquardt


def result_of(status: int, *, stationary: bool = True, value: float = 1.5) -> Result:
    one = jnp.ones((), jnp.int32)
    return Result(
        params={"w": jnp.ones(2)},
        value=jnp.array(value),
        grad_norm=jnp.array(1e-7),
        status=jnp.array(status, jnp.int32),
        stationary=jnp.array(stationary),
        num_steps=7 * one,
        num_values=8 * one,
        num_grads=9 * one,
        num_products=10 * one,
        aux=None,
        history=None,
        state=None,
        method="newton_cg",
    )


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("stationary", [True, False])
def test_success_needs_a_tolerance_and_a_stationary_point(status, stationary: bool, x64):
    result = result_of(status, stationary=stationary)
    assert bool(result.success) is (stationary and status in TOLERANCES)


def test_usable():
    assert result_of(Status.MAX_STEPS).usable
    assert not result_of(Status.NONFINITE_START).usable
    assert not result_of(Status.MAX_STEPS, value=float("nan")).usable


def test_message_and_print():
    result = result_of(Status.MAX_STEPS)
    assert result.message.startswith("MAX_STEPS: stopped after max_steps=7 as asked")
    assert str(result).splitlines() == [
        "newton_cg: no success, value 1.5, gradient norm 1.00e-07",
        "7 steps, 8 values, 9 gradients, 10 Hessian products",
        result.message,
    ]
    assert "float32" in result_of(Status.ROUNDOFF_LIMITED).message
    wide = dataclasses.replace(
        result_of(Status.ROUNDOFF_LIMITED), params={"w": jnp.ones(2, "bfloat16")}
    )
    assert "bfloat16" in wide.message


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1e-4, 1e4])
def test_the_message_of_a_fit_is_true_in_any_unit(unit):
    """|g| goes with the square of the unit of the residuals, and the fit ends all the same."""
    noisy = jnp.array([0.9, 2.1, 2.9])
    loss = least_squares_loss(lambda p: unit * (jnp.exp(p) * jnp.arange(1.0, 4.0) - noisy))
    result = minimize(loss, jnp.array(1.0), levenberg_marquardt())
    assert result.status == Status.GRADIENT_TOL
    is_small = bool(result.grad_norm <= jnp.finfo(jnp.float32).eps ** (2 / 3))
    assert is_small == (unit < 1)
    assert ("orthogonal to the Jacobian" in result.message) == (not is_small)
    assert (f"gradient norm {result.grad_norm:.1e} is zero to gtol" in result.message) == is_small


def test_a_batch_is_counted():
    batch = jax.tree.map(
        lambda *rows: jnp.stack(rows),
        result_of(Status.GRADIENT_TOL),
        result_of(Status.MAX_STEPS),
        result_of(Status.GRADIENT_TOL, stationary=False),
    )
    assert count_statuses(batch) == "1 of 3 succeeded: 2 GRADIENT_TOL, 1 MAX_STEPS"
    assert batch.message == count_statuses(batch)
    assert "newton_cg" in str(batch)


def test_a_result_passes_through_transformations():
    result = result_of(Status.GRADIENT_TOL)
    same = jax.jit(lambda r: r)(result)
    assert isinstance(same, Result)
    assert same.method == "newton_cg"
    assert jax.jit(lambda r: r.success)(result)
    seen = []
    jax.jit(lambda r: seen.append(str(r)) or r.value)(result)
    shapes = jax.eval_shape(lambda r: r, result)
    assert [*seen, str(shapes)] == ["Result of newton_cg"] * 2
