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
from hesskit.core.method import is_small
from hesskit.core.status import Status
from hesskit.core.types import Array, Params
from hesskit.solvers import progress
from hesskit.solvers.driver import Driver, Point, Report
from hesskit.solvers.result import History


class Static(NamedTuple):
    """What the compiled program depends on."""

    value_fn: Callable[..., Any]
    optimizer: optax.GradientTransformation
    fixed: tuple[bool, ...]
    flat: bool  # a machine may run on one vector
    caller: str
    has_aux: bool
    check: str
    history: bool | str
    rows: int
    callback: Callable[..., Any] | None
    progress: bool
    many: bool = False  # on lanes of a vmap


class Limits(NamedTuple):
    """When to stop: `tolerance` is for |grad|. All (); 0 turns a test off."""

    tolerance: Array
    ftol: Array
    xtol: Array
    max_steps: Array


class Loop(NamedTuple):
    """The carry of the loop, and what is left at its end.

    `pending` is the status that waits for a look for negative curvature, 0 without one.
    """

    carry: Any
    report: Report
    status: Array
    pending: Array
    num_steps: Array
    num_values: Array
    num_grads: Array
    num_products: Array
    history: History | None


class End(NamedTuple):
    """What an answer needs of a loop that stopped; its fields are those of `Report` and `Loop`."""

    best: Point
    aux: Any
    at_rest: Array
    indefinite: Array
    at_floor: Array
    status: Array
    num_steps: Array
    num_values: Array
    num_grads: Array
    num_products: Array


def end(loop: Loop) -> End:
    """The end of a loop."""
    report = loop.report
    return End(
        best=report.best,
        aux=report.aux,
        at_rest=report.at_rest,
        indefinite=report.indefinite,
        at_floor=report.at_floor,
        status=loop.status,
        num_steps=loop.num_steps,
        num_values=loop.num_values,
        num_grads=loop.num_grads,
        num_products=loop.num_products,
    )


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


def _second_look(
    code: Array, report: Report, loop: Loop, limits: Limits, engine: Driver
) -> tuple[Array, Array]:
    """The status, and that which waits for a look at the curvature.

    A run may end by value, step or rounding on its way to a saddle. Where it would count as a
    success, a method that leaves saddles goes on if it knows negative curvature; one that knows it
    only where the gradient is zero looks first.

    Args:
      code: the status without a look.
      report: what was just found.
      loop: the loop before; if its `pending` is set, `report` is that of the look.
      limits: for the number of steps.
      engine: what looked.

    Returns:
      Both, () int32.
    """
    looked = loop.pending != Status.RUNNING
    by_test = (code == Status.VALUE_TOL) | (code == Status.STEP_TOL)
    small = report.at_rest | is_small(report.best.grad_norm, tree.coarsest_eps(report.best.params))
    onward = by_test & small & report.indefinite & (loop.num_steps < limits.max_steps)
    code = jnp.where(onward, Status.RUNNING, code)
    if not engine.looks:
        return code, loop.pending
    by_test |= code == Status.ROUNDOFF_LIMITED
    wanted = ~looked & by_test & (small | report.at_floor) & ~report.indefinite
    found = jnp.where(report.status == Status.GRADIENT_TOL, loop.pending, report.status)
    pending = jnp.where(wanted, code, Status.RUNNING)
    code = jnp.where(wanted, Status.RUNNING, jnp.where(looked, found, code))
    return code.astype(jnp.int32), pending.astype(jnp.int32)


def _watch(
    new: Loop,
    running: Array,
    static: Static,
    limits: Limits,
    present: Callable[[Params], Params],
) -> Array:
    """The status after the callback and the bar have seen the step."""
    report, status = new.report, new.status
    if static.callback is None and not static.progress:
        return status
    seen = progress.Progress(
        new.num_steps,
        report.now.value,
        report.now.grad_norm,
        report.step_norm,
        report.accepted,
        status,
        present(report.now.params),
    )
    stop = progress.show(
        seen,
        limits.max_steps,
        static.callback,
        bar=static.progress,
        running=running,
    )
    return jnp.where(stop & (status == Status.RUNNING), Status.USER_STOP, status)


def first(carry: Any, static: Static, empty: Report) -> Loop:
    """The loop before its first trip, which evaluates the start.

    Args:
      carry: where the driver begins.
      static: what the compiled program depends on.
      empty: a report of the right shapes.

    Returns:
      A `Loop`.
    """
    none = jnp.zeros((), jnp.int32)
    history = _empty_history(static, empty.now.params)
    return Loop(carry, empty, none, none, none - 1, none, none, none, history)


def trip(
    engine: Driver, static: Static, limits: Limits, present: Callable[[Params], Params]
) -> Callable[[Loop], Loop]:
    """One trip of the loop: one call site of `advance`.

    Args:
      engine: what advances.
      static: what the compiled program depends on.
      limits: when to stop.
      present: from the driver's real free parameters to the user's, for the callback.

    Returns:
      A function from the loop to the loop one step on.
    """
    looks = engine.leaves and static.check == "second_order"

    def body(loop: Loop) -> Loop:
        looking = loop.pending != Status.RUNNING  # no step: the last one stays what was done
        carry, report = engine.advance(loop.carry, looking)
        report = report._replace(
            step_norm=jnp.where(looking, loop.report.step_norm, report.step_norm),
            accepted=jnp.where(looking, loop.report.accepted, report.accepted),
            at_floor=jnp.where(looking, loop.report.at_floor, report.at_floor),
        )
        new = loop._replace(
            carry=tree.cast_like(carry, loop.carry),
            report=tree.cast_like(report, loop.report),
            num_steps=loop.num_steps + jnp.where(looking, 0, 1),
            num_values=loop.num_values + report.num_values,
            num_grads=loop.num_grads + report.num_grads,
            num_products=loop.num_products + report.num_products,
        )
        status, pending = _stop(report, loop.report, new, limits, static), loop.pending
        if looks:
            status, pending = _second_look(status, report, new, limits, engine)
        new = new._replace(status=status, pending=pending)
        status = _watch(new, loop.status == Status.RUNNING, static, limits, present)
        return new._replace(
            status=status.astype(jnp.int32), history=_record(loop.history, report, new)
        )

    return body


def run(
    engine: Driver,
    carry: Any,
    static: Static,
    limits: Limits,
    *,
    empty: Report,
    present: Callable[[Params], Params],
) -> Loop:
    """The whole loop; arguments as in `first` and `trip`."""
    return jax.lax.while_loop(
        lambda loop: loop.status == Status.RUNNING,
        trip(engine, static, limits, present),
        first(carry, static, empty),
    )
