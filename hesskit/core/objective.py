"""From a user's function to `params -> ()`: binding data, checking the value, dropping aux.

Everything that wraps a user's function is in this file, so that a structured objective can be
mapped to a structured one in one place. A bound objective is a plain function of params.
"""

import difflib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import errors, signature
from hesskit.core.types import Array, Params, ValueFn

RESERVED = ("updates", "state", "params", "value", "grad", "value_fn", "args")
"""Names that belong to `update` itself; data under these names travels in `args=`."""


def reserved(name: str) -> str:
    """The sentence for data under a name of `update` itself."""
    return f"the data name `{name}` belongs to update(); pass args={{'{name}': ...}}"


ALIASES = ("obj_fn", "loss_fn", "fun", "f", "fn", "loss", "objective")
"""What other libraries call `value_fn`."""


def required(
    value_fn: Any,
    given: Mapping[str, Any],
    *,
    caller: str,
    why: str = "the objective of this batch",
) -> Callable[..., Any]:
    """`value_fn`; TypeError if it is None, which looks for it under other names in `given`."""
    if value_fn is not None:
        return value_fn
    other = [key for key in ALIASES if callable(given.get(key))]
    hint = f" (got {other[0]}; pass it as value_fn=)" if other else ""
    raise TypeError(f"{caller}() needs value_fn=, {why}{hint}")


def _complain(
    fn: Callable[..., Any], missing: list[str], data: Mapping[str, Any], name: str, caller: str
) -> None:
    if caller.endswith("update") and missing[0] in RESERVED:
        raise TypeError(reserved(missing[0]))
    names = [p.name for p in signature.parameters(fn) or []]
    if not data and len(names) > 1:
        first = " and ".join([", ".join(names[:-1]), names[-1]])
        calls = ", ".join(f"p[{i}]" for i in range(len(names)))
        point = ", ".join("0." for _ in names)
        raise TypeError(
            f"{name} takes all params as one argument; it requires {first}. Write "
            f"lambda p: f({calls}) with params jnp.array([{point}]). If "
            f"{', '.join(missing)} is data, pass it: args=(...) or by name."
        )
    key = missing[0]
    received = ", ".join(f"`{item}`" for item in data)
    close = {item.lower(): item for item in data}
    guess = key if key.lower() in close else None
    if guess is None and difflib.get_close_matches(key, list(data), n=1):
        guess = key
    hint = f" Did you mean {guess}=?" if guess else ""
    raise TypeError(
        f"{name}({', '.join(names)}) needs `{key}`; {caller} received {received}.{hint}"
    )


def _check_known(fn: Callable[..., Any], args: Mapping[str, Any], name: str) -> None:
    """Raises TypeError if `args` has a name that `fn` does not take."""
    parameters = signature.parameters(fn)
    if parameters is None:
        return
    taken, missing = signature.select(fn, args, name)
    unknown = [key for key in args if key not in taken]
    if unknown and not missing:
        names = [p.name for p in parameters]
        close = difflib.get_close_matches(str(unknown[0]), names[1:], n=1)
        hint = f" Did you mean {close[0]}=?" if close else ""
        raise TypeError(
            f"args has `{unknown[0]}`, which {name}({', '.join(names)}) does not take.{hint}"
        )


