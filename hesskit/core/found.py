"""What is ours inside any optax state, found by type: parameter trees may use any field name."""

from collections.abc import Callable
from typing import Any

import jax

from hesskit.core.method import INFO_FIELDS, State


def nodes(state: Any, wanted: Callable[[Any], bool]) -> list[Any]:
    """The outermost nodes of a pytree that are wanted."""
    return [node for node in jax.tree.leaves(state, is_leaf=wanted) if wanted(node)]


def is_state(node: Any) -> bool:
    """Whether `node` is the state of a machine."""
    return isinstance(node, State)


def is_info(node: Any) -> bool:
    """Whether `node` begins as every Info does."""
    fields = getattr(node, "_fields", ())
    return isinstance(node, tuple) and fields[: len(INFO_FIELDS)] == INFO_FIELDS
