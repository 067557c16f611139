"""Levenberg-Marquardt: its step against numpy, its scale, its answers against SciPy, its box."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import hesskit
from hesskit.core.status import Status
from hesskit.transforms.levenberg_marquardt import SCALING
from tests.least_squares_problems import by_name
from tests.transforms.runs import update_once

POINT = np.array([0.3, -0.8, 2.0])
MIX = np.random.default_rng(3).normal(size=(6, 3)) * [1.0, 30.0, 0.05]


def residual(p):
    """Six residuals of three parameters in unlike units."""
    z = jnp.asarray(MIX, p.dtype) @ p
    return z + 0.1 * z**2 + jnp.sin(jnp.arange(6.0, dtype=p.dtype))


LOSS = hesskit.least_squares_loss(residual)


def plain_step(radius, scaling):
    """argmin |J s + r|^2 over |D s| <= radius, by bisection on the damping."""
    j, r = np.asarray(jax.jacfwd(residual)(jnp.asarray(POINT))), np.asarray(residual(POINT))
    d = np.linalg.norm(j, axis=0) ** scaling
    of = lambda damping: -np.linalg.solve(j.T @ j + damping * np.diag(d**2), j.T @ r)
    low, high = 0.0, 1e12
    if np.linalg.norm(d * of(low)) <= radius:
        return of(low), d
    for _ in range(200):
        middle = np.sqrt(max(low, 1e-12) * high)
        long = np.linalg.norm(d * of(middle)) > radius
        low, high = (middle, high) if long else (low, middle)
    return of(high), d


@pytest.mark.slow
@pytest.mark.parametrize("scaling", [0.0, SCALING, 1.0])
def test_the_step_is_that_of_a_plain_scaled_trust_region(scaling, float64):
    for radius in (0.01, 0.3, 1e3):
        optimizer = hesskit.levenberg_marquardt(1.0, radius=radius, scaling=scaling)
        updates, info = update_once(optimizer, LOSS, jnp.asarray(POINT))
        step, d = plain_step(radius, scaling)
        np.testing.assert_allclose(updates, step, rtol=1e-8)
        length = np.linalg.norm(d * updates)
        assert length <= radius * (1 + 1e-12)
        assert (length < radius * (1 - 1e-6)) == (radius == 1e3)
        assert info.rank == 3
        assert info.radius == radius


def test_the_first_radius_is_the_largest_scaled_entry(float64):
    _, d = plain_step(1.0, SCALING)
    _, info = update_once(hesskit.levenberg_marquardt(1.0), LOSS, jnp.asarray(POINT))
    np.testing.assert_allclose(info.radius, np.max(d * np.abs(POINT)), rtol=1e-12)
    _, info = update_once(hesskit.levenberg_marquardt(1.0), LOSS, jnp.zeros(3))
    columns = np.linalg.norm(jax.jacfwd(residual)(jnp.zeros(3)), axis=0)
    np.testing.assert_allclose(info.radius, np.min(columns**SCALING), rtol=1e-12)


@pytest.mark.slow
def test_the_scale_remembers_the_longest_columns(float64):
    """D only grows: the largest column norm of the points so far, to a power."""
    loss = hesskit.least_squares_loss(lambda p: jnp.stack([p[0] ** 3, 3 * p[1], p[1] - p[0]]))
    result = hesskit.minimize(
        loss, jnp.array([2.0, 1.0]), hesskit.levenberg_marquardt(), history="params"
    )
    kept = np.asarray(result.history.params)[np.asarray(result.history.accepted)]
    steep = np.sqrt((3 * kept[:, 0] ** 2) ** 2 + 1)
    assert steep[-1] < steep[0] / 5
    expected = np.array([np.max(steep), np.sqrt(10)]) ** SCALING
    np.testing.assert_allclose(result.state.state.model.scale, expected, rtol=1e-12)


def test_with_full_scaling_the_units_of_parameters_are_irrelevant(float64):
    c = jnp.array([1e-2, 1.0, 30.0])
    optimizer = hesskit.levenberg_marquardt(1.0, scaling=1.0, radius=0.3)
    stretched = hesskit.least_squares_loss(lambda q: residual(q / c))
    near, _ = update_once(optimizer, LOSS, jnp.asarray(POINT))
    far, _ = update_once(optimizer, stretched, jnp.asarray(POINT) * c)
    np.testing.assert_allclose(far / c, near, rtol=1e-8)


def test_bad_scalings():
    for bad, error in ((-0.1, ValueError), (1.5, ValueError), ("jacobi", TypeError)):
        with pytest.raises(error, match="scaling must"):
            hesskit.levenberg_marquardt(scaling=bad)
    with pytest.raises(TypeError, match="scaling must be a number, got None"):
        hesskit.levenberg_marquardt(scaling=None)


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["kowalik_osborne", "osborne_1", "brown_dennis"])
def test_the_answers_are_those_of_scipy(problem, float64):
    residual, start = by_name(problem).residual, by_name(problem).start
    loss = hesskit.least_squares_loss(residual)
    ours = hesskit.minimize(loss, jnp.asarray(start), hesskit.levenberg_marquardt())
    jacobian = jax.jit(jax.jacfwd(residual))
    theirs = scipy.optimize.least_squares(
        jax.jit(residual), start, jac=jacobian, method="trf", xtol=1e-15, ftol=1e-15, gtol=1e-13
    )
    assert ours.status in (Status.GRADIENT_TOL, Status.ROUNDOFF_LIMITED)
    np.testing.assert_allclose(ours.value, theirs.cost, rtol=1e-10)
    np.testing.assert_allclose(ours.params, theirs.x, rtol=1e-5)


# Geodesic acceleration.


@pytest.mark.slow
def test_an_accelerated_step_follows_a_parabola(float64):
    """r = (1 - x, 10 (y - x^2)): the step ends on the parabola beside it, its half bend above."""
    loss, x = hesskit.least_squares_loss(by_name("rosenbrock").residual), jnp.array([0.9, 0.7])
    for geodesic, end in ((True, [1.0, 1.0]), (False, [1.0, 0.99])):
        optimizer = hesskit.levenberg_marquardt(1.0, radius=10.0, geodesic=geodesic)
        updates, info = update_once(optimizer, loss, x)
        np.testing.assert_allclose(x + updates, end, rtol=1e-12)
        assert info.num_products == (4 if geodesic else 2)
    scaled = hesskit.scale_by_levenberg_marquardt(radius=10.0, geodesic=True)
    np.testing.assert_allclose(x - update_once(scaled, loss, x)[0], 1.0, rtol=1e-12)


@pytest.mark.parametrize("radius", [1.0, 2.0, 3.0, 1e3])
def test_an_accelerated_step_is_that_of_the_damped_system(radius, float64):
    """v + a/2 of dense matrices, r_vv by differences; the radius bounds v alone."""
    optimizer = hesskit.levenberg_marquardt(1.0, radius=radius, geodesic=True)
    updates, info = update_once(optimizer, LOSS, jnp.asarray(POINT))
    v, d = plain_step(radius, SCALING)
    j, r = np.asarray(jax.jacfwd(residual)(jnp.asarray(POINT))), np.asarray(residual(POINT))
    free = np.linalg.norm(d * v) < radius * (1 - 1e-6)
    lagrange = -(d * v) @ (j.T @ (r + j @ v) / d) / radius**2
    h, damping = 1e-3, 0.0 if free else lagrange
    bend = np.asarray(residual(POINT + h * v) - 2 * residual(POINT) + residual(POINT - h * v))
    a = -np.linalg.solve(j.T @ j + damping * np.diag(d**2), j.T @ bend / h**2)
    taken = 2 * np.linalg.norm(d * a) <= 0.75 * np.linalg.norm(d * v)
    assert taken == (radius != 3.0)
    assert np.linalg.norm(d * a) > 0.05 * np.linalg.norm(d * v)
    np.testing.assert_allclose(updates, v + a / 2 if taken else v, rtol=1e-5)
    assert info.radius == radius


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["rosenbrock", "osborne_1", "meyer"])
def test_acceleration_saves_steps_in_curved_valleys_and_never_goes_up(problem, float64):
    given = by_name(problem)
    loss, start = hesskit.least_squares_loss(given.residual), jnp.asarray(given.start)
    plain, bent = (
        hesskit.minimize(loss, start, hesskit.levenberg_marquardt(geodesic=on), history=True)
        for on in (False, True)
    )
    assert bent.success
    np.testing.assert_allclose(2 * bent.value, given.minima[0], rtol=1e-6, atol=1e-20)
    assert int(bent.num_values) <= 0.7 * int(plain.num_values)
    kept = np.asarray(bent.history.value)[np.asarray(bent.history.accepted)]
    assert np.all(np.diff(kept) <= 1e-10 * kept[:-1])  # the rounding of its residuals


@pytest.mark.slow
def test_acceleration_by_samples(float64):
    """Fewer residuals than parameters: the same step in room m x n."""
    mix = jnp.asarray(np.random.default_rng(4).normal(size=(3, 9)))
    loss = hesskit.least_squares_loss(lambda p: (mix @ p) + 0.1 * (mix @ p) ** 2 - 1.0)
    optimizer = hesskit.levenberg_marquardt(geodesic=True)
    solved = hesskit.minimize(loss, jnp.zeros(9), optimizer, max_steps=1, check="first_order")
    assert solved.state.state.info.linear_solver == "sample"
    updates, info = update_once(optimizer, loss, jnp.zeros(9))
    assert info.linear_solver == "dense"
    straight, _ = update_once(hesskit.levenberg_marquardt(), loss, jnp.zeros(9))
    np.testing.assert_allclose(solved.params, updates, rtol=1e-9, atol=1e-12)
    assert jnp.linalg.norm(updates - straight) > 1e-3


def test_acceleration_excludes_bounds_and_conjugate_gradients():
    with pytest.raises(ValueError, match='"cg" does not take geodesic=True; use "dense"'):
        hesskit.levenberg_marquardt(geodesic=True, linear_solver="cg")
    with pytest.raises(ValueError, match="geodesic=True does not take bounds"):
        hesskit.levenberg_marquardt(geodesic=True, bounds=(0.0, None))
    optimizer = hesskit.levenberg_marquardt(geodesic=True)
    with pytest.raises(ValueError, match="geodesic=True does not take bounds"):
        hesskit.minimize(LOSS, jnp.asarray(POINT), optimizer, bounds=(-9.0, 9.0))
    with pytest.raises(ValueError, match=r"geodesic must be one of False, True; got 'yes'"):
        hesskit.levenberg_marquardt(geodesic="yes")


# The box.


@functools.cache
def one_step_to_the_edge(factory, high):
    """`step(x, learning_rate)`: where an update from x leads, and what its state says of it."""

    def told(x):  # the value of the trial is minus where it was
        model = (x - 50.0) ** 2
        return -x + (model - jax.lax.stop_gradient(model))

    far = hesskit.least_squares_loss(lambda x: x - 50.0)
    fn = far if factory is hesskit.levenberg_marquardt else told

    def step(x, learning_rate):
        optimizer = factory(learning_rate, bounds=(None, high), radius=100.0)
        value, grad = jax.value_and_grad(fn)(x)
        updates, state = optimizer.update(
            grad, optimizer.init(x), x, value=value, grad=grad, value_fn=fn
        )
        return x + updates, state.value, state.info.accepted

    return jax.jit(jax.vmap(step, in_axes=(0, None)), static_argnums=1)


@pytest.mark.slow
@pytest.mark.parametrize("factory", [hesskit.levenberg_marquardt, hesskit.trust_region])
@pytest.mark.parametrize("learning_rate", [None, 1.0, 3.0])
def test_an_update_to_the_edge_stays_inside_to_the_bit(factory, learning_rate):
    """x + (bound - x) is beyond the bound for half of all x in floating point."""
    high = np.float32(0.7)
    x = np.random.default_rng(0).uniform(-40, high, 300).astype("float32")
    assert np.mean(x + (high - x) > high) > 0.3
    new, value, accepted = one_step_to_the_edge(factory, 0.7)(x, learning_rate)
    assert np.all(new <= high)
    np.testing.assert_allclose(new, high, rtol=1e-5)
    assert np.all(accepted)
    if factory is hesskit.trust_region and learning_rate is None:
        np.testing.assert_array_equal(value, -new)  # the trial was there, bitwise


@pytest.mark.slow
@pytest.mark.parametrize("factory", [hesskit.levenberg_marquardt, hesskit.trust_region])
def test_a_loop_of_updates_stays_inside_and_ends_where_the_solver_does(factory, float64):
    loss = hesskit.least_squares_loss(by_name("rosenbrock").residual)
    low, high = np.array([-1.5, -1.0]), np.array([0.5, 2.0])
    optimizer, x = factory(bounds=(jnp.asarray(low), jnp.asarray(high))), jnp.array([-1.2, 1.0])
    update = jax.jit(lambda s, x: optimizer.update(jax.grad(loss)(x), s, x, value_fn=loss))
    state, points = optimizer.init(x), [x]
    for _ in range(25):
        updates, state = update(state, points[-1])
        points.append(points[-1] + updates)
    points = np.asarray(jnp.stack(points))
    assert np.all((points >= low) & (points <= high))
    np.testing.assert_array_equal(points[-1, 0], 0.5)
    solved = hesskit.minimize(loss, x, factory(), bounds=(low, high))
    assert solved.success
    np.testing.assert_allclose(points[-1], solved.params, rtol=1e-10)
    np.testing.assert_allclose(solved.params, [0.5, 0.25], rtol=1e-10)
