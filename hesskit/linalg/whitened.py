r"""A structured objective l(r(p)) from one linearization: value, gradient, product, whitened rows.

With J the Jacobian of r and H = F F' the curvature of l at the outputs,

    A  =  F' J,    A' A  =  J' H J,    grad  =  A' b  where  F b = grad l   (1)

J comes by columns, one forward pass each, or by rows, one reverse pass each, whichever are fewer;
or all rows in one reverse pass mapped over examples, where the outputs are theirs
(core/per_example.py).

Source: Schraudolph (2002), "Fast curvature matrix-vector products for second-order gradient
descent"; Griewank & Walther (2008), chapter 3.
"""

import contextlib
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import derivatives, per_example, tree
from hesskit.core.derivatives import Evaluation, ProductOf
from hesskit.core.structured import Structured
from hesskit.core.types import Array, Params
from hesskit.linalg import small
from hesskit.linalg.dense import stacked
from hesskit.linalg.row_svd import reduce_rows

FEW = 8
"""Parameters up to which columns, one forward pass each, beat rows by example."""


class Rows(NamedTuple):
    """`matrix` is A of (1), (m, n); `residual` is b, (m,), or None where the loss has none.

    `reduced` is what `row_svd.reduce_rows` makes of them, where that is known.
    """

    matrix: Array
    residual: Array | None
    reduced: tuple[Array, Array, Array] | None = None


def plain(caller: str, *, of_model: bool = False) -> str:
    """The sentence for an objective without structure, or without the model that is read."""
    if of_model:
        return (
            f"{caller} reads the model, not only its loss: objective = "
            "hesskit.composite(loss, model). For squared residuals: "
            "hesskit.least_squares_loss(residual)."
        )
    return (
        f"{caller} needs the residuals, not only their sum of squares: loss = "
        "hesskit.least_squares_loss(residual). For another loss of a model's outputs: "
        "hesskit.composite(outer, inner)."
    )


def evaluate(fn: Any, params: Params, *, has_aux: bool = False, caller: str = "this method") -> Any:
    """Value, gradient, Gauss-Newton product and rows of a structured objective, from one site.

    Args:
      fn: a `Structured` objective.
      params: a pytree of real arrays.
      has_aux: whether the evaluation carries the aux of `fn`.
      caller: who asks, for the message.

    Returns:
      An `Evaluation`; product and rows share one linearization.

    Raises:
      TypeError: `fn` has no structure.
    """
    if not isinstance(fn, Structured):
        raise TypeError(plain(caller))
    outer = fn.outer
    outputs, push, pull, aux = linearized(fn.inner, params)
    value, slopes = jax.value_and_grad(outer.value)(outputs)

    def product(v: Params) -> Params:
        return pull(outer.hessian_product(outputs, push(v)))

    def rows() -> Rows:
        residual = outer.residual(outputs)
        flat = None if residual is None else tree.ravel(residual)
        matrix = _by_example(fn.inner, outer, outputs, params)
        if matrix is None:
            matrix = _whitened(outer, outputs, push, pull, params)
        return Rows(matrix, flat)

    told = outer.report(outputs, aux) if has_aux else None
    return Evaluation(value, pull(slopes), ProductOf(product, fn), told, rows)


def evaluate_rows(
    fn: Any, params: Params, *, has_aux: bool = False, caller: str = "this method"
) -> Any:
    """`evaluate`, and the rows at once, for many problems side by side.

    Of few parameters and a loss with a residual the gradient is R'c of [A | b] = Q [R | c]: no
    reverse pass.

    Args:
      fn: a `Structured` objective.
      params: a pytree of real arrays.
      has_aux: whether the evaluation carries the aux of `fn`.
      caller: who asks, for the message.

    Returns:
      An `Evaluation` whose `rows()` are found.
    """
    at, n = evaluate(fn, params, has_aux=has_aux, caller=caller), tree.size(params)
    if n > small.LARGEST:
        return at
    rows = at.rows()
    if rows.matrix.shape[0] <= n or rows.residual is None:
        return at._replace(rows=lambda: rows)
    dtype = tree.result_dtype(params)
    reduced = reduce_rows(rows.matrix.astype(dtype), rows.residual.astype(dtype))
    grad = small.total(reduced[0] * reduced[1][:, None])[0]
    rows = rows._replace(reduced=reduced)
    return at._replace(grad=tree.unravel(grad, params), rows=lambda: rows)


def linearized(inner: Callable[[Params], Any], params: Params) -> tuple[Any, Any, Any, Any]:
    """Outputs, v -> J v, u -> J'u and aux; by reverse mode alone where forward mode is missing."""
    with contextlib.suppress(TypeError):  # no forward-mode rule; a user's own error comes again
        outputs, push, aux = jax.linearize(inner, params, has_aux=True)
        if derivatives.applies(push, params):
            transpose = jax.linear_transpose(push, params)
            return outputs, push, lambda u: transpose(u)[0], aux
    outputs, back, aux = jax.vjp(inner, params, has_aux=True)

    def pull(u: Any) -> Params:
        return back(u)[0]

    forth = jax.linear_transpose(pull, outputs)  # J'u is linear in u: its own transpose is J
    return outputs, lambda v: forth(v)[0], pull, aux


def _by_example(inner: Any, outer: Any, outputs: Any, params: Params) -> Array | None:
    """A from rows by example, where there are such and columns are not fewer passes."""
    if tree.size(params) <= FEW:
        return None
    rows = per_example.rows(inner, params)
    return None if rows is None else _whiten_columns(outer, outputs, rows)


def _whitened(outer: Any, outputs: Any, push: Any, pull: Any, params: Params) -> Array:
    """A = F'J, (m, n): by columns, or by rows J'F e_i."""

    def whiten(v: Any) -> Any:
        return outer.whiten(outputs, v)

    image, back = jax.vjp(whiten, tree.zeros_like(outputs))
    if tree.size(params) <= tree.size(image):
        return stacked(lambda v: whiten(push(v)), params, image).T
    return stacked(lambda w: pull(back(w)[0]), image, params)


def _whiten_columns(outer: Any, outputs: Any, jacobian: Array) -> Array:
    n, leaves = jacobian.shape[1], jax.tree.leaves(outputs)
    ends = list(itertools.accumulate(leaf.size for leaf in leaves))
    blocks = [
        jacobian[end - leaf.size : end].reshape(*leaf.shape, n).astype(leaf.dtype)
        for leaf, end in zip(leaves, ends, strict=True)
    ]
    whiten = jax.vmap(lambda v: outer.whiten(outputs, v), in_axes=-1, out_axes=-1)
    white = whiten(jax.tree.unflatten(jax.tree.structure(outputs), blocks))
    rows = [leaf.reshape(-1, n).astype(jacobian.dtype) for leaf in jax.tree.leaves(white)]
    return jnp.concatenate(rows)
