r"""Kronecker factors of the Gauss-Newton matrix of a model, found in the model itself.

Where a product with a leaf takes inputs x_t at N positions t to outputs of slopes g_t, and g_t are
slopes of the outputs' curvature H = F F' itself, those of F u for u random of variance 1,

    G  ~  R (x) C,    R = sum_t x_t x_t' / N,    C = sum_t E[g_t g_t']      (1)

with 1 as an entry more of x_t where a bias is added. Positions are those of examples, or of
examples and of what shares the weight: pixels, places in a sequence ("expand"); or x_t is their
mean and g_t their sum first ("reduce"). It is exact for one example at one position. A leaf in
several products has the sum, drawn together by traces; one in none has factors of its own slopes,

    G  ~  E[V V'] (x) E[V'V] / E[tr V'V],    V the slope by the leaf        (2)

Source: Martens & Grosse (2015), sections 2 and 3; Grosse & Martens (2016), section 3; Eschenhagen,
Immer, Turner, Schneider & Hennig (2023), "Kronecker-Factored Approximate Curvature for Modern
Neural Network Architectures", sections 3.1 and 3.2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import graph, layout, tree
from hesskit.core.blocks import Block, Plan
from hesskit.core.structured import Outer, Structured
from hesskit.core.types import Array, Params
from hesskit.core.uses import Use
from hesskit.linalg import whitened
from hesskit.linalg.kronecker import Slots, side_trace

SHARING = ("expand", "reduce")


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
      sampled: `seed -> Passed`, the slopes of one random vector F u.
    """

    value: Array
    grad: Params
    push: Callable[[Params], Any]
    bend: Callable[[Any, Any], Array]
    sampled: Callable[[Array], Passed]


