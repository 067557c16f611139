r"""An objective of params alone that is a convex loss of outputs.

    f(p)  =  l(r(p))                                                        (1)

What a method may ask of it beyond value and gradient, at outputs r with H the Hessian of l, is

    H v,    F'v  where  H = F F',    b  where  F b = grad l                 (2)

so that the Gauss-Newton matrix is J'H J = (F'J)'(F'J), and the gradient (F'J)'b: a linear
least-squares problem in whitened rows. Not every loss has such a b; then it is None.

Source: Schraudolph (2002), "Fast curvature matrix-vector products for second-order gradient
descent"; Martens (2020), "New insights and perspectives on the natural gradient method", section 6.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import objective, tree
from hesskit.core.types import Array, Params, Scalar


class Outer(NamedTuple):
    """A loss of outputs with its data filled in, and (2).

    Attributes:
      value: `outputs -> ()`.
      hessian_product: `(outputs, v) -> H v`, like outputs.
      whiten: `(outputs, v) -> F'v`, for v like outputs.
      residual: `outputs -> b`, or `outputs -> None` where there is none.
      report: `(outputs, aux) -> aux` of the whole objective.
    """

    value: Callable[[Any], Array]
    hessian_product: Callable[[Any, Any], Any]
    whiten: Callable[[Any, Any], Any]
    residual: Callable[[Any], Any]
    report: Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class Structured:
    """The objective (1) as a function of params alone.

    Attributes:
      inner: `params -> (outputs, aux)`.
      outer: the loss of outputs.
      has_aux: whether a call returns (value, aux).
    """

    inner: Callable[[Params], tuple[Any, Any]]
    outer: Outer
    has_aux: bool = True

    def __call__(self, params: Params) -> Any:
        """The value, or (value, aux)."""
        outputs, aux = self.inner(params)
        value = self.outer.value(outputs)
        return (value, self.outer.report(outputs, aux)) if self.has_aux else value

    def structure(self, args: tuple[Any, ...], data: Mapping[str, Any], caller: str) -> Any:
        """Itself, as a pair: its data is filled in already."""
        del args, data, caller
        return dataclasses.replace(self, has_aux=True)

    def precomposed(self, first: Callable[[Params], Params]) -> "Structured":
        """`params -> self(first(params))`."""
        return dataclasses.replace(self, inner=objective.precompose(self.inner, first))

    def without_aux(self) -> "Structured":
        """The value alone."""
        return dataclasses.replace(self, has_aux=False)


def total(parts: list[tuple[Scalar, Structured]]) -> Structured:
    """The sum of coefficients times structured objectives: outputs side by side.

    Args:
      parts: pairs of a coefficient >= 0 and an objective.

    Returns:
      A `Structured` whose aux is that of the one term that has some, a tuple of several, or None.
    """
    terms = [term for _, term in parts]
    outers = [term.outer for term in terms]

    def inner(params: Params) -> tuple[Any, Any]:
        pairs = [term.inner(params) for term in terms]
        return tuple(out for out, _ in pairs), tuple(aux for _, aux in pairs)

    def value(outputs: Any) -> Array:
        values = [o.value(r) for o, r in zip(outers, outputs, strict=True)]
        dtype = tree.widest(*(v.dtype for v in values))
        scaled = [
            jnp.asarray(c, dtype) * v.astype(dtype) for (c, _), v in zip(parts, values, strict=True)
        ]
        return functools.reduce(jnp.add, scaled)

    def hessian_product(outputs: Any, v: Any) -> Any:
        found = (o.hessian_product(r, u) for o, r, u in zip(outers, outputs, v, strict=True))
        return tuple(tree.scale(c, x) for (c, _), x in zip(parts, found, strict=True))

    def whiten(outputs: Any, v: Any) -> Any:
        found = (o.whiten(r, u) for o, r, u in zip(outers, outputs, v, strict=True))
        return tuple(tree.scale(_root(c), x) for (c, _), x in zip(parts, found, strict=True))

    def residual(outputs: Any) -> Any:
        found = [o.residual(r) for o, r in zip(outers, outputs, strict=True)]
        if any(b is None for b in found):
            return None
        return tuple(tree.scale(_root(c), b) for (c, _), b in zip(parts, found, strict=True))

    def report(outputs: Any, aux: Any) -> Any:
        told = [o.report(r, a) for o, r, a in zip(outers, outputs, aux, strict=True)]
        known = tuple(item for item in told if item is not None)
        return known[0] if len(known) == 1 else known or None

    return Structured(inner, Outer(value, hessian_product, whiten, residual, report))


def _root(c: Any) -> Array:
    return jnp.sqrt(jnp.asarray(c, tree.widest(jnp.result_type(float))))
