r"""Where leaves of params enter a model: products, convolutions, look-ups, biases, scales.

A product with a leaf W, as a matrix of its first axes by its last, takes at each position t
(example, pixel, place in a sequence) an input x_t to an output s_t = x_t W. With g_t the slope of
the loss by s_t, the slope by W is

    sum_t  x_t g_t'                                                         (1)

and a `Use` says how to find x and g of an equation of the model (core/graph.py). A bias adds to
s_t, a scale multiplies it; what else happens to a leaf has no such form.

Source: Martens & Grosse (2015); Grosse & Martens (2016) for convolutions; Eschenhagen et al.
(2023) for positions.
"""

import collections
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core.graph import Graph, Node, every
from hesskit.core.types import Array
from hesskit.core.view import Loops, View, whole

MATRIX = ("dense", "conv", "embedding")


class Use(NamedTuple):
    """One place where a leaf enters.

    Attributes:
      leaf: its number.
      kind: "dense", "conv", "embedding", "bias", "scale" or "other".
      output: the number of the value s.
      source: the number of the value that x is made of, or that a bias is added to; -1 for none.
      taken: axes of the leaf over which x_t is summed.
      given: axes of the leaf along s_t.
      inputs: value -> x, (*positions, a); class numbers (*positions,) of an embedding.
      slopes: slope by the value s -> g, (*positions, b).
      features: axes of the value s along which b lies.
      bias: the use of the leaf that is added to s, or None.
      why: a few words.
      shape: of the leaf, or of a slice of it.
      loops: those around, as in `View`; `inputs` and `slopes` are those of one step.
    """

    leaf: int
    kind: str
    output: int
    source: int = -1
    taken: tuple[int, ...] = ()
    given: tuple[int, ...] = ()
    inputs: Callable[[Array], Array] | None = None
    slopes: Callable[[Array], Array] | None = None
    features: tuple[int, ...] = ()
    bias: Any = None
    why: str = ""
    shape: tuple[int, ...] = ()
    loops: Loops = ()

    @property
    def layers(self) -> int | None:
        """How many slices of the leaf there are; None where it is used whole."""
        own = [length for length, role in self.loops if role == "layers"]
        return math.prod(own) if own else None


def uses(graph: Graph) -> list[Use]:
    """Every place where a leaf enters, in the order of the equations.

    Args:
      graph: the model.

    Returns:
      A list of `Use`; a bias that is added to the output of a product is part of that use.
    """
    nodes, found = tuple(every(graph.nodes)), []
    for node in nodes:
        inside = () if node.body is None else node.body.inputs
        for place, number in enumerate(node.inputs):
            enters = bool(inside) and inside[place] in graph.views
            if number in graph.views and not enters and not graph.views.keys() >= {*node.outputs}:
                found.append(_use(graph, node, place, graph.views[number]))
        returned = () if node.body is None else node.body.outputs
        found += [_other(graph, n, "is returned by scan") for n in returned if n in graph.views]
    returned = [n for n in graph.outputs if n in graph.views and n not in graph.leaves]
    found += [_other(graph, n, "is returned") for n in returned]
    return _joined(found, graph)


def _other(graph: Graph, number: int, why: str) -> Use:
    """A use without a form, of a value that is a leaf rearranged."""
    seen = graph.views[number]
    return Use(seen.leaf, "other", number, why=why, shape=seen.shape, loops=seen.loops)


def _use(graph: Graph, node: Node, place: int, seen: View) -> Use:
    """What an equation does with a leaf."""
    makers = {
        "dot_general": _dense,
        "conv_general_dilated": _conv,
        "gather": _embedding,
        "add": _bias,
        "add_any": _bias,
        "sub": _bias,
        "mul": _scale,
    }
    made = None
    twice = [graph.views[i].leaf for i in node.inputs if i in graph.views].count(seen.leaf) > 1
    if node.name in makers and not twice:
        made = makers[node.name](graph, node, place, seen)
    if made is None:
        made = Use(seen.leaf, "other", node.outputs[0], why=f"enters {node.name}")
    return made._replace(shape=seen.shape, loops=seen.loops)


