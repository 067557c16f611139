"""A restricted function is the function, its Hessian the block; an update's arguments follow."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hesskit.core.restrict import Inputs, inputs, restrict

PARAMS = {"u": jnp.array([0.3, -0.7]), "v": jnp.array([1.1])}
FREE = {"u": PARAMS["u"], "v": None}
HELD = {"u": None, "v": PARAMS["v"]}


def fn(p, scale, *, shift=0.0):
    return scale * jnp.sum(jnp.sin(p["u"]) * p["v"][0]) ** 2 + jnp.sum(p["u"] ** 4) + shift


@pytest.mark.slow
def test_value_gradient_and_hessian_are_the_blocks():
    phi = restrict(fn, HELD)
    assert phi(FREE, 2.0) == fn(PARAMS, 2.0)
    np.testing.assert_array_equal(jax.grad(phi)(FREE, 2.0)["u"], jax.grad(fn)(PARAMS, 2.0)["u"])
    block = jax.hessian(phi)(FREE, 2.0)["u"]["u"]
    np.testing.assert_allclose(block, jax.hessian(fn)(PARAMS, 2.0)["u"]["u"], rtol=1e-6)


def test_the_signature_is_kept():
    assert inspect.signature(restrict(fn, HELD)) == inspect.signature(fn)


def test_an_error_gains_a_note_with_all_params():
    def bad(p):
        raise KeyError("w")

    with pytest.raises(KeyError) as caught:
        restrict(bad, HELD, caller="masked.update")(FREE)
    (note,) = caught.value.__notes__
    assert "hesskit.masked.update with params {u: float32[2], v: float32[1]}" in note.replace(
        "'", ""
    )


def test_inputs_of_the_chosen_leaves():
    twice = jax.tree.map(lambda a: 2 * a, PARAMS)
    extra = {"value_fn": fn, "obj_fn": fn, "grad": PARAMS, "value": 1.0, "scale": 3.0}
    mine = inputs(Inputs(twice, PARAMS, extra), (True, False), name="masked")
    assert mine.updates == {"u": twice["u"], "v": None}
    assert mine.params == FREE
    assert mine.extra["grad"] == FREE
    assert (mine.extra["value"], mine.extra["scale"]) == (1.0, 3.0)
    for key in ("value_fn", "obj_fn"):
        assert mine.extra[key](FREE, scale=3.0) == fn(PARAMS, 3.0)
    assert extra["grad"] is PARAMS


def test_inputs_without_params_or_functions():
    mine = inputs(Inputs(PARAMS, None, {}), (False, True), name="masked")
    assert mine == Inputs(HELD, None, {})


def test_inputs_that_do_not_fit():
    with pytest.raises(ValueError, match=r"masked.update needs the current params"):
        inputs(Inputs(PARAMS, None, {"value_fn": fn}), (True, False), name="masked")
    with pytest.raises(ValueError, match="updates must have the structure of params"):
        inputs(Inputs(FREE, PARAMS, {}), (True, False), name="masked")
    grad = {"u": jnp.ones(2), "v": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"grad\['v'\] has shape \(2,\), params \(1,\)"):
        inputs(Inputs(PARAMS, PARAMS, {"grad": grad}), (True, False), name="masked")


def test_optax_finds_data_through_the_signature():
    """Its line searches pass to `value_fn` what its signature names."""
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=10)
    grad = {"u": jax.grad(fn)(PARAMS, 2.0)["u"], "v": None}
    extra = {"value_fn": restrict(fn, HELD), "value": fn(PARAMS, 2.0), "grad": grad, "scale": 2.0}
    downhill = jax.tree.map(jnp.negative, grad)
    updates, _ = search.update(downhill, search.init(FREE), FREE, **extra)
    moved = optax.apply_updates(PARAMS, {"u": updates["u"], "v": jnp.zeros(1)})
    assert fn(moved, 2.0) < fn(PARAMS, 2.0)
