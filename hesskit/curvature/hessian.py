r"""The Hessian of a scalar function: one product, and the dense matrix.

    H v  =  d/dt grad f(x + t v) at t = 0,     H[:, i] = H e_i              (1)

Source: Pearlmutter (1994); Griewank & Walther (2008), chapter 3.
"""

import dataclasses
from typing import Any

import jax

from hesskit.core import errors, objective, tree
from hesskit.core.derivatives import linearized
from hesskit.core.types import Array, Params, Product, ValueFn
from hesskit.linalg.dense import dense
from hesskit.linalg.operator import Operator, operator
from hesskit.linalg.streamed import of_data


def hvp(value_fn: ValueFn, params: Params, v: Params, *, args: Any = ()) -> Params:
    """The Hessian of `value_fn` at `params` times `v`.

    Args:
      value_fn: `value_fn(params, ...) -> ()`.
      params: a pytree of real or complex float arrays.
      v: like params, same dtypes.
      args: data for `value_fn`: a tuple, positional after params, or a dict, by name.

    Returns:
      H v, like params. For complex leaves C^n is R^{2n}.

    Raises:
      TypeError: a leaf or the value is not a float, or `v` differs in dtype.
      ValueError: `v` differs from params in structure or shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> import hesskit
      >>> print(hesskit.hvp(lambda x: jnp.sum(x**3), jnp.ones(2), jnp.array([1.0, 2.0])))
      [ 6. 12.]
    """
    params = errors.check_params(params)
    v = errors.check_like(errors.check_params(v, name="v"), params, name="v", dtypes=True)
    fn, start = objective.real(value_fn, params, args=args, caller="hvp")
    product = linearized(fn, start).product
    assert product is not None
    return objective.join(product(objective.split(v)), params)


_MISSING: Any = object()


def hessian(
    value_fn: ValueFn,
    params: Params = _MISSING,
    *,
    args: Any = (),
    chunk_size: int | None = None,
    as_tree: bool = False,
) -> Any:
    """The dense Hessian of `value_fn` at `params`.

    Args:
      value_fn: `value_fn(params, ...) -> ()`.
      params: a pytree of real float arrays with n entries in all.
      args: data for `value_fn`: a tuple, positional after params, or a dict, by name.
      chunk_size: columns found at once; memory grows with it. None means what suits `value_fn`.
      as_tree: give the tree of trees of `jax.hessian` instead of the matrix.

    Returns:
      An (n, n) array of at least float32, rows and columns in the order of
      `jax.flatten_util.ravel_pytree(params)`; or the tree of trees.

    Raises:
      TypeError: params is missing, a leaf or the value is no real float.
      ValueError: the value is not a scalar, params is empty.

    Example:
      >>> import jax.numpy as jnp
      >>> import hesskit
      >>> print(hesskit.hessian(lambda p: p["a"] ** 2 * p["b"], {"a": jnp.array(1.0), "b": 2.0}))
      [[4. 2.]
       [2. 0.]]
    """
    if params is _MISSING:
        raise TypeError(
            "hesskit.hessian needs the point: hessian(f, x). (jax.hessian(f)(x) is the curried "
            "form.)"
        )
    errors.check_count(chunk_size, name="chunk_size")
    params = errors.check_params(params)
    if objective.is_complex(params):
        raise TypeError("hesskit.hessian needs real params; for complex ones use hesskit.hvp")
    fn, params = objective.real(value_fn, params, args=args, caller="hessian")
    product = linearized(fn, params).product
    assert product is not None
    matrix = dense(product, params, chunk_size=chunk_size)
    return blocks(matrix, params) if as_tree else matrix


def blocks(matrix: Array, params: Params) -> Params:
    """The (n, n) matrix as the tree of trees of `jax.hessian`."""
    rows = jax.vmap(lambda row: tree.unravel(row, params))(matrix)

    def block(column: Array, like: Array) -> Params:
        parts = jax.vmap(lambda v: tree.unravel(v, params), in_axes=1, out_axes=-1)(
            column.reshape(column.shape[0], -1)
        )
        return jax.tree.map(lambda a: a.reshape(*a.shape[:-1], *like.shape), parts)

    return jax.tree.map(block, rows, params)


@dataclasses.dataclass(frozen=True)
class _Hessian:
    """The curvature of `value_fn`; equal for equal functions, so that programs are shared."""

    value_fn: ValueFn

    def __call__(self, params: Params, args: Any) -> Product:
        fn, start = objective.real(self.value_fn, params, args=args, caller="hessian_operator")
        product = linearized(fn, start).product
        assert product is not None
        return product


def hessian_operator(
    value_fn: ValueFn, params: Params, *, args: Any = (), batches: Any = None
) -> Operator:
    """The Hessian of `value_fn` at `params` as an operator: products, sums, solves, the matrix.

    Nothing is computed yet. A compiled program serves all points and data of the same shapes.

    Args:
      value_fn: `value_fn(params, ...) -> ()`.
      params: a pytree of real or complex float arrays.
      args: data for `value_fn`: a tuple, positional after params, or a dict, by name.
      batches: data that does not fit at once, in place of args: a tuple or dict like args whose
        arrays have an axis of batches first, scanned inside a product; or a list of args, or a
        function that returns a fresh iterator of them, visited from Python. The operator is that of
        all data: the mean over examples, weighted by the size of each batch; the sum where
        `value_fn` is a `hesskit.composite` or `least_squares_loss` of reduction "sum".

    Returns:
      An `Operator` on vectors like params; for a list or a function, one that is applied outside
      of `jax.jit`. For complex leaves C^n is R^{2n}.

    Raises:
      TypeError: a leaf or an entry of `args` is no array of numbers, `value_fn` is no function.
      ValueError: params is empty.

    Example:
      >>> import jax.numpy as jnp
      >>> from hesskit.curvature.hessian import hessian_operator
      >>> op = hessian_operator(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0]))
      >>> print(op @ jnp.ones(2), (2 * op).shift(1.0).dense().diagonal())
      [ 6. 12.] [13. 25.]
      >>> print((op @ op.solve(jnp.ones(2))).round(3))
      [1. 1.]
    """
    errors.check_callable(value_fn, name="value_fn")
    errors.check_data(args)
    params = errors.check_params(params)
    return of_data(
        lambda fn, data, _: operator(_Hessian(fn), params, data), value_fn, args, batches
    )
