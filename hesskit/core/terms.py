r"""Objectives that add and scale: `loss + 0.1 * penalty`.

    F(p; data)  =  sum_k  c_k f_k(p; data)                                  (1)

A sum is called like the one of its terms that takes data; what several take by name and need not
have, none gets. Where every term has a structure (core/composite.py) and no coefficient is
negative, so has the sum: outputs side by side.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core import errors
from hesskit.core.structured import Structured, total
from hesskit.core.types import Params, Scalar


class Term:
    """A function of params that adds to another and scales by a number."""

    __array_ufunc__ = None  # a NumPy number leaves the product to __rmul__

    def __add__(self, other: Any) -> "Sum":
        """The sum of both."""
        return Sum((*_terms(self), *_terms(other))) if callable(other) else NotImplemented

    def __radd__(self, other: Any) -> "Sum":
        """The sum of both."""
        if _is_number(other) and other == 0:  # where `sum` begins
            return Sum(_terms(self))
        return Sum((*_terms(other), *_terms(self))) if callable(other) else NotImplemented

    def __mul__(self, factor: Any) -> "Sum":
        """`factor` times the function."""
        if not _is_number(factor):
            return NotImplemented
        return Sum(tuple((factor * weight, term) for weight, term in _terms(self)))

    __rmul__ = __mul__


def _is_number(factor: Any) -> bool:
    plain = isinstance(factor, (int, float)) and not isinstance(factor, bool)
    return plain or getattr(factor, "shape", None) == ()


def _terms(term: Any) -> tuple[tuple[Scalar, Callable[..., Any]], ...]:
    return term.terms if isinstance(term, Sum) else ((1.0, term),)


def _token(item: Any) -> Any:
    """What stands for `item` in a hash: itself, or the identities of its arrays."""
    leaves, structure = jax.tree.flatten(item)
    return structure, tuple(
        id(leaf) if hasattr(leaf, "dtype") else (type(leaf), leaf) for leaf in leaves
    )


@dataclasses.dataclass(frozen=True, eq=False)
class ByParts:
    """Equal to another of the same parts, arrays by identity: compiled programs are found again."""

    def _parts(self) -> Any:
        fields = dataclasses.fields(self)
        return tuple(_token(getattr(self, field.name)) for field in fields)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash((type(self), self._parts()))


@dataclasses.dataclass(frozen=True, eq=False)
class Sum(ByParts, Term):
    """The weighted sum of terms, called like the one of them that takes data.

    Attributes:
      terms: pairs (weight, function of params).
    """

    terms: tuple[tuple[Scalar, Callable[..., Any]], ...]

    def __post_init__(self) -> None:
        """Checks that data has one place to go, and takes the signature of that place."""
        takers = self._takers()
        if len(takers) > 1:
            names = " and ".join(_name(self.terms[i][1]) for i in takers)
            raise TypeError(
                f"{names} both take data, and a sum passes data to one term: write one function "
                "that returns their sum"
            )
        with contextlib.suppress(TypeError, ValueError):  # some callables have no signature
            signature = inspect.signature(self.terms[takers[0] if takers else 0][1])
            if not takers:
                first = list(signature.parameters.values())[:1]
                signature = signature.replace(parameters=first)
            object.__setattr__(self, "__signature__", signature)

    def _takers(self) -> list[int]:
        """The places of the terms that take data, or of the one that may take some."""
        kinds = [_takes_data(term) for _, term in self.terms]
        need = [i for i, kind in enumerate(kinds) if kind is True]
        may = [i for i, kind in enumerate(kinds) if kind is None]
        return need or (may if len(may) == 1 else [])

    def _given(self, args: tuple[Any, ...], data: Mapping[str, Any]) -> list[tuple[Any, Any]]:
        """The data of each term."""
        takers = self._takers()
        if not takers and (args or data):
            raise TypeError("no term of this sum takes data, or several do and none must have it")
        return [(args, data) if i in takers else ((), {}) for i in range(len(self.terms))]

    def __call__(self, params: Params, *args: Any, **data: Any) -> Any:
        """The sum at `params`, or (sum, aux) if a term returns such a pair."""
        values, auxes = [], []
        for (_, term), given in zip(self.terms, self._given(args, data), strict=True):
            out = term(params, *given[0], **given[1])
            if isinstance(out, tuple) and len(out) == 2:
                out, aux = out
                auxes.append(aux)
            values.append(errors.check_value(out, name=_name(term)))
        if len(auxes) > 1:
            raise TypeError(f"{len(auxes)} terms of a sum return (value, aux); one may")
        dtype = max((v.dtype for v in values), key=lambda d: jnp.finfo(d).bits)
        total = jnp.zeros((), dtype)
        for (weight, _), value in zip(self.terms, values, strict=True):
            total += jnp.asarray(weight, dtype) * value.astype(dtype)
        return (total, auxes[0]) if auxes else total

    def structure(self, args: tuple[Any, ...], data: Mapping[str, Any], caller: str) -> Any:
        """The sum with its data filled in: structured if every term is, else a plain pair."""
        given = self._given(args, data)
        if all(hasattr(term, "structure") for _, term in self.terms):
            pairs = [
                (weight, term.structure(*own, caller))
                for (weight, term), own in zip(self.terms, given, strict=True)
            ]
            if all(isinstance(part, Structured) and not _is_negative(c) for c, part in pairs):
                return total(pairs)

        def plain(params: Params) -> tuple[Any, Any]:
            out = self(params, *args, **data)
            return out if isinstance(out, tuple) else (out, None)

        return plain


def _is_negative(weight: Any) -> bool:
    """Whether a coefficient is known to be negative."""
    return not isinstance(weight, Tracer) and bool(weight < 0)


def _name(term: Callable[..., Any]) -> str:
    """What a term is called in messages: by its function."""
    fn = getattr(term, "inner", term)
    return getattr(fn, "__name__", type(term).__name__)


def _takes_data(term: Callable[..., Any]) -> bool | None:
    """Whether `term` has parameters after the first; None if it has some by name, all optional."""
    try:
        parameters = list(inspect.signature(term).parameters.values())
    except (TypeError, ValueError):
        return True
    if len(parameters) == 1 and parameters[0].kind in _NAMED:
        return False
    by_name = [p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters[1:]]
    optional = [p.default is not inspect.Parameter.empty for p in parameters[1:]]
    return None if all(by_name) and all(optional) else True


_NAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
