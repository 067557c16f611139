"""The compiled solve behind the `_many` solvers: the machine of one problem on lanes (lanes.py)."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from hesskit.core import errors, layout
from hesskit.core.bounds import Bounds, parse
from hesskit.core.status import Status
from hesskit.core.types import Array, Params
from hesskit.solvers import lanes as queue
from hesskit.solvers import loop
from hesskit.solvers.batch import Batch
from hesskit.solvers.call import checked
from hesskit.solvers.devices import Place, on_each, place_of
from hesskit.solvers.implicit import attached, without_tangents
from hesskit.solvers.loop import Limits, Static
from hesskit.solvers.many_result import ManyResult
from hesskit.solvers.solve import answer, ready

LANES = 128, 256
"""Problems at once, least and most: few enough for a short end, when the queue is empty, and many
enough that starting the program's parts costs little (benchmarks/many.py)."""
CACHE = 2**16
"""Bytes that the data of all lanes may take: every pass over the residuals is as large."""


def _own_keys(carry: Any, index: Array) -> Any:
    """The carry with each key of `jax.random` in it made the problem's own."""

    def fold(leaf: Any) -> Any:
        leaf = errors.strong_array(leaf)
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.fold_in(leaf, index) if is_key and leaf.shape == () else leaf

    return jax.tree.map(fold, carry)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def solve_many(
    static: Static,
    count: int,
    place: Place | None,
    batch: Batch,
    limits: Limits,
    bounds: Bounds | None,
) -> ManyResult:
    """The compiled solves, cached on what is static and on shapes.

    Args:
      static: what the program depends on, of one problem.
      count: the number of lanes, of each device.
      place: how the problems lie over devices.
      batch: params, args and, if there are any, data by name.
      limits: when to stop.
      bounds: the box, like the params of one problem, or None.

    Returns:
      A `ManyResult`.
    """
    solves = functools.partial(_solves, static, count)
    return on_each(place, solves, batch, shared=(limits, bounds))


def _solves(
    static: Static,
    count: int,
    batch: Batch,
    split: Any,
    shared: tuple[Limits, Bounds | None],
    start: Any,
) -> ManyResult:
    """The solves of one device, whose first problem has the number `start`."""
    del split
    limits, bounds = shared

    def here(mine: Any) -> Any:
        params, args, *data = batch.whole(mine)
        return ready(static, params, args, data[0] if data else {}, limits, bounds)

    def first(mine: Any, index: Array) -> loop.Loop:
        solve = here(mine)
        carry = _own_keys(solve.engine.start(solve.point), start + index)
        return loop.first(carry, static, solve.blank)

    def step(mine: Any, state: loop.Loop) -> loop.Loop:
        solve = here(mine)
        return loop.trip(solve.engine, static, limits, solve.present)(state)

    task = queue.Task(first, step, lambda state: state.status == Status.RUNNING, loop.end)
    num = batch.num()
    ends = queue.run(task, batch.at, num=num, lanes=count)
    names: list[str] = []

    def finish(one: tuple[Any, loop.End]) -> dict[str, Any]:
        mine, end = one
        fields = answer(static, here(mine), end)
        names.append(fields.pop("method"))
        return fields

    def ended(index: Array) -> tuple[Any, loop.End]:
        return batch.at(index), jax.tree.map(lambda a: a[index], ends)

    fields = queue.mapped(finish, ended, num=num, lanes=count)
    return ManyResult(**fields, history=None, state=None, method=names[0])


@jax.jit
def problem(batch: Batch, index: Any) -> Any:
    """The data of one problem."""
    return batch.whole(jax.tree.map(lambda a: layout.gathered(a)[index], batch.mine))


def _is_outside(params: Params, box: Bounds) -> Array:
    """Whether an entry of params is beyond its bounds, () bool; NaN is not."""
    beyond = jax.tree.map(
        lambda x, low, high: jnp.any((x.real < low) | (x.real > high)), params, *box
    )
    return functools.reduce(operator.or_, jax.tree.leaves(beyond))


def _box(bounds: Any, batch: Batch) -> Bounds | None:
    """The bounds, after a look at every start."""
    if bounds is None:
        return None
    box = parse(bounds, problem(batch, 0)[0])
    leaves = jax.tree.leaves(batch.mine[0])
    if box is None or not leaves or isinstance(leaves[0], Tracer):
        return box
    outside = jax.vmap(lambda mine: _is_outside(batch.whole(mine)[0], box))(batch.mine)
    wrong = jax.device_get(outside)
    if wrong.any():
        index = int(wrong.argmax())
        try:
            parse(bounds, problem(batch, index)[0])
        except ValueError as error:
            raise ValueError(f"problem {index}: {error}") from error
    return box


def lanes_of(lanes: Any, batch: Batch) -> int:
    """The number of lanes that a user asked for, or the default for data of this size."""
    if lanes is None:
        each = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(batch.mine)) // batch.num()
        return max(LANES[0], min(LANES[1], CACHE // max(each, 1)))
    errors.check_count(lanes, name="lanes")
    return int(lanes)


def call_many(
    value_fn: Callable[..., Any],
    batch: Batch,
    optimizer: optax.GradientTransformation | None,
    *,
    lanes: Any,
    bounds: Any,
    **options: Any,
) -> ManyResult:
    """The checked call of a solver of many problems.

    Args:
      value_fn: the objective.
      batch: params, args and, if there are any, data by name.
      optimizer: any optax transformation, or None.
      lanes: how many problems at once, or None.
      bounds: the box of one problem.
      **options: as in `call.checked`.

    Returns:
      A `ManyResult`.
    """
    params, args, *_ = problem(batch, 0)
    here = checked(value_fn, params, optimizer, args=args, bounds=bounds, **options)
    box = _box(bounds, batch)
    run = functools.partial(
        solve_many, here.static._replace(many=True), lanes_of(lanes, batch), place_of(batch)
    )
    many, closes = without_tangents(run, batch, here.limits, box)
    if closes is None:
        return many

    def one(mine: Any, result: ManyResult) -> ManyResult:
        params, args, *data = batch.whole(mine)
        data = data[0] if data else {}
        return attached(here.static, result, params, args, data, box, closes=closes)

    return jax.vmap(one)(batch.mine, many)
