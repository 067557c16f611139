"""What a user reads when a call is wrong: what came, what was expected, where, what to type.

Checks run eagerly or at trace time, on shapes and dtypes and on concrete numbers; a traced
number is never checked. An exception raised inside a user's function keeps its type and gains
one note that says who called it and with what.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core.types import Params

NO_PARAMS = (
    "{name}.update needs the current params: call update(updates, state, params, value=value, "
    "grad=grad, value_fn=value_fn). You are using a transformation that requires the current "
    "value of parameters, but you are not passing `params` when calling `update`."
)


def describe(tree: Params) -> str:
    """`tree` in one line: its structure with dtype and shape at each leaf."""
    return str(jax.tree.map(_short, tree, is_leaf=lambda leaf: leaf is None))


class _Verbatim(str):
    """A string that prints without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _short(leaf: Any) -> _Verbatim:
    if leaf is None or not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")):
        return _Verbatim(repr(leaf))
    return _Verbatim(f"{leaf.dtype}{list(leaf.shape)}")


def check_params(params: Params, *, name: str = "params", allow_empty: bool = False) -> Params:
    """`params` with every leaf an inexact array.

    Args:
      params: any pytree of arrays and Python floats; None holds no leaf.
      name: what to call it in messages.
      allow_empty: accept a pytree without leaves.

    Returns:
      The same pytree, each leaf a `jax.Array` (Python floats become arrays of JAX's default
      float dtype).

    Raises:
      TypeError: a leaf is an integer, a boolean, a string or no array at all.
      ValueError: there is no leaf, or none has an entry.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=_is_masked)
    if not leaves and not allow_empty:
        raise ValueError(f"{name} has no leaves: got {params!r}; expected at least one array")
    for path, leaf in leaves:
        where = name + jax.tree_util.keystr(path)
        if _is_masked(leaf):
            raise TypeError(f"{where} was masked by optax.masked; use hesskit.masked instead")
        dtype = getattr(leaf, "dtype", None)
        if dtype is None:
            if not isinstance(leaf, (bool, int, float, complex)):
                raise TypeError(f"{where} is {type(leaf).__name__} {leaf!r}; expected an array")
            dtype = jnp.asarray(leaf).dtype
            label = type(leaf).__name__
        else:
            label = str(dtype)
        if not jnp.issubdtype(dtype, jnp.inexact):
            flag = jnp.issubdtype(dtype, jnp.bool_)
            number = float(leaf) if isinstance(leaf, int) else 0.0
            hint = "" if flag else f"write {number}. "
            more = (
                " Of an Equinox model: eqx.partition(model, eqx.is_inexact_array)." if flag else ""
            )
            raise TypeError(f"{where} is {label}; {hint}Derivatives need floats.{more}")
    if not allow_empty and all(0 in getattr(leaf, "shape", ()) for _, leaf in leaves):
        where = name + jax.tree_util.keystr(leaves[0][0])
        raise ValueError(f"{where} has shape {leaves[0][1].shape}, and no leaf holds an entry")
    return jax.tree.map(strong_array, params)


def _is_masked(node: Any) -> bool:
    return type(node).__name__ == "MaskedNode"  # a NamedTuple without leaves


def strong_array(leaf: Any) -> jax.Array:
    """`leaf` as an array of its own dtype that is not weakly typed."""
    if isinstance(leaf, jax.Array) and not leaf.weak_type:
        return leaf
    array = jnp.asarray(leaf)
    return array.astype(array.dtype)


def check_like(tree: Params, params: Params, *, name: str, dtypes: bool = False) -> Params:
    """`tree` if it has the structure and shapes of `params`; ValueError with the path if not."""
    expected, got = jax.tree.structure(params), jax.tree.structure(tree)
    if expected != got:
        raise ValueError(
            f"{name} must have the structure of params: got {describe(tree)}, expected "
            f"{describe(params)}"
        )
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    for (path, leaf), like in zip(leaves, jax.tree.leaves(params), strict=True):
        where = name + jax.tree_util.keystr(path)
        if jnp.shape(leaf) != jnp.shape(like):
            raise ValueError(f"{where} has shape {jnp.shape(leaf)}, params {jnp.shape(like)}")
        if dtypes and jnp.result_type(leaf) != jnp.result_type(like):
            raise TypeError(
                f"{where} is {jnp.result_type(leaf)}, params {jnp.result_type(like)}; cast it"
            )
    return tree


def same_shapes(tree: Any, like: Any) -> bool:
    """Whether `tree` has the structure, shapes and dtypes of `like`."""
    if jax.tree.structure(tree) != jax.tree.structure(like):
        return False
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(like), strict=True)
    return all(
        jnp.shape(a) == jnp.shape(b) and jnp.result_type(a) == jnp.result_type(b) for a, b in pairs
    )


def check_value(value: Any, *, name: str = "value_fn") -> jax.Array:
    """`value` as a real () array.

    Args:
      value: what a user's function returned.
      name: what to call that function in messages.

    Returns:
      The same number as an array.

    Raises:
      TypeError: it is None, not an array, or an integer, boolean or complex number.
      ValueError: its shape is not ().
    """
    if value is None:
        raise TypeError(f"{name} returned None, expected a real scalar; is a `return` missing?")
    if isinstance(value, tuple):
        raise TypeError(
            f"{name} returned a tuple of {len(value)}, expected a real scalar; for "
            "(value, aux) pass has_aux=True"
        )
    try:
        array = jnp.asarray(None if isinstance(value, str) else value)
    except (TypeError, ValueError) as error:
        kind = type(value).__name__
        raise TypeError(f"{name} returned {kind}, expected a real scalar") from error
    if array.shape != ():
        fix = "f(x)[0]" if array.shape == (1,) else "jnp.mean(...)"
        raise ValueError(
            f"{name} returned shape {array.shape}, expected (); return {fix} or jnp.sum(...)"
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        hint = "jnp.real(...) or jnp.abs(...) ** 2" if jnp.iscomplexobj(array) else "a float"
        raise TypeError(f"{name} returned {array.dtype}, expected a real float; return {hint}")
    return array


def check_number(
    value: Any,
    *,
    name: str,
    low: float = 0.0,
    high: float = math.inf,
    open_low: bool = False,
    none: bool = True,
    schedule: bool = False,
) -> None:
    """Raises unless `value` is a real number in [low, high] (None, a tracer or a schedule pass).

    Args:
      value: the argument.
      name: its name, for messages.
      low: the least it may be.
      high: the most it may be.
      open_low: exclude `low` itself.
      none: accept None.
      schedule: accept a function of the step count.

    Raises:
      TypeError: it is not a number.
      ValueError: it is NaN or out of range; the message has name, value and range.
    """
    if (value is None and none) or (schedule and callable(value)) or isinstance(value, Tracer):
        return
    number = _plain_number(value)
    if number is None:
        raise TypeError(f"{name} must be a number, got {value!r}")
    inside = (number > low if open_low else number >= low) and number <= high
    if not inside:
        left, right = "(" if open_low else "[", ")" if math.isinf(high) else "]"
        raise ValueError(f"{name} must lie in {left}{low:g}, {high:g}{right}, got {value!r}")


def _plain_number(value: Any) -> float | None:
    """`value` as a float, or None if it is no real number."""
    if isinstance(value, (bool, str)) or getattr(value, "shape", ()) != ():
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def check_count(value: Any, *, name: str, low: int = 1) -> None:
    """Raises unless `value` is None, a tracer, or an integer of at least `low`."""
    if value is None or isinstance(value, Tracer):
        return
    number = _plain_number(value)
    if number is None:
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if not (math.isfinite(number) and number >= low and number == math.floor(number)):
        raise ValueError(f"{name} must be an integer of at least {low}, got {value!r}")


def length_of(value: Any, *, name: str) -> int:
    """The length of an array as an int; TypeError if it is traced."""
    if isinstance(value, Tracer):
        raise TypeError(
            f"{name} is the length of an array and cannot be traced; under "
            f"optax.inject_hyperparams pass static_args=('{name}',)"
        )
    return int(value)


def check_choice(value: Any, choices: tuple[Any, ...], *, name: str) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if not any(value is choice or value == choice for choice in choices):
        options = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {options}; got {value!r}")


def check_data(args: Any, *, name: str = "args") -> None:
    """Raises TypeError unless every leaf of `args` is an array or a number."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(args):
        where, dtype = name + jax.tree_util.keystr(path), getattr(leaf, "dtype", None)
        if getattr(dtype, "kind", None) in tuple("OUSMm"):  # objects, strings, dates of NumPy
            raise TypeError(f"{where} has dtype {dtype}; data must be arrays of numbers")
        if dtype is None and not isinstance(leaf, (bool, int, float, complex)):
            raise TypeError(
                f"{where} is {type(leaf).__name__} {leaf!r}; data must be arrays. Fill other "
                "things in with functools.partial(value_fn, ...)."
            )


