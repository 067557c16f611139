"""Prefix trees of numbers become full trees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core.prefix import check_positive, fill, misfit, spread

LIKE = {"a": jnp.zeros(3), "b": [jnp.zeros(()), jnp.zeros((2, 2), "bfloat16")]}


def test_a_number_goes_to_every_entry():
    full = fill(2, LIKE, name="sigma")
    np.testing.assert_array_equal(full["a"], [2, 2, 2])
    np.testing.assert_array_equal(full["b"][1], np.full((2, 2), 2))
    assert full["a"].dtype == LIKE["a"].dtype
    assert full["b"][1].dtype == "bfloat16"


def test_a_prefix_and_whole_arrays():
    full = fill({"a": np.arange(3), "b": 0.5}, LIKE, name="sigma")
    np.testing.assert_array_equal(full["a"], [0, 1, 2])
    assert full["b"][0] == 0.5
    assert fill(1.0, jnp.zeros(2, complex), name="sigma").dtype == "float32"


def test_what_does_not_fit():
    with pytest.raises(ValueError, match=r"sigma has shape \(2,\), expected \(\) or \(3,\)"):
        fill({"a": jnp.ones(2), "b": 1.0}, LIKE, name="sigma")
    with pytest.raises(ValueError, match="sigma is no prefix of"):
        fill({"a": 1.0}, LIKE, name="sigma")


def test_entries_of_any_shape_go_to_every_leaf_below():
    full = spread({"a": "x", "b": 2}, LIKE, name="weights")
    assert full == {"a": "x", "b": [2, 2]}
    with pytest.raises(ValueError, match=r"weights is no prefix of \{'a': float32\[3\]"):
        spread([1, 2], LIKE, name="weights")
    with pytest.raises(
        ValueError, match=r"bfloat16\[2, 2\]\]\}: nothing in it is for \['b'\]\[0\]$"
    ):
        spread({"a": 1}, LIKE, name="weights")


def test_misfit_says_where():
    assert misfit({"a": 1}, LIKE, name="mask", of="params") == (
        "nothing in it is for params['b'][0]"
    )
    assert misfit({"a": 1, "b": [1, 2, 3]}, LIKE, name="mask", of="params") == (
        "mask['b'][2] has no counterpart"
    )
    assert misfit({"a": 1, "c": 2}, LIKE, name="mask", of="params") == (
        "nothing in it is for params['b'][0]; mask['c'] has no counterpart"
    )
    assert "containers differ" in misfit({"a": 1, "b": (1, 2)}, LIKE, name="mask", of="params")


@pytest.mark.parametrize("bad", [0.0, -1, np.nan, np.array([1.0, 0.0])])
def test_what_is_not_positive(bad):
    check_positive({"a": 1.0, "b": [np.inf, np.ones((0,))]}, name="sigma", hint="why")
    with pytest.raises(ValueError, match=r"sigma\['b'\]\[0\] must be positive \(why\), got"):
        check_positive({"a": 1.0, "b": [bad]}, name="sigma", hint="why")
    jax.jit(lambda s: check_positive(s, name="sigma", hint="why"))(bad)  # unknown while traced
    jax.jit(lambda _: check_positive(1.0, name="sigma", hint="why"))(bad)
    check_positive([0.0, 1.0], name="weights", hint="why", zero=True)
    with pytest.raises(ValueError, match=r"weights\[1\] must be 0 or positive \(why\), got -1"):
        check_positive([0.0, -1.0], name="weights", hint="why", zero=True)
