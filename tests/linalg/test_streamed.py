"""Operators over batches are those of all the data at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit import losses

RNG = np.random.default_rng(0)
X, T = RNG.normal(size=(12, 3)), RNG.normal(size=12)
P = RNG.normal(size=3)
MAKES = [hesskit.hessian_operator, hesskit.gauss_newton_operator, hesskit.fisher_operator]
each_make = pytest.mark.parametrize("make", MAKES, ids=lambda f: f.__name__)


def model(p, x):
    return jnp.tanh(x @ p)


def objective(reduction, prior=False):
    loss = hesskit.composite(losses.squared_error(reduction=reduction), model)
    return loss + hesskit.l2(0.5) if prior else loss


def everything():
    return jnp.asarray(P), (jnp.asarray(X), jnp.asarray(T))


def stacked(num=3):
    return jnp.asarray(X.reshape(num, -1, 3)), jnp.asarray(T.reshape(num, -1))


def ragged():
    """Batches of 5, 5 and 2."""
    cuts = [slice(0, 5), slice(5, 10), slice(10, 12)]
    return [(jnp.asarray(X[cut]), jnp.asarray(T[cut])) for cut in cuts]


@pytest.mark.parametrize("kind", ["stacked", "list", "function"])
@pytest.mark.parametrize("prior", [False, True], ids=["", "prior"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@each_make
def test_the_same_numbers(float64, make, reduction, prior, kind):
    loss, (p, args) = objective(reduction, prior), everything()
    batches = {"stacked": stacked(), "list": ragged(), "function": lambda: iter(ragged())}[kind]
    truth, found = make(loss, p, args=args), make(loss, p, batches=batches)
    np.testing.assert_allclose(found @ p, truth @ p, rtol=1e-12)
    if kind != "function":
        np.testing.assert_allclose(found.dense(), truth.dense(), rtol=1e-10, atol=1e-13)


@pytest.mark.slow
def test_a_plain_function_is_a_mean(float64):
    fn = lambda p, x, t: jnp.mean((model(p, x) - t) ** 2)
    p, args = everything()
    truth = hesskit.hessian(fn, p, args=args)
    for batches in (stacked(), ragged(), {"x": stacked()[0], "t": stacked()[1]}):
        found = hesskit.hessian_operator(fn, p, batches=batches).dense()
        np.testing.assert_allclose(found, truth, rtol=1e-12)


@pytest.mark.parametrize("batches", [stacked, ragged])
def test_algebra_and_solves(float64, batches):
    loss, (p, args) = objective("mean"), everything()
    op = 2.0 * hesskit.gauss_newton_operator(loss, p, batches=batches()).shift(0.5)
    truth = 2 * np.asarray(hesskit.gauss_newton_operator(loss, p, args=args).dense()) + np.eye(3)
    np.testing.assert_allclose(op @ p, truth @ P, rtol=1e-12)
    np.testing.assert_allclose(op.dense(), truth, rtol=1e-12)
    np.testing.assert_allclose(op.block(lambda path, leaf: True).dense(), truth, rtol=1e-12)
    expected = np.linalg.solve(truth + 0.1 * np.eye(3), P)
    np.testing.assert_allclose(op.solve(p, 0.1, tol=1e-12), expected, rtol=1e-9)


def test_what_is_not_positive_definite_has_no_solution(float64):
    p, _ = everything()
    op = hesskit.hessian_operator(
        lambda p, x: -jnp.sum(p**2) * jnp.mean(x), p, batches=[(jnp.ones(2),)]
    )
    assert np.all(np.isnan(op.solve(p)))


def test_stacked_batches_are_compiled_and_scanned(float64):
    """One copy of the model in a program that takes all batches, and memory of one."""
    loss, (p, _) = objective("mean"), everything()
    product = lambda v, b: hesskit.gauss_newton_operator(loss, p, batches=b) @ v
    text = str(jax.make_jaxpr(product)(p, stacked(6)))
    assert text.count("scan[") >= 1
    assert "12,3]" not in text  # the batches are nowhere put together
    np.testing.assert_allclose(jax.jit(product)(p, stacked(6)), product(p, stacked(2)), rtol=1e-12)


@pytest.mark.parametrize(
    ("batches", "error", "words"),
    [
        (lambda: iter(ragged()), TypeError, "batches is a generator and is empty after the first"),
        (lambda: 3, TypeError, "batches must be a tuple or dict of arrays"),
        (lambda: jnp.ones((3, 4)), TypeError, "batches must be a tuple or dict of arrays"),
        (list, ValueError, "batches is empty"),
        (tuple, ValueError, "batches is empty"),
        (lambda: (jnp.ones((3, 4)), jnp.ones((2, 4))), ValueError, "the size of their first axis"),
        (lambda: (jnp.ones((3, 4)), 1.0), ValueError, "the size of their first axis"),
        (lambda: [("a",)], TypeError, "a batch"),
    ],
)
def test_words(batches, error, words):
    with pytest.raises(error, match=words):
        hesskit.hessian_operator(lambda p, x, t: jnp.sum(p), jnp.ones(3), batches=batches())


def test_data_has_one_place():
    with pytest.raises(ValueError, match="in args= or in batches=, not in both"):
        hesskit.hessian_operator(lambda p, x: p, 1.0, args=(1.0,), batches=[(1.0,)])


def test_a_list_stays_outside_of_jit():
    op = hesskit.hessian_operator(lambda p, x: p**2 * x, 1.0, batches=[(1.0,)])
    with pytest.raises(TypeError, match="stack the batches"):
        jax.jit(op)(1.0)
    with pytest.raises(TypeError, match="stack the batches"):
        op.product()


@pytest.mark.slow
def test_batches_that_change_in_number_are_noticed():
    batches = ragged()
    op = hesskit.hessian_operator(lambda p, x, t: jnp.sum(p**2), jnp.ones(3), batches=batches)
    batches.pop()
    with pytest.raises(ValueError, match="gave 2 batches, 3 when the operator was made"):
        op(jnp.ones(3))
