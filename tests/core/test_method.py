"""The vocabulary of a machine: its first state, where it asks, when a point is at rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import method, tree
from hesskit.core.method import INFO_FIELDS
from tests.core.rules import STEEPEST

PARAMS = {"w": jnp.ones((2, 2), "bfloat16"), "b": jnp.zeros(3)}


def test_the_first_state_knows_nothing_and_asks_for_the_start():
    state = method.start(STEEPEST, PARAMS)
    assert bool(state.fresh)
    assert not state.modeled
    assert state.count == 0
    assert jnp.isinf(state.level)
    assert state.size == 0  # the first model will choose it
    assert tree.equal(method.ask(state), PARAMS)
    assert jax.tree.map(jnp.result_type, state.grad) == jax.tree.map(jnp.result_type, PARAMS)


def test_a_given_size_is_there_from_the_start():
    assert method.start(STEEPEST._replace(size=0.5), PARAMS).size == 0.5
    assert method.start(STEEPEST._replace(size=lambda count: 3.0), PARAMS).size == 0


def test_asks_for_the_trial_bitwise_where_apply_updates_goes():
    state = method.start(STEEPEST, PARAMS)
    step = {"w": jnp.full((2, 2), 1e-3, "bfloat16"), "b": jnp.full((3,), 1e-9)}
    state = state._replace(fresh=jnp.array(False), step=state.step._replace(step=step))
    expected = jax.tree.map(lambda p, u: jnp.asarray(p + u, p.dtype), PARAMS, step)
    assert tree.equal(method.ask(state), expected)


def test_every_info_begins_alike():
    info = method.start(STEEPEST, PARAMS).info
    assert info._fields[: len(INFO_FIELDS)] == INFO_FIELDS
    for name in ("status", "num_values", "num_grads", "num_products"):
        assert getattr(info, name).dtype == "int32"


@pytest.mark.parametrize(
    ("grad_norm", "value", "rest"),
    [
        (0.9, 0.0, True),
        (1.1, 0.0, False),
        (0.9, -100.0, True),
        (1.1, 1e6, False),  # not relative to the value: a constant added to f changes nothing
        (float("nan"), 0.0, False),
        (0.0, float("nan"), False),
        (0.0, float("inf"), False),
        (0.0, -float("inf"), False),
    ],
)
def test_at_rest(grad_norm: float, value: float, rest: bool):
    tolerance = jnp.array(1.0)
    assert bool(method.is_at_rest(jnp.array(grad_norm), jnp.array(value), tolerance)) is rest


def test_default_tolerance_is_that_of_the_coarsest_leaf():
    np.testing.assert_allclose(
        method.default_tolerance(PARAMS), float(jnp.finfo("bfloat16").eps) ** (2 / 3), rtol=1e-6
    )


def test_small_and_unbounded(dtype):
    eps = float(jnp.finfo(dtype).eps)
    one = jnp.ones((), dtype)
    assert method.is_small(0.9 * eps ** (1 / 3) * one, eps)
    assert not method.is_small(1.1 * eps ** (1 / 3) * one, eps)
    assert not method.is_small(one * jnp.nan, eps)
    assert method.unbounded(-2 * one / eps**2, eps)
    assert not method.unbounded(-0.5 * one / eps**2, eps)
    assert not method.unbounded(one * jnp.nan, eps)


def test_a_half_precision_loss_may_be_negative():
    value = jnp.asarray(-30000.0, "bfloat16")
    assert not method.unbounded(value, float(jnp.finfo("bfloat16").eps))


def test_the_value_that_optax_reads_has_the_widest_dtype_of_params():
    assert method.value_dtype(PARAMS) == "float32"
    assert method.value_dtype(jnp.ones(1, "bfloat16")) == "bfloat16"
    assert method.value_dtype(jnp.ones(1, "complex64")) == "float32"
