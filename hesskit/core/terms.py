r"""Objectives that add and scale: `loss + 0.1 * penalty`, `loss / 2`, `a - b`.

    F(p; data)  =  sum_k  c_k f_k(p; data)                                  (1)

A sum is called like the one of its terms that takes data; what several take by name and need not
have, none gets. Where every term has a structure (core/composite.py), so has the sum: outputs side
by side. Its Gauss-Newton matrix is semidefinite only if no coefficient is negative; with one that
is, the sum is a function like any other, and who asks for that matrix hears of it.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core import errors, objective, signature
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

    def __sub__(self, other: Any) -> "Sum":
        """The difference of both."""
        return Sum((*_terms(self), *_scaled(-1.0, other))) if callable(other) else NotImplemented

    def __rsub__(self, other: Any) -> "Sum":
        """The difference of both."""
        return Sum((*_terms(other), *_scaled(-1.0, self))) if callable(other) else NotImplemented

    def __neg__(self) -> "Sum":
        """The negative."""
        return Sum(_scaled(-1.0, self))

    def __mul__(self, factor: Any) -> "Sum":
        """`factor` times the function."""
        if not _is_number(factor):
            return NotImplemented
        return Sum(_scaled(factor, self))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> "Sum":
        """The function divided by `divisor`."""
        if not _is_number(divisor):
            return NotImplemented
        return Sum(tuple((weight / divisor, term) for weight, term in _terms(self)))


def _is_number(factor: Any) -> bool:
    """Whether `factor` is a real number, maybe traced."""
    if isinstance(factor, (int, float)):
        return not isinstance(factor, bool)
    dtype = getattr(factor, "dtype", None)
    is_real = dtype is not None and dtype.kind not in "bcOSU"  # bools, complex, what is no number
    return is_real and factor.shape == ()


def _terms(term: Any) -> tuple[tuple[Scalar, Callable[..., Any]], ...]:
    return term.terms if isinstance(term, Sum) else ((1.0, term),)


def _scaled(factor: Scalar, term: Any) -> tuple[tuple[Scalar, Callable[..., Any]], ...]:
    return tuple((factor * weight, each) for weight, each in _terms(term))


def _token(item: Any) -> Any:
    """What stands for `item` in a hash: itself, or the identities of its arrays."""
    leaves, structure = jax.tree.flatten(item)
    return structure, tuple(
        id(leaf) if hasattr(leaf, "dtype") else (type(leaf), leaf) for leaf in leaves
    )


@dataclasses.dataclass(frozen=True, eq=False)
class ByParts:
    """Equal to another of the same parts, arrays by identity: compiled programs are found again."""

    @functools.cached_property
    def _parts(self) -> Any:
        fields = dataclasses.fields(self)
        return tuple(_token(getattr(self, field.name)) for field in fields)

    def __getstate__(self) -> dict[str, Any]:
        """All but the identities, which another process does not share."""
        return {name: item for name, item in self.__dict__.items() if name != "_parts"}

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._parts == other._parts

    def __hash__(self) -> int:
        return hash((type(self), self._parts))


@dataclasses.dataclass(frozen=True, eq=False)
class Sum(ByParts, Term):
    """The weighted sum of terms, called like the one of them that takes data.

    Attributes:
      terms: pairs (weight, function of params).
    """

    terms: tuple[tuple[Scalar, Callable[..., Any]], ...]

    def __post_init__(self) -> None:
        """Checks that data has one place to go, and takes the signature of that place."""
        takers = self.takers()
        if len(takers) > 1:
            names = " and ".join(_name(self.terms[i][1]) for i in takers)
            raise TypeError(
                f"{names} both take data, and a sum passes data to one term: write one function "
                "that returns their sum"
            )
        shown = signature.of(self.terms[takers[0] if takers else 0][1])
        signature.adopt(self, shown if takers else signature.first_only(shown))

    def takers(self) -> list[int]:
        """The places of the terms that take data, or of the one that may take some."""
        kinds = [signature.takes_data(term) for _, term in self.terms]
        need = [i for i, kind in enumerate(kinds) if kind is True]
        may = [i for i, kind in enumerate(kinds) if kind is None]
        return need or (may if len(may) == 1 else [])

    def map_takers(self, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> "Sum":
        """The sum with `wrap(term)` for the term that takes data; for each term if none does."""
        takers = self.takers() or range(len(self.terms))
        pairs = enumerate(self.terms)
        return Sum(tuple((c, wrap(term) if i in takers else term) for i, (c, term) in pairs))

    @property
    def is_squares(self) -> bool:
        """Whether it is a sum of squared residuals, robust or not."""
        return all(objective.is_squares(term) and not _is_negative(c) for c, term in self.terms)

    def _given(self, args: tuple[Any, ...], data: Mapping[str, Any]) -> list[tuple[Any, Any]]:
        """The data of each term."""
        takers = self.takers()
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
        fills = [objective.structure_of(term) for _, term in self.terms]
        known = [fill for fill in fills if fill is not None]
        if len(known) == len(fills):
            parts = [fill(*own, caller) for fill, own in zip(known, given, strict=True)]
            if all(isinstance(part, Structured) for part in parts):
                return self._total(parts)

        def plain(params: Params) -> tuple[Any, Any]:
            with errors.calling("value_fn", params, caller):
                out = self(params, *args, **data)
            return out if isinstance(out, tuple) else (out, None)

        return plain

    def _total(self, parts: list[Structured]) -> Structured:
        """The structured sum; without a curvature of outputs where a coefficient is negative."""
        weights = [weight for weight, _ in self.terms]
        whole = total(list(zip(weights, parts, strict=True)))
        below = [_name(term) for weight, term in self.terms if _is_negative(weight)]
        if not below:
            return whole

        def refuse(*given: Any) -> Any:
            del given
            raise TypeError(
                f"the coefficient of {below[0]} is negative in this sum, so that its Gauss-Newton "
                "matrix need not be semidefinite. Write one term with the difference, l2(2.0) for "
                "l2(3.0) - l2(1.0), or use a method of the Hessian: hesskit.trust_region() or, "
                "for many parameters, hesskit.newton_cg()."
            )

        outer = whole.outer._replace(hessian_product=refuse, whiten=refuse, residual=refuse)
        if outer.scored is not None:
            outer = outer._replace(scored=refuse)
        return dataclasses.replace(whole, outer=outer)


def _is_negative(weight: Any) -> bool:
    """Whether a coefficient is known to be negative."""
    return not isinstance(weight, Tracer) and float(weight) < 0


def _name(term: Callable[..., Any]) -> str:
    """What a term is called in messages: by its function."""
    fn = getattr(term, "inner", term)
    return getattr(fn, "__name__", type(term).__name__)
