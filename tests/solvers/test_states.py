"""What an optax state says is read by type, whatever the names in the parameters."""

import jax
import jax.numpy as jnp
import optax
import pytest

import hesskit
from hesskit.core.method import State
from hesskit.core.status import Status
from hesskit.solvers.states import counts, with_tolerance, word

PARAMS = {"value": jnp.ones(2), "status": jnp.zeros(()), "info": jnp.ones(1)}


def fn(p):
    return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(p)), start=jnp.zeros(()))


def updated(optimizer):
    value, grad = jax.value_and_grad(fn)(PARAMS)
    return optimizer.update(
        grad, optimizer.init(PARAMS), PARAMS, value=value, grad=grad, value_fn=fn
    )[1]


@pytest.mark.slow
def test_counts_of_ours_alone_and_inside_wrappers():
    ours = updated(hesskit.trust_region())
    assert [int(n) for n in counts(ours)] == [2, 2, 4]
    wrapped = updated(optax.chain(optax.clip(10.0), hesskit.trust_region()))
    assert [int(n) for n in counts(wrapped)] == [2, 2, 4]


@pytest.mark.slow
@pytest.mark.standard_promotion("optax.lbfgs promotes")
def test_counts_of_optax_line_searches():
    state = updated(optax.lbfgs())
    steps = int(state[-1].info.num_linesearch_steps)
    assert steps > 0
    assert [int(n) for n in counts(state)] == [steps, steps, 0]


@pytest.mark.standard_promotion("optax.adam promotes")
def test_first_order_states_count_nothing_and_stop_at_rest():
    state = updated(optax.adam(0.1))
    assert [int(n) for n in counts(state)] == [0, 0, 0]
    yes, no = jnp.array(True), jnp.array(False)
    assert word(state, yes, no) == Status.GRADIENT_TOL
    assert word(state, no, no) == Status.RUNNING


def test_a_machine_inside_speaks_for_itself():
    yes, no = jnp.array(True), jnp.array(False)
    state = hesskit.trust_region().init(PARAMS)

    def said(code: Status):
        return (
            state._replace(info=state.info._replace(status=jnp.int32(code))),
            optax.EmptyState(),
        )

    assert word(said(Status.RUNNING), yes, no) == Status.RUNNING  # it may be leaving a saddle
    assert word(said(Status.GRADIENT_TOL), yes, no) == Status.GRADIENT_TOL
    assert word(said(Status.GRADIENT_TOL), no, no) == Status.RUNNING  # not so at the best point
    assert word(said(Status.ROUNDOFF_LIMITED), no, no) == Status.ROUNDOFF_LIMITED
    assert word(said(Status.SADDLE), yes, no) == Status.SADDLE
    assert word(said(Status.SADDLE), yes, yes) == Status.RUNNING  # nothing was updated yet
    assert word(said(Status.NONFINITE_START), no, no) == Status.RUNNING  # the loop sees it itself


def test_the_tolerance_reaches_every_machine_inside():
    tolerance = jnp.array(1e-2)
    inner = optax.chain(hesskit.trust_region(), optax.identity()).init(PARAMS)
    told = with_tolerance(inner, tolerance)
    assert jax.tree.structure(told) == jax.tree.structure(inner)
    (state,) = [node for node in told if isinstance(node, State)]
    assert jnp.array_equal(state.tolerance, tolerance)
    assert with_tolerance(optax.EmptyState(), tolerance) == optax.EmptyState()
