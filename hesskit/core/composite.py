r"""Objectives with a structure: a convex loss of the outputs of a model.

    f(p; data)  =  l(r(p; data); data)                                      (1)

with r the inner function, whose outputs are any pytree, and l the outer loss. A `Composite` is the
user's objective, called like a function. With its data filled in it is a `Structured`
(core/structured.py), and everything that wraps an objective maps one to another.

Source: Schraudolph (2002); Martens (2020), section 6.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import errors, objective, signature, tree
from hesskit.core.structured import Outer, Structured, by_scores
from hesskit.core.terms import ByParts, Term
from hesskit.core.types import Array, Params


@dataclasses.dataclass(frozen=True, eq=False)
class Composite(ByParts, Term):
    """The objective (1): `composite(params, *data) -> ()`, or -> ((), aux).

    Attributes:
      outer: an object with the methods of `Outer`, each with the data behind its arguments; and,
        if a complex output is not to be its two parts along a new first axis, with `split`.
      inner: `inner(params, ...) -> outputs`, or -> (outputs, aux).
      has_aux: whether `inner` returns a pair.
    """

    outer: Any
    inner: Callable[..., Any]
    has_aux: bool = False

    def __post_init__(self) -> None:
        """Takes the signature of both functions; TypeError if data could belong to either."""
        if signature.positional(self.inner) is None and signature.positional(self.outer) != ():
            raise TypeError(
                "inner takes any number of arguments, so nobody knows which data is its own and "
                "which that of outer; name its arguments"
            )
        signature.adopt(self, signature.joint(self.inner, self.outer))

    def __call__(self, params: Params, *args: Any, **data: Any) -> Any:
        """The value at `params`, or (value, aux)."""
        whole = self.structure(args, data, self.names[0])
        return whole(params) if self.has_aux else whole.without_aux()(params)

    @property
    def is_squares(self) -> bool:
        """Whether it is a sum of squared residuals, robust or not."""
        return getattr(self.outer, "is_squares", False)

    @property
    def names(self) -> tuple[str, str]:
        """What the user calls the objective's factory and its inner function."""
        return getattr(self.outer, "names", ("composite", "inner"))

    def _split(
        self, args: tuple[Any, ...], caller: str
    ) -> tuple[tuple[Any, ...], tuple[Any, ...], dict[str, Any]]:
        """Positional data of `inner`, that of `outer`, which comes behind, and what both take."""
        extra = signature.positional(self.outer)
        own = signature.positional(self.inner, optional=extra == ())
        count = len(args) if own is None else len(own)
        first, last = args[:count], args[count:]
        if extra is None:
            return first, last, {}
        both = dict(zip(own or (), first, strict=False))
        both = {key: item for key, item in both.items() if key in signature.names(self.outer)}
        rest = [key for key in extra if key not in both]
        if len(last) > len(rest):
            raise TypeError(
                f"{caller} got {len(args)} positional data; {self.names[1]} takes {count} after "
                f"params and the loss {len(rest)} after its outputs; pass what is optional by name"
            )
        if both:  # it stands among the names of what is behind
            return first, (), {**both, **dict(zip(rest, last, strict=False))}
        return first, last, {}

    def structure(self, args: tuple[Any, ...], data: Mapping[str, Any], caller: str) -> Structured:
        """The objective with its data filled in."""
        name = self.names[1]
        first, last, both = self._split(args, caller)
        inner_data, _ = signature.select(self.inner, data, name)
        outer_data, _ = signature.select(self.outer, data, "outer")
        outer_data |= both

        split = getattr(self.outer, "split", objective.split)

        def inner(params: Params) -> tuple[Any, Any]:
            with errors.calling(name, params, caller):
                out = self.inner(params, *first, **inner_data)
            if not self.has_aux:
                return split(_outputs(out, name)), None
            if not (isinstance(out, tuple) and len(out) == 2):
                told = errors.describe(out)
                raise TypeError(f"{name} must return (outputs, aux) with has_aux=True, got {told}")
            return split(_outputs(out[0], name)), out[1]

        def fill(method: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(method)
            def call(*given: Any) -> Any:
                return method(*given, *last, **outer_data)

            return call

        loss = self.outer
        outer = Outer(
            value=fill(loss),
            hessian_product=fill(loss.hessian_product),
            whiten=fill(loss.whiten),
            residual=fill(loss.residual),
            report=fill(loss.report),
        )

        def scored(key: Any, centered: bool) -> Outer:
            scores = fill(functools.partial(loss.scores, key=key))
            return by_scores(outer, scores, given=key is None, centered=centered)

        known = getattr(loss, "is_likelihood", False)
        return Structured(inner, outer._replace(scored=scored) if known else outer)


def _outputs(out: Any, name: str) -> Any:
    """`out` as a pytree of arrays, checked."""
    leaves = jax.tree_util.tree_leaves_with_path(out)
    if not leaves:
        raise TypeError(f"{name} returned {out!r}, expected arrays; is a `return` missing?")
    for path, leaf in leaves:
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            where = jax.tree_util.keystr(path) and f" at {jax.tree_util.keystr(path)}"
            raise TypeError(f"{name} returned {dtype}{where}; derivatives need floats")
    if all(jnp.size(leaf) == 0 for _, leaf in leaves):
        raise ValueError(f"{name} returned {errors.describe(out)}: no entries; is the data empty?")
    return jax.tree.map(jnp.asarray, out)


@dataclasses.dataclass(frozen=True, eq=False)
class Autodiff(ByParts):
    """A convex loss of outputs by automatic differentiation, its factor by eigenvalues of H.

    `whiten` forms the dense Hessian of the loss, (m, m) for m outputs.

    Attributes:
      fn: `fn(outputs, ...) -> ()`.
    """

    fn: Callable[..., Array]

    def __post_init__(self) -> None:
        """Takes the signature of `fn`, so that data finds its place by name."""
        signature.adopt(self, signature.of(self.fn))

    def __call__(self, outputs: Any, *args: Any, **data: Any) -> Array:
        """The loss, ()."""
        return errors.check_value(self.fn(outputs, *args, **data), name="outer")

    def hessian_product(self, outputs: Any, v: Any, *args: Any, **data: Any) -> Any:
        """H v."""
        grad = jax.grad(lambda r: self(r, *args, **data))
        return jax.jvp(grad, (outputs,), (v,))[1]

    def whiten(self, outputs: Any, v: Any, *args: Any, **data: Any) -> Any:
        """F'v with F = Q sqrt(w), from H = Q diag(w) Q' where w > 0."""
        flat = tree.ravel(outputs)
        matrix = jax.hessian(lambda r: self(tree.unravel(r, outputs), *args, **data))(flat)
        w, q = jnp.linalg.eigh(matrix)
        return tree.unravel(jnp.sqrt(jnp.maximum(w, 0)) * (q.T @ tree.ravel(v)), outputs)

    def residual(self, outputs: Any, *args: Any, **data: Any) -> None:
        """None: the gradient may leave the range of F."""

    def report(self, outputs: Any, aux: Any, *args: Any, **data: Any) -> Any:
        """The aux of the inner function."""
        del outputs, args, data
        return aux


def composite(
    outer: Callable[..., Array], inner: Callable[..., Any], *, has_aux: bool = False
) -> Composite:
    r"""The objective `outer(inner(params, ...), ...)`, which keeps its structure.

    Gauss-Newton methods use it: their matrix J'H J, with J the Jacobian of `inner` and H the
    Hessian of `outer`, is positive semidefinite for a convex `outer`. Everywhere else it is a
    function like any other: positional data goes to `inner` until its parameters are filled, the
    rest to `outer` (where that takes some, what is optional in `inner` goes by name); named data to
    whoever has the name.

    Args:
      outer: `outer(outputs, ...) -> ()`, convex in the outputs: one of `hesskit.losses`, or any
        function (its Hessian is then found by automatic differentiation, and the dense methods
        form it, m x m for m outputs).
      inner: `inner(params, ...) -> outputs`, any pytree of float arrays, or `-> (outputs, aux)`.
      has_aux: whether `inner` returns a pair.

    Returns:
      A function of params and data; it adds to other objectives and scales by numbers.

    Raises:
      TypeError: one of both is no function, `outer` takes no outputs, or `inner` takes `*args`.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> model = lambda p, x: p[0] + p[1] * x
      >>> quartic = lambda y, target: jnp.sum((y - target) ** 4)
      >>> loss = hesskit.composite(quartic, model)
      >>> print(loss(jnp.ones(2), jnp.arange(3.0), jnp.zeros(3)))
      98.0
    """
    errors.check_callable(inner, name="inner")
    errors.check_callable(outer, name="outer", of="outputs")
    found = signature.parameters(outer)
    if found and all(p.kind is p.KEYWORD_ONLY for p in found):
        called = f"{getattr(outer, '__name__', 'outer')}()"
        told = "outer takes no outputs; if it makes a loss, call it"
        raise TypeError(f"{told}: composite({called}, ...)")
    if _knows_curvature(inner):
        raise TypeError("inner (second argument) must take params first, got a loss of outputs")
    return Composite(outer if _knows_curvature(outer) else Autodiff(outer), inner, has_aux)


def _knows_curvature(fn: Any) -> bool:
    return all(hasattr(fn, name) for name in ("hessian_product", "whiten", "residual"))
