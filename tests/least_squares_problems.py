"""The problems of More, Garbow & Hillstrom in residual form: 44 instances.

Minimize sum(residual(x)**2), without the factor 1/2, from the standard start and from 10 and 100
times it. All 35 functions are here, at the size that is fixed or else at sizes that the paper or
MINPACK's tests use; residuals, starts and minima are those of `tests/problems.py`. The list was
fixed by name before any solver ran on it.

`minima` are the known minima of the sum of squares, the global one first: the published ones, which
`tests/problems.py` holds, then those of `_AT_INFINITY`. There may be more local ones.

References:
    More, Garbow & Hillstrom (1981), Testing unconstrained optimization software, ACM TOMS 7, 17-41.
    More, Garbow & Hillstrom (1980), User guide for MINPACK-1, Argonne ANL-80-74.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.problems import (
    Array,
    Function,
    _brown_almost_linear,
    _extended_rosenbrock,
    _powell_singular,
)
from tests.problems import by_name as minimization_problem

FACTORS = (1.0, 10.0, 100.0)


class LeastSquaresProblem(NamedTuple):
    """One instance: minimize the sum of squares of `residual` from `start`."""

    name: str
    residual: Function  # (n,) -> (m,)
    start: np.ndarray  # (n,), float64
    minima: tuple[float, ...]  # of the sum of squares, the global one first

    @property
    def n(self) -> int:
        """Number of variables."""
        return self.start.size


# Infima along rays to infinity, beside the published ones. A multistart of MINPACK's lmder (up to
# 150 random starts a problem of at most 12 variables, up to 100 times as far as the standard one)
# found them, and nothing below any global minimum given here.
_AT_INFINITY = {
    "jennrich_sampson": (259.580190134253,),  # x2 to -infinity
    "bard": (0.114798460886541,),  # x3 = -x2 to infinity
    # The bell narrower than the data's spacing, centered on one datum or between two; or without
    # its center, rising towards both ends.
    "gaussian": (0.4051021600000000, 0.2811277499999957, 0.5642217499997553),
    "gulf": (32.835,),  # x1 large, x2 and x3 not: the residuals are 1 - i/100
    "box_3d": (0.0755887407549974,),  # x2 to infinity
    "biggs_exp6": (0.30636677262479,),  # x2 to infinity, x4 to -infinity; gonum's tests print it
}

_AS_THEY_ARE = (  # with residuals, start and minima of tests/problems.py
    ("rosenbrock", "freudenstein_roth", "powell_badly_scaled", "brown_badly_scaled", "beale")
    + ("jennrich_sampson", "helical_valley", "bard", "gaussian", "meyer", "gulf", "box_3d")
    + ("powell_singular", "wood", "kowalik_osborne", "brown_dennis", "osborne_1", "biggs_exp6")
    + ("osborne_2", "watson_6", "watson_9", "watson_12", "extended_rosenbrock_100")
    + ("penalty_1_4", "penalty_1_10", "penalty_2_4", "penalty_2_10", "variably_dimensioned_10")
    + ("trigonometric_10", "brown_almost_linear_10", "discrete_boundary_value_10")
    + ("discrete_integral_10", "broyden_tridiagonal_10", "broyden_banded_10")
    + ("linear_full_rank_10", "linear_rank_one_10", "linear_rank_one_zero_10")
    + ("chebyquad_8", "chebyquad_9", "chebyquad_10")
)


def _of_minimization(name: str) -> LeastSquaresProblem:
    problem = minimization_problem(name)
    minima = (problem.minimum, *problem.other_minima, *_AT_INFINITY.get(name, ()))
    return LeastSquaresProblem(name, problem.residuals, problem.start, minima)


def _brown_almost_linear_of(n: int) -> LeastSquaresProblem:
    # The value 1 is for any n, at (0, ..., 0, n + 1): only the product's residual is left.
    name = f"brown_almost_linear_{n}"
    return LeastSquaresProblem(name, _brown_almost_linear, np.full(n, 0.5), (0.0, 1.0))


PROBLEMS: tuple[LeastSquaresProblem, ...] = (
    *(_of_minimization(name) for name in _AS_THEY_ARE),
    LeastSquaresProblem(
        "extended_rosenbrock_10", _extended_rosenbrock, np.tile([-1.2, 1.0], 5), (0.0,)
    ),
    LeastSquaresProblem(
        "extended_powell_singular_12", _powell_singular, np.tile([3.0, -1.0, 0.0, 1.0], 3), (0.0,)
    ),
    _brown_almost_linear_of(30),
    _brown_almost_linear_of(40),
)
_BY_NAME = {problem.name: problem for problem in PROBLEMS}


def by_name(name: str) -> LeastSquaresProblem:
    """The instance called `name`."""
    return _BY_NAME[name]


def start(
    problem: LeastSquaresProblem, factor: float = 1.0, dtype: jax.typing.DTypeLike | None = None
) -> Array:
    """`factor` times the standard start, in `dtype` (default: JAX's default float)."""
    return jnp.asarray(factor * problem.start, dtype=dtype or jnp.result_type(float))
