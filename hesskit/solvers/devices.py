"""Many problems over many devices: each works through the part of them that lies on it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.core import Tracer

from hesskit.core.types import Array
from hesskit.solvers.batch import Batch


class Place(NamedTuple):
    """How problems lie: split along these axes of a mesh."""

    mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh
    axes: Any


def place_of(batch: Batch) -> Place | None:
    """Where the problems lie, by the first leaf that is split along its axis of problems."""
    for leaf in jax.tree.leaves(batch.mine):
        for sharding in (getattr(jax.typeof(leaf), "sharding", None), _concrete(leaf)):
            if isinstance(sharding, jax.sharding.NamedSharding) and any(sharding.spec[:1]):
                return Place(sharding.mesh, sharding.spec[0])
    return None


def _concrete(leaf: Array) -> Any:
    return None if isinstance(leaf, Tracer) else getattr(leaf, "sharding", None)


def on_each(
    place: Place | None, fn: Callable[..., Any], batch: Batch, split: Any = (), shared: Any = ()
) -> Any:
    """`fn(batch, split, shared, start)` on each device, which hears nothing of the others.

    Args:
      place: how problems lie, or None for no more than one device's.
      fn: its answer has a leading axis of problems everywhere; `start` is the number of its first.
      batch: the problems.
      split: more data with a leading axis of problems.
      shared: data of all.

    Returns:
      The answers of all, laid out as the problems are.
    """
    if place is None:
        return fn(batch, split, shared, 0)

    def local(batch: Batch, split: Any, shared: Any) -> Any:
        return fn(batch, split, shared, jax.lax.axis_index(place.axes) * batch.num())

    mine, whole = jax.P(place.axes), jax.P()
    return jax.shard_map(
        local,
        mesh=place.mesh,
        in_specs=(Batch(mine, whole), mine, whole),
        out_specs=mine,
        check_vma=False,
    )(batch, split, shared)
