r"""Selectors: one way to name some leaves of a pytree, shared by fixed parameters and blocks.

A selector is a prefix tree of bools, a path ("bg/b", "peak/*") or a list of paths, or a function
`f(path, leaf) -> bool`. A path is the keys from the root joined by "/"; it selects the leaf of
that name and every leaf below it; `*` matches within one key.
"""

import re
from typing import Any

import jax

from hesskit.core.prefix import misfit
from hesskit.core.types import Params


def _key(entry: Any) -> str:
    for field in ("key", "idx", "name"):
        if hasattr(entry, field):
            return str(getattr(entry, field))
    return str(entry)


def names(params: Params) -> tuple[str, ...]:
    """The path of each leaf, in the order of `jax.tree.leaves`; "params" for a bare array."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return tuple("/".join(_key(entry) for entry in path) or "params" for path in paths)


def _matches(name: str, pattern: str) -> bool:
    keys, parts = name.split("/"), pattern.split("/")
    return len(parts) <= len(keys) and all(
        re.fullmatch(re.escape(part).replace(r"\*", ".*"), key)
        for key, part in zip(keys, parts, strict=False)
    )


def _flag(node: Any) -> bool | None:
    """The bool that `node` is, a numpy bool included, or None."""
    if isinstance(node, bool):
        return node
    is_scalar = str(getattr(node, "dtype", "")) == "bool" and getattr(node, "shape", None) == ()
    return bool(node) if is_scalar else None


def select(selector: Any, params: Params, *, name: str) -> tuple[bool, ...]:
    """Which leaves `selector` names, in the order of `jax.tree.leaves`.

    Args:
      selector: a prefix tree of bools, a path or list of paths, or `f(path, leaf) -> bool`.
      params: the pytree.
      name: the argument's name, for messages.

    Returns:
      One bool a leaf.

    Raises:
      TypeError: the selector is none of these.
      ValueError: a path or the function matches no leaf (the message lists the paths), or the
        prefix tree does not fit.

    Example:
      >>> select("bg/*", {"bg": {"a": 1.0, "b": 2.0}, "mu": 0.5}, name="fixed")
      (True, True, False)
    """
    paths, leaves = names(params), jax.tree.leaves(params)
    patterns = [selector] if isinstance(selector, str) else selector
    if isinstance(patterns, (list, tuple)) and all(isinstance(p, str) for p in patterns):
        for pattern in patterns:
            if not any(_matches(path, pattern) for path in paths):
                raise ValueError(
                    f"{name}={pattern!r} matches no leaf; the paths are {', '.join(paths)}"
                )
        return tuple(any(_matches(path, p) for p in patterns) for path in paths)
    if callable(selector):
        chosen = tuple(bool(selector(p, leaf)) for p, leaf in zip(paths, leaves, strict=True))
        if not any(chosen):
            raise ValueError(f"{name} selects no leaf; the paths are {', '.join(paths)}")
        return chosen
    try:
        full = jax.tree.map(
            lambda flag, sub: jax.tree.map(lambda _: flag, sub),
            selector,
            params,
            is_leaf=lambda node: _flag(node) is not None,
        )
    except ValueError as error:
        where = misfit(selector, params, name=name, of="params")
        raise ValueError(f"{name} is no prefix of params: {where}") from error
    flags = tuple(_flag(flag) for flag in jax.tree.leaves(full))
    if len(flags) != len(leaves) or None in flags:
        raise TypeError(
            f"{name} must be a prefix tree of bools, a path, a list of paths or "
            f"f(path, leaf) -> bool; got {selector!r}"
        )
    return tuple(flag is True for flag in flags)


def split(params: Params, chosen: tuple[bool, ...]) -> tuple[Params, Params]:
    """`params` as (not chosen, chosen), each with None in place of the other's leaves."""
    leaves, structure = jax.tree.flatten(params)
    pairs = list(zip(leaves, chosen, strict=True))
    rest = jax.tree.unflatten(structure, [None if flag else leaf for leaf, flag in pairs])
    return rest, jax.tree.unflatten(structure, [leaf if flag else None for leaf, flag in pairs])


def merge(rest: Params, chosen: Params) -> Params:
    """The inverse of `split`."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, rest, chosen, is_leaf=lambda leaf: leaf is None
    )
