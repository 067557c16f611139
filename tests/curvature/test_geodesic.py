"""Geodesic acceleration: the second derivative against differences, the system against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core import tree
from hesskit.curvature import geodesic
from hesskit.curvature.geodesic import Curve

RNG = np.random.default_rng(0)
T = np.linspace(0.0, 2.0, 6)
POINT = {"a": np.array(1.5), "k": np.array([0.4, 0.9])}
V = {"a": np.array(-0.7), "k": np.array([0.3, 1.1])}


def residual(p):
    """A pytree of residuals that bend in every parameter."""
    decay = p["a"] ** 2 * jnp.exp(-p["k"][0] * T)
    return {"decay": decay, "wave": jnp.sin(p["k"][1] * T[:3]) * p["a"]}


LOSSES = {
    "plain": hesskit.least_squares_loss(residual),
    "weighted": hesskit.least_squares_loss(
        residual, weights={"decay": 4.0, "wave": 0.3}, sigma=0.1, reduction="mean"
    ),
    "robust": hesskit.least_squares_loss(residual, loss="cauchy", scale=0.5),
    "sum": hesskit.least_squares_loss(residual) + 0.1 * hesskit.l2(2.0),
    "composite": hesskit.composite(lambda r: jnp.sum(jnp.cosh(r["wave"])), residual),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_second_derivative_is_that_of_the_whitened_outputs(name, float64):
    """F' (r(x + h v) - 2 r(x) + r(x - h v)) / h^2, with F at x."""
    fn = LOSSES[name].structure((), {}, "t")
    h, outputs = 1e-4, lambda c: fn.inner(jax.tree.map(lambda x, v: x + c * v, POINT, V))[0]
    bend = jax.tree.map(lambda b, o, a: (a - 2 * o + b) / h**2, outputs(-h), outputs(0), outputs(h))
    expected = tree.ravel(fn.outer.whiten(outputs(0.0), bend))
    found = jax.jit(lambda p, v: geodesic.second_derivative(fn, p, v))(POINT, V)
    assert float(jnp.max(jnp.abs(expected))) > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_function_without_forward_mode_is_told_so():
    @jax.custom_vjp
    def double(x):
        return 2 * x

    double.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))
    fn = hesskit.least_squares_loss(lambda p: double(p) - 1.0).structure((), {}, "t")
    with pytest.raises(TypeError, match=r"needs forward-mode derivatives.*use geodesic=False"):
        geodesic.second_derivative(fn, jnp.ones(2), jnp.ones(2))


def model(rank=3, damping=0.0, length=1.0):
    """Rows, their SVD, the damped step t of c and the curve of r_vv along it."""
    a, b = RNG.normal(size=(7, 3)), RNG.normal(size=7)
    a[:, rank:] = 0
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    s = np.where(np.arange(3) < rank, s, 0)
    t = np.where(s > 0, -s * (u.T @ b) / np.where(s > 0, s**2 + damping, 1), 0)
    bend = length * RNG.normal(size=7)
    return a, vt, jnp.asarray(s**2), jnp.asarray(t), bend, jnp.asarray(s * (u.T @ bend))


@pytest.mark.parametrize(("rank", "damping"), [(3, 0.0), (3, 2.5), (2, 0.0)])
def test_the_acceleration_solves_the_system_of_the_step(rank, damping, float64):
    a, vt, w, t, bend, projected = model(rank, damping, length=0.01)
    half, _ = geodesic.half_acceleration(w, jnp.asarray(damping), t, Curve(t, projected))
    rows = np.vstack([a, np.sqrt(damping) * np.eye(3)])
    expected = np.linalg.lstsq(rows, -np.append(bend, np.zeros(3)), rcond=1e-10)[0]
    assert np.linalg.norm(expected) > 1e-4
    np.testing.assert_allclose(vt.T @ half, expected / 2, rtol=1e-9, atol=1e-12)


def test_a_model_that_bends_predicts_what_the_straight_step_promises(float64):
    """Half |A s + b|^2 at v, from that at v + a/2 and what is added to it."""
    for damping in (0.0, 1.3):
        _, _, w, t, _, projected = model(3, damping, length=0.1)
        half, more = geodesic.half_acceleration(w, jnp.asarray(damping), t, Curve(t, projected))
        c = -(w + damping) * t  # S U'b
        value = lambda t, c=c, w=w: np.sum(c * t + w * t * t / 2)
        assert np.any(half != 0)
        np.testing.assert_allclose(value(t + half) + more, value(t), rtol=1e-12)


def test_an_acceleration_that_is_long_or_no_number_is_left_out(float64):
    _, _, w, t, _, projected = model(length=0.01)
    zero = jnp.zeros(())
    bound = float(2 * jnp.linalg.norm(projected / w) / jnp.linalg.norm(t)) / geodesic.ALPHA
    for factor, taken in ((0.99 / bound, True), (1.01 / bound, False), (np.nan, False)):
        half, more = geodesic.half_acceleration(w, zero, t, Curve(t, factor * projected))
        assert bool(jnp.any(half != 0)) is taken
        assert bool(more != 0) is taken


def test_a_shorter_step_bends_by_its_square(float64):
    """Along the first step exactly; across it not at all; without a first one, nothing."""
    _, _, w, t, _, projected = model(length=0.01)
    zero, curve = jnp.zeros(()), Curve(t, projected)
    whole, _ = geodesic.half_acceleration(w, zero, t, curve)
    part, _ = geodesic.half_acceleration(w, zero, 0.3 * t, curve)
    np.testing.assert_allclose(part, 0.09 * whole, rtol=1e-12)
    across = jnp.array([t[1], -t[0], 0.0])
    np.testing.assert_array_equal(geodesic.half_acceleration(w, zero, across, curve)[0], 0)
    empty = geodesic.empty(3, t.dtype)
    np.testing.assert_array_equal(geodesic.half_acceleration(w, zero, t, empty)[0], 0)
