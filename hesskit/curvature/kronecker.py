r"""The Kronecker factors of a model as an operator, with inverse and determinant in closed form.

With R = U diag(a) U' and C = V diag(b) V' of each block, and S = a b' or corrected
(linalg/kronecker_basis.py),

    (R (x) C + lambda)^{-1} W  =  U ((U'W V) / (S + lambda)) V'             (1)

    log det(R (x) C + lambda)  =  sum_ij log(S_ij + lambda)                 (2)

Source: Martens & Grosse (2015), section 4; Ritter, Botev & Barber (2018), "A scalable Laplace
approximation for neural networks", section 3.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import blocks, errors, objective, tree
from hesskit.core.blocks import Block
from hesskit.core.keys import as_key
from hesskit.core.structured import Structured
from hesskit.core.types import Array, Params, Product, Scalar
from hesskit.linalg import kronecker as factors
from hesskit.linalg import kronecker_basis, kronecker_factors, kronecker_reading, whitened
from hesskit.linalg.kronecker_reading import Passed
from hesskit.linalg.operator import Operator, Term
from hesskit.linalg.slots import empty_slots


@dataclasses.dataclass(frozen=True)
class _Blocks:
    """The curvature whose data are eigenvectors of factors; equal for equal blocks."""

    blocks: tuple[Block, ...]

    def __call__(self, params: Params, args: Any) -> Product:
        del params
        return functools.partial(kronecker_basis.apply, args, self.blocks)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["terms", "damping"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True, eq=False)
class KroneckerOperator(Operator):
    """An `Operator` of Kronecker factors, whose `solve` and `logdet` are exact.

    A sum of it with another, or a multiple, is an `Operator` like any other.
    """

    def solve(
        self,
        v: Params,
        damping: Scalar = 0,
        *,
        tol: Scalar | None = None,
        max_products: int | None = None,
    ) -> Params:
        """The solution x of (A + damping) x = v, by (1).

        Args:
          v: the right-hand side, like params.
          damping: a multiple of the identity that is added, ().
          tol: not needed: the solution is exact.
          max_products: likewise.

        Returns:
          x like params; not finite where A + damping is singular.
        """
        del tol, max_products
        errors.check_number(damping, name="damping", low=-jnp.inf)
        v = errors.check_like(errors.check_params(v, name="v"), self.like, name="v", dtypes=True)
        return _solve(self, v, jnp.asarray(damping, self.damping.dtype))

    def logdet(self, damping: Scalar = 0) -> Array:
        """The logarithm of det(A + damping), by (2).

        Args:
          damping: a multiple of the identity that is added, ().

        Returns:
          A () array; -inf or NaN where A + damping is not positive definite.
        """
        errors.check_number(damping, name="damping", low=-jnp.inf)
        return _logdet(self, jnp.asarray(damping, self.damping.dtype))


def _parts(op: KroneckerOperator) -> tuple[Any, tuple[Block, ...]]:
    (term,) = op.terms
    return term.args, term.curvature.blocks


@jax.jit
def _solve(op: KroneckerOperator, v: Params, damping: Array) -> Params:
    slots, found = _parts(op)
    return kronecker_basis.solve(slots, found, objective.split(v), op.damping + damping)


@jax.jit
def _logdet(op: KroneckerOperator, damping: Array) -> Array:
    slots, found = _parts(op)
    values = [s.reshape(-1) for s in kronecker_basis.eigenvalues(slots, found)]
    parts = [jnp.sum(jnp.log(s + (op.damping + damping).astype(s.dtype))) for s in values]
    return functools.reduce(jnp.add, parts).astype(op.damping.dtype)


def kronecker_operator(
    value_fn: Callable[..., Any],
    params: Params,
    *,
    args: Any = (),
    num_samples: int = 1,
    estimator: str = "sampled",
    eigenvalue_correction: bool = False,
    sharing: str = "expand",
    shared: str = "sum",
    key: Any = 0,
    max_factor_dim: int = blocks.MAX_DIM,
) -> KroneckerOperator:
    r"""The block-diagonal Kronecker approximation of the Gauss-Newton matrix at `params`.

    `hesskit.kronecker_table` says which leaf has which block.

    Args:
      value_fn: `hesskit.composite(...)`, `hesskit.least_squares_loss(...)` or a sum of such with
        `hesskit.l2`, which is a multiple of the identity in the block of its leaf.
      params: a pytree of real float arrays.
      args: data: a tuple, positional after params, or a dict, by name.
      num_samples: random vectors of the outputs' curvature, each one pass back over all data.
      estimator: "sampled", or "exact", as in `hesskit.kfac`; one sample is then enough.
      eigenvalue_correction: whether the eigenvalues of a block are the diagonal of the curvature
        in its eigenvectors, in place of products of those of the factors: of all such matrices the
        nearest to the Gauss-Newton block, if the estimate is exact and no example has two places.
      sharing: "expand" or "reduce", as in `hesskit.kfac`.
      shared: "sum" or "sampled", as in `hesskit.kfac`.
      key: an int or a key, of the random vectors.
      max_factor_dim: a factor of more rows is a diagonal.

    Returns:
      A `KroneckerOperator`, positive semidefinite.

    Raises:
      TypeError: the objective has no structure, or params are complex.
      ValueError: an argument is out of its range.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> loss = hesskit.composite(hesskit.losses.squared_error(), lambda p, x: x @ p["w"])
      >>> x, t = jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.zeros((2, 1))
      >>> op = hesskit.kronecker_operator(loss, {"w": jnp.ones((2, 1))}, args=(x, t))
      >>> print(op.dense(), op.logdet(1.0).round(4))
      [[4. 0.]
       [0. 1.]] 2.3026

    References:
      Martens & Grosse (2015), ICML. Ritter, Botev & Barber (2018), ICLR. George et al. (2018),
      NeurIPS.
    """
    errors.check_callable(value_fn, name="value_fn")
    errors.check_data(args)
    errors.check_count(num_samples, name="num_samples")
    errors.check_choice(estimator, kronecker_reading.ESTIMATORS, name="estimator")
    errors.check_choice(eigenvalue_correction, (False, True), name="eigenvalue_correction")
    errors.check_choice(sharing, kronecker_factors.SHARING, name="sharing")
    errors.check_choice(shared, blocks.SHARED, name="shared")
    errors.check_count(max_factor_dim, name="max_factor_dim")
    params = errors.check_params(params)
    if objective.is_complex(params):
        raise TypeError("kronecker_operator takes real params; split complex leaves in two")
    fn, _ = objective.real(value_fn, params, args=args, caller="kronecker_operator")
    if not isinstance(fn, Structured):
        raise TypeError(whitened.plain("kronecker_operator", of_model=True))
    options = _Options(
        num_samples, estimator, eigenvalue_correction, sharing, shared, max_factor_dim
    )
    found = tuple(block._replace(uses=()) for block in _plan(fn, params, options).blocks)
    dtype = tree.result_dtype(params)
    slots = _slots(value_fn, params, args, jax.random.bits(as_key(key), (), jnp.uint32), options)
    term = Term(_Blocks(found), jnp.ones((), dtype), params, slots)
    return KroneckerOperator((term,), jnp.zeros((), dtype))


class _Options(NamedTuple):
    num_samples: int
    estimator: str
    corrected: bool
    sharing: str
    shared: str
    max_factor_dim: int


def _plan(fn: Structured, params: Params, options: _Options) -> blocks.Plan:
    most, shared = options.max_factor_dim, options.shared
    return blocks.plan(lambda p: fn.inner(p)[0], params, max_dim=most, shared=shared)


@functools.partial(jax.jit, static_argnames=("value_fn", "options"))
def _slots(
    value_fn: Callable[..., Any], params: Params, args: Any, seed: Array, options: _Options
) -> Any:
    """Eigenvectors of the factors."""
    fn, _ = objective.real(value_fn, params, args=args, caller="kronecker_operator")
    assert isinstance(fn, Structured)
    plan = _plan(fn, params, options)
    like = empty_slots(params, tuple(block.shape for block in plan.blocks))
    at = kronecker_reading.read(fn, params, plan)

    def mean(of_pass: Callable[[Passed], Any]) -> Any:
        num = options.num_samples
        return kronecker_reading.estimate(at, seed, options.estimator, of_pass, num=num)

    slots = mean(lambda p: kronecker_factors.statistics(plan, p, like, sharing=options.sharing))
    slots = kronecker_basis.turned(factors.normal(slots, plan.blocks), plan.blocks)
    if not options.corrected:
        return slots
    values = mean(lambda p: kronecker_factors.squares(plan, p, slots, sharing=options.sharing))
    return kronecker_basis.corrected(slots, slots, values, jnp.ones(()))
