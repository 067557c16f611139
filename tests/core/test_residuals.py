"""Sums of squares, robust or not: scipy's numbers, curvature with its floor, weights, words."""

import functools
import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import hesskit
from hesskit.core.residuals import FLOOR, LOSSES, Squares, least_squares_loss
from tests.core.dense import check_outer, filled, matrices

RNG = np.random.default_rng(0)
R = np.array([0.1, -0.7, 0.0, 1.9, -30.0, 2.1, 1e3])  # inliers and outliers of scale 2
SIGMA = RNG.uniform(0.5, 2.0, size=R.shape)
ROBUST = [name for name in LOSSES if name != "linear"]
TREE = {"a": jnp.array([1.0, 2.0]), "b": {"c": jnp.array([[3.0]]), "d": jnp.array(-1.0)}}

geman = lambda z: z / (1 + z)  # Geman-McClure, a rho of the user's own


def identity(p):
    return p


@pytest.mark.parametrize("loss", [*LOSSES, geman])
@pytest.mark.parametrize("sigma", [None, SIGMA])
def test_the_value_is_scipys_cost(loss, sigma, float64):
    def scipys(z):
        rho, slope = geman(z), 1 / (1 + z) ** 2
        return np.stack([rho, slope, -2 / (1 + z) ** 3])

    u = R if sigma is None else R / sigma
    cost = scipy.optimize.least_squares(
        lambda x: u + 0 * x[0], [1.0], loss=scipys if loss is geman else loss, f_scale=2.0
    ).cost
    ours = least_squares_loss(identity, loss=loss, scale=2.0, sigma=sigma)
    np.testing.assert_allclose(ours(jnp.asarray(R)), cost, rtol=1e-12)


@pytest.mark.parametrize("loss", [*ROBUST, geman])
def test_curvature_is_that_of_rho_and_its_floor_is_taken_by_outliers(loss, float64):
    rho = geman if loss is geman else LOSSES[loss]
    z = (R / SIGMA / 2) ** 2
    h = 1e-4 * np.maximum(z, 1e-3)
    at = lambda z: np.asarray(rho(jnp.asarray(z)))
    slope = (at(z + h) - at(z - h)) / (2 * h)
    bend = (at(z + h) - 2 * at(z) + at(z - h)) / h**2
    curvature = slope + 2 * z * bend
    floored = curvature < FLOOR * slope
    assert floored[6]
    assert not floored[:3].any()
    expected = np.maximum(curvature, FLOOR * slope) / SIGMA**2
    outer = filled(Squares(loss=loss, scale=2.0, sigma=jnp.asarray(SIGMA)))
    found = check_outer(outer, jnp.asarray(R), exact=False)
    np.testing.assert_allclose(np.diag(found.hessian), expected, rtol=1e-4, atol=1e-8)
    np.testing.assert_array_equal(found.hessian, np.diag(np.diag(found.hessian)))
    np.testing.assert_allclose(found.gradient, slope * R / SIGMA**2, rtol=1e-5, atol=1e-9)
    inside = ~floored
    np.testing.assert_allclose(
        np.diag(found.truth)[inside], np.diag(found.hessian)[inside], rtol=1e-10
    )
    assert (np.diag(found.truth)[floored] < np.diag(found.hessian)[floored]).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_factor_and_residual_of_a_tree(loss: str, dtype):
    r = jax.tree.map(lambda a: a.astype(dtype), TREE)
    weights = {"a": 2.0, "b": 0.5}
    outer = filled(Squares(weights, "mean", loss, 1.5, {"a": np.array([1, 3.0]), "b": 2.0}))
    assert check_outer(outer, r, exact=loss == "linear").residual is not None


def test_reductions(float64):
    r = {"a": jnp.array([1.0, 2.0, 3.0]), "b": jnp.array([[4.0], [6.0]])}
    weights = {"a": 3.0, "b": 0.5}
    np.testing.assert_allclose(least_squares_loss(identity)(r), (14 + 52) / 2)
    weighted = least_squares_loss(identity, weights=weights)
    np.testing.assert_allclose(weighted(r), (3 * 14 + 52 / 2) / 2)
    mean = least_squares_loss(identity, weights=weights, reduction="mean")
    np.testing.assert_allclose(mean(r), 3 * 14 / 3 + 0.5 * 52 / 2)
    scaled = least_squares_loss(identity, sigma={"a": 2.0, "b": jnp.array([[1.0], [3.0]])})
    np.testing.assert_allclose(scaled(r), (14 / 4 + 16 + 4) / 2)


