"""How a model is called, and the words of the likely mistakes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.solvers import fit_model


def gauss(x, a, mu, s):
    return a * jnp.exp(-0.5 * ((x - mu) / s) ** 2)


def test_a_model_in_the_style_of_scipy():
    with pytest.raises(TypeError) as caught:
        fit_model.check_signature(gauss, (1.0, 0.5, 0.1))
    assert str(caught.value).startswith(
        "`gauss` requires x, a, mu, s; curve_fit passes all parameters as one pytree. Write "
        "curve_fit(lambda p, x: gauss(x, *p), x, y, (1.0, 0.5, 0.1))."
    )
    for params in (jnp.array([1.0, 0.5, 0.1]), np.array([1.0, 0.5, 0.1])):
        with pytest.raises(TypeError, match=r"x, y, \(1.0, 0.5, 0.1\)\)\."):
            fit_model.check_signature(gauss, params)
    with pytest.raises(TypeError, match=r"x, y, \(1\., 1\., 1\.\)\)\."):
        fit_model.check_signature(gauss, 2.0)
    with pytest.raises(TypeError, match=r"requires x, \*p; .* x, y, \(1.0, 2.0\)\)\."):
        fit_model.check_signature(lambda x, *p: x, [1.0, 2.0])


@pytest.mark.parametrize(
    "model",
    [
        lambda p, x: x,
        lambda p, x, extra=1.0: x,
        lambda *both: both[1],
        functools.partial(lambda p, x, t: x, t=1.0),
        jax.jit(lambda p, x: x),
    ],
)
def test_models_that_can_be_called(model):
    fit_model.check_signature(model, 1.0)


@pytest.mark.parametrize("model", [lambda p: p, lambda p, *, x: x, lambda p, x, *, t: x])
def test_models_that_cannot(model):
    with pytest.raises(TypeError, match=r"curve_fit calls model\(params, x\), which `<lambda>"):
        fit_model.check_signature(model, 1.0)
    with pytest.raises(TypeError, match="model must be a function of params and x"):
        fit_model.check_signature(None, 1.0)


X = jnp.arange(5.0)


def test_an_output_unlike_the_data():
    with pytest.raises(ValueError, match=r"^model returned \(\), ydata has \(5,\): is it model\(x"):
        fit_model.check_output(lambda p, x: jnp.sum(p * x), jnp.array(1.0), X, X)
    with pytest.raises(ValueError, match="is it model"):
        fit_model.check_output(lambda p, x: {"u": p * x}, jnp.array(1.0), X, {"v": X})
    with pytest.raises(ValueError, match="is it model"):
        fit_model.check_output(lambda p, x: (p * x, x), jnp.array(1.0), X, (X,))
    with pytest.raises(TypeError, match="model returned int32; return floats"):
        fit_model.check_output(lambda p, x: jnp.ones(5, int), jnp.array(1.0), X, X)
    with pytest.raises(TypeError, match="model returned float32, ydata is complex64"):
        fit_model.check_output(lambda p, x: p * x, jnp.array(1.0), X, X.astype("complex64"))
    fit_model.check_output(lambda p, x: {"u": p * x}, jnp.array(1.0), X, {"u": X})
    with pytest.raises(ValueError, match=r"\(5, 1\), ydata has \(5,\): return the shape of"):
        fit_model.check_output(lambda p, x: p * x[:, None], jnp.array(1.0), X, X)


def test_a_model_that_takes_x_first_and_a_dict():
    swapped = lambda x, p: p["a"] * x
    with pytest.raises(TypeError, match="indexing") as caught:
        fit_model.check_output(swapped, {"a": jnp.array(1.0)}, X, X)
    assert any("put params first" in note for note in caught.value.__notes__)
    with pytest.raises(KeyError) as caught:
        fit_model.check_output(lambda p, x: p["b"] * x, {"a": jnp.array(1.0)}, X, X)
    assert not any("put params first" in note for note in caught.value.__notes__)


def test_an_error_inside_the_model_says_who_called():
    with pytest.raises(KeyError) as caught:
        fit_model.check_output(lambda p, x: p["c"], {"a": jnp.array(1.0)}, X, X)
    assert "model was called by hesskit.curve_fit with params" in caught.value.__notes__[0]
