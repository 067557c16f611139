"""Messages name the argument, the value and the path, and say what to type."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hesskit.core import errors

NAN = float("nan")


def test_describe_shows_structure_dtype_and_shape():
    tree = {"w": jnp.ones((2, 3)), "b": [jnp.ones((), "bfloat16"), None]}
    assert errors.describe(tree) == "{'b': [bfloat16[], None], 'w': float32[2, 3]}"


def test_check_params_gives_strong_arrays():
    out = errors.check_params({"a": 1.0, "b": np.ones(2, "float32"), "n": None, "z": 1j})
    assert [leaf.weak_type for leaf in jax.tree.leaves(out)] == [False] * 3
    assert [leaf.dtype for leaf in jax.tree.leaves(out)] == ["float32", "float32", "complex64"]


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        (jnp.array([0, 0]), TypeError, "params is int32; write 0.0. Derivatives need floats."),
        ([0, 0.0], TypeError, "params[0] is int; write 0.0. Derivatives need floats."),
        ({"a": {"b": np.int64(3)}}, TypeError, "params['a']['b'] is int64; write 0.0."),
        ({"flag": True}, TypeError, "params['flag'] is bool; Derivatives need floats."),
        ((jnp.array([True]),), TypeError, "params[0] is bool; Derivatives need floats."),
        ({"a": "x"}, TypeError, "params['a'] is str 'x'; expected an array"),
        ([object], TypeError, "params[0] is type"),
        ({}, ValueError, "params has no leaves: got {}; expected at least one array"),
        ([None], ValueError, "params has no leaves: got [None]"),
        ({"a": jnp.ones((2, 0))}, ValueError, "params['a'] has shape (2, 0), and no leaf"),
        (
            {"a": optax.MaskedNode(), "b": jnp.ones(2)},
            TypeError,
            "params['a'] was masked by optax.masked; use hesskit.masked instead",
        ),
    ],
)
def test_check_params_names_the_leaf(params, error: type, words: str):
    with pytest.raises(error) as caught:
        errors.check_params(params)
    assert words in str(caught.value)


def test_empty_params_can_be_allowed():
    assert errors.check_params({}, allow_empty=True) == {}


@pytest.mark.parametrize(
    ("tree", "error", "words"),
    [
        ({"a": jnp.ones(2)}, ValueError, "v must have the structure of params: got {'a'"),
        ([jnp.ones(3), jnp.ones(())], ValueError, "v[0] has shape (3,), params (2,)"),
        ([jnp.ones(2), jnp.ones((), "bfloat16")], TypeError, "v[1] is bfloat16, params float32"),
    ],
)
def test_check_like(tree, error: type, words: str):
    with pytest.raises(error) as caught:
        errors.check_like(tree, [jnp.ones(2), jnp.ones(())], name="v", dtypes=True)
    assert words in str(caught.value)


def test_same_shapes():
    like = {"a": jnp.ones(2), "b": jnp.ones(())}
    assert errors.same_shapes({"a": jnp.zeros(2), "b": np.float32(1)}, like)
    assert not errors.same_shapes({"a": jnp.zeros(3), "b": jnp.zeros(())}, like)
    assert not errors.same_shapes({"a": jnp.zeros(2, "bfloat16"), "b": jnp.zeros(())}, like)
    assert not errors.same_shapes([jnp.zeros(2), jnp.zeros(())], like)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (None, TypeError, "value_fn returned None, expected a real scalar; is a `return` missing?"),
        ((jnp.ones(()), 2), TypeError, "returned a tuple of 2, expected a real scalar"),
        ((jnp.ones(()), 2), TypeError, "pass has_aux=True"),
        (
            jnp.ones(1),
            ValueError,
            "value_fn returned shape (1,), expected (); return f(x)[0] or jnp.sum(...)",
        ),
        (jnp.ones((3, 2)), ValueError, "returned shape (3, 2), expected ()"),
        (jnp.int32(1), TypeError, "value_fn returned int32, expected a real float"),
        (True, TypeError, "value_fn returned bool"),
        (1j, TypeError, "value_fn returned complex64, expected a real float; return jnp.real"),
        ("a", TypeError, "value_fn returned str"),
        ({"loss": 1.0}, TypeError, "value_fn returned dict, expected a real scalar"),
    ],
)
def test_check_value(value, error: type, words: str):
    with pytest.raises(error) as caught:
        errors.check_value(value)
    assert words in str(caught.value)


def test_good_values_pass():
    assert errors.check_value(1.5) == 1.5
    assert errors.check_value(jnp.ones((), "bfloat16")).dtype == "bfloat16"


@pytest.mark.parametrize("good", [None, 0, 0.0, 1e-6, np.float32(1), jnp.float32(2), 1])
def test_numbers(good):
    errors.check_number(good, name="gtol")


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (-1e-6, ValueError, "gtol must lie in [0, inf), got -1e-06"),
        (NAN, ValueError, "gtol must lie in [0, inf), got nan"),
        (jnp.array(-1.0), ValueError, "gtol must lie in [0, inf)"),
        ("small", TypeError, "gtol must be a number, got 'small'"),
        (True, TypeError, "gtol must be a number, got True"),
        (jnp.ones(2), TypeError, "gtol must be a number"),
        ({}, TypeError, "gtol must be a number, got {}"),
        (1j, TypeError, "gtol must be a number"),
        (len, TypeError, "gtol must be a number"),
    ],
)
def test_bad_numbers(bad, error: type, words: str):
    with pytest.raises(error) as caught:
        errors.check_number(bad, name="gtol")
    assert words in str(caught.value)


def test_ranges_of_numbers():
    with pytest.raises(ValueError, match=r"radius must lie in \(0, inf\), got 0"):
        errors.check_number(0, name="radius", open_low=True)
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\], got 2"):
        errors.check_number(2, name="eta", high=1.0)
    with pytest.raises(TypeError, match="eta must be a number, got None"):
        errors.check_number(None, name="eta", none=False)
    errors.check_number(lambda count: 0.1, name="learning_rate", schedule=True)


@pytest.mark.parametrize("good", [1, 7, np.int64(3), jnp.int32(2), 4.0, None])
def test_counts(good):
    errors.check_count(good, name="max_steps")


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (0, ValueError),
        (-3, ValueError),
        (2.5, ValueError),
        (NAN, ValueError),
        (float("inf"), ValueError),
        ("10", TypeError),
        (True, TypeError),
        ([3], TypeError),
        (jnp.ones(2, "int32"), TypeError),
    ],
)
def test_bad_counts(bad, error: type):
    with pytest.raises(error, match="max_steps must be an integer"):
        errors.check_count(bad, name="max_steps")


def test_traced_numbers_are_never_checked():
    def check(x: jax.Array) -> jax.Array:
        errors.check_number(x, name="gtol")
        errors.check_count(x, name="max_steps")
        return x

    assert jax.jit(check)(-1.0) == -1.0


def test_choices():
    errors.check_choice("a", ("a", "b"), name="check")
    with pytest.raises(ValueError, match="check must be one of 'a', 'b'; got 'c'"):
        errors.check_choice("c", ("a", "b"), name="check")


def test_data_must_be_arrays():
    errors.check_data(({"x": jnp.ones(2), "n": 3}, 0.5, None, np.ones(2)))
    with pytest.raises(TypeError, match=r"args\[1\]\['mode'\] is str 'mean'; data must be arrays"):
        errors.check_data((1.0, {"mode": "mean"}))


def test_callables():
    assert errors.check_callable(len, name="value_fn") is len
    with pytest.raises(TypeError, match="value_fn must be a function of params, got dict"):
        errors.check_callable({}, name="value_fn")


def notes_of(params, caller: str = "minimize") -> list[str]:
    with pytest.raises(KeyError) as caught, errors.calling("value_fn", params, caller):
        raise KeyError("w")
    return caught.value.__notes__


def test_a_user_error_gains_one_note():
    (note,) = notes_of({"w": jnp.ones((2, 3))})
    assert note == ("value_fn was called by hesskit.minimize with params {'w': float32[2, 3]}.")


def test_the_note_is_not_doubled():
    params = jnp.ones(2)
    twice = errors.calling("value_fn", params), errors.calling("value_fn", params)
    with pytest.raises(KeyError) as caught, twice[0], twice[1]:
        raise KeyError("w")
    assert len(caught.value.__notes__) == 1


class State(dict):
    """Named like the container of flax.nnx."""


@pytest.mark.parametrize(
    ("params", "hint"),
    [
        ({"w": jnp.ones(2), "act": None}, "eqx.combine(params, static)"),
        (State(w=jnp.ones(2)), "nnx.merge(graph, params, rest, copy=True)"),
        ({"w": optax.MaskedNode()}, "hesskit.masked"),
    ],
)
def test_the_hint_follows_the_structure(params, hint: str):
    (note,) = notes_of(params)
    assert hint in note