def test_terms_are_unweighted_and_in_the_aux(float64):
    def residual(p, shift):
        return {"pde": p * jnp.array([1.0, 2.0]), "wall": p - shift}, {"seen": shift}

    plain = lambda p, shift: residual(p, shift)[0]
    loss = least_squares_loss(plain, weights={"pde": 10.0, "wall": 0.1}, reduction="mean")
    terms = {"pde": 2.5 * 4, "wall": 1.0}
    _, aux = loss.structure((jnp.array(1.0),), {}, "minimize")(jnp.array(2.0))
    assert jax.tree.map(float, aux) == {"terms": terms}
    assert loss(jnp.array(2.0), jnp.array(1.0)) == 10 * 10 + 0.1
    pair = least_squares_loss(residual, reduction="mean", has_aux=True)
    value, aux = pair(jnp.array(2.0), jnp.array(1.0))
    assert value == sum(terms.values())
    assert jax.tree.map(float, aux) == {"terms": terms, "aux": {"seen": 1.0}}


def test_weights_and_deviations_of_a_call_compile_once():
    loss = least_squares_loss(lambda p, x: {"a": p * x, "b": p - 1}, weights={"a": 5.0, "b": 5.0})
    traces = []

    @jax.jit
    def value(p, x, w, s):
        traces.append(p)
        return loss(p, x, residual_weights=w, residual_sigma=s)

    p, x = jnp.array(2.0), jnp.array([1.0, 3.0])
    for w, s in (({"a": 1.0, "b": 0.0}, 1.0), ({"a": 0.5, "b": 2.0}, 2.0)):
        expected = w["a"] * 40 / 2 + w["b"] / 2
        np.testing.assert_allclose(value(p, x, w, s), expected / s**2, rtol=1e-6)
    assert len(traces) == 1
    assert loss(p, x) == 5 * (40 + 1) / 2
    names = ["p", "x", "residual_weights", "residual_sigma"]
    assert list(inspect.signature(loss).parameters) == names
    matrix = lambda **data: hesskit.gauss_newton_operator(
        loss, p, args={"x": x, "residual_weights": {"a": 1.0, "b": 3.0}, **data}
    ).dense()
    np.testing.assert_allclose(matrix(), [[10 + 3]])
    np.testing.assert_allclose(matrix(residual_sigma={"a": 2.0, "b": 1.0}), [[2.5 + 3]])


def test_a_traced_weight_has_a_derivative():
    value = lambda w: least_squares_loss(identity, weights={"a": w, "b": 1.0}, scale=w)(TREE)
    np.testing.assert_allclose(jax.jit(jax.grad(value))(2.0), 5 / 2)


@pytest.mark.parametrize("loss", ["linear", "cauchy"])
def test_an_infinite_sigma_drops_a_residual_whatever_it_is(loss: str):
    sigma = jnp.array([1.0, jnp.inf, 2.0])
    two = matrices(filled(Squares(loss=loss, sigma=sigma[::2])), jnp.array([1.0, 3.0]))
    for bad in (5.0, jnp.nan, jnp.inf):
        r = jnp.array([1.0, bad, 3.0])
        found = matrices(filled(Squares(loss=loss, sigma=sigma)), r)
        for name in ("hessian", "factor", "residual", "gradient"):
            ours, theirs = getattr(found, name), getattr(two, name)
            rest = np.ix_(*[[0, 2]] * ours.ndim)
            np.testing.assert_allclose(ours[rest], theirs, rtol=1e-6)
            assert not ours[1].any()


@pytest.mark.parametrize("loss", ["linear", "huber"])
def test_a_mean_is_over_the_residuals_that_are_kept(loss: str, float64):
    """As if the dropped ones were not there: value, curvature, terms, gradient."""
    r = {"a": jnp.array([1.0, jnp.nan, 3.0, 5.0]), "b": jnp.array([2.0, 4.0])}
    sigma = {"a": jnp.array([1.0, jnp.inf, 2.0, jnp.inf]), "b": jnp.inf}
    make = lambda sigma: filled(Squares({"a": 3.0, "b": 2.0}, "mean", loss, 1.0, sigma))
    ours, rest = make(sigma), make({"a": sigma["a"][::2], "b": 1.0})
    alone = {"a": r["a"][::2], "b": jnp.zeros(0)}
    np.testing.assert_allclose(ours.value(r), rest.value(alone), rtol=1e-14)
    assert ours.report(r, None)["terms"]["b"] == 0
    found, expected = matrices(ours, r), matrices(rest, alone)
    for name in ("hessian", "gradient", "residual"):
        kept = np.ix_(*[[0, 2]] * getattr(found, name).ndim)
        np.testing.assert_allclose(getattr(found, name)[kept], getattr(expected, name), rtol=1e-14)
    if loss == "linear":
        assert ours.value(r) == 3 * (1 + 9 / 4) / 2
    loss_of = lambda sigma: least_squares_loss(identity, reduction="mean", sigma=sigma)(r["b"])
    assert jax.jit(loss_of)(jnp.array([1.0, jnp.inf])) == 4.0


