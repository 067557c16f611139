r"""An objective read for its Kronecker factors: one linearization, and passes back through it.

A pass back carries F u, with H = F F' the Hessian of the loss at the outputs and u random signs, to
the values that products with leaves give. Or it carries one column of u, the same entry of every
row of outputs: the sum over columns has the mean over signs, and no variance where an output
depends on no row but its own.

Source: Martens & Grosse (2015), section 5; Botev, Ritter & Barber (2017), ICML, section 3 (from
every column).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import pseudo_random, replay, tree
from hesskit.core.batched import Batched
from hesskit.core.blocks import Plan
from hesskit.core.structured import Outer, Structured
from hesskit.core.types import Array, Params
from hesskit.core.view import Loops
from hesskit.linalg import whitened

ESTIMATORS = ("sampled", "exact")
DRAWS = 16, 4
"""Of blocks that examples do not average: at first, and later, in means that remember few."""
STRIDE = 0x9E3779B9
"""Between the seeds of vectors of one mean: those of means that follow are one apart."""


class Passed(NamedTuple):
    """One pass back: values that enter products, and slopes by what comes out of them."""

    values: dict[int, Array]
    slopes: dict[int, Array]
    leaves: list[Array]  # slopes by leaves
    outputs: list[Array]  # slopes by outputs


class Reading(NamedTuple):
    """An objective at a point, from one linearization.

    Attributes:
      value: ().
      grad: like params.
      bend: `(v, w) -> v.Gw`, from two pushes forward.
      push: `v -> J v`.
      sampled: `(seed, column) -> Passed`, the slopes of one random vector F u, or of the part of it
        in one column, times the root of their number.
      num_columns: entries along the last axis of u, summed over the leaves of outputs.
    """

    value: Array
    grad: Params
    push: Callable[[Params], Any]
    bend: Callable[[Any, Any], Array]
    sampled: Callable[[Array, Array | None], Passed]
    num_columns: int


class Known(NamedTuple):
    """Value and gradient at a point; all else is read when it is asked for.

    Attributes:
      value: ().
      grad: like params.
      read: `seed -> Reading`, in a loop that runs only where it is needed.
    """

    value: Array
    grad: Params
    read: Callable[[Array], Reading]


def _marked(plan: Plan) -> tuple[tuple[int, ...], dict[int, Loops]]:
    """Numbers of values to keep, and of those whose slopes are wanted, with the loops around."""
    uses = [use for block in plan.blocks for use in block.uses]
    keep = {use.source for use in uses if use.inputs is not None}
    wanted = {use.output: use.loops for use in uses if use.slopes is not None}
    return tuple(sorted(keep)), wanted


def read(fn: Structured, params: Params, plan: Plan) -> Reading:
    """Value, gradient and what factors are made of, at a point.

    Args:
      fn: the objective.
      params: the point.
      plan: where leaves enter.

    Returns:
      A `Reading`.
    """
    keep, marked = _marked(plan)
    taps = {i: _zeros(plan.graph.types[i], loops) for i, loops in marked.items()}

    def through(given: tuple[dict[int, Array], Params]) -> tuple[Any, Any]:
        added, point = given
        return replay.run(plan.graph, point, added, keep)

    outputs, push, pull, values = whitened.linearized(through, (taps, params))
    ahead, back = lambda v: push((taps, v)), lambda u: pull(u)[1]
    if plan.graph.robbed:
        outputs, ahead, back, _ = whitened.linearized(fn.inner, params)
    outer, parts = fn.outer, int(isinstance(fn, Batched))
    value, slopes = jax.value_and_grad(outer.value)(outputs)

    def sampled(seed: Array, column: Array | None = None) -> Passed:
        tangent = _random(outer, outputs, seed, column, parts)
        by_value, by_leaf = pull(tangent)
        return Passed(values, by_value, jax.tree.leaves(by_leaf), jax.tree.leaves(tangent))

    return Reading(
        value=value,
        grad=back(slopes),
        push=ahead,
        bend=lambda v, w: tree.vdot(v, outer.hessian_product(outputs, w)),
        sampled=sampled,
        num_columns=sum(
            _width(u, parts)
            for u in jax.tree.leaves(jax.eval_shape(outer.whiten, outputs, outputs))
        ),
    )


def told(fn: Structured, params: Params, plan: Plan, value: Array, grad: Params) -> Known:
    """What the caller says of value and gradient, and a linearization for factors alone.

    Args:
      fn: the objective.
      params: the point.
      plan: where leaves enter.
      value: of the objective, ().
      grad: like params.

    Returns:
      A `Known`.
    """

    def late(seed: Array) -> Reading:
        # The seed of a loop's own keeps XLA from moving the linearization out of it.
        point, _ = jax.lax.optimization_barrier((params, seed))
        return read(fn, point, plan)

    return Known(value, grad, late)


def _width(u: Any, parts: int) -> int:
    """Entries of u along its last axis, where the others number parts of a batch and examples."""
    return u.shape[-1] if u.ndim > 1 + parts else 1


def _zeros(like: Any, loops: Loops) -> Array:
    """Zeros of a type at every step of loops, laid out as it says."""
    steps, sharding = [length for length, _ in loops], getattr(like, "sharding", None)
    zeros = jnp.zeros((*steps, *like.shape), like.dtype)
    if sharding is None or all(entry is None for entry in sharding.spec):
        return zeros
    spec = jax.P(*[None] * len(steps), *sharding.spec)
    return jax.sharding.reshard(zeros, jax.sharding.NamedSharding(sharding.mesh, spec))


def _random(outer: Outer, outputs: Any, seed: Array, column: Array | None, parts: int) -> Any:
    """F u, for u of random signs, or for its part in one column."""
    image, back = jax.vjp(lambda v: outer.whiten(outputs, v), tree.zeros_like(outputs))
    leaves, structure = jax.tree.flatten(pseudo_random.like(image, seed))
    signs = [jnp.where(u < 0, -1, 1).astype(u.dtype) for u in leaves]
    if column is not None:
        first, widths = 0, [_width(u, parts) for u in signs]
        for i, (u, width) in enumerate(zip(signs, widths, strict=True)):
            chosen = first + jnp.arange(width, dtype=column.dtype) == column
            last = u.ndim > 1 + parts
            chosen = chosen.reshape((1,) * (u.ndim - 1) + (width,)) if last else chosen[0]
            signs[i] = jnp.where(chosen, u * sum(widths) ** 0.5, 0)
            first += width
    return back(jax.tree.unflatten(structure, signs))[0]


def draws(plan: Plan, num: Array) -> Array | int:
    """How many random vectors a sample of the factors takes.

    Squares of slopes at products are summed over examples. Of a block that needs the slope by the
    whole leaf a pass shows a single draw: an entry may be next to nothing, and the step a leap.

    Args:
      plan: where leaves enter.
      num: samples in the means so far, ().

    Returns:
      1, or a number of `DRAWS`.
    """
    alone = any(block.is_whole for block in plan.blocks)
    return jnp.where(num == 0, *DRAWS) if alone else 1


def estimate(
    at: Reading,
    seed: Array,
    estimator: str,
    of_pass: Callable[[Passed], Any],
    *,
    num: Array | int = 1,
) -> Any:
    """What passes make of the curvature of the outputs.

    Args:
      at: the objective at a point.
      seed: of random signs, () uint32.
      estimator: "sampled"; or "exact", a pass for each column of the outputs, which leaves no
        chance where an output depends on the other columns of its own row alone.
      of_pass: `Passed -> pytree`.
      num: of random vectors, or of times that all columns are taken.

    Returns:
      The mean over passes of what `of_pass` gives.
    """
    columns = 1 if estimator == "sampled" else at.num_columns
    if isinstance(num, int) and num * columns == 1:
        return of_pass(at.sampled(seed, None))
    passes = jnp.asarray(num, jnp.int32) * columns

    def one(i: Array) -> Any:
        other = seed + (i // columns).astype(jnp.uint32) * jnp.uint32(STRIDE)
        return of_pass(at.sampled(other, None if columns == 1 else i % columns))

    total = tree.zeros_like(jax.eval_shape(one, jnp.zeros((), jnp.int32)))

    total = jax.lax.fori_loop(0, passes, lambda i, total: tree.add(total, one(i)), total)
    return jax.tree.map(lambda a: a / passes.astype(a.dtype), total)
