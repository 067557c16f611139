"""The least-squares problems against starts by hand, MINPACK's answers and finite differences."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares

from tests.least_squares_problems import FACTORS, PROBLEMS, by_name, start

EVERY = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)

pytestmark = pytest.mark.usefixtures("float64")

# Norms of the residuals at the standard start, as MINPACK's own tests of lmder print them.
MINPACK_NORMS = {
    "rosenbrock": 4.919349550499537,
    "helical_valley": 50.0,
    "powell_singular": 14.66287829861518,
    "freudenstein_roth": 20.01249609618949,
    "bard": 6.456136295159668,
    "kowalik_osborne": 0.07289151028829448,
    "meyer": 41153.46655430312,
    "watson_6": 5.477225575051661,
    "watson_9": 5.477225575051661,
    "watson_12": 5.477225575051661,
    "box_3d": 32.11158372258015,
    "chebyquad_8": 0.196513862833975,
    "chebyquad_9": 0.16994993465202,
    "chebyquad_10": 0.183747831178711,
    "brown_almost_linear_10": 16.5302162063499,
}

VALUES = {  # by hand, from the definitions
    "beale": 1.5**2 + 2.25**2 + 2.625**2,
    "extended_rosenbrock_10": 5 * 24.2,
    "extended_rosenbrock_100": 50 * 24.2,
    "extended_powell_singular_12": 3 * 215.0,
    "brown_almost_linear_30": 29 * 15.5**2 + (0.5**30 - 1.0) ** 2,
    "brown_almost_linear_40": 39 * 20.5**2 + (0.5**40 - 1.0) ** 2,
    "penalty_1_4": 1e-5 * (0 + 1 + 4 + 9) + 29.75**2,
    "penalty_1_10": 1e-5 * 285.0 + 384.75**2,
    "variably_dimensioned_10": 3.85 + 38.5**2 + 38.5**4,
    "broyden_tridiagonal_10": 4.0 + 8.0 + 9.0,  # rows -2, eight of -1, -3
    "broyden_banded_10": 360.0,  # rows -6, all of them: the neighbors' x (1 + x) is 0
    "linear_full_rank_10": 50.0,  # ten rows -1, ten rows -2
    "linear_rank_one_10": sum((55.0 * i - 1.0) ** 2 for i in range(1, 21)),
    "linear_rank_one_zero_10": 2.0 + sum((44.0 * i - 1.0) ** 2 for i in range(1, 19)),
}

# Where MINPACK goes from the standard start if not to the global minimum: a published local one.
ELSEWHERE = {
    "freudenstein_roth": 48.98425367924,
    "trigonometric_10": 2.79506e-5,
    "chebyquad_10": 6.50395e-3,
    "brown_almost_linear_40": 1.0,
}


class Slopes(NamedTuple):
    """J v at a start moved a little: by derivatives, and by a central difference."""

    product: np.ndarray
    difference: np.ndarray
    slack: np.ndarray  # what rounding and third derivatives do to the difference


@functools.cache
def slopes(seed: int) -> dict[str, Slopes]:
    """Of every problem, along a random v, in one compiled program."""
    step = 1e-5

    def of(problem, x, v):
        ahead, behind = (problem.residual(x + sign * step * v) for sign in (1.0, -1.0))
        residuals, product = jax.jvp(problem.residual, (x,), (v,))
        rounding = 100.0 * jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(residuals)) / step
        slack = 1e-6 * jnp.max(jnp.abs(product)) + rounding
        return Slopes(product, (ahead - behind) / (2.0 * step), slack)

    @jax.jit
    def compute(points, directions):
        return {p.name: of(p, points[p.name], directions[p.name]) for p in PROBLEMS}

    rng = np.random.default_rng(seed)
    points = {p.name: p.start + 0.05 * rng.uniform(-1, 1, p.n) for p in PROBLEMS}
    directions = {
        k: np.maximum(np.abs(x), 0.1) * rng.normal(size=x.size) for k, x in points.items()
    }
    return jax.tree.map(np.asarray, compute(points, directions))


@functools.cache
def values_at_the_start() -> dict[str, float]:
    compute = jax.jit(lambda points: {p.name: p.residual(points[p.name]) for p in PROBLEMS})
    residuals = compute({p.name: start(p) for p in PROBLEMS})
    return {name: float(jnp.sum(r**2)) for name, r in residuals.items()}


def test_there_are_44_instances_of_35_functions():
    assert len(PROBLEMS) == 44
    assert len({p.name for p in PROBLEMS}) == 44
    assert all(by_name(p.name) is p for p in PROBLEMS)
    functions = {getattr(p.residual, "__name__", "") for p in PROBLEMS}
    # MGH 13 and 22 (Powell singular) are one function of blocks.
    assert len(functions) == 34
    assert all(p.start.dtype == np.float64 for p in PROBLEMS)
    assert all(p.minima[0] <= min(p.minima) for p in PROBLEMS)


def test_the_start_is_scaled():
    problem = by_name("wood")
    for factor in FACTORS:
        np.testing.assert_array_equal(start(problem, factor), factor * problem.start)
    assert start(problem, dtype="float32").dtype == jnp.float32


@pytest.mark.parametrize("name", MINPACK_NORMS)
def test_norms_at_the_start_are_those_that_minpack_prints(name):
    np.testing.assert_allclose(values_at_the_start()[name] ** 0.5, MINPACK_NORMS[name], rtol=1e-9)


@pytest.mark.parametrize("name", VALUES)
def test_values_at_the_start_are_those_by_hand(name):
    np.testing.assert_allclose(values_at_the_start()[name], VALUES[name], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_derivatives_equal_central_differences(seed):
    for name, (product, difference, slack) in slopes(seed).items():
        assert np.all(np.abs(difference - product) <= slack), name


@pytest.mark.slow
@EVERY
def test_minpack_reaches_a_known_minimum_from_the_standard_start(problem):
    both = jax.jit(lambda x: (problem.residual(x), jax.jacfwd(problem.residual)(x)))
    with np.errstate(all="ignore"):
        answer = least_squares(
            lambda x: np.asarray(both(x)[0]),
            problem.start,
            jac=lambda x: np.asarray(both(x)[1]),
            method="lm",
            x_scale="jac",
            **{"ftol": 1e-14, "xtol": 1e-14, "gtol": 1e-14, "max_nfev": 1000},
        )
    reached = ELSEWHERE.get(problem.name, problem.minima[0])
    assert any(abs(reached - m) <= 1e-15 + 1e-6 * m for m in problem.minima)
    np.testing.assert_allclose(2.0 * answer.cost, reached, rtol=1e-5, atol=1e-20)


def test_values_at_infinity():
    """The infima that are reached only along a ray, where a closed form gives them."""
    y = np.array([0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521])
    others = 2.0 * np.sum(y**2)  # of the data of `gaussian` but its peak, 0.3989
    assert abs(others - by_name("gaussian").minima[1]) <= 1e-12
    i = np.arange(1, 100)
    assert abs(np.sum((1.0 - i / 100.0) ** 2) - by_name("gulf").minima[1]) <= 1e-12
    bard = by_name("bard")
    constant = np.asarray(bard.residual(jnp.array([0.0, 1e300, 1e300])))
    np.testing.assert_allclose(np.sum((constant - constant.mean()) ** 2), 17.4286, rtol=1e-5)
    assert 17.4286 in bard.minima
