"""Objectives add and scale: like functions, with one place for data, and with their structure."""

import functools
import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core import closed_form
from hesskit.core.penalty import l2
from hesskit.core.residuals import least_squares_loss
from hesskit.core.structured import Structured
from hesskit.core.terms import Sum

A = np.random.default_rng(0).normal(size=(8, 3))
Y = np.random.default_rng(1).normal(size=8)


def params(dtype="float32"):
    return {"w": jnp.array([1.0, -2.0], dtype), "b": jnp.array(0.5, dtype)}


def fit(w, x, y):
    return jnp.mean((x @ w - y) ** 2) / 2


def data(dtype="float32"):
    return {"x": jnp.asarray(A, dtype), "y": jnp.asarray(Y, dtype)}


def test_sums_and_multiples():
    p = params()
    plain = lambda p: jnp.sum(p["w"])
    for total, expected in (
        (l2(2.0) + l2(2.0, mask="w"), 5.25 + 5),
        (plain + l2(2.0), -1 + 5.25),
        (l2(2.0) + plain, 5.25 - 1),
        (0.5 * (plain + l2(2.0)) + l2(4.0) * 2, 0.5 * 4.25 + 21),
        (np.float64(0.5) * l2(2.0), 2.625),
        (jnp.float32(-1.0) * l2(2.0), -5.25),
    ):
        np.testing.assert_allclose(total(p), expected, rtol=1e-6)
        assert total(p).dtype == jnp.float32


def test_data_and_signature_are_those_of_the_term_that_takes_them():
    w, about = jnp.ones(3), data()
    ridge = 2 * (l2(1.0) + fit)
    assert inspect.signature(ridge) == inspect.signature(fit)
    expected = 2 * (1.5 + fit(w, **about))
    np.testing.assert_allclose(ridge(w, **about), expected, rtol=1e-6)
    np.testing.assert_allclose(ridge(w, about["x"], y=about["y"]), expected, rtol=1e-6)
    assert callable(l2(1.0) + min)  # a function without a signature may take data


def test_aux_is_kept():
    pair = lambda w, x: (jnp.sum(w * x), {"aux": x})
    total, aux = (l2(2.0) + pair)(jnp.ones(2), jnp.ones(2))
    assert (float(total), sorted(aux)) == (4.0, ["aux"])
    result = hesskit.minimize(
        pair + l2(1.0), jnp.ones(2), args=(jnp.array([1.0, 2.0]),), has_aux=True
    )
    np.testing.assert_allclose(result.params, [-1, -2], atol=1e-5)


def test_the_widest_value_gives_the_dtype(float64):
    narrow = lambda p: jnp.sum(p["w"]).astype("float16")
    assert (narrow + l2(1.0))(params()).dtype == "float32"
    assert (narrow + l2(1.0))(params("float64")).dtype == "float64"


def test_equal_parts_are_one_compiled_program():
    center, mask = params(), {"w": True, "b": False}
    make = lambda c, about: 0.5 * (fit + l2(c, center=about, mask=mask))
    assert make(1.0, center) == make(1.0, center)
    assert hash(make(1.0, center)) == hash(make(1.0, center))
    assert make(1.0, center) != make(2.0, center)
    assert make(1.0, center) != make(1.0, params())
    assert l2(1.0) != fit + l2(1.0)
    traces = []

    def counted(w):
        traces.append(w)
        return jnp.sum(w)

    value = jax.jit(lambda fn, w: fn(w), static_argnums=0)
    for _ in range(2):
        value(counted + l2(0.1, mask=True), jnp.ones(2))
    assert len(traces) == 1
    assert pickle.loads(pickle.dumps(fit + l2(1.0))) == fit + l2(1.0)


# Structure


def residual(w, x, y):
    return x @ w - y


def wall(w):
    return jnp.sin(w[:1])


def test_a_sum_keeps_its_structure_and_its_matrices_add(float64):
    about = data("float64")
    w = jnp.array([0.3, -1.0, 2.0])
    losses = least_squares_loss(residual), least_squares_loss(wall, weights=3.0), l2(0.5)
    whole = losses[0] + 2 * (losses[1] + 0.25 * losses[2])
    fn = whole.structure((), about, "minimize")
    assert isinstance(fn, Structured)
    given = [about, {}, {}]
    values = [loss(w, **own) for loss, own in zip(losses, given, strict=True)]
    np.testing.assert_allclose(fn(w)[0], np.dot([1, 2, 0.5], values), rtol=1e-12)
    np.testing.assert_allclose(whole(w, **about), fn(w)[0], rtol=1e-14)
    matrix = lambda loss, own: hesskit.gauss_newton_operator(loss, w, args=own).dense()
    expected = A.T @ A + np.diag([6 * np.cos(0.3) ** 2, 0, 0]) + 0.25 * np.eye(3)
    np.testing.assert_allclose(matrix(whole, about), expected, rtol=1e-12, atol=1e-13)
    parts = [matrix(loss, own) for loss, own in zip(losses, given, strict=True)]
    np.testing.assert_allclose(np.tensordot([1, 2, 0.5], parts, 1), expected, atol=1e-13)