def test_deviations_broadcast_as_in_numpy():
    r = jnp.arange(6.0).reshape(3, 2)
    for sigma in (np.array([1.0, 2.0]), np.array([[1.0], [2.0], [4.0]])):
        value = least_squares_loss(identity, sigma=sigma)(r)
        np.testing.assert_allclose(value, np.sum((np.asarray(r) / sigma) ** 2) / 2, rtol=1e-6)


def test_a_complex_residual_is_two_real_ones(float64):
    z = jnp.array([3 + 4j, 1j])
    assert least_squares_loss(identity)(z) == 26 / 2
    assert least_squares_loss(identity, reduction="mean")(z) == 26 / 2  # mean |z|^2
    pair = {"z": z, "x": jnp.array([1.0, 3.0])}
    outer = filled(Squares({"z": 2.0, "x": 1.0}, "mean"))
    outputs = Squares().split(pair)
    assert outer.value(outputs) == 26 + 5
    found = check_outer(outer, outputs)
    np.testing.assert_allclose(np.diag(found.hessian), [1, 1, 2, 2, 2, 2])
    assert jax.tree.map(float, outer.report(outputs, None)) == {"terms": {"z": 13.0, "x": 5.0}}
    sigma = {"z": jnp.array([jnp.inf, 2.0]), "x": 1.0}
    assert least_squares_loss(identity, reduction="mean", sigma=sigma)(pair) == 1 / 4 + 5
    assert least_squares_loss(identity, sigma=jnp.array([5.0, 1.0]))(z) == 2 / 2
    product = hesskit.gauss_newton_operator(least_squares_loss(lambda z: 2j * z), z)(z)
    np.testing.assert_allclose(product, 4 * z, rtol=1e-12)


def test_half_precision_accumulates_in_float32():
    r = jnp.full((1000,), 1 + 2**-7, "bfloat16")
    outer = filled(Squares(loss="huber"))

    @jax.jit
    def everything(r):
        value, grad = jax.value_and_grad(outer.value)(r)
        return value, grad, outer.hessian_product(r, r), outer.whiten(r, r)

    value, grad, product, white = everything(r)
    np.testing.assert_allclose(value, 500 * (2 * (1 + 2**-7) - 1), rtol=1e-5)
    assert (value.dtype, grad.dtype, product.dtype) == ("float32", "bfloat16", "bfloat16")
    assert jnp.all(jnp.isfinite(white))


@pytest.mark.parametrize("loss", LOSSES)
def test_huge_and_tiny_residuals_in_float32(loss: str):
    r = jnp.array([0.0, 1e-30, -1e-10, 1e10, -1e18])

    @jax.jit
    def everything(r):
        outer = filled(Squares(loss=loss))
        one = jnp.ones_like(r)
        slopes = jax.grad(outer.value)(r)
        return slopes, outer.hessian_product(r, one), outer.whiten(r, one), outer.residual(r)

    for item in everything(r):
        assert jnp.all(jnp.isfinite(item))
    slopes, product, *_ = everything(r)
    np.testing.assert_allclose(slopes[:3], r[:3], rtol=1e-6)
    np.testing.assert_array_equal(product[:3], 1)


