r"""A function of params as a flat list of equations, to be read.

`jax.make_jaxpr` writes a function as equations, with calls inside calls. Here calls that a leaf of
params enters as it is (or reshaped, transposed, cast) are written out, so that every place where a
leaf meets an operation stands in one list. All other calls stay closed and keep what belongs to
them: their compilation, their rules of differentiation. A call with a rule of its own
(`custom_jvp`, `custom_vjp`) is opened only where a leaf enters a product inside. A `scan` that a
leaf enters, by slices or whole, stays a loop of which the body is a list as well.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex

from hesskit.core import loop, view
from hesskit.core.types import Params
from hesskit.core.view import View

REMAT = {"checkpoint", "remat", "remat2"}
OPEN = {"jit", "pjit", "closed_call", "core_call"} | REMAT
"""Calls without a rule of their own."""
RULED = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
"""Calls that opening would rob of their rule."""
PRODUCTS = {"dot_general", "conv_general_dilated", "gather"}


class Body(NamedTuple):
    """What a loop does at each step, with numbers of its own.

    `remat` says that values inside a step are to be found again rather than kept.
    """

    nodes: tuple["Node", ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    remat: bool = False


class Node(NamedTuple):
    """An equation whose values are numbers in place of variables; of a loop written out, a body."""

    equation: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    body: Body | None = None

    @property
    def name(self) -> str:
        """The primitive's."""
        return self.equation.primitive.name


class Graph(NamedTuple):
    """Equations in order.

    Attributes:
      nodes: those that outputs need.
      constants: values known beforehand, by number.
      views: values that are a leaf rearranged, by number.
      shapes: of every value, by number; in a body, at one step.
      types: likewise, with dtype and layout.
      leaves: the numbers of the leaves of params.
      outputs: the numbers of the leaves of what the function returns.
      structure: of what it returns.
      robbed: whether a call with a rule of its own was written out: derivatives of the list are
        not those of the function.
    """

    nodes: tuple[Node, ...]
    constants: dict[int, Any]
    views: dict[int, View]
    shapes: dict[int, tuple[int, ...]]
    types: dict[int, Any]
    leaves: tuple[int, ...]
    outputs: tuple[int, ...]
    structure: Any
    robbed: bool


def trace(fn: Callable[[Params], Any], params: Params) -> Graph:
    """The equations of `fn` at the shapes of `params`.

    Args:
      fn: a function of params.
      params: a pytree of arrays.

    Returns:
      A `Graph`.

    Example:
      >>> import jax.numpy as jnp
      >>> found = trace(lambda p: jnp.tanh(p[0] @ p[1]), (jnp.ones((3, 2)), jnp.ones(2)))
      >>> print([node.name for node in found.nodes])
      ['dot_general', 'tanh']
    """
    closed, shape = jax.make_jaxpr(fn, return_shape=True)(params)
    writer = _Writer()
    leaves = tuple(writer.new(v.aval) for v in closed.jaxpr.invars)
    for i, number in enumerate(leaves):
        writer.views[number] = view.of_leaf(i, writer.shapes[number])
    outputs = writer.write(closed, leaves)
    return Graph(
        nodes=_needed(writer.nodes, outputs),
        constants=writer.constants,
        views=writer.views,
        shapes=writer.shapes,
        types=writer.types,
        leaves=leaves,
        outputs=outputs,
        structure=jax.tree.structure(shape),
        robbed=writer.robbed,
    )


def every(nodes: tuple[Node, ...]) -> Iterator[Node]:
    """All nodes, each before those of its body."""
    for node in nodes:
        yield node
        if node.body is not None:
            yield from every(node.body.nodes)


