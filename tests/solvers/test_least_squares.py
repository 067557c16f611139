"""`least_squares` by what it promises: answers against SciPy, statuses, options, bad calls.

Fits share one residual function and one shape where they can: each new pair costs two compilations.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import hesskit
from hesskit.core.residuals import FLOOR
from hesskit.core.status import Status
from hesskit.solvers.least_squares import least_squares
from tests.solvers.test_minimize import compilations

RNG = np.random.default_rng(5)
T = np.linspace(0.0, 5.0, 30)
TRUTH = {"a": 3.0, "c": 0.5, "k": 0.8}  # in the order of leaves
Y = 3.0 * np.exp(-0.8 * T) + 0.5 + 0.05 * RNG.normal(size=30)
WILD = np.where(np.arange(30) % 10 < 3, Y + np.abs(3 * RNG.normal(size=30)), Y)  # 30 % outliers
START = {"a": 1.0, "c": 0.0, "k": 0.3}


def decay(p, t, y):
    return p["a"] * jnp.exp(-p["k"] * t) + p["c"] - y


def plain(x, y=Y):
    """The same for SciPy."""
    return x[0] * np.exp(-x[2] * T) + x[1] - y


def scipy_fit(fn=plain, start=(1.0, 0.0, 0.3), **more):
    tight = dict.fromkeys(("xtol", "ftol", "gtol"), 1e-15)
    return scipy.optimize.least_squares(fn, start, jac="3-point", **tight, **more)


def fit(start=START, y=Y, **more):
    start = jax.tree.map(lambda a: jnp.asarray(a, jnp.result_type(float)), start)
    data = (jnp.asarray(T, jnp.result_type(float)), jnp.asarray(y, jnp.result_type(float)))
    return least_squares(decay, start, args=data, **more)


def flat(params):
    return np.array(jax.tree.leaves(params))


def status(result) -> Status:
    return Status(int(result.status))


# Answers.


@pytest.mark.slow
def test_agrees_with_scipy_and_its_errors(x64):
    result, theirs = fit(), scipy_fit()
    assert result.method == "levenberg_marquardt"
    assert result.success
    np.testing.assert_allclose(flat(result.params), theirs.x, rtol=1e-7 if x64 else 1e-3)
    assert result.params["a"].dtype == result.chi2.dtype == ("float64" if x64 else "float32")
    if not x64:
        return
    assert status(result) == Status.GRADIENT_TOL
    np.testing.assert_allclose(result.value, theirs.cost, rtol=1e-12)
    np.testing.assert_allclose(result.chi2, 2 * theirs.cost, rtol=1e-12)
    assert result.dof == 27
    covariance = np.linalg.inv(theirs.jac.T @ theirs.jac) * (2 * theirs.cost / 27)
    np.testing.assert_allclose(result.covariance, covariance, rtol=1e-5)
    np.testing.assert_allclose(
        flat(result.standard_errors), np.sqrt(np.diag(covariance)), rtol=1e-5
    )


@pytest.mark.slow
def test_the_unit_of_the_residuals_changes_nothing(x64):
    """With noise and without: the same path, the same errors."""
    far = 2.0**40 if x64 else 2.0**20
    exact = 3.0 * np.exp(-0.8 * T) + 0.5
    for y in (Y, exact):
        sigmas = [jnp.asarray(s, jnp.result_type(float)) for s in (1.0, far, 1 / far)]
        one, *others = [fit(y=y, sigma=sigma) for sigma in sigmas]
        assert one.success
        for other in others:
            assert other.success
            assert other.status == one.status
            assert other.num_values == one.num_values
            np.testing.assert_allclose(flat(other.params), flat(one.params), rtol=1e-6)
            if y is Y:
                np.testing.assert_allclose(
                    flat(other.standard_errors), flat(one.standard_errors), rtol=1e-4
                )


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [hesskit.gauss_newton(), hesskit.trust_region()])
def test_any_optimizer(optimizer, float64):
    """The exact Hessian leads to the same answer and errors."""
    result = fit(optimizer=optimizer)
    assert result.success
    assert result.method == optimizer.name
    np.testing.assert_allclose(flat(result.params), scipy_fit().x, rtol=1e-7)
    np.testing.assert_allclose(result.covariance, fit().covariance, rtol=1e-6)


# Statuses: one compiled fit.


@pytest.mark.parametrize(
    ("code", "success", "options"),
    [
        (Status.GRADIENT_TOL, True, {}),
        (Status.GRADIENT_TOL, True, {"gtol": 1e-3}),
        (Status.VALUE_TOL, False, {"ftol": 0.9}),
        (Status.STEP_TOL, False, {"xtol": 0.9}),
        (Status.MAX_STEPS, False, {"max_steps": 2}),
        (Status.NONFINITE_START, False, {"start": {**START, "k": np.nan}}),
        (Status.NONFINITE_START, False, {"start": {**START, "k": -1e3}}),
        (Status.NONFINITE_START, False, {"y": np.full(30, np.nan)}),
    ],
)
def test_statuses(code, success, options, float64):
    result = fit(**options)
    assert status(result) == code
    assert bool(result.success) is success
    assert code.name in result.message
    assert str(result)  # the table can be printed, whatever happened


# Data.


@pytest.mark.slow
def test_args_by_name_and_aux(float64):
    def told(p, t, y):
        return decay(p, t, y), {"curve": decay(p, t, 0 * y)}

    result = least_squares(told, START, args={"y": Y, "t": T}, has_aux=True)
    np.testing.assert_allclose(flat(result.params), flat(fit().params), rtol=1e-10)
    curve = plain(flat(result.params), 0.0)
    np.testing.assert_allclose(result.aux["aux"]["curve"], curve, rtol=1e-12)
    np.testing.assert_allclose(result.aux["terms"], result.value, rtol=1e-12)


@pytest.mark.slow
def test_a_second_call_with_new_data_compiles_nothing(float64):
    first = fit()
    fit(y=Y + 1, start={**START, "a": 2.0}, gtol=1e-6, max_steps=50)
    counted = compilations()
    again = fit(y=Y + 2, start={**START, "a": 1.5}, gtol=1e-8, max_steps=70)
    assert counted == []
    np.testing.assert_allclose(again.params["c"], first.params["c"] + 2, rtol=1e-6)
    fit(loss="huber", max_steps=1)
    assert counted  # the counter counts


@pytest.mark.slow
def test_two_runs_are_one_of_twice_the_steps(float64):
    first = fit(max_steps=3)
    assert status(first) == Status.MAX_STEPS
    second = fit(first.params, state=first.state, max_steps=3)
    whole = fit(max_steps=6)
    same = functools.partial(jax.tree.map, np.testing.assert_array_equal)
    same(second.params, whole.params)
    same(second.value, whole.value)
    same(second.state, whole.state)
    same(second.standard_errors, whole.standard_errors)


@pytest.mark.slow
def test_vmap_over_data_under_jit_is_one_by_one(float64):
    many = np.stack([Y, Y[::-1] * 0.5, np.full(30, np.nan)])
    keep = lambda r: (r.params, r.value, r.status, r.standard_errors, r.chi2, r.dof)
    batch = jax.jit(jax.vmap(lambda y: keep(fit(y=y, max_steps=60))))(many)
    for i, y in enumerate(many):
        alone = keep(fit(y=y, max_steps=60))
        lane = jax.tree.map(lambda a, i=i: a[i], batch)
        for a, b in zip(jax.tree.leaves(lane), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12)
    assert list(batch[2]) == [Status.GRADIENT_TOL, Status.GRADIENT_TOL, Status.NONFINITE_START]


# Held and bounded.


@pytest.mark.slow
def test_a_held_leaf_with_bounds_by_selector(float64):
    options = {"bounds": {"c": (0.0, 1.0), "k": (0.0, 0.6)}, "start": {**START, "c": 1.0}}
    result = fit(fixed=lambda path, leaf: path == "c", history="params", **options)
    assert result.fixed == (False, True, False)
    assert list(result.at_bound) == [False, False, True]
    assert result.standard_errors["c"] == 0
    assert np.isnan(result.standard_errors["k"])
    assert result.dof == 29
    path = result.history.params
    np.testing.assert_array_equal(path["c"], 1.0)
    assert np.all(path["k"] <= 0.6)
    np.testing.assert_array_equal(path["a"][-1], result.params["a"])


@pytest.mark.slow
def test_fixed(float64):
    result = fit(fixed="c", start={**START, "c": 0.4})
    assert result.params["c"] == 0.4
    assert result.standard_errors["c"] == 0
    assert result.dof == 28
    theirs = scipy_fit(lambda x: plain([x[0], 0.4, x[1]]), (1.0, 0.3))
    found = np.array([result.params["a"], result.params["k"]])
    np.testing.assert_allclose(found, theirs.x, rtol=1e-7)
    spread = np.sqrt(np.diag(np.linalg.inv(theirs.jac.T @ theirs.jac)) * 2 * theirs.cost / 28)
    errors = np.array([result.standard_errors["a"], result.standard_errors["k"]])
    np.testing.assert_allclose(errors, spread, rtol=1e-5)


def test_freeze_is_fixed(float64):
    frozen = hesskit.freeze(hesskit.levenberg_marquardt(), "c")
    start = {**START, "c": 0.4}
    result, expected = fit(start, optimizer=frozen), fit(start, fixed="c")
    assert result.fixed == expected.fixed
    assert result.dof == expected.dof
    np.testing.assert_allclose(flat(result.standard_errors), flat(expected.standard_errors))


@pytest.mark.slow
def test_an_active_bound(float64):
    result = fit(bounds={"k": (0.0, 0.6), "a": (0.0, 10.0)})
    theirs = scipy_fit(bounds=([0.0, -np.inf, 0.0], [10.0, np.inf, 0.6]))
    assert status(result) == Status.GRADIENT_TOL
    assert result.success
    assert result.params["k"] == 0.6
    np.testing.assert_allclose(flat(result.params), theirs.x, rtol=1e-6)
    np.testing.assert_allclose(result.value, theirs.cost, rtol=1e-9)
    np.testing.assert_array_equal(np.isnan(flat(result.standard_errors)), [False, False, True])
    assert list(result.at_bound) == [False, False, True]


# Residuals of every make.


class Series:
    """What a table of another library gives: an array by `__array__`, with a dtype."""

    def __init__(self, data):
        self.data, self.dtype = np.asarray(data), np.asarray(data).dtype

    def __array__(self, dtype=None, copy=None):
        return np.array(self.data, dtype)


@pytest.mark.slow
def test_series_of_another_library(float64):
    result = least_squares(
        decay, START, args=(Series(T), {"y": Series(Y)}["y"]), sigma=Series(1 + T)
    )
    np.testing.assert_allclose(flat(result.params), flat(fit(sigma=1 + T).params), rtol=1e-10)


@pytest.mark.slow
def test_lists_single_numbers_and_empty_leaves(float64):
    def residual(p, t, y):
        r = decay(p, t, y)
        return [r[:29], {"last": r[29], "none": r[:0], "constant": 3.0}]

    result, whole = least_squares(residual, START, args=(T, Y)), fit()
    np.testing.assert_allclose(flat(result.params), flat(whole.params), rtol=1e-8)
    np.testing.assert_allclose(result.chi2, whole.chi2 + 9, rtol=1e-10)
    assert result.dof == whole.dof + 1
    assert jax.tree.map(float, result.aux["terms"])[1]["none"] == 0


@pytest.mark.slow
def test_residuals_whose_squares_vanish_are_no_success():
    result = least_squares(lambda p: 1e-25 * (p - jnp.arange(3.0)), jnp.zeros(3))
    assert result.value == 0
    assert not result.success
    assert status(result) == Status.ROUNDOFF_LIMITED
    assert least_squares(lambda p: p - jnp.arange(3.0), jnp.zeros(3)).success


@pytest.mark.slow
def test_residuals_as_a_pytree_and_sigma_as_its_prefix(float64):
    sigma = {"early": 0.1, "late": np.linspace(0.1, 0.3, 20)}

    def halves(p, t, y):
        r = decay(p, t, y)
        return {"early": r[:10], "late": r[10:]}

    result = least_squares(halves, START, args=(T, Y), sigma=sigma, absolute_sigma=True)
    every = np.concatenate([np.full(10, 0.1), sigma["late"]])
    theirs = scipy_fit(lambda x: plain(x) / every)
    np.testing.assert_allclose(flat(result.params), theirs.x, rtol=1e-7)
    np.testing.assert_allclose(result.chi2, 2 * theirs.cost, rtol=1e-10)
    covariance = np.linalg.inv(theirs.jac.T @ theirs.jac)
    np.testing.assert_allclose(result.covariance, covariance, rtol=1e-5)
    assert set(result.aux["terms"]) == {"early", "late"}


def test_an_infinite_sigma_drops_a_residual(float64):
    spoiled, sigma = Y.copy(), np.ones(30)
    spoiled[4], sigma[4] = 1e3, np.inf
    result = fit(y=spoiled, sigma=sigma)
    rest = np.delete(np.arange(30), 4)
    theirs = scipy_fit(lambda x: plain(x)[rest])
    assert result.dof == 26
    np.testing.assert_allclose(flat(result.params), theirs.x, rtol=1e-7)
    np.testing.assert_allclose(result.chi2, 2 * theirs.cost, rtol=1e-10)


@pytest.mark.slow
def test_complex_residuals_are_two_real_ones(float64):
    pair = lambda p: jax.lax.complex(*(decay(p, T, Y) * part for part in (np.cos(T), np.sin(T))))
    result = least_squares(pair, START)
    np.testing.assert_allclose(flat(result.params), scipy_fit().x, rtol=1e-7)
    np.testing.assert_allclose(result.value, scipy_fit().cost, rtol=1e-10)
    assert result.dof == 57


@pytest.mark.slow
def test_fewer_residuals_than_parameters(float64):
    result = least_squares(lambda p: p["a"] * p["c"] + p["k"] - jnp.array([3.0]), START)
    assert result.success
    assert result.value < 1e-20
    assert np.all(np.isnan(flat(result.standard_errors)))


# Errors.


@pytest.mark.slow
def test_the_sandwich_of_a_straight_line_is_hc0(float64):
    x = np.stack([np.ones(30), T], axis=1)
    result = least_squares(
        lambda p, x, y: x @ p - y, jnp.zeros(2), args=(x, Y), covariance="sandwich"
    )
    bread = np.linalg.inv(x.T @ x)
    e = Y - x @ (bread @ x.T @ Y)
    np.testing.assert_allclose(result.covariance, bread @ (x.T * e**2) @ x @ bread, rtol=1e-9)
    assert "sandwich" in str(result)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [None, np.linspace(0.05, 0.2, 30)])
def test_the_sandwich_of_a_robust_fit(sigma, float64):
    """Huber (1967): bread from psi', meat from psi^2, at the answer; sigma changes nothing else."""
    result = fit(TRUTH, WILD, loss="huber", scale=0.1, sigma=sigma, covariance="sandwich")
    a, _, k = flat(result.params)
    size = np.ones(30) if sigma is None else sigma
    u = plain(flat(result.params), WILD) / size
    outside = np.abs(u) > 0.1
    psi = np.where(outside, 0.1 * np.sign(u), u)
    slope = np.where(outside, FLOOR * 0.1 / np.maximum(np.abs(u), 0.1), 1.0)
    rows = np.stack([np.exp(-k * T), np.ones(30), -a * T * np.exp(-k * T)], axis=1) / size[:, None]
    bread = np.linalg.inv((rows.T * slope) @ rows)
    expected = bread @ (rows.T * psi**2) @ rows @ bread
    assert outside.any()
    np.testing.assert_allclose(result.covariance, expected, rtol=1e-6)
    scaled = fit(TRUTH, WILD, loss="huber", scale=0.05, sigma=2 * size, covariance="sandwich")
    np.testing.assert_allclose(scaled.covariance, expected, rtol=1e-6)