@pytest.mark.slow
def test_a_robust_fit_is_scipys(float64):
    x = np.linspace(0, 3, 20)
    y = 2 * np.exp(-x) + 0.01 * RNG.normal(size=20)
    y[[3, 11]] += [5.0, -4.0]
    model = lambda p, x: p[0] * jnp.exp(-p[1] * x)
    loss = least_squares_loss(lambda p, x, y: model(p, x) - y, loss="cauchy", scale=0.02)
    fit = hesskit.minimize(loss, jnp.array([1.5, 0.8]), args=(jnp.asarray(x), jnp.asarray(y)))
    truth = scipy.optimize.least_squares(
        lambda p: p[0] * np.exp(-p[1] * x) - y,
        [1.5, 0.8],
        loss="cauchy",
        f_scale=0.02,
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
    )
    assert fit.success
    assert fit.method == "levenberg_marquardt"
    np.testing.assert_allclose(fit.params, truth.x, rtol=1e-6)
    np.testing.assert_allclose(fit.value, truth.cost, rtol=1e-9)
    assert abs(fit.params[1] - 1) < 0.02  # least squares would be off by more


def test_equal_parts_are_one_objective():
    sigma = jnp.ones(3)
    make = functools.partial(least_squares_loss, identity, loss="huber", weights={"a": 1.0})
    assert make(sigma=sigma) == make(sigma=sigma)
    assert hash(make(sigma=sigma)) == hash(make(sigma=sigma))
    assert make(sigma=sigma) != make(sigma=jnp.ones(3))
    assert make(scale=2.0) != make(scale=1.0)
    assert pickle.loads(pickle.dumps(make())) == make()


THREE = jnp.arange(3.0)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: least_squares_loss(THREE),
            TypeError,
            "residual_fn must be a function of params, got ArrayImpl",
        ),
        (
            lambda: least_squares_loss(identity, reduction="none"),
            ValueError,
            "reduction must be one of 'sum', 'mean'; got 'none'",
        ),
        (
            lambda: least_squares_loss(identity, loss="tukey"),
            ValueError,
            "loss must be one of 'linear', 'huber', 'soft_l1', 'cauchy', 'arctan'; got 'tukey'",
        ),
        (
            lambda: least_squares_loss(identity, scale=0.0),
            ValueError,
            "scale must lie in (0, inf), got 0.0",
        ),
        (
            lambda: least_squares_loss(identity, weights={"x": 1.0})({"a": THREE}),
            ValueError,
            "weights is no prefix of {'a': float32[3]}",
        ),
        (
            lambda: least_squares_loss(identity, sigma=[1.0, 2.0, 3.0])(THREE),
            ValueError,
            "sigma is no prefix of float32[3]",
        ),
        (
            lambda: least_squares_loss(identity, weights=jnp.ones(3))(THREE),
            ValueError,
            "a weight has shape (3,), expected () for a leaf; for entries, sigma = 1 / sqrt(weigh",
        ),
        (
            lambda: least_squares_loss(identity, sigma=jnp.ones(2))(THREE),
            ValueError,
            "sigma has shape (2,), the residuals (3,)",
        ),
        (
            lambda: least_squares_loss(identity, loss=lambda z: jnp.stack([z] * 3))(THREE),
            ValueError,
            "loss returned shape (3, 3) for z of shape (3,); return rho(z) alone",
        ),
        (
            lambda: least_squares_loss(lambda p: {"pde": p, "bc": jnp.arange(2)})(THREE),
            TypeError,
            "residual_fn returned int32 at ['bc']; derivatives need floats",
        ),
        (
            lambda: least_squares_loss(lambda p: None)(THREE),
            TypeError,
            "residual_fn returned None, expected arrays; is a `return` missing?",
        ),
        (
            lambda: least_squares_loss(lambda p, x: p[:0])(THREE, THREE),
            ValueError,
            "residual_fn returned float32[0]: no entries; is the data empty?",
        ),
        (
            lambda: least_squares_loss(lambda p: p, has_aux=True)(THREE),
            TypeError,
            "residual_fn must return (outputs, aux) with has_aux=True, got float32[3]",
        ),
        (
            lambda: least_squares_loss(lambda p, x: p)(THREE, THREE, THREE),
            TypeError,
            "least_squares_loss got 2 positional data; residual_fn takes 1 after params",
        ),
    ],
)
def test_words(call, error: type, words: str):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


def test_an_error_inside_names_the_function():
    with pytest.raises(KeyError) as caught:
        least_squares_loss(lambda p: p["width"])({"a": THREE})
    note = "residual_fn was called by hesskit.least_squares_loss with params {'a': float32[3]}."
    assert caught.value.__notes__[-1] == note


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan])
def test_sigma_is_positive(sigma):
    with pytest.raises(ValueError, match="sigma must be positive"):
        hesskit.least_squares_loss(lambda p: p, sigma=sigma)
