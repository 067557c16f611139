"""Gauss-Newton: the whole step, the shortest one where there are many, and shorter ones after."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core.status import Status
from tests.transforms.runs import update_once

RNG = np.random.default_rng(1)
SHAPES = {"tall": (7, 4, 4), "deficient": (7, 4, 2), "wide": (3, 6, 3), "wide deficient": (4, 6, 2)}


def linear(m, n, rank):
    """Residuals A p - b with A of this rank, and b outside of its range."""
    matrix = RNG.normal(size=(m, rank)) @ RNG.normal(size=(rank, n))
    return matrix, RNG.normal(size=m)


def residual(p, matrix, target):
    return matrix @ p - target


LOSS = hesskit.least_squares_loss(residual)


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_residuals_take_one_step_the_shortest(shape, float64):
    """x + A^+ (b - A x): with LAPACK's pseudo-inverse, which shares no code with ours."""
    m, n, rank = SHAPES[shape]
    matrix, target = linear(m, n, rank)
    start = RNG.normal(size=n)
    result = hesskit.minimize(LOSS, start, hesskit.gauss_newton(), args=(matrix, target))
    assert result.status == Status.GRADIENT_TOL
    assert result.num_steps == 1
    shortest = start + np.linalg.pinv(matrix, rcond=1e-12) @ (target - matrix @ start)
    np.testing.assert_allclose(result.params, shortest, rtol=1e-9, atol=1e-11)
    assert result.state.state.info.rank == rank
    assert result.state.state.info.linear_solver == ("sample" if m < n else "dense")


def test_a_least_step_in_its_own_scale(float64):
    """Levenberg-Marquardt's is the shortest in |D s|."""
    matrix, target = linear(3, 6, 3)
    start = np.zeros(6)
    optimizer = hesskit.levenberg_marquardt(scaling=1.0, radius=1e6)
    result = hesskit.minimize(LOSS, start, optimizer, args=(matrix, target))
    d = np.linalg.norm(matrix, axis=0)
    np.testing.assert_allclose(result.params, np.linalg.pinv(matrix / d) @ target / d, rtol=1e-9)
    assert result.num_steps == 1


@pytest.mark.slow
def test_nearly_dependent_columns_lose_half_the_digits_of_normal_equations_not_ours(float64):
    """Condition 1e9: its square is beyond float64, so that A'A is singular to it."""
    u = np.linalg.qr(RNG.normal(size=(8, 3)))[0]
    v = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    matrix = (u * np.array([1.0, 1e-3, 1e-9])) @ v.T
    truth = np.array([1.0, -2.0, 3.0])
    result = hesskit.minimize(
        LOSS, np.zeros(3), hesskit.gauss_newton(), args=(matrix, matrix @ truth)
    )
    assert result.state.state.info.rank == 3
    np.testing.assert_allclose(result.params, truth, atol=1e-5)
    with np.testing.assert_raises(AssertionError):
        normal = np.linalg.pinv(matrix.T @ matrix) @ (matrix.T @ (matrix @ truth))
        np.testing.assert_allclose(normal, truth, atol=1e-5)


@pytest.mark.slow
def test_the_first_step_is_whole_and_the_next_within_a_ball(float64):
    """From far on an S-shaped curve the whole step overshoots: it is tried, then shortened."""
    loss = hesskit.least_squares_loss(jnp.arctan)
    x = jnp.array([3.0])
    whole = -np.arctan(3.0) * 10.0
    updates, info = update_once(hesskit.gauss_newton(1.0), loss, x)
    np.testing.assert_allclose(updates, whole, rtol=1e-12)
    assert info.radius == jnp.inf
    updates, info = update_once(hesskit.gauss_newton(), loss, x)
    np.testing.assert_array_equal(updates, 0.0)
    assert not info.accepted
    assert 0.25 * -whole <= info.radius <= 0.5 * -whole * (1 + 1e-12)
    held, _ = update_once(hesskit.gauss_newton(radius=0.5), loss, x)
    np.testing.assert_allclose(held, -0.5, rtol=1e-12)
    result = hesskit.minimize(loss, x, hesskit.gauss_newton(), history=True)
    assert result.success
    np.testing.assert_allclose(result.params, 0.0, atol=1e-12)
    assert not result.history.accepted[1]
    assert result.history.step_norm[2] < -whole


def test_whole_steps_by_conjugate_gradients_too(float64):
    """Its first region has no bound either: the answer is 1000 away."""
    loss = hesskit.least_squares_loss(lambda p: p - 1000.0)
    updates, info = update_once(hesskit.gauss_newton(linear_solver="cg"), loss, jnp.zeros(3))
    np.testing.assert_allclose(updates, 1000.0)
    assert info.num_products == 1
    assert info.linear_solver == "cg"


@pytest.mark.slow
def test_another_loss_of_outputs(float64):
    """Poisson's, whose Hessian is no identity: one step is J'H J s = -g, by numpy."""
    x = np.linspace(0.0, 1.0, 6)
    counts = np.array([1.0, 0.0, 2.0, 3.0, 5.0, 9.0])

    def outer(rate):
        return jnp.sum(jnp.exp(rate) - counts * rate)

    loss = hesskit.composite(outer, lambda p: p[0] + p[1] * x + 0.1 * p[0] * p[1] * x**2)
    point = jnp.array([0.2, 1.5])
    jacobian = np.asarray(jax.jacfwd(loss.inner)(point))
    weights = np.exp(np.asarray(loss.inner(point)))
    gram = jacobian.T @ (weights[:, None] * jacobian)
    updates, _ = update_once(hesskit.gauss_newton(1.0), loss, point)
    np.testing.assert_allclose(gram @ updates, -jax.grad(loss)(point), rtol=1e-10)
    result = hesskit.minimize(loss, point, hesskit.gauss_newton())
    assert result.success
    np.testing.assert_allclose(jax.grad(loss)(result.params), 0.0, atol=1e-8)
