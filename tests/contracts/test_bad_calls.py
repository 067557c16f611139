"""Misuse raises TypeError or ValueError with argument, value and path, at call or trace time."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.contracts.registry import DEFAULTS
from tests.contracts.support import bowl, start

each_default = pytest.mark.parametrize("case", DEFAULTS)

BAD_LEAVES = {
    "an integer": (jnp.arange(2), "is int32; write 0.0. Derivatives need floats"),
    "a Python integer": (3, "is int; write 3.0. Derivatives need floats"),
    "a boolean": (jnp.ones(2, bool), "is bool; Derivatives need floats"),
    "a string": ("abc", "is str 'abc'; expected an array"),
    "no array": (object(), "expected an array"),
    "an integer of NumPy": (np.arange(2, dtype=np.int32), "is int32; write 0.0"),
}


@each_default
@pytest.mark.parametrize("kind", BAD_LEAVES)
def test_leaves_that_are_no_floats(case, kind):
    leaf, said = BAD_LEAVES[kind]
    opt, params = case.make(), {"a": jnp.ones(2), "b": [jnp.ones(()), leaf]}
    said = re.escape(f"params['b'][1] {said}") if kind != "no array" else said
    with pytest.raises(TypeError, match=said):
        opt.init(params)
    good = opt.init({"a": jnp.ones(2), "b": [jnp.ones(()), jnp.ones(2)]})
    with pytest.raises(TypeError, match=said):
        opt.update(params, good, params, value_fn=case.of(bowl))


@each_default
def test_empty_params(case):
    opt = case.make()
    with pytest.raises(ValueError, match="params has no leaves"):
        opt.update({}, opt.init({}), {}, value_fn=case.of(lambda p: jnp.zeros(())))


@each_default
def test_masked_by_optax(case):
    mask = {"a": True, "b": {"c": False}}
    with pytest.raises(TypeError, match=r"params\['b'\]\['c'\] was masked .* use hesskit.masked"):
        optax.masked(case.make(), mask).init(start())
    labels = {"a": "ours", "b": {"c": "theirs"}}
    split = optax.partition({"ours": case.make(), "theirs": optax.sgd(1.0)}, labels)
    with pytest.raises(TypeError, match=r"use hesskit\.masked"):
        split.init(start())


def swapped(tree):
    return {"a": tree["b"]["c"], "b": {"c": tree["a"]}}


@each_default
def test_trees_that_do_not_match(case):
    opt, params = case.make(), start()
    state, short = opt.init(params), {"a": params["a"]}
    with pytest.raises(ValueError, match="updates must have the structure of params"):
        opt.update(short, state, params, value_fn=case.of(bowl))
    with pytest.raises(ValueError, match="grad must have the structure of params"):
        opt.update(params, state, params, value_fn=case.of(bowl), grad=short)
    with pytest.raises(ValueError, match=r"updates\['a'\] has shape \(\), params \(2,\)"):
        opt.update(swapped(params), state, params, value_fn=case.of(bowl))
    with pytest.raises(ValueError, match=r"grad\['a'\] has shape \(\), params \(2,\)"):
        opt.update(params, state, params, value_fn=case.of(bowl), grad=swapped(params))
    with pytest.raises(ValueError, match=r"state of other params.*call init\(params\) again"):
        opt.update(swapped(params), state, swapped(params), value_fn=case.of(bowl))
    half = jax.tree.map(lambda a: a.astype("float16"), params)
    with pytest.raises(ValueError, match="state of other params"):
        opt.update(half, state, half, value_fn=case.of(bowl))


@each_default
@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (jnp.ones(1), ValueError, r"value must be a real scalar, got float32\[1\]"),
        (jnp.ones((), "complex64"), TypeError, "value must be a real scalar, got complex64"),
        (3, TypeError, "value must be a real scalar, got int32"),
    ],
    ids=["shape", "complex", "integer"],
)
def test_value_that_is_no_real_scalar(case, value, kind, said):
    opt, params = case.make(), start()
    with pytest.raises(kind, match=said):
        opt.update(params, opt.init(params), params, value_fn=case.of(bowl), value=value)


BAD_VALUES = {
    "shape (1,)": (lambda p: p["a"][:1], ValueError, r"\(1,\), expected \(\); return f\(x\)\[0\]"),
    "a vector": (lambda p: p["a"], ValueError, r"returned shape \(2,\).*jnp.sum"),
    "an integer": (lambda p: jnp.ones((), int), TypeError, "returned int32, expected a real"),
    "a boolean": (lambda p: p["a"][0] > 0, TypeError, "returned bool, expected a real"),
    "complex": (lambda p: p["a"][0] + 1j, TypeError, r"returned complex64.*jnp.real"),
    "nothing": (lambda p: None, TypeError, "returned None"),
    "a pair": (lambda p: (bowl(p), 1.0), TypeError, "has_aux=True"),
    "a string": (lambda p: "low", TypeError, "returned str"),
}


@each_default
@pytest.mark.parametrize("kind", BAD_VALUES)
@pytest.mark.standard_promotion("the losses are the user's")
def test_losses_that_are_no_real_scalar(case, kind):
    fn, error, said = BAD_VALUES[kind]
    opt, params = case.make(), start()
    state = opt.init(params)
    with pytest.raises(error, match=said):
        opt.update(params, state, params, value_fn=case.of(fn))


@each_default
def test_value_fn_that_is_no_function(case):
    opt, params = case.make(), start()
    with pytest.raises(TypeError, match="value_fn must be a function of params, got float"):
        opt.update(params, opt.init(params), params, value_fn=1.0)


@each_default
def test_args_of_the_wrong_kind(case):
    opt, params = case.make(), start()
    with pytest.raises(TypeError, match="args must be a tuple or a dict"):
        opt.update(params, opt.init(params), params, value_fn=case.of(bowl), args=jnp.ones(3))
