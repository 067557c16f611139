"""Saddle-free Newton: both forms against numpy, and how they leave a saddle."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from tests.transforms.runs import trace, update_once
from tests.transforms.test_newton import BENT, bent


@pytest.mark.parametrize("num_krylov", [None, 3, pytest.param(50, marks=pytest.mark.slow)])
def test_one_step_is_that_of_the_dense_reference(num_krylov, float64):
    """A Krylov space of all n dimensions is the whole."""
    x = jnp.asarray(BENT)
    g, h = np.asarray(jax.grad(bent)(x)), np.asarray(jax.hessian(bent)(x))
    w, q = np.linalg.eigh(h)
    assert w[0] < 0
    optimizer = hesskit.saddle_free_newton(1.0, damping=0.3, num_krylov=num_krylov)
    updates, info = update_once(optimizer, bent, x)
    np.testing.assert_allclose(updates, -q @ ((q.T @ g) / (np.abs(w) + 0.3)), rtol=1e-9)
    np.testing.assert_allclose(info.lowest_curvature, w[0], rtol=1e-9)
    assert info.num_products == 3


@pytest.mark.slow
def test_krylov_step_is_that_of_the_projected_hessian(float64):
    n, k = 40, 6
    rng = np.random.default_rng(0)
    root = rng.standard_normal((n, n))
    h = (root + root.T) / 2
    b = rng.standard_normal(n)
    fn = lambda x: x @ (jnp.asarray(h) @ x) / 2 + x @ jnp.asarray(b)
    optimizer = hesskit.saddle_free_newton(1.0, damping=0.1, num_krylov=k)
    updates, info = update_once(optimizer, fn, jnp.zeros(n))
    space = np.stack([np.linalg.matrix_power(h / 6, i) @ b for i in range(k)], axis=1)
    basis = np.linalg.qr(space)[0]
    w, v = np.linalg.eigh(basis.T @ h @ basis)
    assert w[0] < 0
    expected = -basis @ (v @ ((v.T @ (basis.T @ b)) / (np.abs(w) + 0.1)))
    np.testing.assert_allclose(updates, expected, rtol=1e-6)
    assert info.num_products == k


def test_krylov_form_holds_no_square_array():
    n, k = 3000, 5
    optimizer = hesskit.saddle_free_newton(num_krylov=k)
    fn = lambda x: jnp.sum(x**4 - x**2)
    x = jnp.ones(n)
    assert max(leaf.size for leaf in jax.tree.leaves(optimizer.init(x))) == k * n
    jaxpr = jax.make_jaxpr(
        lambda x, state: optimizer.update(jax.grad(fn)(x), state, x, value_fn=fn)
    )(x, optimizer.init(x))
    sizes = []

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            sizes.extend(np.prod(var.aval.shape) for var in equation.outvars)
            for sub in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
            ):
                inner = getattr(sub, "jaxpr", sub)
                if hasattr(inner, "eqns"):
                    visit(inner)

    visit(jaxpr.jaxpr)
    assert max(sizes) <= 20 * n


@pytest.mark.slow
def test_products_are_bounded_and_few_where_the_gradient_is_loose(float64):
    rows = trace("saddle_free_newton krylov", "convex", [1.0, -1.0, 2.0, 0.5], "float64")
    assert np.all(rows.info.num_products[rows.info.status == 0] <= 4)
    assert rows.info.num_products[0] < 4  # eta = 0.5 asks for no more


@pytest.mark.slow
@pytest.mark.parametrize("num_krylov", [None, 2])
def test_the_escape_from_a_saddle_shortens_as_the_damping_grows(num_krylov, float64):
    fn = lambda x: x[0] ** 2 - 0.25 * x[1] ** 2 + x[1] ** 4
    lengths = []
    for damping in (0.0, 0.5, 5.0):
        optimizer = hesskit.saddle_free_newton(1.0, damping=damping, num_krylov=num_krylov)
        updates, info = update_once(optimizer, fn, jnp.zeros(2))
        assert abs(updates[0]) < 1e-12
        assert info.num_products <= 2
        lengths.append(abs(float(updates[1])))
    np.testing.assert_allclose(lengths, [1.0, 0.5, 0.5 / 5.5])


@pytest.mark.parametrize("method", ["saddle_free_newton", "saddle_free_newton krylov"])
def test_a_saddle_repels_from_its_own_valley_floor(method, float64):
    """From y = 1e-5 beside the valley that leads into the saddle, in few steps, not by doubling."""
    rows = trace(method, "wells", [1e-9, 1.0, 0.9, 1.0], "float64")
    out = np.flatnonzero(np.abs(rows.x[:, 0]) > 0.1)[0]
    assert out <= 10


def test_quadratic_from_far_away(float64):
    for method, steps in (("saddle_free_newton", 3), ("saddle_free_newton krylov", 6)):
        rows = trace(method, "quadratic", [1e6, -3e5, 7.0, 2e6], "float64")
        np.testing.assert_allclose(rows.x[steps], 1.0, atol=1e-6)


@pytest.mark.slow
def test_sizes_and_how_to_inject(float64):
    fn = lambda x: jnp.sum(x**4) - x[0]
    x = jnp.array([1.0, 0.5])
    factory = functools.partial(hesskit.saddle_free_newton, 1.0)
    expected = update_once(factory(damping=0.7, num_krylov=2), fn, x)[0]
    with jax.numpy_dtype_promotion("standard"):  # inject_hyperparams is optax's code
        injected = optax.inject_hyperparams(
            hesskit.saddle_free_newton, static_args=("num_krylov",)
        )(learning_rate=1.0, damping=0.7, num_krylov=2)
        state = injected.init(x)
        updates = jax.jit(
            lambda x, state: injected.update(jax.grad(fn)(x), state, x, value_fn=fn)[0]
        )(x, state)
        np.testing.assert_allclose(updates, expected)
        plain = optax.inject_hyperparams(hesskit.saddle_free_newton)(num_krylov=2)
        with pytest.raises(TypeError, match=r"static_args=\('num_krylov',\)"):
            jax.jit(plain.init)(x)
    for bad in (0, 2.5, -1):
        with pytest.raises(ValueError, match="num_krylov"):
            hesskit.saddle_free_newton(num_krylov=bad)
