"""What a user's function takes: the names of its data, and where each piece of data goes."""

import inspect
import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_EMPTY = inspect.Parameter.empty
_KNOWN: weakref.WeakKeyDictionary[Any, inspect.Signature] = weakref.WeakKeyDictionary()
"""Those of plain functions: a call of a solver asks ten times, 30 microseconds each."""


def of(fn: Callable[..., Any]) -> inspect.Signature | None:
    """The signature of `fn`; None for a callable that has none."""
    if isinstance(fn, types.FunctionType):
        if fn not in _KNOWN:
            _KNOWN[fn] = inspect.signature(fn)
        return _KNOWN[fn]
    try:
        return inspect.signature(fn)
    except (TypeError, ValueError):
        return None


def parameters(fn: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """The parameters of `fn`; None for a callable without a signature."""
    signature = of(fn)
    return None if signature is None else list(signature.parameters.values())


def adopt(wrapper: Any, signature: inspect.Signature | None) -> None:
    """Shows `signature` as that of `wrapper`, a frozen dataclass; None leaves it without one.

    Without annotations: the wrapper returns something else, and `jax.Array` cannot be pickled.
    """
    if signature is not None:
        bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        shown = signature.replace(parameters=bare, return_annotation=signature.empty)
        object.__setattr__(wrapper, "__signature__", shown)


def first_only(signature: inspect.Signature | None) -> inspect.Signature | None:
    """Params alone."""
    if signature is None:
        return None
    return signature.replace(parameters=list(signature.parameters.values())[:1])


def positional(fn: Callable[..., Any], *, optional: bool = True) -> tuple[str, ...] | None:
    """The names that `fn` takes by position after the first; None for any number of them."""
    found = parameters(fn)
    if found is None or any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in found):
        return None
    taken = [p for p in found[1:] if p.kind in POSITIONAL]
    return tuple(p.name for p in taken if optional or p.default is _EMPTY)


def names(fn: Callable[..., Any]) -> set[str]:
    """What `fn` takes by name after the first."""
    return {p.name for p in (parameters(fn) or [])[1:] if p.kind in _NAMED}


def select(
    fn: Callable[..., Any], data: Mapping[str, Any], name: str
) -> tuple[dict[str, Any], list[str]]:
    """The part of `data` that `fn` takes by name, and the required names still missing.

    Args:
      fn: a function of params and data.
      data: by name.
      name: what to call `fn` in messages.

    Returns:
      The pair; all of `data` for a callable without a signature.

    Raises:
      TypeError: `fn` takes nothing.
    """
    found = parameters(fn)
    if found is None:
        return dict(data), []
    if not found:
        raise TypeError(f"{name} must take params as its first argument; it takes none")
    extra = found[1:]
    taken = dict(data)
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in found):
        known = {p.name for p in extra if p.kind is not inspect.Parameter.VAR_POSITIONAL}
        taken = {key: item for key, item in data.items() if key in known}
    kinds = (*POSITIONAL, inspect.Parameter.KEYWORD_ONLY)
    required = [p.name for p in extra if p.kind in kinds and p.default is _EMPTY]
    return taken, [key for key in required if key not in taken]


def joint(inner: Callable[..., Any], outer: Callable[..., Any]) -> inspect.Signature | None:
    """Params, then the data of `inner`, then that of `outer`; a name of both is one."""
    own, others = parameters(inner), parameters(outer)
    if own is None or others is None:
        return None
    first, *own = own
    if positional(outer) != ():
        own = [_by_name(p) for p in own]
    known = {p.name for p in own}
    more = [p for p in others[1:] if p.name not in known]
    return inspect.Signature([first, *sorted([*own, *more], key=_order)])


def _by_name(p: inspect.Parameter) -> inspect.Parameter:
    """An optional parameter as one that is given by name alone: data of `outer` comes behind."""
    return p if p.default is _EMPTY else p.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _order(p: inspect.Parameter) -> tuple[int, bool]:
    return p.kind, p.default is not _EMPTY


def takes_data(fn: Callable[..., Any]) -> bool | None:
    """Whether `fn` has parameters after the first; None if it has some by name, all optional."""
    found = parameters(fn)
    if found is None:
        return True
    if len(found) == 1 and found[0].kind in POSITIONAL:
        return False
    optional = [
        p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is not _EMPTY for p in found[1:]
    ]
    return None if all(optional) else True
