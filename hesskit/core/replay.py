"""A list of equations run again, with additions on the way (core/graph.py makes the list)."""

from collections.abc import Collection
from typing import Any

import jax
import jax.extend.core as jex

from hesskit.core import loop
from hesskit.core.graph import Body, Graph, Node, every
from hesskit.core.types import Array, Params


def _run(equation: Any, given: list[Any]) -> list[Any]:
    """One equation, by its own rules."""
    free = [v for v in equation.invars if not isinstance(v, jex.Literal)]
    values = [
        x for v, x in zip(equation.invars, given, strict=True) if not isinstance(v, jex.Literal)
    ]
    names = ("",) * len(free), ("",) * len(equation.outvars)
    info = jex.DebugInfo("jit", equation.primitive.name, *names)
    alone = jex.Jaxpr((), free, equation.outvars, [equation], equation.effects, info)
    return list(jex.jaxpr_as_fun(jex.ClosedJaxpr(alone, ()))(*values))


def run(
    graph: Graph,
    params: Params,
    added: dict[int, Array],
    keep: Collection[int],
) -> tuple[Any, dict[int, Any]]:
    """What the function returns, with something added to some values on the way.

    Args:
      graph: the function.
      params: as it was traced with.
      added: what is added to outputs of equations, by number; in a loop with an axis of steps in
        front.
      keep: numbers of values to hand out, likewise.

    Returns:
      What the function returns, and the values to keep, by number.
    """
    values = dict(graph.constants)
    values |= dict(zip(graph.leaves, jax.tree.leaves(params), strict=True))
    _walk(graph.nodes, values, added, keep)
    outputs = jax.tree.unflatten(graph.structure, [values[i] for i in graph.outputs])
    return outputs, {number: values[number] for number in keep}


def _walk(
    nodes: tuple[Node, ...], values: dict[int, Any], added: dict[int, Array], keep: Collection[int]
) -> None:
    """Writes what nodes make to `values`."""
    for node in nodes:
        given = [values[i] for i in node.inputs]
        if node.body is None:
            found = _run(node.equation, given)
        else:
            found, kept = _steps(node, node.body, given, values, added, keep)
            values |= kept
        for number, value in zip(node.outputs, found, strict=True):
            values[number] = value + added[number] if number in added else value


def _steps(
    node: Node,
    body: Body,
    given: list[Any],
    values: dict[int, Any],
    added: dict[int, Array],
    keep: Collection[int],
) -> tuple[list[Any], dict[int, Any]]:
    """The outputs of a loop, and values to keep of all its steps."""
    inside = {*body.inputs}
    for inner in every(body.nodes):
        inside |= {*inner.inputs, *inner.outputs}
    mine = {i: a for i, a in added.items() if i in inside}
    wanted = sorted(inside.intersection(keep))

    def step(state: list[Any], slices: tuple[list[Any], dict[int, Array]]) -> tuple[Any, ...]:
        inputs, taps = slices
        here = values | dict(zip(body.inputs, [*state, *inputs], strict=True))
        _walk(body.nodes, here, taps, wanted)
        return [here[i] for i in body.outputs], {i: here[i] for i in wanted}

    again = jax.checkpoint(step, prevent_cse=False) if body.remat else step
    return loop.scan(node.equation, again, given, mine)
