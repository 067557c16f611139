r"""Continuous batching: many tasks of unequal length on a few lanes of one compiled loop.

Each trip advances every lane by one step of its own task. When an eighth of the lanes have ended,
their records are written out and the next tasks of the queue begin there, so that no lane waits
for the slowest: with T steps in all, longest task t and L lanes,

    trips  <=  8 T / (7 L) + t                                              (1)

where a plain `vmap` makes t trips of all tasks. Records are written in the order in which tasks
ends, as whole blocks, and put into the order of the tasks at the end.

In the states the axis of lanes is the last one: the innermost loops of the program then run over
lanes, several at a time, where they would run over the few entries of one problem. In the data,
whose arrays are longer, it is the first one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array

IDLE = 8
"""One lane in this many may be idle before the queue is asked: asking costs part of a step."""


class Task(NamedTuple):
    """One task as pure functions; all are mapped over lanes.

    Attributes:
      first: `first(data, index) -> state`.
      step: `step(data, state) -> state`; it may be called on after the end, and is then not read.
      running: `running(state) -> ()`, bool, false at the end.
      record: `record(state) -> ` what is to be kept of the end.
    """

    first: Callable[[Any, Array], Any]
    step: Callable[[Any, Any], Any]
    running: Callable[[Any], Array]
    record: Callable[[Any], Any]


class _Lanes(NamedTuple):
    """The carry; `data` have a first axis of lanes, all but the last four others a last one."""

    index: Array  # which task
    alive: Array  # bool
    full: Array  # bool: has a task whose record is not written
    data: Any
    state: Any
    record: Any
    position: Array  # (), of the queue
    written: Array  # (), records
    order: Array  # (num + lanes,), the task of each record
    records: Any  # (num + lanes, ...)


def _each(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` of the data and another tree of every lane."""
    return jax.vmap(fn, in_axes=(0, -1), out_axes=-1)


def _of_each(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`fn` of every lane's state."""
    return jax.vmap(fn, in_axes=-1, out_axes=-1)


def _blank(task: Task, data: Any, num: int, lanes: int) -> _Lanes:
    """Lanes without tasks."""
    state = _each(task.first)(data, jnp.zeros((lanes,), jnp.int32))
    record = _of_each(task.record)(state)
    no, none = jnp.zeros((lanes,), bool), jnp.zeros((), jnp.int32)
    return _Lanes(
        index=jnp.zeros((lanes,), jnp.int32),
        alive=no,
        full=no,
        data=data,
        state=state,
        record=record,
        position=none,
        written=none,
        order=jnp.zeros((num + lanes,), jnp.int32),
        records=jax.tree.map(lambda a: jnp.zeros((num + lanes, *a.shape[:-1]), a.dtype), record),
    )


def _choose(flags: Array, yes: Any, no: Any) -> Any:
    """`yes` in the lanes of `flags`, else `no`."""

    def leaf(a: Array, b: Array) -> Array:
        return jnp.where(flags.reshape((1,) * (b.ndim - 1) + flags.shape), a.astype(b.dtype), b)

    return jax.tree.map(leaf, yes, no)


def _refill(task: Task, data_of: Callable[[Array], Any], num: int, lanes: _Lanes) -> _Lanes:
    """The next tasks of the queue in the lanes that are empty."""
    place = lanes.position + jnp.cumsum(~lanes.full, dtype=jnp.int32) - 1
    taken = ~lanes.full & (place < num)
    index = jnp.where(taken, place, lanes.index)
    data = jax.tree.map(
        lambda a, b: jnp.where(taken.reshape(taken.shape + (1,) * (a.ndim - 1)), a, b),
        data_of(index),
        lanes.data,
    )
    return lanes._replace(
        index=index,
        alive=lanes.alive | taken,
        full=lanes.full | taken,
        data=data,
        state=_choose(taken, _each(task.first)(data, index), lanes.state),
        position=lanes.position + jnp.sum(taken, dtype=jnp.int32),
    )


def _advance(task: Task, num: int, lanes: _Lanes) -> _Lanes:
    """Steps, until enough lanes have ended."""
    count = lanes.alive.shape[0]
    enough = jnp.where(lanes.position < num, count - max(1, count // IDLE), 0)

    def step(now: tuple[Any, Any, Array]) -> tuple[Any, Any, Array]:
        state, record, alive = now
        state = tree.cast_like(_each(task.step)(lanes.data, state), state)
        record = _choose(alive, _of_each(task.record)(state), record)
        return state, record, alive & _of_each(task.running)(state)

    state, record, alive = jax.lax.while_loop(
        lambda now: jnp.sum(now[2], dtype=jnp.int32) > enough,
        step,
        (lanes.state, lanes.record, lanes.alive),
    )
    return lanes._replace(state=state, record=record, alive=alive)


def _retire(lanes: _Lanes) -> _Lanes:
    """The records of lanes that ended, written out as one block; what follows it is overwritten."""
    ended = lanes.full & ~lanes.alive
    front = jnp.argsort(~ended, stable=True)

    def put(rows: Array, block: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(
            rows, jnp.moveaxis(block, -1, 0)[front], lanes.written, 0
        )

    return lanes._replace(
        full=lanes.full & ~ended,
        written=lanes.written + jnp.sum(ended, dtype=jnp.int32),
        order=put(lanes.order, lanes.index),
        records=jax.tree.map(put, lanes.records, lanes.record),
    )


def run(task: Task, data_of: Callable[[Array], Any], *, num: int, lanes: int) -> Any:
    """The records of `num` tasks.

    Args:
      task: what to do.
      data_of: `data_of(index) -> ` the data of the tasks of these numbers, with a leading axis.
      num: how many tasks, at least 1.
      lanes: how many at once.

    Returns:
      The records, with a leading axis of tasks.
    """
    lanes = min(lanes, num)
    first = _blank(task, data_of(jnp.zeros((lanes,), jnp.int32)), num, lanes)

    def body(now: _Lanes) -> _Lanes:
        return _retire(_advance(task, num, _refill(task, data_of, num, now)))

    last = jax.lax.while_loop(lambda now: now.written < num, body, first)
    slots = jnp.arange(num, dtype=jnp.int32)
    places = jnp.zeros((num,), jnp.int32).at[last.order[:num]].set(slots, unique_indices=True)
    return jax.tree.map(lambda rows: rows[places], last.records)


def mapped(fn: Callable[[Any], Any], data_of: Callable[[Array], Any], *, num: int, lanes: int):
    """`fn` of each task's data, some lanes at a time.

    Args:
      fn: of one task.
      data_of: as in `run`.
      num: how many tasks.
      lanes: how many at once.

    Returns:
      What `fn` returns, with a leading axis of tasks.
    """
    lanes = min(lanes, num)
    blocks = -(-num // lanes)
    index = jnp.minimum(jnp.arange(blocks * lanes, dtype=jnp.int32), num - 1)
    if blocks == 1:
        return jax.vmap(fn)(data_of(index))
    out = jax.lax.map(lambda i: jax.vmap(fn)(data_of(i)), index.reshape(blocks, lanes))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:num], out)
