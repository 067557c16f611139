"""A `scan` of a jaxpr, run again with a body of another make.

What is constant, carried or sliced is told by shapes: the parameters of the equation that count
them have other names in other versions of JAX.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core.types import Array
from hesskit.core.view import Loops


class Counts(NamedTuple):
    """The layout of a scan.

    Attributes:
      length: the number of steps.
      entry: for each input, whether it is sliced; None where it is carried.
    """

    length: int
    entry: tuple[bool | None, ...]


def counts(equation: Any) -> Counts:
    """What each input of a scan is."""
    inner = equation.params["jaxpr"].jaxpr
    pairs = zip(equation.invars, inner.invars, strict=True)
    sliced = [outer.aval.ndim > one.aval.ndim for outer, one in pairs]
    pairs = zip(equation.outvars, inner.outvars, strict=True)
    carried = sum(outer.aval.ndim == one.aval.ndim for outer, one in pairs)
    end = sliced.count(False)
    return Counts(
        length=equation.params["length"],
        entry=(*[False] * (end - carried), *[None] * carried, *[True] * sliced.count(True)),
    )


def scan(
    equation: Any,
    step: Callable[[list[Any], tuple[list[Any], Any]], tuple[list[Any], Any]],
    given: list[Any],
    more: Any,
) -> tuple[list[Any], Any]:
    """A scan with another body.

    Args:
      equation: the scan.
      step: `(constants and carry, (slices, slices of more)) -> (carry and outputs, another)`.
      given: its inputs.
      more: arrays to slice besides.

    Returns:
      Its outputs, and what `step` returns besides, stacked.
    """
    entry, told = counts(equation).entry, equation.params
    begin, end = entry.count(False), len(entry) - entry.count(True)

    def body(carry: list[Any], slices: tuple[list[Any], Any]) -> tuple[list[Any], Any]:
        found, another = step([*given[:begin], *carry], slices)
        return found[: end - begin], (found[end - begin :], another)

    carry, (outputs, another) = jax.lax.scan(
        body,
        given[begin:end],
        (given[end:], more),
        length=told["length"],
        reverse=told["reverse"],
        unroll=told["unroll"],
    )
    return [*carry, *outputs], another


def by_layer(fn: Callable[[Array], Array], loops: Loops, last: int) -> Callable[[Array], Array]:
    """A function of a value at one step, as one of that value at all steps of the loops around.

    Args:
      fn: `value -> (*positions, *entries)`.
      loops: those around.
      last: the number of axes of entries.

    Returns:
      `values -> (layers, *positions, *entries)`, without the first axis where no loop has layers.
      The first axis of positions is that of examples, which may lie on devices: parts are more of
      these, behind; steps are positions behind.
    """
    k = len(loops)
    layers, parts, steps = (
        [i for i, (_, role) in enumerate(loops) if role == kind]
        for kind in ("layers", "parts", "steps")
    )

    def call(values: Array) -> Array:
        each = fn
        for _ in loops:
            each = jax.vmap(each)
        found = each(values)
        if parts or steps:
            one = found if found.ndim > k + last else jnp.expand_dims(found, k)
            found = one.transpose(*layers, k, *parts, *steps, *range(k + 1, one.ndim))
        front = (-1,) if layers else ()
        shape = found.shape[len(layers) :]
        if parts:
            shape = (math.prod(shape[: len(parts) + 1]), *shape[len(parts) + 1 :])
        return found.reshape(*front, *shape)

    return call
