"""Diagonals against dense matrices; estimators in the mean, within their own standard errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core import objective
from hesskit.core.derivatives import linearized
from hesskit.curvature import diagonal
from hesskit.linalg import whitened

NUM = 4000


def spd(n, seed=0):
    a = np.random.default_rng(seed).normal(size=(n, n))
    return a @ a.T + np.diag(np.arange(n))


def regression(num=12, seed=1):
    """Softmax regression: its Gauss-Newton matrix is the Hessian."""
    rng = np.random.default_rng(seed)
    x, t = jnp.asarray(rng.normal(size=(num, 3))), jnp.asarray(rng.integers(0, 4, num))
    params = {"w": jnp.asarray(rng.normal(size=(3, 4))), "b": jnp.asarray(rng.normal(size=4))}
    loss = hesskit.composite(hesskit.losses.softmax_cross_entropy(), linear)
    return loss, params, (x, t)


def linear(p, x):
    return x @ p["w"] + jnp.broadcast_to(p["b"], (x.shape[0], 4))


def dense_diagonal(fn, params):
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    return np.diag(jax.hessian(lambda v: fn(unravel(v)))(flat))


def flat(params):
    return np.asarray(jax.flatten_util.ravel_pytree(params)[0])


def assert_unbiased(samples, truth):
    """The mean of the rows is the truth to 5 standard errors, which are small."""
    error = samples.std(axis=0) / len(samples) ** 0.5
    assert np.all(np.abs(samples.mean(axis=0) - truth) <= 5 * error + 1e-12)
    assert np.linalg.norm(error) < 0.1 * np.linalg.norm(truth)


def draws(sample, num=NUM):
    """Rows of `sample(key)`, raveled."""
    keys = jax.random.split(jax.random.key(3), num)
    return np.asarray(
        jax.jit(jax.vmap(lambda k: jax.flatten_util.ravel_pytree(sample(k))[0]))(keys)
    )


def test_signs_are_signs_and_independent():
    like = {"a": jnp.zeros(50, jnp.bfloat16), "b": jnp.zeros((10, 5))}
    rows = draws(
        lambda k: jax.tree.map(lambda a: a.astype("float32"), diagonal.signs(k, like)), 1000
    )
    assert set(np.unique(rows)) == {-1, 1}
    gram = rows.T @ rows / 1000
    assert np.abs(gram - np.eye(100)).max() < 5 / 1000**0.5
    assert diagonal.signs(jax.random.key(0), like)["a"].dtype == jnp.bfloat16


def test_hutchinson_is_unbiased_with_the_known_variance(float64):
    matrix = spd(6)
    product = lambda v: jnp.asarray(matrix) @ v
    rows = draws(lambda k: diagonal.hutchinson(product, jnp.zeros(6), k))
    assert_unbiased(rows, np.diag(matrix))
    off = matrix - np.diag(np.diag(matrix))
    np.testing.assert_allclose(rows.var(axis=0), np.sum(off**2, axis=1), rtol=0.15)


def test_one_sample_of_a_diagonal_matrix_is_exact(dtype):
    d = jnp.linspace(-2, 3, 7).astype(dtype)
    found = diagonal.hutchinson(lambda v: d * v, d, jax.random.key(5))
    np.testing.assert_array_equal(found, d)


@pytest.mark.parametrize("traced", [False, True])
def test_samples_are_averaged(float64, traced):
    matrix, key = jnp.asarray(spd(5)), jax.random.key(8)
    one = functools.partial(diagonal.hutchinson, lambda v: matrix @ v, jnp.zeros(5))
    many = lambda num: one(key, num_samples=num)
    found = jax.jit(many)(jnp.int32(3)) if traced else many(3)
    z = [diagonal.signs(jax.random.fold_in(key, i), jnp.zeros(5)) for i in range(3)]
    np.testing.assert_allclose(found, sum(v * (matrix @ v) for v in z) / 3, rtol=1e-12)


def test_half_precision_is_squared_and_summed_in_float32():
    like = jnp.full(4, 1e-3, jnp.float16)
    found = diagonal.hutchinson(lambda v: 1e-3 * v, like, jax.random.key(0), num_samples=2)
    assert found.dtype == jnp.float32
    inner = lambda p: (1e-3 * p, None)
    loss = hesskit.least_squares_loss(lambda p: 1e-3 * p)
    outer = objective.drop_aux(objective.bind(loss)).outer
    found = diagonal.bartlett(inner, like, lambda k: outer, jax.random.key(0))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 1e-6, rtol=1e-2)  # 0.06 ulp of float16


@pytest.mark.slow
def test_bartlett_is_unbiased_for_the_gauss_newton_matrix(float64):
    loss, params, data = regression()
    fn = objective.bind(loss, args=data)
    draw = lambda k: fn.outer.scored(k, False)
    rows = draws(lambda k: diagonal.bartlett(fn.inner, params, draw, k))
    assert_unbiased(rows, dense_diagonal(lambda p: loss(p, *data), params))
    assert rows.min() >= 0


@pytest.mark.slow
def test_bartlett_is_unbiased_with_two_penalties(float64):
    """Without signs their residuals would multiply."""
    loss, params, data = regression()
    whole = loss + hesskit.l2(0.5) + 2.0 * hesskit.l2(0.25, mask="w")
    fn = objective.bind(whole, args=data)
    draw = lambda k: fn.outer.scored(k, False)
    rows = draws(lambda k: diagonal.bartlett(fn.inner, params, draw, k))
    assert_unbiased(rows, dense_diagonal(lambda p: whole(p, *data), params))


@pytest.mark.slow
def test_bartlett_is_the_published_square_but_for_signs(float64, monkeypatch):
    """Algorithm 2: B g * g with g the gradient of the mean loss at the drawn labels."""
    loss, params, (x, _) = regression()
    labels = jnp.asarray(np.random.default_rng(7).integers(0, 4, 12))
    drawn = objective.bind(loss, args=(x, labels))
    given = lambda key: drawn.outer.scored(None, False)
    ones = lambda key, like: jax.tree.map(jnp.ones_like, like)
    monkeypatch.setattr(diagonal, "signs", ones)
    found = diagonal.bartlett(drawn.inner, params, given, jax.random.key(0))
    g = flat(jax.grad(loss)(params, x, labels))
    np.testing.assert_allclose(flat(found), 12 * g * g, rtol=1e-10)


@pytest.mark.slow
def test_signs_leave_the_mean_over_examples(float64):
    """At fixed labels: the mean over signs is that of the squared gradients of examples."""
    loss, params, (x, labels) = regression()
    fn = objective.bind(loss, args=(x, labels))
    rows = draws(
        lambda k: diagonal.bartlett(fn.inner, params, lambda _: fn.outer.scored(None, False), k)
    )
    one = lambda x, t: jax.flatten_util.ravel_pytree(jax.grad(loss)(params, x[None], t[None]))[0]
    assert_unbiased(rows, np.mean(np.asarray(jax.vmap(one)(x, labels)) ** 2, axis=0))


@pytest.mark.slow
def test_exact_is_the_diagonal_of_the_dense_matrix(dtype):
    fn = lambda p: jnp.sum(jnp.sin(p["a"]) ** 2) * p["b"] + jnp.sum(p["a"]) ** 3
    params = {"a": jnp.linspace(-1, 1, 70).astype(dtype), "b": jnp.asarray(0.7, dtype)}
    found = diagonal.exact(linearized(fn, params).product, params)
    truth = dense_diagonal(fn, params)
    np.testing.assert_allclose(flat(found), truth, rtol=1e-4, atol=1e-4)
    assert found["b"].shape == ()


@pytest.mark.slow
@pytest.mark.parametrize("num", [3, 12], ids=["rows", "columns"])
@pytest.mark.parametrize("by_example", [False, True])
def test_of_factor_is_exact_by_rows_and_by_columns(float64, num, by_example):
    loss, params, data = regression(num)
    if by_example:
        one = hesskit.per_example(lambda p, x: x @ p["w"] + p["b"])
        loss = hesskit.composite(hesskit.losses.softmax_cross_entropy(), lambda p, x: one(p, x))
    fn = objective.drop_aux(objective.bind(loss, args=data))
    at = whitened.evaluate(fn, params)
    found = diagonal.of_factor(at, params)
    assert (4 * num < 16) == (num == 3)
    truth = dense_diagonal(lambda p: loss(p, *data), params)
    np.testing.assert_allclose(flat(found), truth, rtol=1e-10)


SCALES = np.geomspace(1.0, 1e6, 40)


def ill_scaled(x):
    """Unlike scales, and a coupling of all entries in their own units."""
    y = jnp.asarray(SCALES**0.5, x.dtype) * (x - 1.0)
    return jnp.sum(y**2) / 2 + jnp.sum(y) ** 2 / 40


def test_preconditioner_of_a_given_diagonal():
    d = {"a": jnp.array([2.0, -4.0, 0.0]), "b": jnp.array(1.0)}
    made = hesskit.diagonal_preconditioner(d, exponent=0.5)
    v, damping = jax.tree.map(jnp.ones_like, d), jnp.array(0.25)
    state = made.init(d)
    assert made.update(state, None, d) == state
    out = made.apply(state, v, damping)
    tiny = 4 * np.finfo(np.float32).eps
    np.testing.assert_allclose(out["a"], (np.array([2, 4, tiny]) + 0.25) ** -0.5, rtol=1e-6)
    np.testing.assert_allclose(out["b"], 1.25**-0.5, rtol=1e-6)
    with pytest.raises(ValueError, match=r"diagonal\['a'\] has shape \(3,\), params \(2,\)"):
        made.init({**d, "a": jnp.ones(2)})


@pytest.mark.slow
def test_preconditioner_estimates_the_norms_of_rows(float64):
    matrix = jnp.asarray(spd(6))
    made = hesskit.diagonal_preconditioner(num_samples=500)
    state = made.update(made.init(jnp.zeros(6)), lambda v: matrix @ v, jnp.zeros(6))
    out = made.apply(state, jnp.ones(6), jnp.zeros(()))
    np.testing.assert_allclose(1 / out, np.linalg.norm(matrix, axis=1), rtol=0.1)


def test_preconditioner_averages_over_points(float64):
    """(0.5 d1^2 + d2^2) / 1.5 at decay 0.5, diagonal matrices having no noise."""
    made, x = hesskit.diagonal_preconditioner(decay=0.5), jnp.zeros(3)
    d1, d2 = jnp.array([1.0, 2.0, 3.0]), jnp.array([4.0, 1.0, 5.0])
    state = made.update(made.init(x), lambda v: d1 * v, x)
    np.testing.assert_allclose(made.apply(state, x + 1, jnp.zeros(())), 1 / d1)
    bad = made.update(state, lambda v: jnp.nan * v, x)
    np.testing.assert_array_equal(bad.squares, state.squares)
    state = made.update(bad, lambda v: -d2 * v, x)
    root = np.sqrt((0.5 * d1**2 + d2**2) / 1.5)
    np.testing.assert_allclose(made.apply(state, x + 1, jnp.zeros(())), 1 / root, rtol=1e-12)


@pytest.mark.slow
def test_preconditioner_saves_products(dtype):
    start = jnp.zeros(40, dtype)
    plain = hesskit.minimize(ill_scaled, start, hesskit.newton_cg())
    made = hesskit.diagonal_preconditioner()
    ours = hesskit.minimize(ill_scaled, start, hesskit.newton_cg(preconditioner=made))
    assert ours.success
    np.testing.assert_allclose(ours.params, 1.0, atol=1e-2)
    assert int(ours.num_products) < 0.3 * int(plain.num_products)


@pytest.mark.slow
def test_units_of_params_cost_nothing_with_a_preconditioner(float64):
    """Rosenbrock in units from 1e-3 to 1e3; without, it is not solved in 200,000 products."""
    rosenbrock = lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    units = jnp.asarray(np.geomspace(1e-3, 1e3, 40))
    opt = hesskit.newton_cg(preconditioner=hesskit.diagonal_preconditioner())
    plain = hesskit.minimize(rosenbrock, jnp.zeros(40), opt)
    scaled = hesskit.minimize(lambda y: rosenbrock(units * y), jnp.zeros(40), opt)
    # In the largest units |g| ends at its rounding, above a tolerance that knows no units.
    np.testing.assert_allclose(units * scaled.params, 1.0, rtol=1e-10)
    assert int(scaled.num_products) < 2 * int(plain.num_products)


def test_preconditioners_of_equal_arguments_are_one():
    assert hesskit.diagonal_preconditioner() is hesskit.diagonal_preconditioner(decay=0.9)
    assert hesskit.diagonal_preconditioner() is not hesskit.diagonal_preconditioner(key=1)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"num_samples": 0}, ValueError, "num_samples must be an integer of at least 1"),
        ({"decay": 1.5}, ValueError, r"decay must lie in \[0, 1\]"),
        ({"exponent": -1.0}, ValueError, r"exponent must lie in \[0, 1\]"),
        ({"key": "a"}, TypeError, "key must be an integer"),
        ({"diagonal": jnp.arange(3)}, TypeError, "diagonal is int32; write 0.0"),
    ],
    ids=str,
)
def test_wrong_arguments(given, error, said):
    with pytest.raises(error, match=said):
        hesskit.diagonal_preconditioner(**given)
