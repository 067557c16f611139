r"""Penalties on parameters, and sums of objectives.

    l2(c)(p)  =  c/2  sum |p - center|^2,   gradient  c (p - center)        (1)

is weight decay, a Gaussian prior of precision c, and ridge regression: part of the objective, so
that value, gradient and curvature agree. Decay that is added to the gradient alone, beside a
transform that accepts its own steps, is fought by the objective, which knows nothing of it.

Terms add and scale: `loss + l2(1e-4)`, `loss + 0.1 * l2(1.0, mask="head")`.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import errors, select, tree
from hesskit.core.types import Array, Params, Scalar


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
class _ByParts:
    """Equal to another of the same parts, arrays by identity: compiled programs are found again."""

    def _parts(self) -> Any:
        fields = dataclasses.fields(self)
        return tuple(_token(getattr(self, field.name)) for field in fields)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash((type(self), self._parts()))


@dataclasses.dataclass(frozen=True, eq=False)
class L2(_ByParts, Term):
    """The penalty (1)."""

    strength: Scalar
    center: Params | None
    mask: Any

    def __call__(self, params: Params) -> Array:
        """The penalty at `params`: a () array of at least float32."""
        if self.mask is not None:
            chosen = select.select(self.mask, params, name="mask")
        else:
            chosen = (True,) * len(jax.tree.leaves(params))
        away = jax.tree.map(jnp.asarray, params)
        if self.center is not None:
            errors.check_like(self.center, params, name="center")
            away = tree.sub(away, jax.tree.map(jnp.asarray, self.center))
        _, away = select.split(away, chosen)
        square = tree.vdot(away, away)
        return jnp.asarray(self.strength, square.dtype) / 2 * square


@dataclasses.dataclass(frozen=True, eq=False)
class Sum(_ByParts, Term):
    """The weighted sum of terms, called like the one of them that takes data.

    Attributes:
      terms: pairs (weight, function of params).
    """

    terms: tuple[tuple[Scalar, Callable[..., Any]], ...]

    def __post_init__(self) -> None:
        """Checks that data has one place to go, and takes the signature of that place."""
        takers = [term for _, term in self.terms if _takes_data(term)]
        if len(takers) > 1:
            names = " and ".join(getattr(term, "__name__", repr(term)) for term in takers)
            raise TypeError(
                f"{names} both take data, and a sum passes data to one term: write one function "
                "that returns their sum"
            )
        with contextlib.suppress(TypeError, ValueError):  # some callables have no signature
            signature = inspect.signature(takers[0] if takers else self.terms[0][1])
            object.__setattr__(self, "__signature__", signature)

    def __call__(self, params: Params, *args: Any, **data: Any) -> Any:
        """The sum at `params`, or (sum, aux) if a term returns such a pair."""
        values, auxes = [], []
        for _, term in self.terms:
            out = term(params, *args, **data) if _takes_data(term) else term(params)
            if isinstance(out, tuple) and len(out) == 2:
                out, aux = out
                auxes.append(aux)
            values.append(errors.check_value(out, name=getattr(term, "__name__", "a term")))
        if len(auxes) > 1:
            raise TypeError(f"{len(auxes)} terms of a sum return (value, aux); one may")
        dtype = max((v.dtype for v in values), key=lambda d: jnp.finfo(d).bits)
        total = jnp.zeros((), dtype)
        for (weight, _), value in zip(self.terms, values, strict=True):
            total += jnp.asarray(weight, dtype) * value.astype(dtype)
        return (total, auxes[0]) if auxes else total


def _takes_data(term: Callable[..., Any]) -> bool:
    """Whether `term` has parameters after the first."""
    try:
        parameters = inspect.signature(term).parameters.values()
        many = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return len(parameters) > 1 or any(p.kind in many for p in parameters)
    except (TypeError, ValueError):
        return True


def l2(strength: Scalar, *, center: Params | None = None, mask: Any = None) -> L2:
    r"""`strength / 2` times the squared distance of params from `center`: decay, prior, ridge.

    Its gradient is `strength * (params - center)`, so the number is that of `optax.adamw`'s
    `weight_decay`, and a Gaussian prior of variance `1 / strength`. Add it to the objective:
    `loss + hesskit.l2(1e-4)` is called like `loss`. Next to a transform that accepts its own
    steps `optax.add_decayed_weights` does not minimize this sum.

    Args:
      strength: a number >= 0; may be traced.
      center: like params; None means 0.
      mask: the leaves to penalize: a prefix tree of bools, a path or list of paths, or
        `f(path, leaf) -> bool`. None means all.

    Returns:
      A function of params that adds to other objectives and scales by numbers.

    Raises:
      ValueError: `strength` is negative. When called: `center` is not like params, or `mask` fits
        no leaf.
      TypeError: `strength` is no number.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> loss = lambda w, x: jnp.mean((x * w - 6.0) ** 2) / 2
      >>> ridge = loss + hesskit.l2(2.0)
      >>> print(hesskit.minimize(ridge, jnp.array([0.0]), args=(jnp.ones(3),)).params.round(3))
      [2.]
    """
    errors.check_number(strength, name="strength", none=False)
    return L2(strength, center, mask)
