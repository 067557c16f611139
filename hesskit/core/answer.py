"""How an answer speaks: words for its codes, a few lines for people, the same in a notebook.

An answer is a NamedTuple of arrays, so that it passes through `jit` and `vmap`; inside them a kind
is an int32 code, and outside a member of its enum.
"""

import html
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core.types import Array

Answer = TypeVar("Answer", bound=type)
MOST = 6
"""Numbers of a row that are shown, half of them from either end."""


class Kind(IntEnum):
    """A code that prints as its name."""

    def __str__(self) -> str:
        """The name."""
        return self.name

    def __format__(self, spec: str) -> str:
        """The name."""
        return format(self.name, spec)


def unknown(tree: Any) -> bool:
    """Whether a leaf has no numbers: traced, or a shape alone, as `jax.eval_shape` gives."""
    return any(isinstance(a, (Tracer, jax.ShapeDtypeStruct)) for a in jax.tree.leaves(tree))


def word(kind: type[Kind], code: Any) -> Any:
    """The member of `kind` where `code` is one known number; else the codes themselves."""
    if unknown(code) or jnp.ndim(code) > 0:
        return code
    return kind(int(code))


def row(values: Array) -> str:
    """The numbers of an array in one short line.

    Args:
      values: (k,), known.

    Returns:
      At most `MOST` numbers of five digits, with dots where some are left out.

    Example:
      >>> import jax.numpy as jnp
      >>> row(jnp.arange(9.0))
      '0, 1, 2, ..., 6, 7, 8'
    """
    texts = [f"{float(v):.5g}" for v in values[: MOST // 2]]
    if len(values) > MOST:
        texts.append("...")
    rest = values[MOST // 2 :] if len(values) <= MOST else values[-(MOST // 2) :]
    return ", ".join([*texts, *(f"{float(v):.5g}" for v in rest)])


def estimate(name: str, found: Any) -> list[str]:
    """The line of a number with `value`, `standard_error`, `num_products` and `exact`."""
    error = float(found.standard_error)
    how = "exact" if bool(found.exact) else f"standard error {error:.1g}"
    return [f"{name} {float(found.value):.7g}, {how}, by {int(found.num_products)} products"]


def preformatted(text: str) -> str:
    """The text as a notebook shows it."""
    return f"<pre>{html.escape(text)}</pre>"


def printed(
    field: str, lines: Callable[[Any], list[str]], *, ndim: int = 0
) -> Callable[[Answer], Answer]:
    """A class decorator: `print` and a notebook show `lines(answer)`.

    Args:
      field: the name of an array by which a batch of answers is told.
      lines: the text of a known answer.
      ndim: the axes of that array in one answer.

    Returns:
      The decorator.
    """

    def decorate(cls: Answer) -> Answer:
        def text(self: Any) -> str:
            if unknown(tuple(self)):
                return f"{cls.__name__}: not known inside jit"
            shape = jnp.shape(getattr(self, field))
            if len(shape) > ndim:
                return f"{cls.__name__}: a batch of shape {shape[: len(shape) - ndim]}"
            return "\n".join(lines(self))

        def notebook(self: Any) -> str:
            return preformatted(text(self))

        for name, method in (("__repr__", text), ("__str__", text), ("_repr_html_", notebook)):
            setattr(cls, name, method)
        return cls

    return decorate
