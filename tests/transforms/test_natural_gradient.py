"""Natural gradient: what is published of it, what it is for, and its words."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import hesskit
from hesskit import losses
from tests.transforms.test__natural_gradient import LOSS, RNG, T, X, one, problem


@pytest.mark.slow
def test_spring_is_the_published_recursion(float64):
    """Algorithm 1 of Goldshlager et al. (2024), in NumPy, on least squares of few rows."""
    a, b = jnp.asarray(RNG.normal(size=(3, 8))), jnp.asarray(RNG.normal(size=3))
    loss = hesskit.least_squares_loss(lambda p: a @ p - b)
    opt = hesskit.natural_gradient(0.1, damping=0.2, momentum=0.9, norm_constraint=1e-2)
    p, phi = np.zeros(8), np.zeros(8)
    x = jnp.zeros(8)
    state = opt.init(x)
    rows = np.asarray(a)
    for _ in range(6):
        zeta = rows @ p - np.asarray(b) - 0.9 * rows @ phi
        kernel = rows @ rows.T + 0.2 * np.eye(3)
        phi = rows.T @ np.linalg.solve(kernel, zeta) + 0.9 * phi
        p = p - phi * min(0.1, 0.1 / np.linalg.norm(phi))
        updates, state = opt.update(jax.grad(loss)(x), state, x, value_fn=loss)
        x = optax.apply_updates(x, updates)
        np.testing.assert_allclose(x, p, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_with_all_of_the_momentum_rows_one_by_one_solve_the_system(float64):
    """The Kaczmarz method, at params that stay: without momentum a row knows only itself."""
    a, truth = RNG.normal(size=(4, 9)), RNG.normal(size=9)
    rows, right = jnp.asarray(a), jnp.asarray(a @ truth)
    loss = hesskit.least_squares_loss(lambda p, row, b: jnp.atleast_1d(b - row @ p))

    def direction(momentum):
        opt = hesskit.natural_gradient(0.0, damping=1e-6, momentum=momentum)

        def body(state, i):
            args = (rows[i % 4], right[i % 4])
            grads = jax.grad(loss)(jnp.zeros(9), *args)
            _, state = opt.update(grads, state, jnp.zeros(9), value_fn=loss, args=args)
            return state, None

        state, _ = jax.lax.scan(body, opt.init(jnp.zeros(9)), jnp.arange(400))
        return -state.model.direction

    least = np.linalg.pinv(a) @ a @ truth
    np.testing.assert_allclose(direction(1.0), least, rtol=1e-4, atol=1e-6)
    assert np.linalg.norm(direction(0.1) - least) > 0.3 * np.linalg.norm(least)


@pytest.mark.slow
def test_the_norm_constraint_bounds_the_square_of_the_length(float64):
    p, args = problem(LOSS)
    updates, state = one(
        hesskit.natural_gradient(1.0, damping=1e-3, norm_constraint=1e-4), LOSS, p, args
    )
    assert np.linalg.norm(ravel_pytree(updates)[0]) == pytest.approx(1e-2)
    assert hesskit.last_info(state).step_norm == pytest.approx(1e-2)


@pytest.mark.slow
def test_a_change_of_units_hardly_changes_the_path():
    """What a natural gradient is for: 30 updates of a badly scaled logistic regression."""
    scale = jnp.array([1.0, 100.0, 1.0])
    x = jnp.asarray(X, "float32")
    t = jnp.asarray(T > 1, "float32")
    loss = hesskit.composite(losses.sigmoid_cross_entropy(), lambda w, x: x @ w)

    def run(x):
        w = jnp.zeros(3)
        opt = hesskit.natural_gradient(0.5, damping=1e-6)

        def body(carry, _):
            w, state = carry
            updates, state = opt.update(
                jax.grad(loss)(w, x, t), state, w, value_fn=loss, args=(x, t)
            )
            return (w + updates, state), loss(w, x, t)

        return jax.lax.scan(body, (w, opt.init(w)), None, length=6)[1]

    np.testing.assert_allclose(run(x), run(x * scale[None, :]), rtol=2e-2)


@pytest.mark.parametrize(
    ("kwargs", "error", "words"),
    [
        ({"damping": -1.0}, ValueError, "damping must"),
        ({"fisher": "true"}, ValueError, "fisher must be one of"),
        ({"linear_solver": "lu"}, ValueError, "linear_solver must be one of"),
        ({"momentum": 1.5}, ValueError, "momentum must"),
        ({"norm_constraint": 0.0}, ValueError, "norm_constraint must"),
        ({"key": "a"}, TypeError, "key must be an int or one key"),
        ({"max_products": 0}, ValueError, "max_products must be"),
    ],
)
def test_words(kwargs, error, words):
    with pytest.raises(error, match=words):
        hesskit.natural_gradient(1.0, **kwargs)
