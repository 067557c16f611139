"""What solvers do with their arguments: the choice of a method, tolerances, leaves, messages."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from hesskit.core.method import default_tolerance
from hesskit.core.restrict import restrict
from hesskit.solvers.call import DENSE_LIMIT, arrays, default_optimizer, fixed_leaves, limits_of
from hesskit.solvers.least_squares import least_squares

SQUARES = hesskit.least_squares_loss(lambda p: p["a"])


def plain(p):
    return jnp.sum(p["a"] ** 2)


@pytest.mark.parametrize(
    ("fn", "size", "bounds", "name"),
    [
        (SQUARES, 3, None, "levenberg_marquardt"),
        (SQUARES, 10 * DENSE_LIMIT, (0.0, 1.0), "levenberg_marquardt"),
        (plain, DENSE_LIMIT, None, "trust_region"),
        (plain, DENSE_LIMIT, (0.0, 1.0), "trust_region"),
        (plain, DENSE_LIMIT + 1, None, "newton_cg"),
        (plain, DENSE_LIMIT + 1, (0.0, 1.0), "lbfgs"),
        (hesskit.composite(jnp.sum, lambda p: p["a"] ** 2), 3, None, "trust_region"),
        (SQUARES + hesskit.l2(1e-3), 3, None, "levenberg_marquardt"),
        (0.5 * SQUARES, 3, (0.0, 1.0), "levenberg_marquardt"),
        (sum([SQUARES, SQUARES, hesskit.l2(1.0, mask="a")]), 3, None, "levenberg_marquardt"),
        (functools.partial(SQUARES, residual_sigma=2.0), 3, None, "levenberg_marquardt"),
        (hesskit.microbatched(SQUARES / 3 + hesskit.l2(1.0), 2), 3, None, "levenberg_marquardt"),
        (restrict(SQUARES, {"a": None, "b": jnp.ones(500)}), 3, None, "levenberg_marquardt"),
        (SQUARES + plain, 3, None, "trust_region"),
        (SQUARES - hesskit.l2(1e-3), 3, None, "trust_region"),
        (SQUARES + hesskit.composite(jnp.sum, lambda p: p["a"] ** 2), 3, None, "trust_region"),
        (hesskit.microbatched(plain, 2), 3, None, "trust_region"),
    ],
)
def test_the_method_goes_by_structure_size_and_bounds(fn, size, bounds, name):
    params = {"a": jnp.ones(size), "b": jnp.ones(500)}
    assert default_optimizer(fn, params, (False, True), bounds).name == name


@pytest.mark.slow
def test_ridge_is_a_step_of_levenberg_marquardt(float64):
    a = np.random.default_rng(0).normal(size=(8, 3))
    loss = hesskit.least_squares_loss(lambda w, a: a @ w - 1) + hesskit.l2(0.3)
    fit = hesskit.minimize(loss, jnp.zeros(3), args=(a,))
    assert (fit.method, bool(fit.success)) == ("levenberg_marquardt", True)
    expected = np.linalg.solve(a.T @ a + 0.3 * np.eye(3), a.T @ np.ones(8))
    np.testing.assert_allclose(fit.params, expected, rtol=1e-10)


def test_complex_entries_count_twice():
    params = {"a": jnp.ones(DENSE_LIMIT // 2 + 1, "complex64")}
    assert default_optimizer(plain, params, (False,)).name == "newton_cg"


def test_fixed_leaves():
    params = {"a": jnp.ones(2), "b": {"c": 1.0, "d": 2.0}}
    assert fixed_leaves(None, params) == (False, False, False)
    assert fixed_leaves("b/*", params) == (False, True, True)
    with pytest.raises(ValueError, match="fixed selects every leaf of params: nothing is left"):
        fixed_leaves(["a", "b/*"], params)


def test_limits(dtype):
    params = {"a": jnp.ones(2, dtype)}
    limits = limits_of(None, None, None, 7, params)
    np.testing.assert_array_equal(limits.tolerance, default_tolerance(params))
    assert (limits.ftol, limits.xtol, limits.max_steps) == (0, 0, 7)
    given = limits_of(1e-3, jnp.full((), 1e-2, dtype), 0, 2**40, params)
    np.testing.assert_allclose([given.tolerance, given.ftol, given.xtol], [1e-3, 1e-2, 0])
    assert given.max_steps == 2**31 - 2
    assert given.tolerance.dtype == given.ftol.dtype == dtype
    for bad in ({"gtol": -1.0}, {"ftol": np.nan}, {"xtol": -np.inf}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} must lie in"):
            limits_of(
                **{"gtol": None, "ftol": None, "xtol": None, **bad}, max_steps=1, params=params
            )


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        ("bfgs", "got 'bfgs'"),
        (hesskit.levenberg_marquardt, "call it: levenberg_marquardt()"),
        (optax.sgd, "call it: sgd()"),
        ((1, 2), "got (1, 2)"),
    ],
)
def test_what_is_no_optimizer(optimizer, words):
    with pytest.raises(TypeError) as caught:
        hesskit.minimize(plain, {"a": jnp.ones(2)}, optimizer)
    assert "optimizer must be an optax transformation" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("solver", "fn"), [(hesskit.minimize, lambda p: p["b"]), (least_squares, lambda p: p["b"])]
)
def test_a_note_names_the_solver(solver, fn):
    with pytest.raises(KeyError) as caught:
        solver(fn, {"a": jnp.ones(2)})
    notes = [note for note in caught.value.__notes__ if "hesskit" in note]
    assert len(notes) == 1
    assert f"called by hesskit.{solver.__name__} with params {{'a': float32[2]}}" in notes[0]


@pytest.mark.slow
def test_arrays_of_other_libraries():
    class Table:
        def __array__(self, dtype=None, copy=None):
            return np.array([[1.0, 2.0]], dtype)

    key, number = jax.random.key(0), np.float32(2.0)
    found = arrays((Table(), {"x": 1.0, "key": key}, number, "name"))
    np.testing.assert_array_equal(found[0], [[1.0, 2.0]])
    assert isinstance(found[0], jax.Array)
    assert found[1]["key"] is key
    assert found[2] is number
    assert found[3] == "name"
    fit = hesskit.minimize(lambda p, t: jnp.sum((p - t) ** 2), jnp.zeros((1, 2)), args=(Table(),))
    np.testing.assert_allclose(fit.params, [[1.0, 2.0]], rtol=1e-6)
