r"""An objective of params alone that is a convex loss of outputs.

    f(p)  =  l(r(p))                                                        (1)

What a method may ask of it beyond value and gradient, at outputs r with H the Hessian of l, is

    H v,    F'v  where  H = F F',    b  where  F b = grad l                 (2)

so that the Gauss-Newton matrix is J'H J = (F'J)'(F'J), and the gradient (F'J)'b: a linear
least-squares problem in whitened rows. Not every loss has such a b; then it is None.

A loss that is a negative log-likelihood, l = sum_i c_i l_i of examples i, has scores besides,
u_i = sqrt(c_i) grad l_i, whose sum of squares stands in for H: at targets drawn from the model's
own distribution its mean is H; at the targets of the data it is the empirical Fisher matrix.

Source: Schraudolph (2002), "Fast curvature matrix-vector products for second-order gradient
descent"; Martens (2020), "New insights and perspectives on the natural gradient method", sections
6 and 11 (what the empirical matrix is not).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
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
      scored: `(key, centered) -> Outer` with H of scores (`by_scores`), at drawn targets, or at
        those of the data where key is None; None for a loss that is no log-likelihood.
    """

    value: Callable[[Any], Array]
    hessian_product: Callable[[Any, Any], Any]
    whiten: Callable[[Any, Any], Any]
    residual: Callable[[Any], Any]
    report: Callable[[Any, Any], Any]
    scored: Callable[[Any, bool], "Outer"] | None = None


class Scores(NamedTuple):
    """u, like outputs, and sqrt(c), with the leading axes of outputs that number the examples."""

    u: Any
    root: Any


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


def by_scores(
    outer: Outer, scores: Callable[[Any], Scores], *, given: bool, centered: bool
) -> Outer:
    """`outer` with H = sum_i u_i u_i', or of what remains of u_i less their mean.

    Args:
      outer: the loss.
      scores: `outputs -> Scores`.
      given: whether they are at the targets of the data, so that F sqrt(c) = grad l.
      centered: whether the mean sum_i c_i grad l_i / sum_i c_i of all examples is taken out.

    Returns:
      An `Outer` whose `whiten` has one entry for each example.
    """

    def center(w: Any, root: Any) -> Any:
        if not centered:
            return w
        total = tree.vdot(root, root)
        return tree.axpy(-tree.vdot(root, w) / jnp.where(total > 0, total, 1), root, w)

    def whiten(outputs: Any, v: Any) -> Any:
        u, root = scores(outputs)
        return center(jax.tree.map(_by_example, u, v, root), root)

    def hessian_product(outputs: Any, v: Any) -> Any:
        u, _ = scores(outputs)
        return jax.tree.map(
            lambda a, w, x: (a * _leading(w, a)).astype(x.dtype), u, whiten(outputs, v), v
        )

    def residual(outputs: Any) -> Any:
        return scores(outputs).root if given and not centered else None

    return outer._replace(hessian_product=hessian_product, whiten=whiten, residual=residual)


def row_dot(x: Array, y: Array) -> Array:
    """The inner products along the last axis, (...), for x and y (..., k)."""
    # As a product and a sum, XLA 0.10 on CPU compiles it wrongly where one of both is mapped.
    return jnp.einsum("...k,...k->...", x, y, precision=jax.lax.Precision.HIGHEST)


def _by_example(u: Array, v: Array, root: Array) -> Array:
    """The inner products u_i.v_i."""
    shape = (*root.shape, math.prod(u.shape[root.ndim :]))
    return row_dot(u.reshape(shape), v.astype(u.dtype).reshape(shape))


def _leading(w: Array, like: Array) -> Array:
    return w.reshape(w.shape + (1,) * (like.ndim - w.ndim))


def total(parts: list[tuple[Scalar, Structured]]) -> Structured:
    """The sum of coefficients times structured objectives: outputs side by side.

    Args:
      parts: pairs of a coefficient >= 0 and an objective.

    Returns:
      A `Structured` whose aux is that of the one term that has some, a tuple of several, or None.
    """
    terms = [term for _, term in parts]

    def inner(params: Params) -> tuple[Any, Any]:
        pairs = [term.inner(params) for term in terms]
        return tuple(out for out, _ in pairs), tuple(aux for _, aux in pairs)

    return Structured(inner, _total([(c, term.outer) for c, term in parts]))


def _total(parts: list[tuple[Scalar, Outer]]) -> Outer:
    """The sum of coefficients times losses, each of its own entry of a tuple of outputs."""
    outers = [outer for _, outer in parts]

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

    makers = [o.scored for o in outers if o.scored is not None]

    def scored(key: Any, centered: bool) -> Outer:
        keys = [None if key is None else jax.random.fold_in(key, i) for i in range(len(parts))]
        own = [make(k, centered) for make, k in zip(makers, keys, strict=True)]
        return _total([(c, outer) for (c, _), outer in zip(parts, own, strict=True)])

    known = len(makers) == len(outers)
    return Outer(value, hessian_product, whiten, residual, report, scored if known else None)


def _root(c: Any) -> Array:
    return jnp.sqrt(jnp.asarray(c, tree.widest(jnp.result_type(float))))
