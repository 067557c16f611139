"""The problem collection against independent truth: published minimizers, values, plain numpy.

All problems are evaluated by one compiled program per dtype, at one set of points after another.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.problems import _OSBORNE_2, PROBLEMS, Array, Problem, by_name, perturbed, start

SQUARES = tuple(p for p in PROBLEMS if p.residuals is not None)
ROUNDED = tuple(p for p in PROBLEMS if p.printed is not None)
EXACT = tuple(p for p in PROBLEMS if p.minimizer is not None)


class Facts(NamedTuple):
    """What is known of a problem at a point."""

    value: Array
    grad: Array
    residuals: Array | None
    curvature: Array | None  # float64 only: |H| |x| where n <= 12, else H |x|


def _curvature(problem: Problem, x: Array) -> Array:
    if problem.n <= 12:
        return jnp.abs(jax.hessian(problem.fn)(x)) @ jnp.abs(x)
    return jax.jvp(jax.grad(problem.fn), (x,), (jnp.abs(x),))[1]


@jax.jit
def _facts(points: dict[str, Array]) -> dict[str, Facts]:
    facts = {}
    for problem in PROBLEMS:
        x = points[problem.name]
        value, grad = jax.value_and_grad(problem.fn)(x)
        residuals = problem.residuals(x) if problem.residuals else None
        curvature = _curvature(problem, x) if x.dtype == jnp.float64 else None
        facts[problem.name] = Facts(value, grad, residuals, curvature)
    return facts


@functools.cache
def facts_at(where: int | str, dtype: str) -> dict[str, Facts]:
    """Every problem at its start, at its minimizer (if known), or at its start moved by a seed."""

    def point(problem):
        if where == "minimizer":
            return jnp.asarray(minimizer(problem)[0], dtype)
        return start(problem, dtype) if where == "start" else perturbed(problem, where, dtype)

    return _facts({p.name: point(p) for p in PROBLEMS})


# Minimizers of problems whose source prints one or has a closed form, to more digits than printed.
MINIMIZERS = {
    "freudenstein_roth": ((11.412778986818166, -0.8968052532755298), 48.98425367924),  # the other
    "powell_badly_scaled": ((1.0981593296997054e-5, 9.106146739867453), 0.0),
    "jennrich_sampson": ((0.2578252136703641, 0.2578252136703641), None),
    "bard": ((0.08241055975527659, 1.1330360921312523, 2.343695178548332), None),
    "gaussian": ((0.39895613783879685, 1.0000190845268304, 0.0), None),
    "meyer": ((0.005609636476166623, 6181.34634503752, 345.22363456656365), None),
    "kowalik_osborne": (
        (0.1928069345790379, 0.19128232873436696, 0.12305650692632081, 0.13606233068379484),
        None,
    ),
    "brown_dennis": (
        (-11.594439906482497, 13.203630051948558, -0.40343948654989475, 0.23677877333343195),
        None,
    ),
    "osborne_1": (
        (0.375410052106, 1.9358469127, -1.46468713660, 0.0128675346400, 0.0221226996617),
        None,
    ),
    "osborne_2": (
        (1.3099771546272978, 0.43155379460299187, 0.6336616989607312, 0.5994305347859239)
        + (0.7541832263280149, 0.9042885798595904, 1.365811835237053, 4.823698817227454)
        + (2.398684866131762, 4.568874597667679, 5.675341470580647),
        None,
    ),
    "watson_6": (
        (-0.015725086401667136, 1.012434869368331, -0.232991625952336)
        + (1.2604300877878611, -1.5137289227090012, 0.9929964324254984),
        None,
    ),
    "watson_9": (
        (-1.5307036521374135e-05, 0.9997897039319483, 0.014763963693564227)
        + (0.14634232829927005, 1.0008211030051741, -2.6177311405201884)
        + (4.104403164480427, -3.1436122785575074, 1.052626408010454),
        None,
    ),
    "penalty_2_4": (
        (0.19999933335036338, 0.19131670151264404, 0.4801014853862369, 0.5188454037151013),
        None,
    ),
    # MGH: n = 8 has the points 1/2, 1/2 doubled.
    "chebyquad_8": (
        (0.04315276, 0.19309084, 0.26632871, 0.5, 0.5, 0.73367129, 0.80690916, 0.95684724),
        None,
    ),
    "himmelblau": ((-2.805118086952745, 3.131312518250573), 0.0),
    "himmelbh": ((1.0, 1.0), -1.0),
    "hatfldd": ((3.19947773913351, -1.0178320441380744, -0.7584310825714162), None),
    "hatflde": ((3.197539231762198, -1.0112891122402934, -0.7434347165860089), None),
    "cliff": ((3.0, 3.0 + np.log(20.0) / 20.0), None),
    "brkmcc": ((1.7954028495548118, 1.377859778052933), None),
    "allinitu": ((1.45986156438183, 0.0, 0.08089005653380656, -0.8111130845851072), None),
    "maratosb": ((-1.000000125, 0.0), None),
    "s308": ((-0.15543723585956284, 0.6945637753029182), None),
    "noncvxu2_100": ((1.8954942670339809 / 3.0,) * 100, None),  # v = 2 sin v
    "cosine_100": (None, None),  # built below
    "linear_rank_one_10": ((3.0 / (41.0 * 55.0),) * 10, None),  # 3 / (2 m + 1) / sum of squares
}


def _cosine_minimizer() -> np.ndarray:
    """x_i^2 - x_{i+1} / 2 = pi for every i: the fixed point."""
    x = (0.5 + np.sqrt(0.25 + 4.0 * np.pi)) / 2.0
    return np.full(100, x)


def minimizer(problem: Problem) -> tuple[np.ndarray, float]:
    """A stationary point and its value; the start where none is known."""
    if problem.name == "cosine_100":
        return _cosine_minimizer(), problem.minimum
    if problem.name in MINIMIZERS:
        x, value = MINIMIZERS[problem.name]
        return np.asarray(x), problem.minimum if value is None else value
    exact = problem.minimizer is not None
    return problem.minimizer if exact else problem.start, problem.minimum


def test_there_are_enough_and_names_are_unique():
    assert len(PROBLEMS) >= 60
    assert len({p.name for p in PROBLEMS}) == len(PROBLEMS)
    numbers = {p.source.split("problem ")[1][:2].strip(";") for p in PROBLEMS if "More" in p.source}
    assert {int(n) for n in numbers} == set(range(1, 36))
    assert {100, 1000} <= {p.n for p in PROBLEMS}
    assert all(by_name(p.name) is p for p in PROBLEMS)
    assert all(p.source for p in PROBLEMS)
    assert all((p.minimum is None) == (not p.bounded) for p in PROBLEMS)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["start", 0])
def test_everything_is_finite_at_the_start_in_the_dtype_given(where, dtype):
    for problem in PROBLEMS:
        value, grad, _, curvature = facts_at(where, str(dtype))[problem.name]
        assert value.shape == (), problem.name
        assert grad.shape == (problem.n,), problem.name
        assert value.dtype == grad.dtype == dtype, problem.name
        assert jnp.isfinite(value), problem.name
        assert np.all(np.isfinite(grad)), problem.name
        assert curvature is None or np.all(np.isfinite(curvature)), problem.name
        if problem.minimum is not None:  # nothing lies below the global minimum
            floor = 10 * jnp.finfo(dtype).eps * max(1.0, abs(problem.minimum))
            assert value >= problem.minimum - floor, problem.name


def check_sums_of_squares(dtype):
    for problem in SQUARES:
        value, _, residuals, _ = facts_at(0, str(dtype))[problem.name]
        assert residuals.ndim == 1, problem.name
        assert residuals.dtype == dtype, problem.name
        expected = np.sum(np.asarray(residuals, np.float64) ** 2)
        tolerance = 100 * jnp.finfo(dtype).eps
        np.testing.assert_allclose(value, expected, rtol=tolerance, err_msg=problem.name)


@pytest.mark.slow
def test_a_least_squares_problem_is_the_sum_of_its_squared_residuals(float64):
    check_sums_of_squares(jnp.dtype("float64"))


@pytest.mark.slow
def test_a_least_squares_problem_is_the_sum_of_its_squared_residuals_in_float32():
    check_sums_of_squares(jnp.dtype("float32"))


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("problem", EXACT, ids=lambda p: p.name)
def test_exact_minimizers(problem):
    if problem.name in MINIMIZERS:  # its other minimum is what the table checks
        np.testing.assert_allclose(problem.fn(problem.minimizer), problem.minimum, atol=1e-12)
        return
    facts = facts_at("minimizer", "float64")[problem.name]
    scale = max(1.0, abs(problem.minimum))
    assert abs(facts.value - problem.minimum) <= 1e-12 * scale
    assert np.max(np.abs(facts.grad)) <= 1e-8 * scale


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", MINIMIZERS)
def test_published_minimizers(name):
    """The gradient vanishes up to a move of x by 1e-7 of itself."""
    facts = facts_at("minimizer", "float64")[name]
    expected = minimizer(by_name(name))[1]
    np.testing.assert_allclose(facts.value, expected, rtol=1e-9, atol=1e-12)
    assert np.max(np.abs(facts.grad) / (1.0 + np.abs(facts.curvature))) <= 1e-7


@pytest.mark.parametrize("problem", ROUNDED, ids=lambda p: p.name)
def test_the_minimum_rounds_to_the_digits_that_the_source_prints(problem):
    digits, _, exponent = problem.printed.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
    assert abs(problem.minimum - float(problem.printed)) <= 1.01 * unit  # some tables truncate


def test_starts_are_perturbed_by_ten_percent_alike_in_every_dtype():
    problem = by_name("brown_dennis")
    one, again, other = (np.asarray(perturbed(problem, s)) for s in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    assert np.all(np.abs(one - problem.start) <= 0.1 * np.abs(problem.start) + 1e-6)
    from_zero = np.asarray(perturbed(by_name("watson_6"), 0))
    assert np.all(from_zero != 0.0)
    assert np.all(np.abs(from_zero) <= 0.1)
    with jax.enable_x64(True):
        wide = perturbed(problem, 3)
    np.testing.assert_allclose(one, wide, rtol=1e-6)


# ---- plain numpy, written out by loops from the sources -----------------------------------------


def _loops_trigonometric(x):
    n, total = len(x), 0.0
    for i in range(1, n + 1):
        f = n - sum(np.cos(v) for v in x)
        total += (f + i * (1 - np.cos(x[i - 1])) - np.sin(x[i - 1])) ** 2
    return total


def _loops_broyden_banded(x):
    n, total = len(x), 0.0
    for i in range(1, n + 1):
        f = x[i - 1] * (2 + 5 * x[i - 1] ** 2) + 1
        for j in range(max(1, i - 5), min(n, i + 1) + 1):
            f -= x[j - 1] * (1 + x[j - 1]) if j != i else 0.0
        total += f**2
    return total


def _loops_broyden_tridiagonal(x):
    full, total = [0.0, *x, 0.0], 0.0
    for i in range(1, len(x) + 1):
        total += ((3 - 2 * full[i]) * full[i] - full[i - 1] - 2 * full[i + 1] + 1) ** 2
    return total


def _loops_discrete_integral(x):
    n, total = len(x), 0.0
    h = 1 / (n + 1)
    t = [i * h for i in range(1, n + 1)]
    for i in range(n):
        below = sum(t[j] * (x[j] + t[j] + 1) ** 3 for j in range(i + 1))
        above = sum((1 - t[j]) * (x[j] + t[j] + 1) ** 3 for j in range(i + 1, n))
        total += (x[i] + h * ((1 - t[i]) * below + t[i] * above) / 2) ** 2
    return total


def _loops_discrete_boundary_value(x):
    n, total = len(x), 0.0
    h, full = 1 / (n + 1), [0.0, *x, 0.0]
    for i in range(1, n + 1):
        f = 2 * full[i] - full[i - 1] - full[i + 1] + h**2 * (full[i] + i * h + 1) ** 3 / 2
        total += f**2
    return total


def _loops_penalty_2(x):
    n, total = len(x), (x[0] - 0.2) ** 2
    for i in range(2, n + 1):
        y = np.exp(i / 10) + np.exp((i - 1) / 10)
        total += 1e-5 * (np.exp(x[i - 1] / 10) + np.exp(x[i - 2] / 10) - y) ** 2
    for i in range(n + 1, 2 * n):
        total += 1e-5 * (np.exp(x[i - n] / 10) - np.exp(-1 / 10)) ** 2
    return total + (sum((n - j + 1) * x[j - 1] ** 2 for j in range(1, n + 1)) - 1) ** 2


def _loops_watson(x):
    n, total = len(x), x[0] ** 2 + (x[1] - x[0] ** 2 - 1) ** 2
    for i in range(1, 30):
        t = i / 29
        slope = sum((j - 1) * x[j - 1] * t ** (j - 2) for j in range(2, n + 1))
        total += (slope - sum(x[j - 1] * t ** (j - 1) for j in range(1, n + 1)) ** 2 - 1) ** 2
    return total


def _loops_chebyquad(x):
    n, total = len(x), 0.0
    for i in range(1, n + 1):
        mean = sum(np.cos(i * np.arccos(2 * v - 1)) for v in x) / n
        total += (mean - (0.0 if i % 2 else -1 / (i**2 - 1))) ** 2
    return total


def _loops_linear_rank_one_zero(x):
    n, m, total = len(x), 20, 2.0
    s = sum(j * x[j - 1] for j in range(2, n))
    return total + sum(((i - 1) * s - 1) ** 2 for i in range(2, m))


def _loops_extended_rosenbrock(x):
    return sum(100 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2 for i in range(0, len(x), 2))


def _loops_powell_singular(x):
    total = 0.0
    for i in range(0, len(x), 4):
        a, b, c, d = x[i : i + 4]
        total += (a + 10 * b) ** 2 + 5 * (c - d) ** 2 + (b - 2 * c) ** 4 + 10 * (a - d) ** 4
    return total


def _loops_helical_valley(x):
    theta = np.arctan(x[1] / x[0]) / (2 * np.pi) + (0.5 if x[0] < 0 else 0.0)
    radius = np.hypot(x[0], x[1])
    return 100 * (x[2] - 10 * theta) ** 2 + 100 * (radius - 1) ** 2 + x[2] ** 2


def _loops_osborne_2(x):
    y = _OSBORNE_2
    total = 0.0
    for i in range(65):
        t = i / 10
        model = x[0] * np.exp(-t * x[4]) + x[1] * np.exp(-((t - x[8]) ** 2) * x[5])
        model += x[2] * np.exp(-((t - x[9]) ** 2) * x[6])
        model += x[3] * np.exp(-((t - x[10]) ** 2) * x[7])
        total += (y[i] - model) ** 2
    return total


def _loops_snail(x):
    r = np.hypot(x[0], x[1])
    angle = np.arctan2(x[1], x[0])
    return r**2 / (1 + r**2) * (1 + 1.5 * r - 0.5 * r * np.cos(r - angle))


def _loops_tointgor_activity(x):
    """At a point where every x is 0: only the balances d_j are left."""
    beta = (1, 1.5, 1, 0.1, 1.5, 2, 1, 1.5, 3, 2, 1, 3, 0.1, 1.5, 0.15, 2, 1)
    beta += (0.1, 3, 0.1, 1.2, 1, 0.1, 2, 1.2, 3, 1.5, 3, 2, 1, 1.2, 2, 1)
    d = (5, 5, 5, 2.5, 6, 6, 5, 6, 10, 6, 5, 9, 2, 7, 2.5, 6, 5)
    d += (2, 9, 2, 5, 5, 2.5, 5, 6, 10, 7, 10, 6, 5, 4, 4, 4)
    return sum(b * t**2 * np.log(1 + t) for b, t in zip(beta, d, strict=True))


LOOPS = {
    "trigonometric_10": _loops_trigonometric,
    "trigonometric_100": _loops_trigonometric,
    "broyden_banded_10": _loops_broyden_banded,
    "broyden_banded_100": _loops_broyden_banded,
    "broyden_tridiagonal_10": _loops_broyden_tridiagonal,
    "broyden_tridiagonal_1000": _loops_broyden_tridiagonal,
    "discrete_integral_10": _loops_discrete_integral,
    "discrete_boundary_value_10": _loops_discrete_boundary_value,
    "penalty_2_10": _loops_penalty_2,
    "watson_6": _loops_watson,
    "watson_9": _loops_watson,
    "watson_12": _loops_watson,
    "chebyquad_9": _loops_chebyquad,
    "linear_rank_one_zero_10": _loops_linear_rank_one_zero,
    "extended_rosenbrock_1000": _loops_extended_rosenbrock,
    "extended_powell_singular_100": _loops_powell_singular,
    "helical_valley": _loops_helical_valley,
    "osborne_2": _loops_osborne_2,
    "snail": _loops_snail,
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", LOOPS)
def test_values_equal_plain_loops(name):
    for seed in (0, 5):
        x = np.asarray(perturbed(by_name(name), seed))
        value = facts_at(seed, "float64")[name].value
        np.testing.assert_allclose(value, LOOPS[name](x), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_toint_problem_is_right_where_it_is_singular():
    problem = by_name("tointgor")
    x = start(problem)
    np.testing.assert_allclose(problem.fn(x), _loops_tointgor_activity(x), rtol=1e-13)
    # Along x_18: alpha |x| log(1 + |x|) ~ 0.5 x^2, and rows d + x (beta 2, d 6) and d - x (1, 5).
    direction = jnp.zeros_like(x).at[17].set(1.0)
    curvature = direction @ jax.jvp(jax.grad(problem.fn), (x,), (direction,))[1]

    def second(t):  # of t^2 log(1 + t)
        return 2 * np.log(1 + t) + 4 * t / (1 + t) - t**2 / (1 + t) ** 2

    np.testing.assert_allclose(curvature, 1.0 + 2.0 * second(6.0) + second(5.0), rtol=1e-12)


STARTS = {  # values at the standard start, computed by hand or printed in the sources
    "rosenbrock": 24.2,
    "freudenstein_roth": 400.5,
    "powell_badly_scaled": 1.13526171734838,
    "brown_badly_scaled": 999998000003.0,
    "beale": 14.203125,
    "helical_valley": 2500.0,
    "powell_singular": 215.0,
    "wood": 19192.0,
    "brown_dennis": 7926693.33699744,
    "biggs_exp6": 0.77907007565597,
    "osborne_2": 2.09341951421206,
    "meyer": 1693607809.43615,
    "jennrich_sampson": 4171.30616196674,
    "watson_6": 30.0,
    "broyden_banded_10": 360.0,
    "cube": 749.0384,
    "himmelbh": 2.0,
    "zangwil2": -16.6,
    "denschnb": 6.0,
    "sineval": 1000.0 * (1.0 + np.sin(4.712389)) ** 2 + 4.712389**2 / 4.0,
    "cosine_100": 99.0 * np.cos(0.5),
    "arwhead_1000": 2997.0,
    "nondia_100": 99.0 * 400.0 + 4.0,
    "nondquar_100": 106.0,
    "tridia_1000": sum(range(2, 1001)),
    "woods_1000": 250.0 * 19192.0,
    "liarwhd_1000": 1000.0 * (4.0 * 144.0 + 9.0),
    "engval1_1000": 999.0 * 59.0,
    "tquartic_100": 0.81,
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", STARTS)
def test_values_at_the_standard_start(name):
    value = facts_at("start", "float64")[name].value
    np.testing.assert_allclose(value, STARTS[name], rtol=1e-9)
