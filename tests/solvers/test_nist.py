"""Certified data: the 27 NIST sets from both starts, by `least_squares` with its own choices.

Sets of as many parameters are one objective with a switch, and rows past the end of a set have
sigma=inf, which drops them; so few programs are compiled. Lanczos1 has a residual sum of squares of
1.4e-25 with data of order 1: its residuals are little more than the rounding of float64, and so is
chi2. Of its standard deviations only the part that the Jacobian gives is asked for.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core.status import Status
from hesskit.solvers.least_squares import least_squares
from tests.nist import digits, problems

pytestmark = pytest.mark.usefixtures("float64")

SIZES = sorted({p.certified.size for p in problems()})
RUNS = [(p.name, i) for p in problems() for i in (0, 1)]
EXCUSED = {"Lanczos1"}


class Fit(NamedTuple):
    """What a test needs of one fit."""

    digits: float  # of the worst parameter
    error_digits: float  # of the worst standard deviation
    num_values: int
    status: Status
    success: bool
    dof: int


@functools.cache
def residual_of(size):
    """`residual(params, x, y, which)` of the sets with this many parameters."""
    models = [
        p.model if p.x.ndim == 2 else lambda b, x, model=p.model: model(b, x[:, 0])
        for p in problems()
        if p.certified.size == size
    ]
    return lambda params, x, y, which: jax.lax.switch(which, models, params, x) - y


def padded(problem, rows):
    """x, y and sigma with this many rows: the last row again, dropped."""
    more = rows - problem.y.size
    x = problem.x if problem.x.ndim == 2 else np.stack([problem.x] * 2, axis=1)
    sigma = np.concatenate([np.ones(problem.y.size), np.full(more, np.inf)])
    return np.pad(x, ((0, more), (0, 0)), "edge"), np.pad(problem.y, (0, more), "edge"), sigma


@functools.cache
def fit(name, row):
    problem = next(p for p in problems() if p.name == name)
    alike = [p for p in problems() if p.certified.size == problem.certified.size]
    x, y, sigma = padded(problem, max(p.y.size for p in alike))
    which = jnp.asarray([p.name for p in alike].index(name), jnp.int32)
    result = least_squares(
        residual_of(problem.certified.size),
        jnp.asarray(problem.starts[row]),
        args=(jnp.asarray(x), jnp.asarray(y), which),
        sigma=jnp.asarray(sigma),
    )
    errors, certified = np.asarray(result.standard_errors), problem.deviations
    if name in EXCUSED:
        errors = errors / np.sqrt(result.reduced_chi2)
        certified = certified / problem.residual_deviation
    return Fit(
        digits(result.params, problem.certified),
        digits(errors, certified),
        int(result.num_values),
        Status(int(result.status)),
        bool(result.success),
        int(result.dof),
    )


QUICK = (2, 3, 4, 8)
"""Those of most sets: each size takes a compilation."""


@pytest.mark.parametrize(
    "size", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in SIZES]
)
def test_certified_values(size):
    alike = {p.name: p for p in problems() if p.certified.size == size}
    for name, row in (run for run in RUNS if run[0] in alike):
        found = fit(name, row)
        assert found.success, (name, row, found)
        assert found.digits >= 6, (name, row, found)
        assert found.error_digits >= 4, (name, row, found)
        assert found.dof == alike[name].dof, (name, row, found)


@pytest.mark.slow
def test_the_medians():
    """SciPy's trf: 9.4 digits from 21 evaluations; optimistix: 10.1 from 46."""
    found = [fit(*run) for run in RUNS]
    assert len(found) == 54
    assert np.median([f.digits for f in found]) >= 10
    assert np.median([f.num_values for f in found]) <= 20
    assert np.median([f.error_digits for f in found]) >= 10
