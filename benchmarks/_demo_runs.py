"""What a run of a method is, how it is timed, and hesskit's methods: `method(problem) -> Run`.

A run is one compiled program from start to stop; hesskit's is `hesskit.minimize` under `jax.jit`.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _demo_problems import Problem

import hesskit
from hesskit.core.status import Status

REPEATS = 3
PATIENCE = 1.0  # seconds: repeats end when they have taken this long
WEIGHTS = "1 per value, 2 per gradient, 4 per Hessian product, 2n per dense Hessian"


class Trace(NamedTuple):
    """One row a step, the start first: floats, and the path (rows, n) where it is asked for.

    `work`, by WEIGHTS, is what was spent until value and gradient of the row were known; its last
    entry, and that of `value` and `grad_norm`, is the end of the run.
    """

    value: np.ndarray
    grad_norm: np.ndarray
    work: np.ndarray
    path: np.ndarray | None


class Run(NamedTuple):
    """What a method did on a problem."""

    method: str
    status: str
    num_steps: int
    num_values: int
    num_grads: int
    num_products: int
    seconds: float  # median of REPEATS runs after a warm-up, fewer where they take long
    compile_seconds: float
    value: float
    grad_norm: float
    trace: Trace


Method = Callable[[Problem], Run]


def tolerance(dtype: Any) -> float:
    """gtol: hesskit's default."""
    return float(jnp.finfo(dtype).eps) ** (2 / 3)


def measured(program: Callable[..., Any], *inputs: Any) -> tuple[Any, float, float]:
    """The answer, seconds of a run and seconds of compilation."""
    compiled, compile_seconds = compile_program(program, *inputs)
    return *timed(compiled, *inputs), compile_seconds


def compile_program(program: Callable[..., Any], *inputs: Any) -> tuple[Callable[..., Any], float]:
    """The compiled program, and the seconds that tracing and compiling took."""
    begin = time.perf_counter()
    compiled = jax.jit(program).lower(*inputs).compile()
    return compiled, time.perf_counter() - begin


def timed(compiled: Callable[..., Any], *inputs: Any) -> tuple[Any, float]:
    """The answer of a warm-up, and the median seconds of the runs after it."""
    laps = []
    answer = jax.block_until_ready(compiled(*inputs))
    while len(laps) < REPEATS and sum(laps) < PATIENCE:
        begin = time.perf_counter()
        jax.block_until_ready(compiled(*inputs))
        laps.append(time.perf_counter() - begin)
    return answer, statistics.median(laps)


def hesskit_method(name: str, optimizer: Any, *, dense: bool) -> Method:
    def run(problem: Problem) -> Run:
        def solve(start, args):
            return hesskit.minimize(
                problem.fn,
                start,
                optimizer,
                args=args,
                max_steps=problem.max_steps,
                history="params" if problem.draws_paths else True,
            )

        result, seconds, compile_seconds = measured(solve, problem.start, problem.args)
        return Run(
            method=name,
            status=Status(int(result.status)).name,
            num_steps=int(result.num_steps),
            num_values=int(result.num_values),
            num_grads=int(result.num_grads),
            num_products=int(result.num_products),
            seconds=seconds,
            compile_seconds=compile_seconds,
            value=float(result.value),
            grad_norm=float(result.grad_norm),
            trace=_trace(result, product_weight=2 if dense else 4),
        )

    return run


def _trace(result: hesskit.Result, *, product_weight: int) -> Trace:
    """The history with its work.

    A history has no products. A model is built at each kept point, the last one included, where it
    proves the curvature: n products if it is dense, which makes this exact; else their total is
    spread evenly over the models.
    """
    history = result.history
    rows = np.append(np.arange(int(history.length)), int(history.length) - 1)
    models = np.cumsum(np.asarray(history.accepted[: rows.size - 1]))
    products = int(result.num_products) * np.append(0, models) / models[-1]
    return Trace(
        value=np.asarray(history.value, float)[rows],
        grad_norm=np.asarray(history.grad_norm, float)[rows],
        work=3 * np.asarray(history.num_values)[rows] + product_weight * products,
        path=None if history.params is None else np.asarray(history.params)[rows],
    )
