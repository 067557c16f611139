"""The answers of many problems: counts, indices, one of them, and as a pytree."""

import jax
import jax.numpy as jnp
import pytest

from hesskit.core.status import Status
from hesskit.solvers.many_result import ManyResult
from hesskit.solvers.result import Result


def many(codes):
    count, zero = jnp.zeros(len(codes), jnp.int32), jnp.zeros(len(codes))
    return ManyResult(
        params={"x": jnp.arange(float(len(codes)))},
        value=zero,
        grad_norm=zero,
        status=jnp.asarray(codes, jnp.int32),
        stationary=count == 0,
        num_steps=count,
        num_values=count,
        num_grads=count,
        num_products=count,
        aux=None,
        history=None,
        state=None,
        method="trust_region",
    )


def test_counts_and_failures():
    codes = [Status.GRADIENT_TOL] * 20 + [Status.MAX_STEPS] * 10
    result = many(codes)
    assert result.num_success == 20
    assert result.failed.tolist() == list(range(20, 30))
    assert str(result) == (
        "trust_region: 20 of 30 succeeded: 20 GRADIENT_TOL, 10 MAX_STEPS\n"
        "failed: 20, 21, 22, 23, 24, 25, 26, 27, ... (result.failed; result[i] says why)"
    )
    assert len(result) == 30


def test_one_of_them_is_a_result():
    one = many([Status.GRADIENT_TOL, Status.MAX_STEPS])[1]
    assert type(one) is Result
    assert one.params["x"] == 1.0
    assert one.message.startswith("MAX_STEPS")


def test_there_is_none_beyond_the_last():
    result = many([Status.GRADIENT_TOL] * 3)
    with pytest.raises(IndexError, match="problem 3 of 3"):
        result[3]
    with pytest.raises(IndexError, match="problem -4 of 3"):
        result[-4]
    assert [float(one.params["x"]) for one in result] == [0.0, 1.0, 2.0]
    assert result[1:].params["x"].tolist() == [1.0, 2.0]
    assert len(result[1:]) == 2
    assert result[-1].params["x"] == 2.0
    assert result[jnp.array(2)].params["x"] == 2.0


def test_it_passes_through_jit():
    result = jax.jit(lambda r: r)(many([Status.GRADIENT_TOL]))
    assert isinstance(result, ManyResult)
    jax.jit(lambda r: (str(r), r.num_success)[1])(result)
