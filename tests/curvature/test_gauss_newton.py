"""The Gauss-Newton matrix as an operator: what it is, its algebra, its words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core import pseudo_random, tree
from hesskit.core.composite import composite
from hesskit.core.residuals import least_squares_loss
from tests.linalg.test_whitened import LOSS, OUTER, P, X, cast, model, truth


@pytest.mark.slow
def test_it_is_the_hessian_of_a_linear_model(float64):
    p, x = cast(P, "float64"), jnp.asarray(X)
    loss = composite(LOSS["softmax"], lambda p, x: x @ p["w"] + p["b"][None])
    args = (x, *OUTER["softmax"]("float64"))
    matrix = hesskit.gauss_newton_operator(loss, p, args=args).dense()
    plain = hesskit.hessian(lambda p: loss(p, *args), p)
    np.testing.assert_allclose(matrix, plain, atol=1e-13)


@pytest.mark.slow
def test_it_is_positive_semidefinite_where_the_hessian_is_not(float64):
    p, x = cast(P, "float64"), jnp.asarray(X)
    loss = composite(LOSS["softmax"], model)
    args = (x, *OUTER["softmax"]("float64"))
    matrix = hesskit.gauss_newton_operator(loss, p, args=args).dense()
    assert np.linalg.eigvalsh(matrix).min() > -1e-13
    assert np.linalg.eigvalsh(hesskit.hessian(loss, p, args=args)).min() < -0.1


@pytest.mark.slow
def test_the_operator_and_its_algebra(dtype):
    p, x = cast(P, dtype), jnp.asarray(X, dtype)
    targets = OUTER["squares"](dtype)
    loss, other = composite(LOSS["squares"], model), hesskit.l2(2.0)
    op = hesskit.gauss_newton_operator(loss, p, args=(x, *targets))
    eps = float(jnp.finfo(dtype).eps)
    matrix = op.dense()
    assert matrix.dtype == dtype
    expected = jax.jit(
        lambda p: truth(lambda y: LOSS["squares"](y, *targets), lambda p: model(p, x), p)[2]
    )(p)
    np.testing.assert_allclose(matrix, expected, rtol=1e3 * eps, atol=100 * eps)
    v = pseudo_random.like(p)
    np.testing.assert_allclose(
        tree.ravel(op @ v), matrix @ tree.ravel(v), rtol=1e3 * eps, atol=100 * eps
    )
    total = (2 * op + hesskit.gauss_newton_operator(other, p)).shift(0.5)
    np.testing.assert_allclose(
        total.dense(), 2 * np.asarray(matrix) + 2.5 * np.eye(9), rtol=1e3 * eps, atol=100 * eps
    )
    tol = float(eps**0.5)
    solved = total.solve(v)
    np.testing.assert_allclose(tree.ravel(total @ solved), tree.ravel(v), atol=20 * tol)


def test_one_program_serves_every_point_and_its_data():
    traces = []

    def residual(p, x):
        traces.append(p)
        return jnp.sin(p * x)

    make = lambda p, x: hesskit.gauss_newton_operator(least_squares_loss(residual), p, args=(x,))
    x = jnp.arange(1.0, 4.0)
    first = make(jnp.ones(3), x) @ x
    num = len(traces)
    second = make(jnp.zeros(3), 2 * x) @ x
    assert len(traces) == num
    np.testing.assert_allclose(first, np.cos(x) ** 2 * x**3, rtol=1e-6)
    np.testing.assert_allclose(second, 4 * x**3, rtol=1e-6)
    lanes = jax.vmap(lambda p: make(p, x).dense())(jnp.stack([jnp.ones(3), jnp.zeros(3)]))
    np.testing.assert_allclose(lanes[1], np.diag(x**2), rtol=1e-6)


@pytest.mark.slow
def test_robust_losses_keep_the_floor(float64):
    """An outlier alone: rho' + 2 z rho'' < 0, and the matrix stays positive."""
    loss = least_squares_loss(lambda p: p - jnp.array([0.0, 100.0]), loss="cauchy")
    p = jnp.array([0.1, 0.0])
    matrix = hesskit.gauss_newton_operator(loss, p).dense()
    assert matrix[1, 1] > 0 > hesskit.hessian(loss, p)[1, 1]
    np.testing.assert_allclose(matrix[1, 1], 0.01 / (1 + 100.0**2), rtol=1e-12)


X3 = jnp.ones(3)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: hesskit.gauss_newton_operator(lambda x: jnp.sum(x**2), X3) @ X3,
            TypeError,
            "gauss_newton_operator needs the residuals, not only their sum of squares",
        ),
        (
            lambda: hesskit.gauss_newton_operator(X3, X3),
            TypeError,
            "value_fn must be a function of params, got ArrayImpl",
        ),
        (
            lambda: hesskit.gauss_newton_operator(least_squares_loss(lambda p: p), {}),
            ValueError,
            "params has no leaves",
        ),
        (
            lambda: hesskit.gauss_newton_operator(least_squares_loss(lambda p: p), [1, 2]),
            TypeError,
            "params[0] is int; write 1.0",
        ),
        (
            lambda: hesskit.gauss_newton_operator(
                least_squares_loss(lambda p, x: p), X3, args=("x",)
            ),
            TypeError,
            "args[0] is str 'x'; data must be arrays",
        ),
        (
            lambda: hesskit.gauss_newton_operator(least_squares_loss(lambda p, x: p), X3) @ X3,
            TypeError,
            "value_fn takes all params as one argument; it requires p",
        ),
        (
            lambda: hesskit.gauss_newton_operator(least_squares_loss(lambda p: p), X3) @ X3[:2],
            ValueError,
            "v has shape (2,), params (3,)",
        ),
    ],
)
def test_words(call, error: type, words: str):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)