@pytest.mark.slow
def test_ridge_by_levenberg_marquardt_in_two_steps_with_the_terms_as_aux(float64):
    loss = least_squares_loss(residual, reduction="mean") + 0.3 * l2(1.0)
    about = data("float64")
    answer = hesskit.minimize(loss, jnp.zeros(3), hesskit.levenberg_marquardt(), args=about)
    expected = np.linalg.solve(A.T @ A / 8 * 2 + 0.3 * np.eye(3), A.T @ Y / 8 * 2)
    np.testing.assert_allclose(answer.params, expected, rtol=1e-10)
    assert answer.num_steps <= 3
    np.testing.assert_allclose(answer.aux["terms"], np.mean((A @ expected - Y) ** 2), rtol=1e-10)


def test_terms_that_need_no_data_add():
    """Weights by name are data of each; a sum of several passes none."""
    several = least_squares_loss(wall) + least_squares_loss(lambda w: w - 1)
    w = jnp.array([0.0, 2.0])
    assert several(w) == 1.0
    assert sum([least_squares_loss(wall), l2(0.0), least_squares_loss(lambda w: w - 1)])(w) == 1
    assert str(inspect.signature(several)) == "(w)"
    _, aux = several.structure((), {}, "minimize")(w)
    assert jax.tree.map(float, aux) == ({"terms": 0.0}, {"terms": 1.0})
    with pytest.raises(TypeError, match="no term of this sum takes data, or several do"):
        several(w, residual_weights=2.0)
    with pytest.raises(TypeError, match="no term of this sum takes data"):
        (l2(1.0) + l2(2.0))(w, 3.0)
    one = least_squares_loss(lambda w: w - 1) + l2(0.0)
    assert one(w, residual_weights=2.0) == 2.0
    mixed = several + (lambda w, x: jnp.sum(w * x))
    assert mixed(w, x=jnp.ones(2)) == 3.0


def test_a_coefficient_may_be_traced():
    w = jnp.array([0.3, -1.0, 2.0])
    about = data()

    @jax.jit
    def matrix(c):
        loss = least_squares_loss(residual) + c * l2(2.0)
        assert isinstance(loss.structure((), about, "matrix"), Structured)
        return hesskit.gauss_newton_operator(loss, w, args=about).dense()

    np.testing.assert_allclose(matrix(3.0), A.T @ A + 6 * np.eye(3), rtol=1e-5, atol=1e-5)


def hessian_is_that_of_the_sum(loss, other):
    """Value and Hessian of `loss`, a sum of squares and `other`."""
    w, about = jnp.array([0.3, -1.0, 2.0]), data("float64")
    value, _ = loss.structure((), about, "minimize")(w)
    np.testing.assert_allclose(value, np.sum((A @ w - Y) ** 2) / 2 + other(w), rtol=1e-12)
    expected = A.T @ A + np.asarray(jax.hessian(other)(w))
    np.testing.assert_allclose(hesskit.hessian(loss, w, args=about), expected, atol=1e-12)


def test_a_sum_with_a_plain_term_is_a_plain_function(float64):
    other = lambda w: jnp.sum(w**4)
    loss = least_squares_loss(residual) + other
    hessian_is_that_of_the_sum(loss, other)
    with pytest.raises(TypeError, match="gauss_newton_operator needs the residuals"):
        hesskit.gauss_newton_operator(loss, jnp.ones(3), args=data("float64")).dense()


NEGATIVE = [
    -0.1 * l2(1.0),
    -(l2(0.3) / 2),
    *(pytest.param(a, marks=pytest.mark.slow) for a in (np.float64(-0.2) * l2(1), -l2(0.3))),
]


@pytest.mark.parametrize("other", NEGATIVE)
def test_a_negative_coefficient_leaves_all_but_the_gauss_newton_matrix(other, float64):
    loss = least_squares_loss(residual) + other
    hessian_is_that_of_the_sum(loss, other)
    w, about = jnp.array([0.3, -1.0, 2.0]), data("float64")
    words = "the coefficient of L2 is negative in this sum.*Write one term.*hesskit.trust_region"
    with pytest.raises(TypeError, match=words):
        hesskit.gauss_newton_operator(loss, w, args=about).dense()
    with pytest.raises(TypeError, match=words):
        hesskit.minimize(loss, w, hesskit.levenberg_marquardt(), args=about)
    answer = hesskit.minimize(loss, w, args=about)
    slope = float(jax.hessian(other)(w)[0, 0])
    expected = np.linalg.solve(A.T @ A + slope * np.eye(3), A.T @ Y)
    np.testing.assert_allclose(answer.params, expected, rtol=1e-8)
    assert answer.method == "trust_region"


