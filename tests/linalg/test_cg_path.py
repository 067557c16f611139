"""The path of conjugate gradients against NumPy's own."""

import jax
import jax.numpy as jnp
import numpy as np

from hesskit.linalg.cg_path import cg_path, marks, row

RNG = np.random.default_rng(0)


def spd(n, low=0.1):
    q, _ = np.linalg.qr(RNG.normal(size=(n, n)))
    return (q * np.geomspace(low, 10, n)) @ q.T


def plain(a, b, x, num):
    """Iterates of the textbook recurrence, after each product."""
    r = b - a @ x
    d, found = r, []
    for _ in range(num):
        alpha = r @ r / (d @ a @ d)
        x, old, r = x + alpha * d, r, r - alpha * a @ d
        d = r + (r @ r) / (old @ old) * d
        found.append(x)
    return found


def test_marks_grow_by_a_third():
    assert marks(1) == (1,)
    assert marks(12) == (1, 2, 3, 4, 6, 8, 11, 12)


def test_kept_iterates_are_those_of_the_recurrence(float64):
    a, b, x0 = spd(9), RNG.normal(size=9), RNG.normal(size=9)
    path = cg_path(lambda v: jnp.asarray(a) @ v, jnp.asarray(b), jnp.asarray(x0), max_products=8)
    iterates = plain(a, b, x0, 8)
    assert path.num_products == 9
    assert path.num == len(marks(8))
    for i, mark in enumerate(marks(8)):
        x = row(path.iterates, i)
        np.testing.assert_allclose(x, iterates[mark - 1], rtol=1e-8)
        np.testing.assert_allclose(row(path.residuals, i), b - a @ x, rtol=1e-7, atol=1e-10)


def test_it_ends_where_progress_slows(float64):
    """k = 10 products that gain less than 5e-3 of q end it, long before the residual is small."""
    w = jnp.asarray(np.geomspace(1e-6, 1, 200))
    path = cg_path(lambda v: w * v, w**0.6, jnp.zeros(200), max_products=150)
    q = lambda i: -row(path.iterates, i) @ (w**0.6 + row(path.residuals, i)) / 2
    best = -jnp.sum(w**0.2) / 2
    assert 10 < path.num_products < 120
    assert q(path.num - 1) < 0.9 * best
    assert jnp.linalg.norm(row(path.residuals, path.num - 1)) > 1e-6


def test_the_last_row_is_the_last_iterate(float64):
    a, b = np.diag([1.0, 2.0, 3.0]), np.ones(3)
    path = cg_path(lambda v: jnp.asarray(a) @ v, jnp.asarray(b), jnp.zeros(3), max_products=20)
    assert path.num_products <= 5
    np.testing.assert_allclose(row(path.iterates, path.num - 1), np.linalg.solve(a, b), rtol=1e-12)


def test_negative_curvature_and_nan_end_it_before_the_step(float64):
    b = jnp.array([1.0, 0.0])
    for image in (lambda v: -v, lambda v: v * jnp.nan):
        path = jax.jit(lambda image=image: cg_path(image, b, jnp.zeros(2), max_products=5))()
        assert path.num == 1
        assert path.num_products <= 2
        np.testing.assert_array_equal(row(path.iterates, 0), jnp.zeros(2))


def test_not_needed_spends_the_first_product_alone():
    path = cg_path(lambda v: 2 * v, jnp.ones(2), jnp.zeros(2), max_products=5, needed=False)
    assert path.num_products == 1


def test_preconditioned_by_the_inverse_it_takes_one_step(float64):
    a, b = spd(6), RNG.normal(size=6)
    inverse = jnp.asarray(np.linalg.inv(a))
    path = cg_path(
        lambda v: jnp.asarray(a) @ v,
        jnp.asarray(b),
        jnp.zeros(6),
        max_products=20,
        precondition=lambda r: inverse @ r,
    )
    np.testing.assert_allclose(row(path.iterates, 0), np.linalg.solve(a, b), rtol=1e-8)
    assert path.num_products <= 4