def _marked(plan: Plan) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers of values to keep, and of those whose slopes are wanted."""
    uses = [use for block in plan.blocks for use in block.uses]
    keep = {use.source for use in uses if use.inputs is not None}
    wanted = {use.output for use in uses if use.slopes is not None}
    return tuple(sorted(keep)), tuple(sorted(wanted))


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
    taps = {i: _zeros(plan.graph.types[i]) for i in marked}

    def through(given: tuple[dict[int, Array], Params]) -> tuple[Any, Any]:
        added, point = given

        def change(number: int, x: Array) -> Array:
            return x + added[number] if number in added else x

        return graph.run(plan.graph, point, change, keep)

    outputs, push, pull, values = whitened.linearized(through, (taps, params))
    ahead, back = lambda v: push((taps, v)), lambda u: pull(u)[1]
    if plan.graph.robbed:
        outputs, ahead, back, _ = whitened.linearized(fn.inner, params)
    outer = fn.outer
    value, slopes = jax.value_and_grad(outer.value)(outputs)

    def sampled(seed: Array) -> Passed:
        tangent = _random(outer, outputs, seed)
        by_value, by_leaf = pull(tangent)
        return Passed(values, by_value, jax.tree.leaves(by_leaf), jax.tree.leaves(tangent))

    return Reading(
        value=value,
        grad=back(slopes),
        push=ahead,
        bend=lambda v, w: tree.vdot(v, outer.hessian_product(outputs, w)),
        sampled=sampled,
    )


def _zeros(like: Any) -> Array:
    """Zeros of a type, laid out as it says."""
    zeros, sharding = jnp.zeros(like.shape, like.dtype), getattr(like, "sharding", None)
    if sharding is None or all(entry is None for entry in sharding.spec):
        return zeros
    return jax.sharding.reshard(zeros, sharding)


def _random(outer: Outer, outputs: Any, seed: Array) -> Any:
    """F u, for u of random signs."""
    image, back = jax.vjp(lambda v: outer.whiten(outputs, v), tree.zeros_like(outputs))
    draws = tree.pseudo_random_like(image, seed)
    return back(jax.tree.map(lambda u: jnp.where(u < 0, -1, 1).astype(u.dtype), draws))[0]


def _gram(x: Array, full: bool) -> Array:
    """Sum over rows of x x', or its diagonal."""
    if not full:
        return jnp.sum(x * x, axis=0)
    return jax.lax.dot_general(
        x,
        x,
        (((0,), (0,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        out_sharding=layout.replicated(x, 2),
    )


def _more(gram: Array, row: Array | None, corner: Array) -> Array:
    """A Gram matrix, or its diagonal, with a row more."""
    if gram.ndim == 1:
        return jnp.concatenate([gram, corner[None]])
    row = jnp.zeros_like(gram[0]) if row is None else row
    top = jnp.concatenate([gram, row[:, None]], axis=1)
    return jnp.concatenate([top, jnp.concatenate([row, corner[None]])[None, :]])


def _looked_up(ids: Array, k: int, full: bool, dtype: Any) -> Array:
    """The Gram matrix of unit vectors."""
    counts = jnp.zeros((k,), dtype).at[ids.reshape(-1)].add(1, mode="drop")
    return jnp.diag(counts) if full else counts


def _positions(x: Array, sharing: str, last: int, mean: bool) -> Array:
    """(positions, entries), of `last` axes of entries, which may be none."""
    x = x if x.ndim > last else x[None]
    if sharing == "reduce" and last and x.ndim > 2:
        axes = tuple(range(1, x.ndim - 1))
        x = jnp.mean(x, axis=axes) if mean else jnp.sum(x, axis=axes)
    return x.reshape(-1, x.shape[-1]) if last else x.reshape(-1)


def _of_use(use: Use, block: Block, at: Passed, swapped: bool, sharing: str) -> tuple[Array, Array]:
    """R and C of one product, by (1)."""
    assert use.inputs is not None
    assert use.slopes is not None
    dtype = tree.widest(at.slopes[use.output].dtype)
    # What is looked up is one row at each position.
    sharing = "expand" if use.kind == "embedding" else sharing
    full = block.shape.dense[::-1] if swapped else block.shape.dense
    lengths = (block.shape.rows, block.shape.columns)
    g = _positions(use.slopes(at.slopes[use.output]).astype(dtype), sharing, 1, False)
    x = use.inputs(at.values[use.source])
    zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
    if use.kind == "embedding":
        x = _positions(x, sharing, 0, True)
        inner = _looked_up(x, lengths[int(swapped)], full[0], dtype) / x.shape[0]
        pair = _more(inner, None, zero), _more(_gram(g, full[1]), None, zero)
    else:
        x = _positions(x.astype(dtype), sharing, 1, True)
        row = None if block.bias is None else jnp.mean(x, axis=0)
        inner = _more(_gram(x, full[0]) / x.shape[0], row, zero if row is None else one)
        pair = inner, _more(_gram(g, full[1]), None, zero)
    return (pair[1], pair[0]) if swapped else pair


def _summed(pairs: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """R (x) C that stands for a sum of such, exact where one factor is common."""
    if len(pairs) == 1:
        return pairs[0]
    rows = sum((side_trace(c) * r for r, c in pairs), jnp.zeros_like(pairs[0][0]))
    columns, total = (
        sum(side_trace(r) * c for r, c in pairs),
        sum(side_trace(r) * side_trace(c) for r, c in pairs),
    )
    return rows, columns / jnp.where(total > 0, total, 1)


def statistics(plan: Plan, at: Passed, like: Slots, *, sharing: str) -> Slots:
    """The factors that one pass gives.

    Args:
      plan: where leaves enter.
      at: the pass.
      like: slots, for their dtypes.
      sharing: "expand" or "reduce".

    Returns:
      Slots.
    """
    made: list[Any] = list(like)
    for i, (block, slot) in enumerate(zip(plan.blocks, like, strict=True)):
        if block.kind == "kronecker":
            pairs = [
                _of_use(use, block, at, swapped, sharing)
                for use, swapped in zip(block.uses, block.swapped, strict=True)
            ]
            made[i] = (*_summed(pairs), _shift(block, at, slot[2]))
        elif block.kind == "sampled":
            made[i] = (*_by_slope(block, at.leaves[i]), jnp.zeros_like(slot[2]))
        elif block.kind == "diagonal":
            made[i] = _diagonal(block, at, i, slot.dtype).reshape(slot.shape)
    return tree.cast_like(tuple(made), like)


def _by_slope(block: Block, slope: Array) -> tuple[Array, Array]:
    """R and C by (2)."""
    v = tree.widen(slope).reshape(block.shape.rows, block.shape.columns)
    size, zero = jnp.sum(v * v), jnp.zeros((), v.dtype)
    rows, columns = _gram(v.T, block.shape.dense[0]), _gram(v, block.shape.dense[1])
    return _more(rows, None, zero), _more(columns / jnp.where(size > 0, size, 1), None, zero)


def _diagonal(block: Block, at: Passed, leaf: int, dtype: Any) -> Array:
    """The squares of slopes, summed over positions where they are known there."""
    if block.is_whole:
        own = tree.widen(at.leaves[leaf])
        return own * own
    total = jnp.zeros((), dtype)
    for use in block.uses:
        assert use.slopes is not None
        g = tree.widen(use.slopes(at.slopes[use.output]))
        if use.inputs is not None:
            g = g * tree.widen(use.inputs(at.values[use.source]))
        g = g.reshape(-1, g.shape[-1])
        total = total + jnp.sum(g * g, axis=0).astype(dtype)
    for j in block.alone:
        own = tree.widen(at.outputs[j]).reshape(-1)
        total = total + (own * own).astype(dtype)
    return jnp.broadcast_to(total, (block.shape.rows,))


def _shift(block: Block, at: Passed, like: Array) -> Array:
    """The curvature of a leaf that is an output itself, as a multiple of 1."""
    squares = [jnp.mean(tree.widen(at.outputs[j]) ** 2).astype(like.dtype) for j in block.alone]
    return sum(squares, jnp.zeros_like(like))
