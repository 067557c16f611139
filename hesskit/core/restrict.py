r"""A function of some leaves, the others held: how masks and partitions see an objective.

    x = (u, v)   ->   phi(u) = f(u, v)   with v as it is                    (1)

The gradient and the Hessian of phi are the blocks of those of f that belong to u. Leaves that
are held are None in u, so that u keeps the structure of x.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hesskit.core import errors, objective, select
from hesskit.core.types import Params

FUNCTIONS = ("value_fn", "obj_fn")
"""Arguments of `update` that are functions of params; optax's sophia has `obj_fn`."""


def restrict(fn: Callable[..., Any], rest: Params, *, caller: str = "") -> Callable[..., Any]:
    """The function (1): `fn` of the leaves that are None in `rest`.

    Args:
      fn: `fn(params, ...)`.
      rest: like params, with None for each leaf that stays an argument (`select.split`).
      caller: who holds the rest, for the note on an exception raised in `fn`.

    Returns:
      A function with the signature of `fn`.

    Example:
      >>> import jax.numpy as jnp
      >>> fn = restrict(lambda p, x: jnp.sum(p["a"] * x + p["b"]), {"a": None, "b": jnp.ones(2)})
      >>> print(fn({"a": jnp.ones(2), "b": None}, x=jnp.full(2, 3.0)))
      8.0
    """
    if objective.structure_of(fn) is not None:
        return _Restricted(fn, rest)

    @functools.wraps(fn, updated=())
    def call(params: Params, /, *args: Any, **data: Any) -> Any:
        whole = select.merge(rest, params)
        with errors.calling("value_fn", whole, caller):
            return fn(whole, *args, **data)

    return call


class _Restricted:
    """A structured function of some leaves, which keeps its structure."""

    def __init__(self, fn: Callable[..., Any], rest: Params) -> None:
        self.fn, self.rest = fn, rest
        self.__wrapped__ = fn  # inspect.signature looks here
        self.is_squares = objective.is_squares(fn)

    def __call__(self, params: Params, /, *args: Any, **data: Any) -> Any:
        return self.fn(select.merge(self.rest, params), *args, **data)

    def structure(self, args: tuple[Any, ...], data: Mapping[str, Any], caller: str) -> Any:
        fill = objective.structure_of(self.fn)
        assert fill is not None
        whole = fill(args, data, caller)
        return objective.precompose(whole, lambda params: select.merge(self.rest, params))


class Inputs(NamedTuple):
    """What an `update` is given: `params` may be None, `extra` holds the keywords."""

    updates: Params
    params: Params | None
    extra: Mapping[str, Any]


def inputs(given: Inputs, chosen: tuple[bool, ...], *, name: str) -> Inputs:
    """`given` as the transform of the chosen leaves gets it: None at the others, f restricted.

    Args:
      given: what the whole was given.
      chosen: one bool a leaf (`select.select`).
      name: who asks, for messages.

    Returns:
      Updates, params and keywords; data of the objective is passed on as it is.

    Raises:
      ValueError: `updates` or `grad` is not like params, or a function comes without params.
    """
    updates, params, extra = given
    functions = [key for key in FUNCTIONS if extra.get(key) is not None]
    if params is None and functions:
        raise ValueError(errors.NO_PARAMS.format(name=name))
    mine, more = None, {}
    if params is not None:
        errors.check_like(updates, params, name="updates")
        held, mine = select.split(params, chosen)
        caller = f"{name}.update"
        more = {key: restrict(extra[key], held, caller=caller) for key in functions}
    if extra.get("grad") is not None:
        errors.check_like(extra["grad"], updates, name="grad")
        more["grad"] = select.split(extra["grad"], chosen)[1]
    return Inputs(select.split(updates, chosen)[1], mine, {**extra, **more})