def bind(
    value_fn: Callable[..., Any],
    *,
    args: tuple[Any, ...] | Mapping[str, Any] = (),
    data: Mapping[str, Any] | None = None,
    has_aux: bool = False,
    name: str = "value_fn",
    caller: str = "update",
) -> Callable[[Params], tuple[Array, Any]]:
    """`params -> (value, aux)` with the data filled in and the value checked.

    Args:
      value_fn: `value_fn(params, ...)` returning a real scalar, or (scalar, aux).
      args: a tuple, positional after params, or a dict, by name.
      data: more data by name; names that `value_fn` does not take are ignored.
      has_aux: whether `value_fn` returns (value, aux).
      name: what to call the function in messages.
      caller: who received the data, for messages.

    Returns:
      A function of params; aux is None without `has_aux`.

    Raises:
      TypeError: a required argument is missing, or the value is not a real scalar.
      ValueError: the value's shape is not ().
    """
    errors.check_callable(value_fn, name=name)
    by_name: dict[str, Any] = dict(data or {})
    positional: tuple[Any, ...] = ()
    if isinstance(args, Mapping):
        by_name.update(args)
        _check_known(value_fn, args, name)
    elif isinstance(args, (tuple, list)):
        positional = tuple(args)
    else:
        shape = getattr(args, "shape", None)
        what = type(args).__name__ if shape is None else f"an array of shape {shape}"
        raise TypeError(f"args must be a tuple or a dict of data, got {what}; write args=(data,)")
    filled = functools.partial(_shift(value_fn), positional) if positional else value_fn
    taken, missing = signature.select(value_fn, by_name, name)
    if positional:
        names = [
            p.name
            for p in (signature.parameters(value_fn) or [])[1:]
            if p.kind in signature.POSITIONAL
        ]
        missing = [key for key in missing if key not in names[: len(positional)]]
    if missing:
        given = by_name if not positional else {"args": positional, **by_name}
        _complain(value_fn, missing, given, name, caller)

    structure = structure_of(value_fn)
    if structure is not None:
        return structure(positional, taken, caller)

    def objective(params: Params) -> tuple[Array, Any]:
        with errors.calling(name, params, caller):
            out = filled(params, **taken)
        if not has_aux:
            return errors.check_value(out, name=name), None
        if not (isinstance(out, tuple) and len(out) == 2):
            raise TypeError(f"{name} must return (value, aux) with has_aux=True, got {type(out)}")
        return errors.check_value(out[0], name=name), out[1]

    return objective


def structure_of(fn: Callable[..., Any]) -> Callable[..., Any] | None:
    """How `fn` becomes a function of params alone that keeps its structure, or None.

    Args:
      fn: an objective, or a `functools.partial` of one with data filled in by name.

    Returns:
      `(args, data, caller) -> params -> (value, aux)`, or None for a plain function.
    """
    if not isinstance(fn, functools.partial):
        return getattr(fn, "structure", None)
    inner = None if fn.args else structure_of(fn.func)
    if inner is None:
        return None
    return lambda args, data, caller: inner(args, {**fn.keywords, **data}, caller)


def is_squares(fn: Callable[..., Any]) -> bool:
    """Whether `fn` is known to be a sum of squared residuals, robust or not."""
    if isinstance(fn, functools.partial):
        return not fn.args and is_squares(fn.func)
    return getattr(fn, "is_squares", False)


def _shift(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn(params, *args, **data)` as a function of (args, params, **data)."""

    def call(args: tuple[Any, ...], params: Params, **data: Any) -> Any:
        return fn(params, *args, **data)

    return call


def drop_aux(objective: Callable[[Params], tuple[Array, Any]]) -> ValueFn:
    """The value alone."""
    structured = getattr(objective, "without_aux", None)
    return structured() if structured is not None else lambda params: objective(params)[0]


def precompose(fn: Callable[[Params], Any], inner: Callable[[Params], Params]) -> Callable:
    """`params -> fn(inner(params))`: frozen leaves filled in, real parts joined."""
    structured = getattr(fn, "precomposed", None)
    return structured(inner) if structured is not None else lambda params: fn(inner(params))


def is_complex(params: Params) -> bool:
    """Whether any leaf is complex."""
    return any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(params))


def split(params: Params) -> Params:
    """C^n as R^{2n}: a complex leaf of shape s becomes a real one of shape (2, *s)."""
    return jax.tree.map(lambda a: jnp.stack([a.real, a.imag]) if jnp.iscomplexobj(a) else a, params)


def join(parts: Params, like: Params) -> Params:
    """The inverse of `split`; `like` says which leaves are complex."""
    return jax.tree.map(
        lambda a, b: (
            jax.lax.complex(a[0], a[1]).astype(jnp.result_type(b)) if jnp.iscomplexobj(b) else a
        ),
        parts,
        like,
    )


def conjugate(tree: Params) -> Params:
    """The complex conjugate: between `jax.grad`'s convention and the steepest-ascent vector."""
    return jax.tree.map(lambda a: jnp.conj(a) if jnp.iscomplexobj(a) else a, tree)


def real(
    value_fn: Callable[..., Any],
    params: Params,
    *,
    args: Any = (),
    data: Mapping[str, Any] | None = None,
    has_aux: bool = False,
    caller: str,
) -> tuple[ValueFn, Params]:
    """The bound value as a function of real parameters, and `params` as its real point."""
    fn = drop_aux(bind(value_fn, args=args, data=data, has_aux=has_aux, caller=caller))
    if not is_complex(params):
        return fn, params
    return precompose(fn, functools.partial(join, like=params)), split(params)
