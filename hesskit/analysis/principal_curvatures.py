r"""In which directions does a function curve most and least?

    H q_i  =  w_i q_i,     f(x + t q_i)  =  f(x) + t g.q_i + t^2 w_i / 2 + ...             (1)

The eigenvalues of the Hessian are the second derivatives along its eigenvectors, and every other
direction's lies between them. Where the gradient is zero they are the principal curvatures of the
graph of f; elsewhere the graph is tilted, and its own are the eigenvalues of

    (I + g g')^{-1} H / sqrt(1 + |g|^2).                                                  (2)

Source: do Carmo (1976), Differential Geometry of Curves and Surfaces, sections 3-2 and 3-3.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.analysis import _entry
from hesskit.core import answer, errors, objective, tree
from hesskit.core.types import Array, Params
from hesskit.linalg import inertia as signs
from hesskit.solvers import inputs


def _lines(found: "PrincipalCurvatures") -> list[str]:
    shown = [f"curvatures {answer.row(found.values)}"]
    if found.of_graph is not None and found.grad_norm is not None:
        size = float(found.grad_norm)
        shown.append(f"of the graph {answer.row(found.of_graph)}, gradient norm {size:.5g}")
    if len(found.values) <= answer.MOST // 2:
        shown += [
            f"{float(value):.5g} along ({answer.row(direction)})"
            for value, direction in zip(found.values, found.directions.T, strict=True)
        ]
    return shown


@answer.printed("values", _lines, ndim=1)
class PrincipalCurvatures(NamedTuple):
    """The answer of `principal_curvatures`; `print` it.

    Attributes:
      values: the second derivatives (1), ascending, (n,).
      directions: the eigenvectors, columns, (n, n), rows in the order of
        `jax.flatten_util.ravel_pytree`.
      of_graph: the principal curvatures (2) of the graph, ascending, (n,), or None.
      grad_norm: |g|, (), or None.
    """

    values: Array
    directions: Array
    of_graph: Array | None
    grad_norm: Array | None


def principal_curvatures(
    subject: Any, params: Params = None, *, args: Any = (), batches: Any = None
) -> PrincipalCurvatures:
    r"""The curvatures of a function, an operator or a matrix along the eigenvectors.

    Of a Hessian that is too large to form: `hesskit.eigenpairs`.

    Args:
      subject: `value_fn(params, ...) -> ()`, whose Hessian is meant; an `Operator`; or a symmetric
        matrix.
      params: the point, for a function.
      args: its data: a tuple, positional after params, or a dict, by name.
      batches: data in batches in place of args, as in `hesskit.hessian_operator`.

    Returns:
      `PrincipalCurvatures`, in at least float32; without those of the graph where there is no
      function, or its data come in batches.

    Raises:
      TypeError: a function without a point, or none of the three.
      ValueError: a matrix that is not square or not symmetric.

    Cost: n Hessian products and an eigen-decomposition.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> found = hesskit.principal_curvatures(lambda p: p[0] ** 2 - 3 * p[1] ** 2, jnp.zeros(2))
      >>> print(found.values, found.of_graph)
      [-6.  2.] [-6.  2.]

    References:
      do Carmo (1976), Differential Geometry of Curves and Surfaces, section 3-3.
    """
    caller = "principal_curvatures"
    op = _entry.as_operator(subject, params, args=args, batches=batches, caller=caller)
    matrix = _entry.dense(op)
    if params is None or batches is not None:
        w, q = signs.eigen(matrix)
        return PrincipalCurvatures(w, q, None, None)
    return _of_graph(errors.check_params(params), args, matrix, value_fn=inputs.hashable(subject))


@functools.partial(jax.jit, static_argnames=("value_fn",))
def _of_graph(params: Params, args: Any, matrix: Array, *, value_fn: Any) -> PrincipalCurvatures:
    fn, point = objective.real(value_fn, params, args=args, caller="principal_curvatures")
    g = tree.ravel(jax.grad(fn)(point))
    w, q = signs.eigen(matrix)
    # (I + gg')^{-1/2} = I - c gg', so that (2) is similar to a symmetric matrix
    root = jnp.sqrt(1 + jnp.sum(g * g))
    half = jnp.eye(g.size, dtype=g.dtype) - g[:, None] * g[None, :] / (root * (root + 1))
    of_graph, _ = signs.eigen(half @ matrix @ half / root)
    return PrincipalCurvatures(w, q, of_graph, tree.norm(g))
