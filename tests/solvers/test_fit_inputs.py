"""Data as arrays, and the words of the likely mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.solvers import fit_inputs
from hesskit.solvers.band import Data


def test_words_of_other_libraries():
    fit_inputs.check_names({})
    for name, advice in (("p0", "call it params"), ("maxfev", "call it max_steps")):
        with pytest.raises(TypeError, match=f"has no argument '{name}'; {advice}"):
            fit_inputs.check_names({name: 1})
    with pytest.raises(TypeError, match=r"curve_fit has no argument 'foo'$"):
        fit_inputs.check_names({"foo": 1})


def test_lists_of_numbers_are_arrays():
    found = fit_inputs.as_arrays({"t": [1.0, 2.0], "n": [[1, 2], [3, 4]], "s": 2.0}, name="xdata")
    assert found["t"].shape == (2,)
    assert found["n"].shape == (2, 2)
    assert found["s"].shape == ()
    pair = fit_inputs.as_arrays([np.ones(2), np.ones(3)], name="xdata")
    assert [a.shape for a in pair] == [(2,), (3,)]


def test_data_that_are_no_arrays():
    with pytest.raises(TypeError, match=r"xdata\['t'\] is 'abc'; data must be arrays"):
        fit_inputs.as_arrays({"t": "abc"}, name="xdata")
    with pytest.raises(TypeError, match="data must be arrays of numbers"):
        fit_inputs.as_arrays(np.array([1, "a"], dtype=object), name="ydata")
    with pytest.raises(TypeError, match="xdata is builtin_function_or_method; expected an array"):
        fit_inputs.as_arrays(abs, name="xdata")
    with pytest.raises(ValueError, match="ydata is no array"):
        fit_inputs.as_arrays([[1.0], [1.0, 2.0]], name="ydata")
    for empty in (np.zeros(0), None, {}, []):
        with pytest.raises(ValueError, match="ydata is empty"):
            fit_inputs.as_arrays(empty, name="ydata")


def test_the_first_index_that_is_not_finite():
    data = {"u": jnp.ones(3), "v": jnp.ones((2, 3)).at[1, 2].set(jnp.nan)}
    with pytest.raises(ValueError, match=r"^ydata\['v'\]\[1, 2\] is nan; drop it$"):
        fit_inputs.check_finite(data, name="ydata", hint="; drop it")
    with pytest.raises(ValueError, match=r"^xdata\[1\] is -inf"):
        fit_inputs.check_finite(jnp.array([0.0, -jnp.inf, jnp.nan]), name="xdata")
    fit_inputs.check_finite({"n": jnp.arange(3), "none": jnp.zeros(0)}, name="xdata")
    jax.jit(lambda x: fit_inputs.check_finite(x, name="xdata"))(jnp.array(jnp.nan))


def test_standard_deviations():
    y = {"u": jnp.ones(3), "v": jnp.ones(2)}
    found = fit_inputs.deviations({"u": jnp.array(2), "v": jnp.ones(2)}, y)
    assert found["u"].shape == ()
    assert found["u"].dtype == "float32"
    assert fit_inputs.deviations(jnp.array(0.5), y)["v"] == 0.5
    for bad, word in ((0.0, "0.0"), (-1.0, "-1.0"), (jnp.nan, "nan")):
        with pytest.raises(ValueError, match=rf"^sigma\['v'\]\[1\] is {word}; standard dev"):
            fit_inputs.deviations({"u": jnp.ones(()), "v": jnp.array([1.0, bad])}, y)
    with pytest.raises(ValueError, match=r"sigma has shape \(2,\), expected \(\) or \(3,\)"):
        fit_inputs.deviations({"u": jnp.ones(2), "v": jnp.ones(())}, y)


def test_a_covariance_matrix():
    y = jnp.ones(2)
    matrix = jnp.array([[4.0, 1.0], [1.0, 9.0]])
    factor = fit_inputs.cholesky(matrix, y)
    np.testing.assert_allclose(factor @ factor.T, matrix, rtol=1e-6)
    for bad in ([[1.0, 2.0], [2.0, 1.0]], [[4.0, 1.0], [-1.0, 9.0]]):
        with pytest.raises(ValueError, match="sigma, a covariance matrix, is not symmetric pos"):
            fit_inputs.cholesky(jnp.array(bad), y)
    with pytest.raises(ValueError, match=r"sigma has shape \(3, 3\); for ydata of shape \(2,\)"):
        fit_inputs.cholesky(jnp.eye(3), y)
    with pytest.raises(ValueError, match=r"sigma\[0, 1\] is nan"):
        fit_inputs.cholesky(matrix.at[0, 1].set(jnp.nan), y)


def test_what_is_dropped_may_be_nan():
    y = jnp.array([1.0, jnp.nan, jnp.nan])
    sigma = jnp.array([1.0, jnp.inf, 1.0])
    clean = fit_inputs.without_dropped(Data(None, y, sigma))
    np.testing.assert_array_equal(clean, [1.0, 0.0, jnp.nan])
    assert fit_inputs.without_dropped(Data(None, y, None)) is y


def test_counts_are_floats():
    assert fit_inputs.as_float(jnp.arange(3)).dtype == "float32"
    assert fit_inputs.as_float(jnp.ones(3, "bfloat16")).dtype == "bfloat16"


def test_sigma_of_a_tree_of_data():
    y = [jnp.ones(2), jnp.ones(3)]
    assert [leaf.shape for leaf in fit_inputs.as_sigma([1.0, 2.0], y)] == [(), ()]
    assert fit_inputs.as_sigma([1.0, 2.0], jnp.ones(2)).shape == (2,)
    assert fit_inputs.as_sigma([1.0, 2.0, 3.0], y).shape == (3,)  # it fits nothing: told later
    found = fit_inputs.as_sigma({"u": [1.0, 2.0], "v": 3.0}, {"u": y[0], "v": y[1]})
    assert (found["u"].shape, found["v"].shape) == ((2,), ())


@pytest.mark.parametrize("size", [0.0, 1e-15, 1.0, 1e18])
def test_no_unit_for_data_whose_squares_are_numbers(size):
    assert fit_inputs.unit({"y": size * jnp.ones(3)}) is None
    assert jax.jit(fit_inputs.unit)(size * jnp.ones(3)) == 1


@pytest.mark.parametrize("size", [1e-30, 1e-17, 5e19, 1e30])
def test_the_unit_of_data_is_a_power_of_two(size):
    unit = fit_inputs.unit([jnp.array([0.1 * size, -size])])
    assert np.frexp(unit)[0] == 0.5
    assert size / 2 < unit <= size
    assert jax.jit(fit_inputs.unit)(jnp.array([size, size])) == unit