@pytest.mark.slow
def test_the_sandwich_is_the_scatter_of_fits_to_uneven_noise(float64):
    x = np.stack([np.ones(200), np.linspace(0, 1, 200)], axis=1)
    ys = x @ [1.0, 2.0] + x[:, 1] ** 2 * np.random.default_rng(0).normal(size=(2000, 200))
    run = lambda how: jax.vmap(
        lambda y: least_squares(
            lambda p, x, y: x @ p - y, jnp.zeros(2), args=(x, y), covariance=how
        )
    )(ys)
    found = run("sandwich")
    scatter = np.std(found.params, axis=0)
    np.testing.assert_allclose(np.mean(found.standard_errors, axis=0), scatter, rtol=0.05)
    naive = np.mean(run("gauss_newton").standard_errors, axis=0)
    assert np.max(np.abs(naive / scatter - 1)) > 0.2


@pytest.mark.slow
def test_a_held_leaf_may_be_large(float64):
    """Its columns are not formed: (30, 100_003) would be seen in memory, (n, n) would fail."""

    def residual(p, t, y):
        return decay(p, t, y) + p["net"][:30]

    start = {**START, "net": jnp.zeros(100_000)}
    result = least_squares(residual, start, args=(T, Y), fixed="net")
    alone = fit()
    np.testing.assert_allclose(result.standard_errors["k"], alone.standard_errors["k"], rtol=1e-8)
    np.testing.assert_allclose(result.block("a", "k"), alone.block("a", "k"), rtol=1e-6)
    assert result.dof == alone.dof
    band = result.derived(lambda p: p["a"] * p["k"])
    np.testing.assert_allclose(
        band.standard_error, alone.derived(lambda p: p["a"] * p["k"]).standard_error, rtol=1e-8
    )


