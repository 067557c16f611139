"""The peers of the demo, in the loops of optax's own documentation.

`optax.lbfgs` recycles value and gradient from its state (`value_and_grad_from_state`), so that its
evaluations are the first one and the trials of its line search, which its state counts. Both stop
by hesskit's default rule, |grad| <= gtol (1 + |value|) with gtol = eps^(2/3). Below the rounding of
the value, where hesskit says ROUNDOFF_LIMITED, optax.lbfgs can stand still: it is stopped when two
steps in a row leave the parameters as they were (NO_PROGRESS).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _demo_problems import Problem
from _demo_runs import Run, Trace, compile_program, measured, timed, tolerance

from hesskit.core.status import Status

RATES = (1e-3, 1e-2, 1e-1)


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
        record.num_values.at[row].set(jnp.asarray(count, jnp.int32)),
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


def lbfgs(problem: Problem) -> Run:
    """optax.lbfgs as it comes."""
    record, *seconds = measured(_lbfgs(problem), problem.start, problem.args)
    return _summed_up("optax.lbfgs", record, problem.max_steps, *seconds)


def adam(problem: Problem) -> Run:
    """optax.adam at the best of RATES: least work if any comes to rest, else lowest value."""
    inputs = (problem.start, problem.args)
    compiled, compile_seconds = compile_program(_adam(problem), *inputs, jnp.asarray(RATES[0]))

    def summed_up(rate, record, seconds=0.0):
        name = f"optax.adam({rate:g})"
        return _summed_up(name, record, problem.adam_steps, seconds, compile_seconds)

    def rank(rate):
        run = summed_up(rate, compiled(*inputs, jnp.asarray(rate)))
        rested = run.status == Status.GRADIENT_TOL.name
        return (not rested, run.num_values if rested else np.nan_to_num(run.value, nan=np.inf))

    best = min(RATES, key=rank)
    return summed_up(best, *timed(compiled, *inputs, jnp.asarray(best)))
