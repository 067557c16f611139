"""Every method of the demo behind one call: `run(method, problem) -> Run`.

A run is one compiled program from start to stop. hesskit's is `hesskit.minimize`. optax's are the
loops of its own documentation: `optax.lbfgs` recycles value and gradient from its state
(`value_and_grad_from_state`), so that an evaluation is a trial of its line search, counted in its
state, plus the first. All stop by one rule, hesskit's default: |grad| <= gtol (1 + |value|) with
gtol = eps^(2/3). hesskit also stops where the value can no longer fall by more than its rounding
(ROUNDOFF_LIMITED), optax.lbfgs where two steps in a row leave the parameters as they were
(NO_PROGRESS), each of which can only repeat itself from there.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _demo_problems import Problem

import hesskit
from hesskit.core.status import Status

DENSE_LIMIT = 200
KRYLOV = 30
RATES = (1e-3, 1e-2, 1e-1)
REPEATS = 3
PATIENCE = 1.5  # seconds: repeats end when they have taken this long
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


def _measured(program: Callable[..., Any], *inputs: Any) -> tuple[Any, float, float]:
    """The answer, seconds of a run and seconds of compilation."""
    begin = time.perf_counter()
    compiled = jax.jit(program).lower(*inputs).compile()
    compile_seconds = time.perf_counter() - begin
    answer, seconds = _timed(compiled, *inputs)
    return answer, seconds, compile_seconds


def _timed(compiled: Callable[..., Any], *inputs: Any) -> tuple[Any, float]:
    """The answer of a warm-up, and the median seconds of the runs after it."""
    laps = []
    answer = jax.block_until_ready(compiled(*inputs))
    while len(laps) < REPEATS and sum(laps) < PATIENCE:
        begin = time.perf_counter()
        jax.block_until_ready(compiled(*inputs))
        laps.append(time.perf_counter() - begin)
    return answer, statistics.median(laps)


# ---- hesskit ---------------------------------------------------------------------------------


def _hesskit(name: str, optimizer: Any, *, dense: bool) -> Method:
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

        result, seconds, compile_seconds = _measured(solve, problem.start, problem.args)
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


# ---- optax -----------------------------------------------------------------------------------


class _Record(NamedTuple):
    """What an optax loop leaves behind: a row a point, filled up to `length`."""

    value: jax.Array
    grad_norm: jax.Array
    num_values: jax.Array
    params: Any
    length: jax.Array


def _empty(problem: Problem, params: Any, rows: int) -> _Record:
    nan = jnp.full(rows, jnp.nan)
    path = jnp.zeros((rows, params.size)) if problem.draws_paths else None
    return _Record(nan, nan, jnp.zeros(rows, jnp.int32), path, jnp.zeros((), jnp.int32))


def _write(record: _Record, value: Any, grad: Any, count: Any, params: Any) -> _Record:
    row = record.length
    return _Record(
        record.value.at[row].set(value),
        record.grad_norm.at[row].set(optax.tree.norm(grad)),
        record.num_values.at[row].set(count),
        None if record.params is None else record.params.at[row].set(params),
        row + 1,
    )


def _at_rest(value: Any, grad: Any) -> Any:
    gtol = tolerance(value.dtype)
    return optax.tree.norm(grad) <= gtol + gtol * jnp.abs(value)


def _adam(problem: Problem) -> Callable[..., _Record]:
    def solve(start, args, rate):
        value_and_grad = jax.value_and_grad(lambda p: problem.fn(p, *args))
        optimizer = optax.adam(rate)

        def going(carry):
            *_, record, done = carry
            return (record.length <= problem.adam_steps) & ~done

        def body(carry):
            params, state, record, _ = carry
            value, grad = value_and_grad(params)
            record = _write(record, value, grad, record.length + 1, params)
            updates, state = optimizer.update(grad, state, params)
            done = _at_rest(value, grad) | ~jnp.isfinite(value)
            return optax.apply_updates(params, updates), state, record, done

        record = _empty(problem, start, problem.adam_steps + 1)
        carry = (start, optimizer.init(start), record, jnp.array(False))
        return jax.lax.while_loop(going, body, carry)[2]

    return solve


def _lbfgs(problem: Problem) -> Callable[..., _Record]:
    """The loop of optax's documentation, with a record and its count of evaluations."""

    def solve(start, args):
        fn = lambda p: problem.fn(p, *args)
        value_and_grad = optax.value_and_grad_from_state(fn)
        optimizer = optax.lbfgs()

        def going(carry):
            _, state, record, stays = carry
            value, grad = optax.tree.get(state, "value"), optax.tree.get(state, "grad")
            rest = _at_rest(value, grad) & (record.length > 0)
            return (record.length <= problem.max_steps) & ~rest & (stays < 2)

        def body(carry):
            params, state, record, stays = carry
            value, grad = value_and_grad(params, state=state)
            first = _write(record, value, grad, 1, params)
            record = jax.tree.map(lambda a, b: jnp.where(record.length > 0, b, a), first, record)
            updates, state = optimizer.update(
                grad, state, params, value=value, grad=grad, value_fn=fn
            )
            new = optax.apply_updates(params, updates)
            stay = jnp.all(jnp.array(jax.tree.leaves(jax.tree.map(jnp.array_equal, new, params))))
            trials = optax.tree.get(state, "num_linesearch_steps")
            record = _write(
                record,
                optax.tree.get(state, "value"),
                optax.tree.get(state, "grad"),
                record.num_values[record.length - 1] + trials,
                new,
            )
            return new, state, record, jnp.where(stay, stays + 1, 0)

        record = _empty(problem, start, problem.max_steps + 1)
        carry = (start, optimizer.init(start), record, jnp.zeros((), jnp.int32))
        return jax.lax.while_loop(going, body, carry)[2]

    return solve