@pytest.mark.slow
def test_of_very_many_parameters_there_is_no_covariance():
    n = 20_000
    result = least_squares(lambda p: p - jnp.arange(n) / n, jnp.zeros(n))
    assert result.success
    assert jnp.isnan(result.standard_errors).all()
    assert result.dof == 0
    assert "it is formed for at most 4000 entries, and 20000 were fitted" in str(result)
    with pytest.raises(ValueError, match="no covariance"):
        assert result.covariance


# Bad calls.


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: least_squares(1.0, START), TypeError, "residual_fn must be a function of params"),
        (lambda: fit(loss="l1"), ValueError, "loss must be one of 'linear', 'huber', 'soft_l1'"),
        (
            lambda: fit(covariance="hc3"),
            ValueError,
            "covariance must be one of 'gauss_newton', 'sandwich'; got 'hc3'",
        ),
        (lambda: fit(scale=0.0), ValueError, "scale must lie in (0, inf)"),
        (lambda: fit(bounds={"k": (0.5, 1.0)}), ValueError, "start k = 0.3 is outside its bounds"),
        (lambda: fit(sigma=np.ones(7)), ValueError, "sigma has shape (7,), the residuals (30,)"),
        (lambda: fit(fixed=True), ValueError, "fixed selects every leaf"),
        (
            lambda: fit(optimizer=hesskit.newton_cg(), bounds=(-9.0, 9.0)),
            ValueError,
            "newton_cg does not take bounds; use optimizer=None",
        ),
        (lambda: least_squares(lambda p: jnp.arange(3), jnp.ones(2)), TypeError, "returned int32"),
        (lambda: least_squares(lambda p: p[:0], jnp.ones(2)), ValueError, "is the data empty?"),
        (lambda: least_squares(lambda p: None, jnp.ones(2)), TypeError, "is a `return` missing?"),
        (
            lambda: least_squares(lambda z: z, jnp.ones(2, "complex64")),
            TypeError,
            "least_squares needs real params",
        ),
        (lambda: least_squares(lambda p: p, [1, 2]), TypeError, "is int; write 1.0"),
        (
            lambda: least_squares(decay, START, args={"t": jnp.ones(3)}),
            TypeError,
            "needs `y`; least_squares received `t`",
        ),
    ],
)
def test_bad_calls(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


# Outliers.

LOSSES = ["huber", "soft_l1", "cauchy", "arctan", "geman_mcclure"]


def geman_mcclure(z):
    return z / (1 + z)


def for_scipy(z):
    """Its value and first two derivatives."""
    return np.stack([z / (1 + z), 1 / (1 + z) ** 2, -2 / (1 + z) ** 3])


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_robust_losses_agree_with_scipy(name, float64):
    ours, theirs = (geman_mcclure, for_scipy) if name == "geman_mcclure" else (name, name)
    result = fit(TRUTH, WILD, loss=ours, scale=0.1)
    reference = scipy_fit(
        functools.partial(plain, y=WILD), list(TRUTH.values()), loss=theirs, f_scale=0.1
    )
    assert result.success
    assert result.value <= reference.cost * (1 + 1e-12)
    np.testing.assert_allclose(flat(result.params), reference.x, rtol=1e-6)
    np.testing.assert_allclose(flat(result.params), list(TRUTH.values()), atol=0.15)
    spoiled = np.max(np.abs(flat(fit(y=WILD).params) - np.array(list(TRUTH.values()))))
    assert spoiled > 0.3  # without it the outliers win
