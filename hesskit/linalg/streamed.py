r"""Operators over data that comes in batches: stacked in memory, or one at a time from outside.

For a loss that is a mean over examples, of which batch i has N_i, the matrix is

    A  =  sum_i w_i A_i,    w_i = N_i / sum N                               (1)

and for one that is a sum, sum_i A_i: in both cases that of all data at once. Batches stacked along
a first axis are scanned inside a compiled product. Batches from a list or a function are visited
from Python, one compiled product each; such an operator does not enter a compiled algorithm.

Source: Martens (2010), "Deep learning via Hessian-free optimization", section 4.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core import errors, microbatch, tree
from hesskit.core.terms import Sum, Term
from hesskit.core.types import Array, Params, Product, Scalar
from hesskit.linalg.operator import SOLVE_TOL, Operator

Make = Callable[[Callable[..., Any], Any, int], Operator]
"""`(value_fn, args, index of the batch) -> Operator`."""

EXHAUSTED = (
    "batches is a generator and is empty after the first product; pass a list or a function that "
    "returns a new iterator"
)


def of_data(make: Make, value_fn: Callable[..., Any], args: Any, batches: Any) -> Operator:
    """The operator of `value_fn` on `args`, or on all `batches`.

    Args:
      make: the operator on some data.
      value_fn: `value_fn(params, ...) -> ()`.
      args: data as one, where there are no batches.
      batches: None; a tuple or dict like `args` whose arrays have an axis of batches first; or a
        list of such `args`, or a function that returns an iterator of them.

    Returns:
      An `Operator`, or a `Streamed` one for a list or a function.

    Raises:
      TypeError: `batches` is a generator, or of none of these kinds.
      ValueError: both `args` and `batches` are given, or batches are empty or of different numbers.
    """
    if batches is None:
        return make(value_fn, args, 0)
    if args != ():
        raise ValueError("give data in args= or in batches=, not in both")
    if isinstance(batches, (tuple, dict)):
        num = _number(batches)
        whole = microbatch.over_parts(value_fn, num)
        return make(_scaled(whole, value_fn, num), batches, 0)
    if isinstance(batches, Iterator):
        raise TypeError(EXHAUSTED)
    if hasattr(batches, "shape") or not (callable(batches) or isinstance(batches, Iterable)):
        raise TypeError(
            "batches must be a tuple or dict of arrays with an axis of batches first, a list of "
            f"batches, or a function that returns an iterator, got {errors.describe(batches)}"
        )
    sizes = [_examples(batch) for batch in _each(batches)]
    if not sizes:
        raise ValueError("batches is empty")
    first = make(value_fn, next(_each(batches)), 0)
    weights = tuple(n / sum(sizes) for n in sizes)
    return Streamed(first.terms, jnp.zeros_like(first.damping), make, value_fn, batches, weights)


def _number(batches: Any) -> int:
    """The common size of the first axes."""
    errors.check_data(batches, name="batches")
    sizes = {
        f"batches{jax.tree_util.keystr(path)}": jnp.shape(leaf)[:1]
        for path, leaf in jax.tree_util.tree_leaves_with_path(batches)
    }
    if not sizes:
        raise ValueError("batches is empty")
    first, *others = sizes
    for name in (first, *others):
        if sizes[name] != sizes[first] or not sizes[name]:
            found = f"{first} has {sizes[first]}, {name} {sizes[name]}"
            raise ValueError(f"arrays of batches= must share the size of their first axis: {found}")
    return sizes[first][0]


def _each(batches: Any) -> Iterator[Any]:
    visited: Any = batches() if callable(batches) else batches
    return iter(visited)


def _examples(batch: Any) -> int:
    """The number of examples: the size of the first axis of the first array."""
    errors.check_data(batch, name="a batch")
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
    return next((shape[0] for shape in shapes if shape), 1)


def _sums(term: Any) -> bool:
    """Whether an objective is known to add over examples."""
    return getattr(getattr(term, "outer", None), "reduction", "mean") == "sum"


def _scaled(whole: Any, value_fn: Any, factor: float) -> Any:
    """`whole` with the term that takes data times `factor`, if that of `value_fn` is a sum."""
    if isinstance(value_fn, Sum):
        takers = value_fn.takers()
        pairs = zip(value_fn.terms, whole.terms, strict=True)
        return Sum(
            tuple(
                (factor * c if i in takers and _sums(old) else c, new)
                for i, ((c, old), (_, new)) in enumerate(pairs)
            )
        )
    return factor * whole if isinstance(whole, Term) and _sums(value_fn) else whole


INSIDE_JIT = (
    "an operator over a list of batches is applied from Python and not inside jit; stack the "
    "batches (arrays with an axis of batches first) for that"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Streamed(Operator):
    """The symmetric matrix (1) of batches that Python visits: `op(v)`, `op @ v`, `2 * op`.

    Every product is one pass over the data; `dense` too. Not for use inside `jax.jit`.

    Attributes:
      terms: those of the first batch, for their space.
      make: the operator of one batch.
      value_fn: the objective.
      batches: a list, or a function that returns an iterator.
      weights: w of each batch.
      coefficient: of the sum.
    """

    make: Make
    value_fn: Callable[..., Any]
    batches: Any
    weights: tuple[float, ...]
    coefficient: Scalar = 1.0

    def _operators(self) -> Iterator[tuple[float, Operator]]:
        """Weight and operator of each batch."""
        count = 0
        for i, batch in enumerate(_each(self.batches)):
            if i < len(self.weights):
                weight = self.weights[i]
                fn = _scaled(self.value_fn, self.value_fn, 1 / weight)
                yield weight, self.make(fn, batch, i)
            count += 1
        if count != len(self.weights):
            raise ValueError(
                f"batches gave {count} batches, {len(self.weights)} when the operator was made; "
                "return the same ones each time"
            )

    def product(self) -> Product:
        """Raises TypeError: there is no product to compile."""
        raise TypeError(INSIDE_JIT)

    def __call__(self, v: Params) -> Params:
        """A v, for v like params, in one pass over the batches."""
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(v)):
            raise TypeError(INSIDE_JIT)
        total = tree.scale(self.damping, jax.tree.map(jnp.asarray, v))
        for weight, operator in self._operators():
            total = tree.axpy(self.coefficient * weight, operator(v), total)
        return total

    def __add__(self, other: Operator) -> Operator:
        """No sum: it would have to visit the data of both."""
        return NotImplemented

    def __mul__(self, factor: Scalar) -> "Streamed":
        """The multiple by a number."""
        if jnp.ndim(factor) != 0:
            return NotImplemented
        return dataclasses.replace(
            self, coefficient=factor * self.coefficient, damping=factor * self.damping
        )

    __rmul__ = __mul__

    def block(self, selector: Any) -> "Streamed":
        """The diagonal block of some leaves; see `Operator.block`."""
        first = super().block(selector)

        def make(value_fn: Callable[..., Any], args: Any, index: int) -> Operator:
            return self.make(value_fn, args, index).block(selector)

        return dataclasses.replace(self, terms=first.terms, make=make)

    def dense(self, *, chunk_size: int | None = None) -> Array:
        """The matrix, (n, n), in one pass; see `Operator.dense`."""
        total = self.damping * jnp.eye(self.shape[0], dtype=self.damping.dtype)
        for weight, operator in self._operators():
            total = total + self.coefficient * weight * operator.dense(chunk_size=chunk_size)
        return total

    def solve(
        self,
        v: Params,
        damping: Scalar = 0,
        *,
        tol: Scalar | None = None,
        max_products: int | None = None,
    ) -> Params:
        """The solution of (A + damping) x = v by conjugate gradients; see `Operator.solve`.

        Args:
          v: the right-hand side, like params.
          damping: a multiple of the identity that is added, ().
          tol: stop at |v - (A + damping) x| <= tol |v|; None means the square root of eps.
          max_products: bound on passes over the data; None means 10 n.

        Returns:
          x like params; NaN where A + damping is seen not to be positive definite.
        """
        operator = self.shift(damping)
        v = jax.tree.map(jnp.asarray, v)
        least = tree.norm(v) * (tree.coarsest_eps(v) ** SOLVE_TOL if tol is None else tol)
        x, r, d = tree.zeros_like(v), v, v
        square = tree.vdot(r, r)
        for _ in range(10 * tree.size(v) if max_products is None else max_products):
            if square <= least**2:
                break
            product = operator(d)
            curvature = tree.vdot(d, product)
            if not curvature > 0:
                return jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), v)
            alpha = square / curvature
            x, r = tree.axpy(alpha, d, x), tree.axpy(-alpha, product, r)
            square, before = tree.vdot(r, r), square
            d = tree.axpy(square / before, d, r)
        return x