def _summed_up(
    method: str, record: _Record, max_steps: int, seconds: float, compile_seconds: float
) -> Run:
    rows = slice(int(record.length))
    value, grad_norm = np.asarray(record.value[rows]), np.asarray(record.grad_norm[rows])
    num_values, num_steps = int(record.num_values[rows][-1]), int(record.length) - 1
    gtol = tolerance(value.dtype)
    if not np.isfinite(value[-1]):
        status = "NOT_FINITE"
    elif grad_norm[-1] <= gtol + gtol * abs(value[-1]):
        status = Status.GRADIENT_TOL.name
    else:
        status = Status.MAX_STEPS.name if num_steps >= max_steps else "NO_PROGRESS"
    work = 3 * np.asarray(record.num_values[rows], float)
    path = None if record.params is None else np.asarray(record.params[rows])
    return Run(
        method=method,
        status=status,
        num_steps=num_steps,
        num_values=num_values,
        num_grads=num_values,
        num_products=0,
        seconds=seconds,
        compile_seconds=compile_seconds,
        value=float(value[-1]),
        grad_norm=float(grad_norm[-1]),
        trace=Trace(value.astype(float), grad_norm.astype(float), work, path),
    )


def _run_lbfgs(problem: Problem) -> Run:
    measured = _measured(_lbfgs(problem), problem.start, problem.args)
    return _summed_up("optax.lbfgs", measured[0], problem.max_steps, *measured[1:])


def _run_adam(problem: Problem) -> Run:
    """The best of RATES: least work if any comes to rest, else lowest value."""
    inputs = (problem.start, problem.args)
    begin = time.perf_counter()
    compiled = jax.jit(_adam(problem)).lower(*inputs, jnp.asarray(RATES[0])).compile()
    compile_seconds = time.perf_counter() - begin

    def tried(rate):
        record, seconds = _timed(compiled, *inputs, jnp.asarray(rate))
        name = f"optax.adam({rate:g})"
        return _summed_up(name, record, problem.adam_steps, seconds, compile_seconds)

    def rank(run):
        rested = run.status == Status.GRADIENT_TOL.name
        return (not rested, run.num_values if rested else np.nan_to_num(run.value, nan=np.inf))

    return min((tried(rate) for rate in RATES), key=rank)


def methods(problem: Problem) -> list[Method]:
    """What applies: dense methods to at most DENSE_LIMIT entries, the Krylov form beyond."""
    if problem.size <= DENSE_LIMIT:
        names = ("trust_region", "cubic_newton", "newton", "damped_newton", "saddle_free_newton")
        chosen = [_hesskit(name, getattr(hesskit, name)(), dense=True) for name in names]
    else:
        krylov = hesskit.saddle_free_newton(num_krylov=KRYLOV)
        chosen = [_hesskit("saddle_free_newton", krylov, dense=False)]
    newton_cg = _hesskit("newton_cg", hesskit.newton_cg(), dense=False)
    return [newton_cg, *chosen, _run_lbfgs, _run_adam]
