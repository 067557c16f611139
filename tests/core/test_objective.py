"""Binding data, the words where it is missing, real and complex coordinates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import objective, tree

P = jnp.array([1.0, 2.0])


def loss(params, x, y=1.0, *, scale=1.0):
    return scale * jnp.sum(params) * x + y


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((2.0,), 7.0),
        ([2.0], 7.0),
        ((2.0, 3.0), 9.0),
        ({"x": 2.0}, 7.0),
        ({"x": 2.0, "scale": 2.0}, 13.0),
    ],
)
def test_args(args, expected: float):
    value, aux = objective.bind(loss, args=args)(P)
    assert float(value) == expected
    assert aux is None


def test_data_by_name_and_names_that_nobody_takes():
    assert objective.bind(loss, data={"x": 2.0, "sibling": 5.0})(P)[0] == 7.0
    everything = lambda params, **data: jnp.sum(params) + data["x"]
    assert objective.bind(everything, data={"x": 2.0})(P)[0] == 5.0
    assert objective.bind(everything, args={"x": 2.0})(P)[0] == 5.0


def test_functions_of_every_make():
    class Model:
        def __call__(self, params, x):
            return jnp.sum(params) * x

        def method(self, params, x):
            return jnp.sum(params) * x

    for fn in (Model(), Model().method, functools.partial(loss, y=0.0), jax.jit(Model().method)):
        assert objective.bind(fn, args=(2.0,))(P)[0] == 6.0
    assert objective.bind(jnp.sum)(P)[0] == 3.0


def test_aux():
    with_aux = lambda p: (jnp.sum(p), {"p": p})
    value, aux = objective.bind(with_aux, has_aux=True)(P)
    assert value == 3.0
    assert aux["p"] is P
    assert objective.drop_aux(objective.bind(with_aux, has_aux=True))(P) == 3.0
    with pytest.raises(TypeError, match="must return"):
        objective.bind(jnp.sum, has_aux=True)(P)


def himmelblau(x, y):
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def batch(params, x, y):
    return jnp.sum(params) + x + y


@pytest.mark.parametrize(
    ("fn", "args", "words"),
    [
        (
            himmelblau,
            (),
            "value_fn takes all params as one argument; it requires x and y. Write "
            "lambda p: f(p[0], p[1]) with params jnp.array([0., 0.]).",
        ),
        (
            batch,
            {"X": 1.0, "y": 1.0},
            "value_fn(params, x, y) needs `x`; minimize received `X`, `y`. Did you mean x=?",
        ),
        (batch, (1.0,), "needs `y`"),
        (loss, {"x": 1.0, "scal": 2.0}, "args has `scal`, which value_fn(params, x, y, scale)"),
        (loss, {"x": 1.0, "scal": 2.0}, "does not take. Did you mean scale=?"),
        (loss, 2.0, "args must be a tuple or a dict of data, got float; write args=(data,)"),
        (loss, jnp.ones(2), "args must be a tuple or a dict of data"),
        (lambda: 1.0, {"x": 1.0}, "value_fn must take params as its first argument"),
    ],
)
def test_words_of_missing_and_unknown_data(fn, args, words: str):
    with pytest.raises(TypeError) as caught:
        objective.bind(fn, args=args, caller="minimize")
    assert words in str(caught.value)


def test_an_error_inside_keeps_its_type_and_gains_a_note():
    class OwnError(Exception):
        pass

    def broken(params):
        raise OwnError("mine")

    with pytest.raises(OwnError, match="mine") as caught:
        jax.jit(jax.grad(objective.drop_aux(objective.bind(broken, caller="minimize"))))(P)
    ours = [note for note in caught.value.__notes__ if "hesskit" in note]
    assert ours == ["value_fn was called by hesskit.minimize with params float32[2]."]


def test_too_many_positional_arguments_is_the_users_own_error():
    with pytest.raises(TypeError, match="positional argument") as caught:
        objective.bind(batch, args=(1.0, 2.0, 3.0))(P)
    assert len(caught.value.__notes__) == 1


def test_split_and_join_are_inverse():
    params = {"z": jnp.array([1 + 2j, 3 - 4j]), "r": jnp.ones(3), "none": None}
    parts = objective.split(params)
    assert parts["z"].shape == (2, 2)
    assert parts["r"] is params["r"]
    assert not objective.is_complex(parts)
    assert objective.is_complex(params)
    back = objective.join(parts, params)
    assert tree.equal(back, params)
    assert back["z"].dtype == "complex64"
    np.testing.assert_array_equal(objective.conjugate(params)["z"], [1 - 2j, 3 + 4j])


def test_the_real_gradient_is_the_conjugate_of_jax(float64):
    z = {"z": jnp.array([1 + 2j, 3 - 4j]), "r": jnp.array(0.5)}
    fn = lambda p: jnp.sum(jnp.abs(p["z"] - p["r"]) ** 3) + jnp.real(p["z"][0] ** 2)
    real, point = objective.real(fn, z, caller="hvp")
    ours = objective.join(jax.grad(real)(point), z)
    expected = objective.conjugate(jax.grad(fn)(z))
    np.testing.assert_allclose(ours["z"], expected["z"], rtol=1e-14)
    np.testing.assert_allclose(ours["r"], expected["r"], rtol=1e-14)


def test_real_params_are_left_alone():
    fn, point = objective.real(jnp.sum, P, caller="hvp")
    assert point is P
    assert fn(point) == 3.0


def test_precompose():
    assert objective.precompose(jnp.sum, lambda p: 2 * p)(P) == 6.0


def test_a_missing_value_fn_under_another_name():
    fn = lambda p: p
    assert objective.required(fn, {}, caller="newton.update") is fn
    said = r"^newton.update\(\) needs value_fn=, the objective of this batch"
    with pytest.raises(TypeError, match=said + "$"):
        objective.required(None, {"f": 3.0, "apply_fn": fn}, caller="newton.update")
    with pytest.raises(TypeError, match=said + r" \(got fun; pass it as value_fn=\)$"):
        objective.required(None, {"fun": fn}, caller="newton.update")
