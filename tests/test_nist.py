"""The NIST sets against themselves: the certified answers satisfy what defines them.

Certified parameters are rounded to 11 digits, which moves each by at most half a unit in the last.
That and the rounding of the model are the only slack below. With a residual sum of squares of
1e-25 (Lanczos1; the data are of order 1) the rounding of the parameters is all that is left, and
nothing else is relaxed for it.
"""

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.nist import FOLDER, MODELS, NistProblem, by_name, digits, header, problems

EPS = np.finfo(np.float64).eps
LAST_DIGIT = 0.5e-10  # of a mantissa of 11 digits, relative; at most
EVERY = pytest.mark.parametrize("problem", problems(), ids=lambda p: p.name)

pytestmark = pytest.mark.usefixtures("float64")


def moves(problem: NistProblem) -> np.ndarray:
    """What the last printed digit leaves open in each parameter."""
    exponents = np.floor(np.log10(np.abs(problem.certified)))
    return LAST_DIGIT * 10.0**exponents


class Facts(NamedTuple):
    """What is known of a set at its certified parameters."""

    residuals: np.ndarray
    jacobian: np.ndarray
    hessian: np.ndarray  # of half the sum of squares


@functools.cache
def facts() -> dict[str, Facts]:
    """Every set at its certified parameters, in float64; one compiled program."""

    @jax.jit
    def compute(points):
        found = {}
        for problem in problems():
            params = points[problem.name]
            jacobian = jax.jacfwd(problem.residuals)
            gradient = lambda b, r=problem.residuals, j=jacobian: r(b) @ j(b)
            found[problem.name] = Facts(
                problem.residuals(params), jacobian(params), jax.jacfwd(gradient)(params)
            )
        return found

    found = compute({p.name: jnp.asarray(p.certified) for p in problems()})
    return jax.tree.map(np.asarray, found)


def model_rounding(problem: NistProblem) -> float:
    """The norm of what rounding does to the residuals: a few units in the last place of y."""
    return 10.0 * EPS * float(np.linalg.norm(problem.y))


def test_all_sets_are_here():
    assert [p.name for p in problems()] == list(MODELS)
    assert len(MODELS) == 27
    assert {file.stem for file in FOLDER.glob("*.dat")} == set(MODELS)
    assert by_name("BoxBOD").name == "BoxBOD"


@EVERY
def test_sizes_agree_with_the_header(problem):
    text = (FOLDER / f"{problem.name}.dat").read_text()
    n, m = problem.certified.size, problem.y.size
    assert m == header(text, "Number of Observations")
    assert m == int(re.search(r"(\d+) Observations", text)[1])
    assert n == int(re.search(r"(\d+) Parameters", text)[1])
    predictors = int(re.search(r"(\d+) Predictor", text)[1])
    assert problem.x.shape == ((m,) if predictors == 1 else (m, predictors))
    first, last = (int(k) for k in re.search(r"Data +\(lines (\d+) to (\d+)\)", text).groups())
    assert last - first + 1 == m
    assert problem.starts.shape == (2, n)
    assert problem.deviations.shape == (n,)
    assert problem.dof == m - n
    printed = header(text, "Degrees of Freedom")
    assert printed == (9 if problem.name == "Rat43" else m - n)  # misprinted there
    for array in (problem.x, problem.y, problem.starts, problem.certified, problem.deviations):
        assert array.dtype == np.float64
    assert np.all(problem.deviations > 0.0)
    assert np.any(problem.starts[0] != problem.starts[1])


@EVERY
def test_residual_sum_of_squares_is_the_certified_one(problem):
    residuals, jacobian, _ = facts()[problem.name]
    size, rounding = np.sqrt(problem.rss), model_rounding(problem)
    moved = np.linalg.norm(np.abs(jacobian) @ moves(problem))  # enters squared: a minimum is flat
    slack = 1e-10 * problem.rss + 2.0 * size * rounding + (moved + rounding) ** 2
    assert abs(residuals @ residuals - problem.rss) <= slack
    if not problem.name.startswith("Lanczos"):  # whose rounding is not small beside the rss
        assert abs(residuals @ residuals - problem.rss) <= 1e-10 * problem.rss


@EVERY
def test_certified_parameters_are_stationary(problem):
    """|J'r| is at most what the last digits of b and the rounding of the model account for."""
    residuals, jacobian, hessian = facts()[problem.name]
    from_params = np.abs(hessian) @ moves(problem)
    from_model = np.linalg.norm(jacobian, axis=0) * model_rounding(problem)
    gradient = jacobian.T @ residuals
    higher_order = 0.1 * from_params
    np.testing.assert_array_less(np.abs(gradient), from_params + higher_order + from_model)


@EVERY
def test_certified_deviations_follow_from_the_jacobian(problem):
    jacobian = facts()[problem.name].jacobian
    scale = np.linalg.norm(jacobian, axis=0)  # squared condition numbers reach 1e10 even with it
    inverse = np.linalg.inv(np.linalg.qr(jacobian / scale)[1])
    spread = np.linalg.norm(inverse, axis=1) / scale
    np.testing.assert_allclose(problem.residual_deviation * spread, problem.deviations, rtol=1e-8)
    np.testing.assert_allclose(
        problem.residual_deviation, np.sqrt(problem.rss / problem.dof), rtol=1e-10
    )


@pytest.mark.parametrize("row", [0, 1])
def test_models_keep_the_dtype_and_are_finite_at_both_starts(row):
    @jax.jit
    def compute(points):
        return {p.name: p.residuals(points[p.name]) for p in problems()}

    for dtype in ("float32", "float64"):
        found = compute({p.name: jnp.asarray(p.starts[row], dtype) for p in problems()})
        for problem in problems():
            assert found[problem.name].dtype == dtype
            assert found[problem.name].shape == problem.y.shape
            assert np.all(np.isfinite(found[problem.name])), problem.name


def test_nelson_fits_the_logarithm_of_two_predictors():
    nelson = by_name("Nelson")
    np.testing.assert_allclose(nelson.y[0], np.log(15.0))
    np.testing.assert_array_equal(nelson.x[0], [1.0, 180.0])


def test_digits_are_those_of_the_worst_entry():
    certified = np.array([2.0, -4.0])
    assert digits(certified, certified) == 11.0
    np.testing.assert_allclose(digits(certified * [1.0, 1.0 + 1e-6], certified), 6.0, rtol=1e-6)
    np.testing.assert_allclose(digits(certified * [1.1, 1.0 + 1e-6], certified), 1.0, rtol=1e-6)
    assert digits(certified * 1e9, certified) == 0.0
    assert digits(np.array([2.0, np.nan]), certified) == 0.0
