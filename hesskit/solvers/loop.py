"""The loop of a solve: advance, record, decide whether to stop.

One `lax.while_loop` with one call site of the driver. Rules that belong to every method are
here: the user's tolerances, the step limit, the history, the callback.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hesskit.core import tree
from hesskit.core.status import Status
from hesskit.core.types import Array, Params
from hesskit.solvers import progress
from hesskit.solvers.driver import Driver, Report
from hesskit.solvers.result import History


class Static(NamedTuple):
    """What the compiled program depends on."""

    value_fn: Callable[..., Any]
    optimizer: optax.GradientTransformation
    fixed: tuple[bool, ...]
    has_aux: bool
    check: str
    history: bool | str
    rows: int
    callback: Callable[..., Any] | None
    progress: bool


class Limits(NamedTuple):
    """When to stop: `tolerance` (2,) as in `driver.Problem`, the rest (); 0 turns a test off."""

    tolerance: Array
    ftol: Array
    xtol: Array
    max_steps: Array


class Loop(NamedTuple):
    """The carry of the loop, and what is left at its end."""

    carry: Any
    report: Report
    status: Array
    num_steps: Array
    num_values: Array
    num_grads: Array
    num_products: Array
    history: History | None


def _record(history: History | None, report: Report, loop: Loop) -> History | None:
    if history is None:
        return None
    row = loop.num_steps
    now = report.now

    def put(column: Array, item: Array) -> Array:
        return column.at[row].set(item.astype(column.dtype))

    path = history.params
    if path is not None:
        path = jax.tree.map(put, path, now.params)
    return History(
        value=put(history.value, now.value),
        grad_norm=put(history.grad_norm, now.grad_norm),
        step_norm=put(history.step_norm, report.step_norm),
        accepted=put(history.accepted, report.accepted),
        num_values=put(history.num_values, loop.num_values),
        params=path,
        length=row + 1,
    )


def _empty_history(static: Static, params: Params) -> History | None:
    if not static.history:
        return None
    dtype, rows = tree.result_dtype(params), static.rows
    nan = jnp.full((rows,), jnp.nan, dtype)
    path = None
    if static.history == "params":
        path = jax.tree.map(lambda a: jnp.full((rows, *a.shape), jnp.nan, a.dtype), params)
    return History(
        value=nan,
        grad_norm=nan,
        step_norm=nan,
        accepted=jnp.zeros((rows,), bool),
        num_values=jnp.zeros((rows,), jnp.int32),
        params=path,
        length=jnp.zeros((), jnp.int32),
    )


def _stop(report: Report, last: Report, loop: Loop, limits: Limits, static: Static) -> Array:
    """The status after a step; the driver's own word comes first."""
    code = report.status
    size = tree.norm(report.now.params)
    change = jnp.abs(last.now.value - report.now.value)
    scale = jnp.maximum(jnp.abs(last.now.value), jnp.abs(report.now.value))
    moved = report.accepted & (loop.num_steps > 0)
    going = code == Status.RUNNING
    by_value = moved & (limits.ftol > 0) & (change <= limits.ftol * scale)
    by_step = moved & (limits.xtol > 0) & (report.step_norm <= limits.xtol * (size + limits.xtol))
    code = jnp.where(going & by_step, Status.STEP_TOL, code)
    code = jnp.where(going & by_value, Status.VALUE_TOL, code)
    if static.check == "first_order":
        code = jnp.where(report.at_rest, Status.GRADIENT_TOL, code)
    out = (code == Status.RUNNING) & (loop.num_steps >= limits.max_steps)
    return jnp.where(out, Status.MAX_STEPS, code).astype(jnp.int32)


def run(engine: Driver, carry: Any, static: Static, limits: Limits, params: Params) -> Loop:
    """The loop: one call site of `advance`; the first trip evaluates the start."""
    none = jnp.zeros((), jnp.int32)
    report = jax.tree.map(
        lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(lambda c: engine.advance(c)[1], carry)
    )
    first = Loop(carry, report, none, none - 1, none, none, none, _empty_history(static, params))

    def body(loop: Loop) -> Loop:
        carry, report = engine.advance(loop.carry)
        new = loop._replace(
            carry=tree.cast_like(carry, loop.carry),
            report=tree.cast_like(report, loop.report),
            num_steps=loop.num_steps + 1,
            num_values=loop.num_values + report.num_values,
            num_grads=loop.num_grads + report.num_grads,
            num_products=loop.num_products + report.num_products,
        )
        status = _stop(report, loop.report, new, limits, static)
        if static.callback is not None or static.progress:
            seen = progress.Progress(
                new.num_steps,
                *report.now[1:],
                report.step_norm,
                report.accepted,
                status,
                report.now.params,
            )
            stop = progress.show(seen, limits.max_steps, static.callback, bar=static.progress)
            status = jnp.where(stop & (status == 0), Status.USER_STOP, status)
        return new._replace(
            status=status.astype(jnp.int32), history=_record(loop.history, report, new)
        )

    return jax.lax.while_loop(lambda loop: loop.status == Status.RUNNING, body, first)
