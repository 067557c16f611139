r"""What every question of a matrix takes: a function and a point, an operator, or a matrix.

    definiteness(f, x),   definiteness(f, x, args=(data,)),   definiteness(op),   definiteness(A)

All become one `Operator`. A question is an algorithm of its product, compiled once for each shape;
an operator over batches that Python visits runs the same algorithm step by step instead.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core import errors, objective, tree
from hesskit.core.types import Array, Params, Product
from hesskit.curvature.hessian import hessian_operator
from hesskit.linalg.dense import dense as densely
from hesskit.linalg.operator import Operator, operator
from hesskit.linalg.streamed import Streamed
from hesskit.solvers import inputs

DENSE_LIMIT = 1000
"""Parameters up to which the matrix is formed: n products, and seconds of an `eigh` beyond it."""


def _matrix_curvature(params: Params, args: Any) -> Product:
    """The matrix as a curvature of vectors."""
    del params
    return lambda v: jnp.matmul(args, v, precision=jax.lax.Precision.HIGHEST)


def as_operator(
    subject: Any, params: Params = None, *, args: Any = (), batches: Any = None, caller: str
) -> Operator:
    """The operator that a question is asked of.

    Args:
      subject: `value_fn(params, ...) -> ()`, whose Hessian is meant; an `Operator`; or a symmetric
        matrix, (n, n).
      params: the point, for a function.
      args: its data.
      batches: data in batches in place of `args`, as in `hesskit.hessian_operator`.
      caller: the question, for messages.

    Returns:
      An `Operator`.

    Raises:
      TypeError: a function has no point, an operator or a matrix has one, or it is none of these; a
        matrix is complex.
      ValueError: the matrix is not square, not symmetric, or empty.
    """
    known = isinstance(subject, Operator) or not callable(subject)
    if known and (params is not None or args != () or batches is not None):
        what = "an operator" if isinstance(subject, Operator) else "a matrix"
        raise TypeError(f"{caller} of {what} takes no params, args or batches: they are in it")
    if isinstance(subject, Operator):
        return subject
    if callable(subject):
        if params is None:
            raise TypeError(f"hesskit.{caller} needs the point: {caller}(f, x)")
        fn = inputs.hashable(subject)
        return hessian_operator(fn, params, args=args, batches=batches)
    return _of_matrix(subject, caller)


def _of_matrix(subject: Any, caller: str) -> Operator:
    """The operator of an (n, n) array."""
    if not (hasattr(subject, "shape") or isinstance(subject, (list, tuple))):
        raise TypeError(
            f"{caller} takes a function and a point, an operator or a matrix, got "
            f"{errors.describe(subject)}"
        )
    matrix = jnp.asarray(subject)
    if jnp.iscomplexobj(matrix):
        raise TypeError(
            f"{caller} needs a real matrix, got {matrix.dtype}; of a Hermitian one pass "
            "[[Re, -Im], [Im, Re]], where each eigenvalue comes twice"
        )
    if not jnp.issubdtype(matrix.dtype, jnp.floating):
        matrix = matrix.astype(jnp.result_type(float))
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"{caller} needs a square matrix, got shape {matrix.shape}")
    if not isinstance(matrix, Tracer):
        gap = jnp.max(jnp.abs(matrix - matrix.T))
        if gap > float(jnp.finfo(matrix.dtype).eps) ** 0.5 * jnp.max(jnp.abs(matrix)):
            raise ValueError(
                f"{caller} needs a symmetric matrix; |A - A'| is {float(gap):.2g}. Pass "
                "(A + A.T) / 2 if its symmetric part is meant"
            )
    point = jnp.zeros(matrix.shape[0], matrix.dtype)
    return operator(_matrix_curvature, point, (matrix + matrix.T) / 2)


def real_like(op: Operator) -> Params:
    """A point of the real space that products act on: one vector where nothing is lost by it."""
    like = objective.split(op.like)
    return tree.ravel(like) if inputs.may_ravel(like) else like


def restored(op: Operator, v: Params) -> Params:
    """A vector of `real_like(op)` as a pytree like params."""
    like = objective.split(op.like)
    if inputs.may_ravel(like):
        v = tree.unravel(v, like)
    return objective.join(v, op.like)


def restored_rows(op: Operator, rows: Params) -> Params:
    """The same of each row of a stack of vectors."""
    return jax.vmap(lambda v: restored(op, v))(rows)


def _raveled(product: Product, like: Params) -> Product:
    if not inputs.may_ravel(like):
        return product
    return lambda v: tree.ravel(product(tree.unravel(v, like)))


def _inside(op: Operator) -> Product:
    """The product of one traced algorithm."""
    return _raveled(op.product(), objective.split(op.like))


def _outside(op: Operator) -> Product:
    """The product of an algorithm that Python runs step by step."""

    def product(v: Params) -> Params:
        with jax.disable_jit(False):
            return objective.split(op(objective.join(v, op.like)))

    return _raveled(product, objective.split(op.like))


@functools.partial(jax.jit, static_argnames=("algorithm", "static"))
def _compiled(
    op: Operator,
    data: tuple[Any, ...],
    algorithm: Callable[..., Any],
    static: tuple[tuple[str, Any], ...],
) -> Any:
    return algorithm(_inside(op), real_like(op), *data, **dict(static))


def run(algorithm: Callable[..., Any], op: Operator, *data: Any, **static: Any) -> Any:
    """`algorithm(product, like, *data, **static)`, compiled, of the matrix of `op`.

    Args:
      algorithm: a function of the product and a point; static, so define it at module level.
      op: the operator.
      *data: arrays.
      **static: hashable settings.

    Returns:
      What the algorithm returns; vectors in it are like `real_like(op)`.
    """
    if isinstance(op, Streamed):
        with jax.disable_jit():
            return algorithm(_outside(op), real_like(op), *data, **static)
    return _compiled(op, data, algorithm, tuple(sorted(static.items())))


def dense(op: Operator) -> Array:
    """The matrix, (n, n), complex entries as their real parts."""
    if isinstance(op, Streamed):
        return op.dense()
    return _dense(op)


@jax.jit
def _dense(op: Operator) -> Array:
    return densely(_inside(op), real_like(op))


def is_small(op: Operator) -> bool:
    """Whether the matrix is formed."""
    return size_of(op) <= DENSE_LIMIT


def eps_of(op: Operator) -> float:
    """The rounding of the coarsest leaf."""
    return tree.coarsest_eps(op.like)


def takes_dense(op: Operator, dense: bool | None) -> bool:
    """Whether the matrix is formed: as asked, or where that is affordable."""
    errors.check_choice(dense, (None, True, False), name="dense")
    return is_small(op) if dense is None else bool(dense)


def size_of(op: Operator) -> int:
    """The number n of real dimensions."""
    return tree.size(objective.split(op.like))
