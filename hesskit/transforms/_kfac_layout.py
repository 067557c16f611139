"""How the state of K-FAC is laid out: by the shapes of leaves, or by an objective read beforehand.

From its shape nobody tells layers stacked for a `scan` from a kernel, nor whether a bias joins a
weight. With an objective and shapes of its data the model is read before the first state is made.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from hesskit.core import blocks, errors, objective
from hesskit.core.blocks import Shape
from hesskit.core.penalty import l2
from hesskit.core.structured import Structured
from hesskit.core.types import Params
from hesskit.linalg import kronecker as factors
from hesskit.linalg import whitened
from hesskit.linalg.slots import empty_slots, from_trees
from hesskit.transforms._kfac_renewal import Options


@dataclasses.dataclass(frozen=True)
class Example:
    """Data of which arrays are shapes alone, so that equal data are equal arguments."""

    structure: Any
    leaves: tuple[Any, ...]


def by_shapes(factory: Callable[..., Any]) -> Callable[..., Any]:
    """A factory whose `example` arrives as an `Example`, which can be hashed.

    Args:
      factory: takes `example` by name.

    Returns:
      The same factory for arrays in `example`.
    """

    def shape_of(leaf: Any) -> Any:
        if not hasattr(leaf, "dtype"):
            return leaf
        weak = getattr(leaf, "weak_type", False)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=weak)

    @functools.wraps(factory)
    def call(*args: Any, **kwargs: Any) -> Any:
        example = kwargs.get("example")
        if example is not None:
            errors.check_data(example, name="example")
            leaves, structure = jax.tree.flatten(example)
            kwargs["example"] = Example(structure, tuple(map(shape_of, leaves)))
        return factory(*args, **kwargs)

    return call


def check(options: Options) -> None:
    """Raises unless an example comes with an objective that can be called."""
    if options.objective is not None:
        errors.check_callable(options.objective, name="objective")
    elif options.example is not None:
        raise ValueError(
            f"example is data of an objective: pass {options.name}(objective=, example=)"
        )


def plan(options: Options, fn: Any, point: Params) -> blocks.Plan:
    """The blocks of an objective; TypeError where it has no structure."""
    if not isinstance(fn, Structured):
        raise TypeError(whitened.plain(options.name, of_model=True))
    return blocks.plan(
        lambda p: fn.inner(p)[0],
        point,
        max_dim=options.max_factor_dim,
        shared=options.shared,
        fixed=options.objective is None,
    )


def layout(options: Options, point: Params, params: Params) -> tuple[Shape, ...]:
    """The shapes of blocks in the state.

    Args:
      options: those of the factory.
      point: real params.
      params: the user's.

    Returns:
      A `Shape` for each leaf of `point`.
    """
    # optax.tree.map_params asks for the state of a tree without leaves.
    if options.objective is None or not jax.tree.leaves(params):
        return factors.shapes(point, options.max_factor_dim)
    value_fn = options.objective
    if options.weight_decay is not None:
        value_fn = value_fn + l2(options.weight_decay)
    leaves = () if options.example is None else options.example.leaves
    arrays = {i: leaf for i, leaf in enumerate(leaves) if hasattr(leaf, "dtype")}
    found = []

    def read(params: Params, arrays: dict[int, Any]) -> None:
        data: Any = ()
        if options.example is not None:
            known = [arrays.get(i, leaf) for i, leaf in enumerate(leaves)]
            data = jax.tree.unflatten(options.example.structure, known)
        fn, real = objective.real(value_fn, params, args=data, caller=options.name)
        found.append(tuple(block.shape for block in plan(options, fn, real).blocks))

    jax.eval_shape(read, params, arrays)
    return found[0]


def check_fit(options: Options, found: blocks.Plan, point: Params, slots: Any) -> None:
    """Raises ValueError where an objective has blocks of other shapes than the state.

    Args:
      options: those of the factory.
      found: the objective's.
      point: real params.
      slots: of the state.

    Raises:
      ValueError: with the path of the first such leaf.
    """
    shapes = tuple(block.shape for block in found.blocks)
    held = from_trees(slots, jax.tree.structure(point))
    wanted = jax.eval_shape(lambda p: empty_slots(p, shapes), point)
    for block, here, there in zip(found.blocks, wanted, held, strict=True):
        told = [
            ", ".join("x".join(map(str, a.shape)) or "()" for a in jax.tree.leaves(slot))
            for slot in (here, there)
        ]
        if told[0] != told[1]:
            raise ValueError(
                f"{options.name}.update got an objective that does not fit its state: in it "
                f"params{block.path} has factors {told[0]} ({block.why}), in the state {told[1]}. "
                "Pass this objective and its data as objective= and example="
            )