def _flat(x: Array, front: tuple[int, ...], back: tuple[int, ...]) -> Array:
    """`x` with the axes `back` behind, as one."""
    moved = jnp.transpose(x, (*front, *back))
    return moved.reshape(*moved.shape[: len(front)], math.prod(x.shape[i] for i in back))


def _dense(graph: Graph, node: Node, place: int, seen: View) -> Use | None:
    (contract, batch) = node.equation.params["dimension_numbers"]
    if batch[0] or not whole(seen, graph.shapes[node.inputs[place]]):
        return None
    source, mine, theirs = node.inputs[1 - place], contract[place], contract[1 - place]
    pairs = sorted(zip(mine, theirs, strict=True), key=lambda pair: seen.axes[pair[0]])
    back = tuple(j for _, j in pairs)
    front = tuple(j for j in range(len(graph.shapes[source])) if j not in theirs)
    own = [i for i in range(len(seen.axes)) if i not in mine]
    first = 0 if place == 0 else len(front)  # of the leaf's axes in the output
    order = sorted(range(len(own)), key=lambda i: seen.axes[own[i]])
    last = tuple(first + i for i in order)
    rest = tuple(i for i in range(len(front) + len(own)) if i not in last)
    return Use(
        seen.leaf,
        "dense",
        node.outputs[0],
        source,
        taken=tuple(a for i, _ in pairs for a in seen.axes[i]),
        given=tuple(a for i in order for a in seen.axes[own[i]]),
        inputs=lambda x: _flat(x, front, back),
        slopes=lambda g: _flat(g, rest, last),
        features=last,
    )


def _conv(graph: Graph, node: Node, place: int, seen: View) -> Use | None:
    given = node.equation.params
    numbers = given["dimension_numbers"]
    grouped = given["feature_group_count"] != 1 or given["batch_group_count"] != 1
    plain = all(len(axes) <= 1 for axes in seen.axes)
    if place != 1 or grouped or not plain or not whole(seen, graph.shapes[node.inputs[1]]):
        return None
    out, *inside = numbers.rhs_spec
    size = graph.shapes[node.inputs[1]]
    order = sorted(range(len(inside)), key=lambda i: seen.axes[inside[i]] or (inside[i],))
    spec = numbers._replace(out_spec=(0, len(size) - 1, *range(1, len(size) - 1)))

    def patches(x: Array) -> Array:
        """(batch, *space, a), a in the order of the leaf."""
        found = jax.lax.conv_general_dilated_patches(
            x,
            tuple(size[i] for i in inside[1:]),
            given["window_strides"],
            given["padding"],
            lhs_dilation=given["lhs_dilation"],
            rhs_dilation=given["rhs_dilation"],
            dimension_numbers=spec,
        )
        front = found.shape[:-1]
        found = found.reshape(*front, *(size[i] for i in inside))
        return _flat(found, tuple(range(len(front))), tuple(len(front) + i for i in order))

    batch, feature, *space = numbers.out_spec
    return Use(
        seen.leaf,
        "conv",
        node.outputs[0],
        node.inputs[0],
        taken=tuple(a for i in order for a in seen.axes[inside[i]]),
        given=seen.axes[out],
        inputs=patches,
        slopes=lambda g: jnp.transpose(g, (batch, *space, feature)),
        features=(feature,),
    )


def _embedding(graph: Graph, node: Node, place: int, seen: View) -> Use | None:
    given, shape = node.equation.params, graph.shapes[node.inputs[0]]
    numbers = given["dimension_numbers"]
    rows = (
        place == 0
        and len(shape) == 2
        and seen.axes == ((0,), (1,))
        and numbers.collapsed_slice_dims == (0,)
        and numbers.start_index_map == (0,)
        and tuple(given["slice_sizes"]) == (1, shape[1])
        and not numbers.operand_batching_dims
    )
    if not rows:
        return None
    last = numbers.offset_dims
    rest = tuple(i for i in range(len(graph.shapes[node.outputs[0]])) if i not in last)
    return Use(
        seen.leaf,
        "embedding",
        node.outputs[0],
        node.inputs[1],
        taken=(0,),
        given=(1,),
        inputs=lambda ids: ids[..., 0],
        slopes=lambda g: _flat(g, rest, last),
    )


