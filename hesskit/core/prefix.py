"""Prefix trees of numbers: one number for a whole subtree, or one for each leaf or entry."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core import errors
from hesskit.core.types import Array


def spread(prefix: Any, like: Any, *, name: str, of: str = "") -> Any:
    """A prefix tree as a full one: each leaf of it at every leaf of `like` below.

    Args:
      prefix: a prefix tree of `like`.
      like: any pytree.
      name: the argument's name, for messages.
      of: what `like` is called there; "" shows it.

    Returns:
      A tree with the structure of `like`; entries are those of `prefix`, of any shape.

    Raises:
      ValueError: the tree does not fit.
    """
    try:
        return jax.tree.map(lambda item, sub: jax.tree.map(lambda _: item, sub), prefix, like)
    except ValueError as error:
        where = misfit(prefix, like, name=name, of=of)
        raise ValueError(
            f"{name} is no prefix of {of or errors.describe(like)}: {where}"
        ) from error


def misfit(prefix: Any, like: Any, *, name: str, of: str) -> str:
    """Where a tree that is no prefix of `like` departs from it, in words."""
    heads = [path for path, _ in jax.tree_util.tree_leaves_with_path(prefix)]
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(like)]
    missing = [p for p in paths if not any(p[: len(head)] == head for head in heads)]
    extra = [head for head in heads if not any(p[: len(head)] == head for p in paths)]
    keystr = jax.tree_util.keystr
    words = [f"nothing in it is for {of}{keystr(missing[0])}"] if missing else []
    words += [f"{name}{keystr(extra[0])} has no counterpart"] if extra else []
    return "; ".join(words) or f"their containers differ, here {jax.tree.structure(prefix)}"


def fill(prefix: Any, like: Any, *, name: str) -> Any:
    """A prefix tree of numbers and arrays as a full tree of arrays.

    Args:
      prefix: a prefix tree of `like`; a leaf of it goes to every leaf below, where it is either a
        number or an array of that leaf's shape.
      like: a pytree of float arrays, or of shapes and dtypes.
      name: the argument's name, for messages.

    Returns:
      A tree with the structure, shapes and real dtypes of `like`.

    Raises:
      ValueError: the tree or a shape does not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> print(fill(2.0, {"a": jnp.zeros(3)}, name="sigma"))
      {'a': Array([2., 2., 2.], dtype=float32)}
    """

    def leaf(item: Any, model: Any) -> Array:
        array = jnp.asarray(item)
        if array.shape not in ((), model.shape):
            raise ValueError(f"{name} has shape {array.shape}, expected () or {model.shape}")
        return jnp.broadcast_to(array.astype(jnp.finfo(model.dtype).dtype), model.shape)

    return jax.tree.map(leaf, spread(prefix, like, name=name), like)


def check_positive(tree: Any, *, name: str, hint: str, zero: bool = False) -> None:
    """Raises ValueError where a concrete leaf is known not to be positive, or 0, in all entries."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, Tracer):
            continue
        with jax.ensure_compile_time_eval():
            low = jax.device_get(jnp.min(jnp.asarray(leaf), initial=jnp.inf))  # NaN if any is
        if not (low > 0 or (zero and low == 0)):
            where = name + jax.tree_util.keystr(path)
            wanted = "0 or positive" if zero else "positive"
            raise ValueError(f"{where} must be {wanted} ({hint}), got {low:g}")
