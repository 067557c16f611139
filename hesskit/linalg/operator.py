r"""Matrices known by their products: operators, and what an algorithm needs of a preconditioner.

An `Operator` is a symmetric matrix on the space of `params`,

    A  =  sum_k c_k M_k(params_k, args_k)  +  damping I                     (1)

with each M_k a curvature (curvature/hessian.py). It is a pytree: points, data, coefficients and
damping are its leaves, the functions are static. So it passes through `jit` and `vmap`, and one
compiled program serves every point: nothing is linearized before the algorithm that applies it.

A preconditioner approximates (H + damping)^{-1} by a symmetric positive definite map that is
cheap to apply; the method measures its trust region in the norm |s|_M, M the approximation of H.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import errors, objective, select, tree
from hesskit.core.types import Array, Params, Product, Scalar
from hesskit.linalg.cg import cg
from hesskit.linalg.dense import dense

SOLVE_TOL = 0.5
"""`solve` stops at |b - Ax| <= eps^SOLVE_TOL |b|: sqrt(eps), as scipy and JAX advise for CG."""


class Preconditioner(NamedTuple):
    """Three pure functions; the state's shapes follow from params alone.

    Attributes:
      init: `init(params) -> state`.
      update: `update(state, product, params) -> state`, once at each new point, with the Hessian
        product there; may spend products. `product.objective` is the function of params that it
        is of, where the method knows one.
      apply: `apply(state, vector, damping) -> vector`, (M + damping)^{-1} vector, symmetric
        positive definite.
    """

    init: Callable[[Params], Any]
    update: Callable[[Any, Product, Params], Any]
    apply: Callable[[Any, Params, Array], Params]


def check_preconditioner(value: Any) -> None:
    """Raises TypeError unless it is a `Preconditioner` or None."""
    if not (value is None or isinstance(value, Preconditioner)):
        raise TypeError(
            f"preconditioner must be a hesskit.Preconditioner or None, got {type(value).__name__}; "
            "call hesskit.kronecker_preconditioner() for one"
        )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["coefficient", "params", "args"],
    meta_fields=["curvature"],
)
@dataclasses.dataclass(frozen=True)
class Term:
    """One c M(params, args) of (1).

    Attributes:
      curvature: `curvature(params, args) -> product` on real vectors (`objective.split`);
        static, compared and hashed.
      coefficient: c, ().
      params: the point.
      args: the data.
    """

    curvature: Callable[[Params, Any], Product]
    coefficient: Array
    params: Params
    args: Any


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["terms", "damping"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    """The symmetric matrix (1): `op(v)`, `op @ v`, `a + b`, `2 * a`, `a.shift(c)`, `a.block("w")`.

    Attributes:
      terms: a tuple of `Term`, all on the same space.
      damping: the multiple of the identity, ().
    """

    terms: tuple[Term, ...]
    damping: Array

    @property
    def like(self) -> Params:
        """A point: structure, shapes and dtypes of the vectors."""
        return self.terms[0].params

    @property
    def shape(self) -> tuple[int, int]:
        """The pair (n, n)."""
        return (tree.size(self.like), tree.size(self.like))

    def product(self) -> Product:
        """The map v -> A v on real vectors, linearized here and now: for one traced algorithm."""
        parts = [(term.coefficient, term.curvature(term.params, term.args)) for term in self.terms]

        def apply(v: Params) -> Params:
            total = tree.scale(self.damping, v)
            for coefficient, product in parts:
                total = tree.axpy(coefficient, product(v), total)
            return total

        return apply

    def __call__(self, v: Params) -> Params:
        """A v, for v like params."""
        v = errors.check_like(errors.check_params(v, name="v"), self.like, name="v", dtypes=True)
        return _apply(self, v)

    def __matmul__(self, v: Params) -> Params:
        """A v, for v like params."""
        return self(v)

    def __add__(self, other: "Operator") -> "Operator":
        """The sum of two operators on the same space."""
        if not isinstance(other, Operator):
            return NotImplemented
        errors.check_like(other.like, self.like, name="the other operator's params", dtypes=True)
        return Operator(self.terms + other.terms, self.damping + other.damping)

    def __mul__(self, factor: Scalar) -> "Operator":
        """The multiple by a number."""
        if isinstance(factor, Operator) or jnp.ndim(factor) != 0:
            return NotImplemented
        factor = jnp.asarray(factor, self.damping.dtype)
        terms = tuple(
            dataclasses.replace(term, coefficient=factor * term.coefficient) for term in self.terms
        )
        return Operator(terms, factor * self.damping)

    __rmul__ = __mul__

    def shift(self, damping: Scalar) -> "Operator":
        """A + damping I."""
        errors.check_number(damping, name="damping", low=-jnp.inf)
        more = jnp.asarray(damping, self.damping.dtype)
        return dataclasses.replace(self, damping=self.damping + more)

    def block(self, selector: Any) -> "Operator":
        """The diagonal block of some leaves: of one layer, say.

        Args:
          selector: a path ("layer/w", "layer/*") or a list of paths, a prefix tree of bools, or
            `f(path, leaf) -> bool`.

        Returns:
          An `Operator` on vectors like params with None in place of the other leaves. A product
          costs as much as one of the whole.

        Raises:
          TypeError: the selector is none of these.
          ValueError: it matches no leaf; the message lists the paths.
        """
        chosen = select.select(selector, self.like, name="block")
        return Operator(tuple(_of_block(t, chosen) for t in self.terms), self.damping)

    def dense(self, *, chunk_size: int | None = None) -> Array:
        """The matrix.

        Args:
          chunk_size: columns found at once; None means a number that suits the size.

        Returns:
          An (n, n) array, rows in the order of `jax.flatten_util.ravel_pytree(params)`.

        Raises:
          TypeError: params is complex.
        """
        errors.check_count(chunk_size, name="chunk_size")
        if objective.is_complex(self.like):
            raise TypeError(
                "dense needs real params; an operator on complex ones has only products"
            )
        return _dense(self, chunk_size)

    def solve(
        self,
        v: Params,
        damping: Scalar = 0,
        *,
        tol: Scalar | None = None,
        max_products: int | None = None,
    ) -> Params:
        """The solution x of (A + damping) x = v by conjugate gradients.

        Args:
          v: the right-hand side, like params.
          damping: a multiple of the identity that is added, ().
          tol: stop at |v - (A + damping) x| <= tol |v|; None means the square root of eps.
          max_products: bound on products; None means 10 n.

        Returns:
          x like params: the last iterate if `max_products` is reached, and NaN where A + damping
          is seen not to be positive definite (a larger damping makes it so).
        """
        errors.check_number(damping, name="damping", low=-jnp.inf)
        errors.check_number(tol, name="tol")
        errors.check_count(max_products, name="max_products")
        v = errors.check_like(errors.check_params(v, name="v"), self.like, name="v", dtypes=True)
        if tol is None:
            tol = tree.coarsest_eps(self.like) ** SOLVE_TOL
        limit = 10 * tree.size(v) if max_products is None else max_products
        return _solve(self.shift(damping), v, tol, limit)


@dataclasses.dataclass(frozen=True)
class _Block:
    """The curvature of some leaves, the others held; its data are these and those of the whole."""

    curvature: Callable[[Params, Any], Product]
    chosen: tuple[bool, ...]

    def __call__(self, params: Params, args: Any) -> Product:
        rest, data = args
        product = self.curvature(select.merge(rest, params), data)
        still = tree.zeros_like(objective.split(rest))

        def apply(v: Params) -> Params:
            return select.split(product(select.merge(still, v)), self.chosen)[1]

        return apply


def _of_block(term: Term, chosen: tuple[bool, ...]) -> Term:
    rest, params = select.split(term.params, chosen)
    return Term(_Block(term.curvature, chosen), term.coefficient, params, (rest, term.args))


def operator(curvature: Callable[[Params, Any], Product], params: Params, args: Any) -> Operator:
    """The operator of one curvature at one point."""
    dtype = tree.result_dtype(params)
    term = Term(curvature, jnp.ones((), dtype), params, args)
    return Operator((term,), jnp.zeros((), dtype))


@jax.jit
def _apply(op: Operator, v: Params) -> Params:
    return objective.join(op.product()(objective.split(v)), v)


@functools.partial(jax.jit, static_argnums=1)
def _dense(op: Operator, chunk_size: int | None) -> Array:
    return dense(op.product(), op.like, chunk_size=chunk_size)


@jax.jit
def _solve(op: Operator, v: Params, tol: Array, max_products: Array) -> Params:
    b = objective.split(v)
    found = cg(op.product(), b, tol=tol * tree.norm(b), max_products=max_products)
    sound = ~(found.negative_curvature | found.flat)
    x = jax.tree.map(lambda a: jnp.where(sound, a, jnp.nan), found.x)
    return objective.join(x, v)