def _along(graph: Graph, node: Node, seen: View) -> tuple[int, ...] | None:
    """Axes of the output along which the leaf lies, in its order; None where it is cut."""
    shape = graph.shapes[node.outputs[0]]
    last = sorted((i for i, axes in enumerate(seen.axes) if axes), key=lambda i: seen.axes[i])
    fits = math.prod(shape[i] for i in last) == math.prod(seen.shape)
    return tuple(last) if fits else None


def _spread(shape: tuple[int, ...], last: tuple[int, ...]) -> Callable[[Array], Array]:
    """A value that broadcasts to `shape` -> (*positions, entries of the leaf)."""
    rest = tuple(i for i in range(len(shape)) if i not in last)
    return lambda g: _flat(jnp.broadcast_to(g, shape), rest, last)


def _bias(graph: Graph, node: Node, place: int, seen: View) -> Use | None:
    last = _along(graph, node, seen)
    if last is None:
        return None
    slopes = _spread(graph.shapes[node.outputs[0]], last)
    source = -1 if node.name == "sub" else node.inputs[1 - place]
    return Use(seen.leaf, "bias", node.outputs[0], source, slopes=slopes, features=last)


def _scale(graph: Graph, node: Node, place: int, seen: View) -> Use | None:
    last = _along(graph, node, seen)
    if last is None:
        return None
    spread, source = _spread(graph.shapes[node.outputs[0]], last), node.inputs[1 - place]
    return Use(seen.leaf, "scale", node.outputs[0], source, inputs=spread, slopes=spread)


def _moved(
    node: Node, shape: tuple[int, ...], to: tuple[int, ...], axes: list[int]
) -> list[int] | None:
    """Where axes of a value, longer than 1, are after an equation; None where it mixes them."""
    if node.name == "transpose":
        permutation = node.equation.params["permutation"]
        return [permutation.index(i) for i in axes]
    if node.name not in ("convert_element_type", "copy", "reshape", "squeeze"):
        return None
    places = {(math.prod(to[:j]), n): j for j, n in enumerate(to) if n != 1}
    keys = [(math.prod(shape[:i]), shape[i]) for i in axes]
    return [places[key] for key in keys] if places.keys() >= {*keys} else None


def _reached(found: list[Use], graph: Graph, takers: dict[int, int]) -> dict[int, Any]:
    """Products by the number of their output, rearranged or not, with the axes of features."""
    reached: dict[int, Any] = {}
    for use in found:
        if use.kind in ("dense", "conv"):
            shape = graph.shapes[use.output]
            reached[use.output] = use, [i for i in use.features if shape[i] != 1]
    for node in every(graph.nodes):
        source = node.inputs[0] if node.inputs else -1
        if source in reached and takers[source] == 1:
            use, axes = reached[source]
            shapes = graph.shapes[source], graph.shapes[node.outputs[0]]
            moved = _moved(node, *shapes, axes)
            if moved is not None:
                reached[node.outputs[0]] = use, moved
    return reached


def _joined(found: list[Use], graph: Graph) -> list[Use]:
    """Uses with each bias in that of the product it is added to, if nothing else takes either."""
    numbers = list(graph.outputs)
    for node in every(graph.nodes):
        numbers += [*node.inputs, *(() if node.body is None else node.body.outputs)]
    takers, leaves = collections.Counter(numbers), collections.Counter(use.leaf for use in found)
    reached, pairs = _reached(found, graph, takers), {}
    for use in found:
        if use.kind != "bias" or use.source not in reached:
            continue
        product, axes = reached[use.source]
        same = axes == [i for i in use.features if graph.shapes[use.output][i] != 1]
        same &= use.loops == product.loops
        if same and leaves[use.leaf] == leaves[product.leaf] == takers[use.source] == 1:
            pairs[product.leaf] = use
    biases = [use.leaf for use in pairs.values()]
    return [use._replace(bias=pairs.get(use.leaf)) for use in found if use.leaf not in biases]