def test_differences_and_quotients():
    p = params()
    plain = lambda p: jnp.sum(p["w"])
    for total, expected in (
        (-l2(2.0), -5.25),
        (l2(2.0) - l2(2.0, mask="w"), 0.25),
        (l2(2.0) - plain, 6.25),
        (plain - l2(2.0), -6.25),
        (l2(2.0) / 4, 5.25 / 4),
        ((l2(2.0) + plain) / jnp.float32(2.0), 4.25 / 2),
        (-(plain - l2(2.0)) - l2(4.0), 6.25 - 10.5),
    ):
        np.testing.assert_allclose(total(p), expected, rtol=1e-6)
    assert (l2(1.0) / 2) == 0.5 * l2(1.0)
    third = hesskit.gauss_newton_operator(l2(1.0) / 3, jnp.ones(2)).dense()
    np.testing.assert_allclose(third, np.eye(2) / 3, rtol=1e-6)


@pytest.mark.slow
def test_a_coefficient_that_is_an_array_is_known_inside_jit():
    about, w = data(), jnp.zeros(3)
    loss = least_squares_loss(residual) + jnp.float32(0.5) * l2(2.0)
    answer = hesskit.minimize(loss, w, args=about)
    expected = np.linalg.solve(A.T @ A + np.eye(3), A.T @ Y)
    np.testing.assert_allclose(answer.params, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(TypeError, match="the coefficient of L2 is negative"):
        hesskit.minimize(
            least_squares_loss(residual) - jnp.float32(0.5) * l2(2.0),
            w,
            hesskit.levenberg_marquardt(),
            args=about,
        )


def test_data_filled_in_by_name_leaves_the_structure(float64):
    about, w = data("float64"), jnp.array([0.3, -1.0, 2.0])
    loss = functools.partial(least_squares_loss(residual), y=about["y"])
    whole = loss + l2(0.5)
    matrix = lambda fn: hesskit.gauss_newton_operator(fn, w, args=(about["x"],)).dense()
    np.testing.assert_allclose(matrix(loss), A.T @ A, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(matrix(whole), A.T @ A + np.eye(3) / 2, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(whole(w, about["x"]), loss(w, about["x"]) + l2(0.5)(w), rtol=1e-14)


def test_losses_of_outputs_add_to_least_squares(float64):
    poisson = hesskit.composite(closed_form.Poisson("sum"), lambda w, x: x @ w)
    loss, w = 2 * poisson + least_squares_loss(wall), jnp.array([0.3, -1.0, 2.0])
    args = (jnp.asarray(A), jnp.arange(8))
    matrix = hesskit.gauss_newton_operator(loss, w, args=args).dense()
    expected = 2 * (A.T * np.exp(A @ w)) @ A + np.diag([np.cos(0.3) ** 2, 0, 0])
    np.testing.assert_allclose(matrix, expected, rtol=1e-12, atol=1e-12)
    assert isinstance(loss, Sum)


def test_what_is_said_when_it_does_not_fit():
    data_of = hesskit.composite(jnp.sum, lambda w, x: w * x)
    with pytest.raises(TypeError, match="fit and <lambda> both take data, and a sum passes"):
        fit + 2 * data_of
    with pytest.raises(TypeError, match="fit and fit both take data"):
        fit + l2(1.0) + fit
    pair = lambda w: (jnp.sum(w), None)
    with pytest.raises(TypeError, match="2 terms of a sum return"):
        (pair + l2(1.0) + pair)(jnp.ones(2))
    with pytest.raises(ValueError, match=r"<lambda> returned shape \(2,\), expected \(\)"):
        ((lambda w: w) + l2(1.0))(jnp.ones(2))
    for other in (1.0, {"loss": 1.0}, None):
        with pytest.raises(TypeError, match="unsupported operand"):
            l2(1.0) + other
        with pytest.raises(TypeError, match="unsupported operand"):
            other + l2(1.0)
        with pytest.raises(TypeError, match="unsupported operand"):
            l2(1.0) - other
        with pytest.raises(TypeError, match="unsupported operand"):
            other - l2(1.0)
        with pytest.raises(TypeError, match="unsupported operand"):
            other / l2(1.0)
    for factor in (None, True, np.True_, 1j, np.complex64(1), jnp.ones(2)):
        with pytest.raises(TypeError, match="operand"):
            l2(1.0) * factor
        with pytest.raises(TypeError, match="operand"):
            l2(1.0) / factor


def test_a_pickled_copy_has_arrays_of_its_own():
    """Equality is by the identity of arrays, and a copy does not bring along those of another."""
    penalty = jnp.array(2.0) * l2(1.0)  # whose function has annotations that cannot be pickled
    assert hash(penalty) == hash(penalty)
    copied = pickle.loads(pickle.dumps(penalty))
    assert copied != penalty
    np.testing.assert_array_equal(copied(jnp.ones(3)), penalty(jnp.ones(3)))