def _inside(equation: Any) -> Any:
    """The closed jaxpr of a call."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        found = equation.params.get(name)
        if isinstance(found, jex.ClosedJaxpr):
            return found
        if isinstance(found, jex.Jaxpr):
            return jex.ClosedJaxpr(found, ())
    return None


def _remats(jaxpr: Any) -> bool:
    """Whether a call that is written out asks for values to be found again."""
    return any(
        equation.primitive.name in REMAT
        or (equation.primitive.name in OPEN and _remats(_inside(equation).jaxpr))
        for equation in jaxpr.eqns
    )


class _Writer:
    """Writes jaxprs out, one value after another."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[int, Any] = {}
        self.views: dict[int, View] = {}
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.types: dict[int, Any] = {}
        self.robbed = False

    def new(self, like: Any) -> int:
        number = len(self.shapes)
        self.shapes[number] = tuple(getattr(like, "shape", ()))
        self.types[number] = like
        return number

    def constant(self, item: Any) -> int:
        number = self.new(item)
        self.constants[number] = item
        return number

    def write(self, closed: Any, inputs: tuple[int, ...]) -> tuple[int, ...]:
        """Adds the equations of a jaxpr at these inputs; the numbers of its outputs."""
        jaxpr = closed.jaxpr
        known = dict(zip(jaxpr.invars, inputs, strict=True))
        known |= {v: self.constant(c) for v, c in zip(jaxpr.constvars, closed.consts, strict=True)}

        def read(item: Any) -> int:
            return self.constant(item.val) if isinstance(item, jex.Literal) else known[item]

        for equation in jaxpr.eqns:
            numbers = tuple(read(v) for v in equation.invars)
            found = self._call(equation, numbers)
            if found is None:
                found = tuple(self.new(v.aval) for v in equation.outvars)
                self._see(equation, numbers, found)
                self.nodes.append(Node(equation, numbers, found, self._body(equation, numbers)))
            known |= dict(zip(equation.outvars, found, strict=True))
        return tuple(read(v) for v in jaxpr.outvars)

    def _call(self, equation: Any, inputs: tuple[int, ...]) -> tuple[int, ...] | None:
        """The outputs of a call that is written out, or None."""
        name, inner = equation.primitive.name, _inside(equation)
        if inner is None or not any(i in self.views for i in inputs):
            return None
        if name in RULED:
            if not self._enters(inner, inputs):
                return None
            self.robbed = True
            return self.write(inner, inputs)
        return self.write(inner, inputs) if name in OPEN else None

    def _enters(self, inner: Any, inputs: tuple[int, ...]) -> bool:
        """Whether a leaf enters a product in a call."""
        probe = _Writer()
        numbers = tuple(probe.new(v.aval) for v in inner.jaxpr.invars)
        probe.views = {
            n: self.views[i] for n, i in zip(numbers, inputs, strict=True) if i in self.views
        }
        probe.write(inner, numbers)
        return any(
            node.name in PRODUCTS and any(i in probe.views for i in node.inputs)
            for node in every(tuple(probe.nodes))
        )

    def _body(self, equation: Any, inputs: tuple[int, ...]) -> Body | None:
        """The body of a loop that a leaf enters, or None."""
        if equation.primitive.name != "scan":
            return None
        inner, counts = _inside(equation), loop.counts(equation)
        carries = None in counts.entry
        entering = [
            view.at_step(self.views[number], counts.length, sliced=sliced, carries=carries)
            if number in self.views and sliced is not None
            else None
            for number, sliced in zip(inputs, counts.entry, strict=True)
        ]
        if all(seen is None for seen in entering):
            return None
        numbers = tuple(self.new(v.aval) for v in inner.jaxpr.invars)
        self.views |= {n: seen for n, seen in zip(numbers, entering, strict=True) if seen}
        outside, self.nodes = self.nodes, []
        outputs = self.write(inner, numbers)
        nodes, self.nodes = self.nodes, outside
        return Body(_needed(nodes, outputs), numbers, outputs, _remats(inner.jaxpr))

    def _see(self, equation: Any, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        """Notes whether the output is a leaf rearranged."""
        if len(outputs) == 1 and inputs and inputs[0] in self.views:
            seen = view.moved(self.views[inputs[0]], equation, self.shapes[outputs[0]])
            if seen is not None:
                self.views[outputs[0]] = seen


def _needed(nodes: list[Node], outputs: tuple[int, ...]) -> tuple[Node, ...]:
    """The nodes that lead to outputs."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return tuple(reversed(kept))
