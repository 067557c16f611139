"""What the state knows is not evaluated again; an Info is found wherever its state is."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from hesskit.core.method import INFO_FIELDS
from tests.contracts.support import assert_same

NAMES = {"value": jnp.array([1.5, -1.0]), "grad": {"count": jnp.array([0.3]), "info": jnp.ones(1)}}
"""Parameters under the names that `optax.tree.get` looks for."""


def loss(params, shift=0.0):
    return sum(jnp.sum((leaf - shift) ** 4 + leaf**2) for leaf in jax.tree.leaves(params))


def counted(calls):
    """`loss`, counting each time it runs in a compiled program."""

    def fn(params, shift=0.0):
        jax.debug.callback(lambda: calls.append(1))
        return loss(params, shift)

    return fn


def evaluations(opt, num=4):
    """How often the objective ran in each of `num` calls of value_and_grad_from_state."""
    value_and_grad = jax.jit(hesskit.value_and_grad_from_state(counted(calls := [])))
    update = jax.jit(
        lambda v, g, s, p: opt.update(g, s, p, value=v, grad=g, value_fn=loss),
    )
    params, state, spent = NAMES, opt.init(NAMES), []
    for _ in range(num):
        calls.clear()
        value, grad = value_and_grad(params, state=state)
        jax.effects_barrier()
        spent.append(len(calls))
        expected = jax.value_and_grad(loss)(params)
        for a, b in zip(jax.tree.leaves((value, grad)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        updates, state = update(value, grad, state, params)
        params = optax.apply_updates(params, updates)
    return spent


@pytest.mark.slow
def test_only_the_start_is_evaluated():
    assert evaluations(hesskit.newton()) == [1, 0, 0, 0]


def test_a_step_that_was_not_judged_is_evaluated():
    assert evaluations(hesskit.newton(0.5), 3) == [1, 1, 1]


def test_a_state_of_some_leaves_is_not_enough():
    assert evaluations(hesskit.freeze(hesskit.newton(), "value"), 2) == [1, 1]


def test_dtypes_are_those_of_an_evaluation(float64):
    """A float32 state of an objective in float64."""
    params = jnp.array([1.0, 2.0], "float32")
    wide = lambda p: jnp.sum(p.astype("float64") ** 2)
    opt = hesskit.newton()
    run = jax.jit(hesskit.value_and_grad_from_state(wide))
    state = opt.init(params)
    assert_same(run(params, state=state), jax.value_and_grad(wide)(params))
    _, state = opt.update(2 * params, state, params, value_fn=wide)
    value, grad = run(jnp.zeros(2, "float32"), state=state)
    assert (value.dtype, grad.dtype) == ("float64", "float32")
    assert value == state.value.astype("float64")


def test_data_and_aux():
    pair = lambda p, shift, *, scale: (scale * loss(p, shift), {"aux": shift})
    state = hesskit.newton().init(NAMES)
    run = hesskit.value_and_grad_from_state(pair, has_aux=True)
    value, _ = run(NAMES, 0.5, state=state, scale=2.0)
    np.testing.assert_allclose(value, 2 * loss(NAMES, 0.5), rtol=1e-6)


def test_under_vmap_each_lane_has_its_own():
    """One lane knows its value, the other does not."""
    state = hesskit.newton().init(jnp.zeros(2))
    known = state._replace(value=jnp.array(7.0), grad=jnp.full(2, 5.0))
    states = jax.tree.map(lambda a, b: jnp.stack([a, b]), state, known)
    run = hesskit.value_and_grad_from_state(loss)
    x = jnp.ones((2, 2))
    values, grads = jax.vmap(lambda x, state: run(x, state=state))(x, states)
    np.testing.assert_array_equal(values, [4.0, 7.0])
    np.testing.assert_array_equal(grads, [[6.0, 6.0], [5.0, 5.0]])


def test_what_is_said_of_other_states():
    run = hesskit.value_and_grad_from_state(loss)
    with pytest.raises(ValueError, match="no state of a hesskit transform in ScaleByAdamState"):
        run(NAMES, state=optax.scale_by_adam().init(NAMES))
    two = optax.chain(hesskit.newton(), hesskit.newton()).init(NAMES)
    for find in (lambda state: run(NAMES, state=state), hesskit.last_info):
        with pytest.raises(ValueError, match="2 states of hesskit transforms in tuple; pass the"):
            find(two)
    with pytest.raises(ValueError, match="no state of a hesskit transform in EmptyState"):
        hesskit.last_info(optax.EmptyState())
    with pytest.raises(TypeError, match="value_fn must be a function of params, got int"):
        hesskit.value_and_grad_from_state(3)
    with pytest.raises(TypeError, match="value_fn returned a tuple of 2"):
        hesskit.value_and_grad_from_state(lambda p: (loss(p), 0))(NAMES, state=two[0])


WRAPPED = {
    "itself": lambda: hesskit.newton(),
    "chain": lambda: optax.chain(optax.clip(1.0), optax.chain(hesskit.newton())),
    "masked": lambda: hesskit.masked(hesskit.newton(), "value"),
    "partition": lambda: hesskit.partition(
        {0: hesskit.newton(), 1: optax.sgd(0.1)}, {"value": 0, "grad": 1}
    ),
    "apply_if_finite": lambda: optax.apply_if_finite(hesskit.newton(), 2),
    "inject_hyperparams": lambda: optax.inject_hyperparams(hesskit.newton)(learning_rate=0.5),
    "MultiSteps": lambda: optax.MultiSteps(hesskit.newton(), 2),
}


@pytest.mark.standard_promotion("optax's wrappers")
@pytest.mark.parametrize("name", WRAPPED)
def test_the_info_is_found_in(name):
    state = WRAPPED[name]().init(NAMES)
    info = hesskit.last_info(state)
    assert info._fields[: len(INFO_FIELDS)] == INFO_FIELDS
    assert_same(info, hesskit.newton().init(NAMES).info)


class Other(NamedTuple):
    info: object
    rest: object


def test_an_info_without_a_state_of_ours():
    info = hesskit.newton().init(NAMES).info
    assert_same(hesskit.last_info({"a": Other(info, jnp.ones(2))}), info)


@jax.tree_util.register_pytree_node_class
class Variable:
    """What flax.nnx wraps around each leaf of `Optimizer.opt_state`."""

    def __init__(self, value):
        self._value = value

    def get_value(self):
        return self._value

    def tree_flatten(self):
        return (self._value,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def test_leaves_that_flax_wrapped():
    opt = hesskit.newton()
    params = {"w": Variable(jnp.ones(2))}
    updates, state = opt.update(params, opt.init(params), params, value_fn=loss)
    wrapped = jax.tree.map(Variable, state)
    assert_same(hesskit.last_info(wrapped), state.info)
    moved = jax.tree.map(jnp.add, params, updates)
    value, grad = hesskit.value_and_grad_from_state(loss)(moved, state=wrapped)
    assert value == state.value
    assert_same(grad["w"].get_value(), state.grad["w"].get_value())