def check_callable(value: Any, *, name: str, of: str = "params") -> Callable[..., Any]:
    """`value` if it can be called; TypeError otherwise, which says a function `of` what it is."""
    if not callable(value):
        raise TypeError(f"{name} must be a function of {of}, got {type(value).__name__}")
    return value


@contextlib.contextmanager
def calling(name: str, params: Params, caller: str = "") -> Iterator[None]:
    """Adds one note to an exception raised inside a user's function: who called, with what."""
    try:
        yield
    except Exception as error:
        who = f"hesskit.{caller}" if caller else "hesskit"
        note = f"{name} was called by {who} with params {describe(params)}."
        holes = jax.tree.leaves(params, is_leaf=lambda leaf: leaf is None)
        kinds = {type(node).__name__ for node in _nodes(params)}
        if any(leaf is None for leaf in holes):
            note += (
                " Leaves that are None were filtered out: rebuild the model inside value_fn "
                "with eqx.combine(params, static)."
            )
        if "State" in kinds:
            note += (
                " For flax.nnx rebuild the model inside value_fn with "
                "nnx.merge(graph, params, rest, copy=True)."
            )
        if "MaskedNode" in kinds:
            note += " Leaves were masked by optax.masked: use hesskit.masked."
        told = any(" was called by hesskit" in said for said in getattr(error, "__notes__", ()))
        if not told:  # the innermost call knows the params as the user does
            error.add_note(note)
        raise


def _nodes(tree: Any) -> Iterator[Any]:
    yield tree
    if isinstance(tree, dict):
        for child in tree.values():
            yield from _nodes(child)
    elif isinstance(tree, (list, tuple)):
        for child in tree:
            yield from _nodes(child)
