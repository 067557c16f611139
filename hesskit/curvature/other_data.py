"""Curvature from other data than the gradient: `update(..., curvature_args=data)`.

Noise in a curvature does less harm than noise in a gradient, so that a part of a batch, or a batch
of its own, is enough for it (Martens 2010, section 4.2).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from hesskit.core import errors, objective, signature
from hesskit.core.structured import Structured
from hesskit.core.terms import ByParts
from hesskit.core.types import Params
from hesskit.linalg import whitened


@dataclasses.dataclass(frozen=True)
class Apart(Structured):
    """A structured objective whose curvature is that of another."""

    other: Any = None

    def precomposed(self, first: Callable[[Params], Params]) -> "Apart":
        """`params -> self(first(params))`."""
        inner = objective.precompose(self.inner, first)
        return dataclasses.replace(self, inner=inner, other=self.other.precomposed(first))


@dataclasses.dataclass(frozen=True, eq=False)
class _WithCurvature(ByParts):
    """`value_fn` with the data of its curvature."""

    value_fn: Callable[..., Any]
    args: Any

    def __post_init__(self) -> None:
        """Takes the signature of the function."""
        signature.adopt(self, signature.of(self.value_fn))

    def __call__(self, params: Params, *args: Any, **data: Any) -> Any:
        """The value."""
        return self.value_fn(params, *args, **data)

    def structure(self, args: tuple[Any, ...], data: Mapping[str, Any], caller: str) -> Any:
        """The objective with both data filled in."""
        fill = objective.structure_of(self.value_fn)
        whole = self.value_fn if fill is None else fill(args, data, caller)
        if not isinstance(whole, Structured) or fill is None:
            raise TypeError(whitened.plain(caller))
        named = self.args if isinstance(self.args, dict) else {}
        other = fill(() if named else tuple(self.args), named, caller)
        return Apart(whole.inner, whole.outer, other=other.without_aux())


def takes_curvature_args(update: Callable[..., Any]) -> Callable[..., Any]:
    """`update` that takes `curvature_args`, a tuple or dict like `args`: its `fn` is an `Apart`."""

    @functools.wraps(update)
    def call(*given: Any, value_fn: Any = None, curvature_args: Any = None, **extra: Any) -> Any:
        if value_fn is None:
            return update(*given, **extra)
        if curvature_args is not None:
            if not isinstance(curvature_args, (tuple, list, dict)):
                raise TypeError(
                    "curvature_args must be a tuple, positional after params, or a dict, by name; "
                    f"got {type(curvature_args).__name__}"
                )
            errors.check_data(curvature_args, name="curvature_args")
            value_fn = _WithCurvature(value_fn, curvature_args)
        return update(*given, value_fn=value_fn, **extra)

    return call
