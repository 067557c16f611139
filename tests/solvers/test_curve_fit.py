"""Curve fits against SciPy, closed forms and certified values, and their options.

Fits share few models and shapes, since each new pair costs a compilation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.stats

from hesskit.core.status import Status
from hesskit.solvers.curve_fit import curve_fit
from tests import nist
from tests.solvers.fits import SIGMA, X, Y, closed_form, line
from tests.solvers.test_minimize import compilations

START = {"a": 0.0, "b": 0.0}


def peak(p, x):
    """A peak over a sloping background."""
    bg, top = p["bg"], p["peak"]
    shape = jnp.exp(-0.5 * ((x - top["mu"]) / top["width"]) ** 2)
    return top["height"] * shape + bg["a"] + bg["b"] * x


TRUTH = {
    "bg": {"a": 1.3, "b": 0.5},
    "peak": {"height": 9.0, "mu": 0.45, "width": 0.08},
}
GUESS = {
    "bg": {"a": 1.0, "b": 0.0},
    "peak": {"height": 10.0, "mu": 0.5, "width": 0.1},
}
T = np.linspace(0.0, 1.0, 60)
NOISE = 0.2 + 0.2 * T
SIGNAL = (
    9.0 * np.exp(-0.5 * ((T - 0.45) / 0.08) ** 2)
    + 1.3
    + 0.5 * T
    + NOISE * np.random.default_rng(1).normal(size=60)
)


def flat_peak(x, a, b, height, mu, width):
    return height * np.exp(-0.5 * ((x - mu) / width) ** 2) + a + b * x


def scipy_peak(**kwargs):
    return scipy.optimize.curve_fit(
        flat_peak, T, SIGNAL, [1.0, 0.0, 10.0, 0.5, 0.1], xtol=1e-14, ftol=1e-14, **kwargs
    )


def fit_peak(**kwargs):
    return curve_fit(peak, T, SIGNAL, GUESS, **{"sigma": NOISE, **kwargs})


def vector(params):
    return np.array([float(leaf) for leaf in jax.tree.leaves(params)])


def assert_same_covariance(ours, theirs, rtol):
    """Equal to `rtol` of the standard errors that an entry belongs to."""
    size = np.sqrt(np.diag(theirs))
    np.testing.assert_allclose(
        ours / np.outer(size, size), theirs / np.outer(size, size), atol=rtol
    )


# Answers.


@pytest.mark.parametrize("absolute_sigma", [False, True])
@pytest.mark.parametrize(
    "sigma", [NOISE, pytest.param(None, marks=pytest.mark.slow)], ids=["sigma", "none"]
)
def test_it_agrees_with_scipy(absolute_sigma: bool, sigma, float64):
    fit = fit_peak(sigma=sigma, absolute_sigma=absolute_sigma)
    params, covariance = scipy_peak(sigma=sigma, absolute_sigma=absolute_sigma)
    assert fit.success
    np.testing.assert_allclose(vector(fit.params), params, rtol=1e-7)
    assert_same_covariance(fit.covariance, covariance, rtol=1e-5)
    np.testing.assert_allclose(vector(fit.standard_errors), np.sqrt(np.diag(covariance)), rtol=1e-5)
    assert fit.names == ("bg/a", "bg/b", "peak/height", "peak/mu", "peak/width")
    assert fit.dof == 55


@pytest.mark.slow
def test_a_line_in_both_precisions(dtype):
    x, y, sigma = (jnp.asarray(part, dtype) for part in (X, Y, SIGMA))
    fit = curve_fit(line, x, y, START, sigma=sigma)
    params, inverse, chi2, _ = closed_form(X, Y, SIGMA)
    rtol = 1e-3 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(vector(fit.params), params, rtol=rtol)
    np.testing.assert_allclose(fit.covariance, inverse * chi2 / 10, rtol=rtol)
    mean = np.average(Y, weights=SIGMA**-2.0)
    total = np.sum(((Y - mean) / SIGMA) ** 2)
    np.testing.assert_allclose(fit.r_squared, 1 - chi2 / total, rtol=rtol)
    assert fit.covariance.dtype == dtype


@pytest.mark.slow
def test_certified_deviations(float64):
    problem = nist.by_name("Thurber")
    fit = curve_fit(problem.model, problem.x, problem.y, jnp.asarray(problem.starts[1]))
    assert fit.success
    assert nist.digits(fit.params, problem.certified) > 6
    assert nist.digits(fit.standard_errors, problem.deviations) > 6
    np.testing.assert_allclose(fit.chi2, problem.rss, rtol=1e-8)
    np.testing.assert_allclose(fit.scale, problem.residual_deviation, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("problem", nist.problems(), ids=lambda problem: problem.name)
def test_certified_deviations_of_every_set(problem, float64):
    fit = curve_fit(problem.model, problem.x, problem.y, jnp.asarray(problem.starts[1]))
    assert nist.digits(fit.params, problem.certified) > 4
    if problem.name != "Lanczos1":  # its residuals are the rounding of float64
        assert nist.digits(fit.standard_errors, problem.deviations) > 4


@pytest.mark.slow
def test_correlated_data(float64):
    matrix = 0.04 * scipy.linalg.toeplitz(0.6 ** np.arange(12.0)) + np.diag(SIGMA**2)
    fit = curve_fit(line, X, Y, START, sigma=matrix, absolute_sigma=True)
    rows = np.stack([np.ones(12), X], axis=1)
    weight = np.linalg.inv(matrix)
    covariance = np.linalg.inv(rows.T @ weight @ rows)
    params = covariance @ rows.T @ weight @ Y
    np.testing.assert_allclose(vector(fit.params), params, rtol=1e-9)
    np.testing.assert_allclose(fit.covariance, covariance, rtol=1e-9)
    np.testing.assert_allclose(fit.chi2, (Y - rows @ params) @ weight @ (Y - rows @ params))
    ones = np.ones(12)
    off = Y - ones @ weight @ Y / (ones @ weight @ ones)
    np.testing.assert_allclose(fit.r_squared, 1 - fit.chi2 / (off @ weight @ off), rtol=1e-9)
    np.testing.assert_allclose(
        fit.band(kind="prediction").upper - fit.params["a"] - fit.params["b"] * X,
        scipy.stats.norm.ppf((1 + 0.683) / 2)
        * np.sqrt(np.einsum("ki,ij,kj->k", rows, covariance, rows) + np.diag(matrix)),
        rtol=1e-8,
    )


def test_points_of_infinite_sigma_are_dropped(float64):
    # A dropped point is as if it were not there, whatever its y.
    sigma, y = SIGMA.copy(), Y.copy()
    sigma[[3, 7]], y[3], y[7] = np.inf, np.nan, 1e6
    fit = curve_fit(line, X, y, START, sigma=sigma)
    kept = np.isfinite(sigma)
    params, inverse, chi2, _ = closed_form(X[kept], Y[kept], SIGMA[kept])
    assert fit.dof == 8
    np.testing.assert_allclose(vector(fit.params), params, rtol=1e-9)
    np.testing.assert_allclose(fit.covariance, inverse * chi2 / 8, rtol=1e-9)
    mean = np.average(Y[kept], weights=SIGMA[kept] ** -2.0)
    total = np.sum(((Y[kept] - mean) / SIGMA[kept]) ** 2)
    np.testing.assert_allclose(fit.r_squared, 1 - chi2 / total, rtol=1e-9)


@pytest.mark.slow
def test_two_spectra_that_share_a_parameter(float64):
    def model(p, x):
        return {"u": p["shared"] + p["u"] * x["u"], "v": p["shared"] - p["v"] * x["v"]}

    x = {"u": X, "v": X[:7]}
    rng = np.random.default_rng(2)
    y = {"u": 1 + 2 * X + 0.1 * rng.normal(size=12), "v": 1 - X[:7] + 0.2 * rng.normal(size=7)}
    start = {"shared": 0.0, "u": 0.0, "v": 0.0}
    fit = curve_fit(model, x, y, start, sigma={"u": 0.1, "v": 0.2}, absolute_sigma=True)
    rows = np.zeros((19, 3))
    rows[:12, 0], rows[:12, 1] = 10, 10 * X
    rows[12:, 0], rows[12:, 2] = 5, -5 * X[:7]
    data = np.concatenate([10 * y["u"], 5 * y["v"]])
    np.testing.assert_allclose(vector(fit.params), np.linalg.lstsq(rows, data)[0], rtol=1e-8)
    np.testing.assert_allclose(fit.covariance, np.linalg.inv(rows.T @ rows), rtol=1e-8)
    total = sum(np.sum((y[k] - y[k].mean()) ** 2) / s**2 for k, s in (("u", 0.1), ("v", 0.2)))
    np.testing.assert_allclose(fit.r_squared, 1 - fit.chi2 / total, rtol=1e-8)
    band = fit.band(x)
    assert band.upper["v"].shape == (7,)


@pytest.mark.slow
def test_complex_data(float64):
    model = lambda p, x: jax.lax.complex(*(p["a"] * f(p["k"] * x) for f in (jnp.cos, jnp.sin)))
    rng = np.random.default_rng(3)
    y = 2 * np.exp(1.5j * X) + 0.01 * (rng.normal(size=12) + 1j * rng.normal(size=12))
    fit = curve_fit(model, X, y, {"a": 1.0, "k": 1.3})
    assert fit.success
    assert fit.dof == 22
    np.testing.assert_allclose(vector(fit.params), [2, 1.5], atol=0.01)
    theirs = scipy.optimize.curve_fit(
        lambda x, a, k: a * np.concatenate([np.cos(k * x), np.sin(k * x)]),
        X,
        np.concatenate([y.real, y.imag]),
        [1.0, 1.3],
    )
    assert_same_covariance(fit.covariance, theirs[1], rtol=1e-4)
    band = fit.band(kind="prediction")
    inside = (band.lower.imag < y.imag) & (y.imag < band.upper.imag)
    assert inside.sum() >= 6


@pytest.mark.slow
def test_samples_predict_the_scatter_of_fits(float64):
    # Refits of synthetic data scatter as the covariance says.
    fit = curve_fit(line, X, Y, START, sigma=SIGMA, absolute_sigma=True)
    noise = np.random.default_rng(4).normal(size=(2000, 12)) * SIGMA
    many = jax.vmap(lambda y: curve_fit(line, X, y, START, sigma=SIGMA).params)(
        np.asarray(line(fit.params, X)) + noise
    )
    found = np.cov(np.stack([many["a"], many["b"]]))
    drawn = fit.sample(0, 2000)
    np.testing.assert_allclose(found, fit.covariance, rtol=0.15)
    np.testing.assert_allclose(
        np.cov(np.stack([drawn["a"], drawn["b"]])), fit.covariance, rtol=0.15
    )


# Options.


@pytest.mark.slow
def test_a_fixed_entry_and_one_at_a_bound(float64):
    fit = fit_peak(fixed="bg/b")
    params, covariance = scipy.optimize.curve_fit(
        lambda x, a, h, m, w: flat_peak(x, a, 0.0, h, m, w),
        T,
        SIGNAL,
        [1.0, 10.0, 0.5, 0.1],
        sigma=NOISE,
        xtol=1e-14,
        ftol=1e-14,
    )
    free = [0, 2, 3, 4]
    np.testing.assert_allclose(vector(fit.params)[free], params, rtol=1e-7)
    assert_same_covariance(fit.covariance[np.ix_(free, free)], covariance, rtol=1e-5)
    assert fit.standard_errors["bg"]["b"] == 0
    assert fit.dof == 56
    bounded = fit_peak(bounds={"bg/b": (None, 0.0)})
    assert bounded.success
    assert bounded.at_bound.tolist() == [False, True, False, False, False]
    assert np.isnan(bounded.standard_errors["bg"]["b"])
    known = bounded.covariance[np.ix_(free, free)]
    assert_same_covariance(known, fit.covariance[np.ix_(free, free)], rtol=1e-5)
    assert bounded.dof == 56
    assert "at bound" in str(bounded)


@pytest.mark.slow
def test_outliers_count_less(float64):
    y = SIGNAL.copy()
    y[::9] += 8.0
    options = {"loss": "soft_l1", "scale": 0.5}
    fit = curve_fit(peak, T, y, GUESS, **options)
    theirs = scipy.optimize.least_squares(
        lambda p: flat_peak(T, *p) - y,
        [1.0, 0.0, 10.0, 0.5, 0.1],
        loss="soft_l1",
        f_scale=0.5,
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
    )
    np.testing.assert_allclose(vector(fit.params), theirs.x, rtol=1e-5)


@pytest.mark.slow
def test_history_callback_limits_and_continuing(float64):
    seen = []
    fit = fit_peak(max_steps=3, history=True, callback=lambda p: seen.append(1) or False)
    assert fit.status == Status.MAX_STEPS
    assert len(seen) == len(fit.history.value) == 4
    again = curve_fit(peak, T, SIGNAL, fit.params, sigma=NOISE, state=fit.state)
    assert again.success


def test_the_second_fit_compiles_nothing(float64):
    fit_peak()
    counted = compilations()
    fit = curve_fit(peak, T + 0.01, SIGNAL * 1.1, GUESS, sigma=NOISE * 2)
    assert counted == []
    assert fit.success  # compiles what it is made of


def test_lists_and_counts(float64):
    counts = [2, 4, 3, 5, 6, 4, 5, 7, 8, 7, 9, 8]
    fit = curve_fit(line, X.tolist(), counts, START, sigma=SIGMA.tolist())
    params = closed_form(X, np.array(counts), SIGMA)[0]
    np.testing.assert_allclose(vector(fit.params), params, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e-25, 1e-17, 1e20])
def test_data_whose_squares_are_no_numbers_in_float32(size):
    """An unknown sigma is then of the size of the data: errors, R^2 and bands are as they were."""
    x = X.astype("float32")
    plain = curve_fit(line, x, Y.astype("float32"), START)
    model = lambda p, x: jnp.float32(size) * line(p, x)
    fit = curve_fit(model, x, (size * Y).astype("float32"), START)
    assert fit.success
    np.testing.assert_allclose(vector(fit.params), vector(plain.params), rtol=1e-4)
    np.testing.assert_allclose(
        vector(fit.standard_errors), vector(plain.standard_errors), rtol=1e-3
    )
    np.testing.assert_allclose(fit.r_squared, plain.r_squared, rtol=1e-5)
    for kind in ("confidence", "prediction"):
        ours, theirs = fit.band(kind=kind), plain.band(kind=kind)
        np.testing.assert_allclose(ours.upper / size, theirs.upper, rtol=1e-3)
    unit = fit.data.sigma
    np.testing.assert_allclose(fit.chi2 * (unit / size) ** 2, plain.chi2, rtol=1e-3)
    inside = jax.jit(lambda y: curve_fit(model, x, y, START).params["b"])
    np.testing.assert_allclose(inside((size * Y).astype("float32")), plain.params["b"], rtol=1e-4)
    assert plain.data.sigma is None


@pytest.mark.parametrize("digits", [-9, 9])
def test_an_amplitude_far_from_its_rate(dtype, x64, digits):
    """Currents in nanoamperes: the columns of the Jacobian differ by more than 1 / eps."""
    size = 10.0 ** (2 * digits if x64 else digits)
    t, first = np.linspace(0.1, 5.0, 40), np.array([1.0, 1.0, 0.0])
    y = 3.0 * np.exp(-1.2 * t) + 0.5 + 0.05 * np.random.default_rng(0).normal(size=40)
    decay = lambda p, t: p[0] * jnp.exp(-p[1] * t) + p[2]
    units = np.array([size, 1.0, size])
    fit = curve_fit(decay, t.astype(dtype), (size * y).astype(dtype), jnp.array(first * units))
    assert fit.success
    plain = lambda t, a, k, c: a * np.exp(-k * t) + c
    values, covariance = scipy.optimize.curve_fit(plain, t, y, first)
    np.testing.assert_allclose(fit.params / units, values, rtol=1e-6 if x64 else 1e-3)
    np.testing.assert_allclose(
        fit.standard_errors / units, np.sqrt(np.diag(covariance)), rtol=1e-4 if x64 else 1e-2
    )


@pytest.mark.slow
def test_times_of_a_large_number_in_float32():
    """Modified Julian dates, of which float32 knows 4 minutes."""
    t = np.linspace(58849.0, 58949.0, 80).astype("float32")
    wave = lambda p, t: p["m"] + p["A"] * jnp.sin(2 * jnp.pi * (t - 58900) / p["P"] + p["ph"])
    truth = {"m": 1.0, "A": 0.5, "P": 17.3, "ph": 0.3}
    y = np.asarray(wave(truth, t)) + 0.05 * np.random.default_rng(0).normal(size=80)
    fit = curve_fit(wave, t, y.astype("float32"), {"m": 0.9, "A": 0.4, "P": 17.0, "ph": 0.0})
    assert fit.success
    off = jax.tree.map(lambda a, b, s: abs(a - b) / s, fit.params, truth, fit.standard_errors)
    assert max(vector(off)) < 4


@pytest.mark.slow
def test_a_line_far_from_the_origin_in_float32():
    """Its columns are nearly parallel and of very unlike lengths: no direction may be lost."""
    t = np.linspace(58849.0, 58949.0, 50).astype("float32")
    y = 3 + 0.02 * (t - 58900) + 0.01 * np.random.default_rng(0).normal(size=50)
    fit = curve_fit(lambda p, t: p["a"] + p["b"] * t, t, y.astype("float32"), {"a": 0.0, "b": 0.0})
    assert fit.success
    slope = np.polyfit(t.astype(float) - 58900, y, 1)[0]
    np.testing.assert_allclose(fit.params["b"], slope, rtol=1e-2)
    assert fit.r_squared > 0.999


@pytest.mark.slow
def test_sigma_as_a_list_for_a_list_of_data(float64):
    model = lambda p, x: [line(p, x), line(p, x)]
    fit = curve_fit(model, X, [Y, Y + 1], START, sigma=[0.1, 0.2], absolute_sigma=True)
    weights = np.array([100.0, 25.0])
    params = closed_form(X, (weights @ np.stack([Y, Y + 1])) / 125, 1.0)[0]
    np.testing.assert_allclose(vector(fit.params), params, rtol=1e-8)


@pytest.mark.slow
def test_a_model_that_knows_its_own_x(float64):
    fit = curve_fit(lambda p, x: line(p, X), None, Y, START)
    np.testing.assert_allclose(vector(fit.params), closed_form(X, Y, 1.0)[0], rtol=1e-8)
    assert fit.band().value.shape == (12,)


@pytest.mark.slow
def test_the_sandwich(float64):
    fit = curve_fit(line, X, Y, START, sigma=SIGMA, covariance="sandwich")
    _, inverse, _, rows = closed_form(X, Y, SIGMA)
    u = Y / SIGMA - rows @ vector(fit.params)
    expected = inverse @ (rows.T * u**2) @ rows @ inverse
    np.testing.assert_allclose(fit.covariance, expected, rtol=1e-8)
    gradient = np.stack([np.ones(12), X], axis=1)
    half = scipy.stats.t.ppf((1 + 0.683) / 2, 10) * np.sqrt(
        np.einsum("ki,ij,kj->k", gradient, expected, gradient)
    )
    np.testing.assert_allclose(fit.band().upper - fit.band().value, half, rtol=1e-7)


@pytest.mark.slow
def test_many_data_sets_with_errors_and_starts_of_their_own(float64):
    ys, sigmas = np.stack([Y, 2 * Y]), np.stack([SIGMA, SIGMA[::-1]])
    starts = {"a": np.array([0.0, 1.0]), "b": np.array([0.5, 0.0])}
    many = jax.vmap(lambda y, s, p: curve_fit(line, X, y, p, sigma=s, bounds=(-9.0, 9.0)))(
        ys, sigmas, starts
    )
    for i in range(2):
        params, inverse, chi2, _ = closed_form(X, ys[i], sigmas[i])
        np.testing.assert_allclose([many.params["a"][i], many.params["b"][i]], params, rtol=1e-8)
        np.testing.assert_allclose(many.covariance[i], inverse * chi2 / 10, rtol=1e-7)
    assert many.at_bound.shape == (2, 2)
    assert many.names == ("a", "b")


# Under transformations.


@pytest.mark.slow
def test_many_data_sets_under_vmap(float64):
    ys = np.stack([Y, Y + 1, 2 * Y])
    many = jax.vmap(lambda y: curve_fit(line, X, y, START, sigma=SIGMA))(ys)
    alone = curve_fit(line, X, ys[2], START, sigma=SIGMA)
    np.testing.assert_allclose(many.params["b"][2], alone.params["b"], rtol=1e-10)
    np.testing.assert_allclose(many.covariance[2], alone.covariance, rtol=1e-10)
    np.testing.assert_allclose(many.r_squared[2], alone.r_squared, rtol=1e-10)
    np.testing.assert_allclose(many.band(X).upper[2], alone.band(X).upper, rtol=1e-10)
    assert str(many).startswith("levenberg_marquardt: 3 of 3 succeeded")


@pytest.mark.slow
def test_inside_jit(float64):
    inside = jax.jit(lambda y: curve_fit(line, X, y, START, sigma=SIGMA))(Y)
    outside = curve_fit(line, X, Y, START, sigma=SIGMA)
    np.testing.assert_allclose(inside.covariance, outside.covariance, rtol=1e-4)
    np.testing.assert_allclose(inside.band(X).lower, outside.band(X).lower, rtol=1e-4)
    assert "std. error" in str(inside)


# The words of the likely mistakes.


def gauss(x, a, mu, s):
    return a * jnp.exp(-0.5 * ((x - mu) / s) ** 2)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: curve_fit(gauss, X, Y, (1.0, 0.5, 0.1)), TypeError, "`gauss` requires x, a, mu"),
        (lambda: curve_fit(gauss, X, Y, p0=[1.0]), TypeError, "'p0'; call it params"),
        (lambda: curve_fit(line, X, Y), TypeError, "curve_fit needs the start"),
        (lambda: curve_fit(line, X, Y, [0, 0]), TypeError, "write 0.0. Derivatives need floats"),
        (
            lambda: curve_fit(lambda x, p: p[0] + p[1] * x[0], X, Y, jnp.ones(2)),
            ValueError,
            r"model returned \(\), ydata has \(12,\): is it model\(x, params\)\?",
        ),
        (
            lambda: curve_fit(line, X, np.where(X > 1, np.nan, Y), START),
            ValueError,
            r"ydata\[6\] is nan; leave the point out, or give it sigma=inf",
        ),
        (lambda: curve_fit(line, X / 0, Y, START), ValueError, r"xdata\[0\] is nan; leave the p"),
        (lambda: curve_fit(line, X, Y, START, sigma=np.inf), ValueError, "drops every point"),
        (
            lambda: curve_fit(line, X, Y, {"a": 1j, "b": 0.0}),
            TypeError,
            "curve_fit needs real params, for they have errors; make real and imaginary parts two",
        ),
        (lambda: curve_fit(line, X, Y, START, sigma=0 * X), ValueError, r"sigma\[0\] is 0.0"),
        (lambda: curve_fit(line, X, Y, START, fixed="c"), ValueError, "the paths are a, b"),
        (
            lambda: curve_fit(line, X, Y, START, bounds={"a": (1.0, 2.0)}),
            ValueError,
            r"start a = 0 is outside its bounds \[1, 2\]",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_bad_calls(call, kind, words: str, float64):
    with pytest.raises(kind, match=words):
        call()
