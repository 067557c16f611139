"""hesskit and its peers on least squares: `prepare(residual, data)` gives `solve(x0) -> Outcome`.

Every solver minimizes sum(residual(x, *data)**2), in float64, with tolerances at its floor and at
most `MAX_EVALUATIONS`; hesskit runs with the defaults of `hesskit.least_squares`, as a user would.
`prepare` builds and jits once a problem, so a later start reuses the compiled program.

What is counted: evaluations of the residuals, by SciPy's `nfev` and hesskit's `num_values`; SciPy
gets the exact Jacobian from JAX, so its evaluations are no finite differences. optimistix and
jaxopt report steps; each step tries one point and counts as one evaluation, and the first point
as one more. (jaxopt's program evaluates twice a step.)
"""

import importlib
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

MAX_EVALUATIONS = 5000
SCIPY_TOL = 1e-15  # MINPACK and SciPy refuse less than eps, 2.2e-16
JAX_TOL = 1e-14


class Outcome(NamedTuple):
    """What one run returned, and what it cost."""

    x: np.ndarray
    evaluations: int
    claims_success: bool
    seconds: float
    status: str


Solve = Callable[[np.ndarray], Outcome]
Prepare = Callable[[Callable, tuple], Solve]


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    answer = jax.block_until_ready(run())
    return answer, time.perf_counter() - begin


def _hesskit(residual: Callable, data: tuple) -> Solve:
    least_squares = importlib.import_module("hesskit").least_squares
    status = importlib.import_module("hesskit.core.status").Status

    def own(x, *data):  # its own function: no program is shared with another solver
        return residual(x, *data)

    def solve(x0):
        result, seconds = _timed(lambda: least_squares(own, jax.numpy.asarray(x0), args=data))
        return Outcome(
            np.asarray(result.params),
            int(result.num_values),
            bool(result.success),
            seconds,
            status(int(result.status)).name,
        )

    return solve


def _scipy(method: str) -> Prepare:
    def prepare(residual, data):
        optimize = importlib.import_module("scipy.optimize")
        value, jacobian = jax.jit(residual), jax.jit(jax.jacfwd(residual))
        limits = {"ftol": SCIPY_TOL, "xtol": SCIPY_TOL, "gtol": SCIPY_TOL}

        def solve(x0):
            begin = time.perf_counter()
            with np.errstate(all="ignore"):
                try:
                    answer = optimize.least_squares(
                        lambda x: np.asarray(value(x, *data)),
                        x0,
                        jac=lambda x: np.asarray(jacobian(x, *data)),
                        method=method,
                        max_nfev=MAX_EVALUATIONS,
                        **limits,
                    )
                except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
                    seconds = time.perf_counter() - begin
                    return Outcome(x0, 1, False, seconds, f"raised {type(error).__name__}")
            seconds = time.perf_counter() - begin
            return Outcome(answer.x, answer.nfev, answer.success, seconds, str(answer.status))

        return solve

    return prepare


def _compiled(run: Callable) -> Solve:
    """A solve from `run(x0) -> x, steps, success`."""
    run = jax.jit(run)

    def solve(x0):
        (x, steps, success), seconds = _timed(lambda: run(x0))
        return Outcome(np.asarray(x), int(steps) + 1, bool(success), seconds, "")

    return solve


def _optimistix(residual: Callable, data: tuple) -> Solve:
    optx = importlib.import_module("optimistix")
    solver = optx.LevenbergMarquardt(rtol=JAX_TOL, atol=JAX_TOL)

    def run(x0):
        answer = optx.least_squares(
            lambda x, args: residual(x, *args),
            solver,
            x0,
            args=data,
            max_steps=MAX_EVALUATIONS,
            throw=False,
        )
        success = answer.result == optx.RESULTS.successful
        return answer.value, answer.stats["num_steps"], success

    return _compiled(run)


def _jaxopt(residual: Callable, data: tuple) -> Solve:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is no longer maintained
        jaxopt = importlib.import_module("jaxopt")
    solver = jaxopt.LevenbergMarquardt(
        residual_fun=residual,
        maxiter=MAX_EVALUATIONS,
        stop_criterion="madsen-nielsen",
        xtol=JAX_TOL,
        gtol=JAX_TOL,
        materialize_jac=True,
        solver="qr",
    )

    def run(x0):
        answer = solver.run(x0, *data)
        steps = answer.state.iter_num
        return answer.params, steps, steps < MAX_EVALUATIONS  # it says no more than that

    return _compiled(run)


SOLVERS: dict[str, Prepare] = {
    "hesskit": _hesskit,
    "scipy.trf": _scipy("trf"),
    "scipy.lm": _scipy("lm"),
    "optimistix.LM": _optimistix,
    "jaxopt.LM": _jaxopt,
}
