r"""The Gauss-Newton matrix of an objective l(r(p)), as an operator.

With J the Jacobian of r and H = F F' the Hessian of l at the outputs,

    G  =  J' H J  =  A' A,    A = F' J                                      (1)

G is positive semidefinite for a convex l, and the Hessian where r is linear. Dense methods work on
A (linalg/whitened.py, curvature/factored.py), never on G.

Source: Schraudolph (2002), "Fast curvature matrix-vector products for second-order gradient
descent"; Nocedal & Wright (2006), section 10.3.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from hesskit.core import errors, objective
from hesskit.core.types import Params, Product
from hesskit.linalg.operator import Operator, operator
from hesskit.linalg.streamed import of_data
from hesskit.linalg.whitened import evaluate


@dataclasses.dataclass(frozen=True)
class _GaussNewton:
    """The curvature of `value_fn`; equal for equal functions, so that programs are shared."""

    value_fn: Callable[..., Any]

    def __call__(self, params: Params, args: Any) -> Product:
        caller = "gauss_newton_operator"
        fn, start = objective.real(self.value_fn, params, args=args, caller=caller)
        return evaluate(fn, start, caller=caller).product


def gauss_newton_operator(
    value_fn: Callable[..., Any], params: Params, *, args: Any = (), batches: Any = None
) -> Operator:
    """The Gauss-Newton matrix J'H J of a structured objective at `params`, as an operator.

    Nothing is computed yet. It is positive semidefinite for a convex outer loss.

    Args:
      value_fn: `hesskit.least_squares_loss(...)`, `hesskit.composite(...)`, or a sum of such and
        `hesskit.l2`.
      params: a pytree of real or complex float arrays.
      args: data: a tuple, positional after params, or a dict, by name.
      batches: as in `hesskit.hessian_operator`.

    Returns:
      An `Operator` on vectors like params, in the unit of the objective's Hessian.

    Raises:
      TypeError: `value_fn` has no structure, a leaf or an entry of `args` is no array of numbers.
      ValueError: params is empty.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> x = jnp.arange(3.0)
      >>> loss = hesskit.least_squares_loss(lambda p: p[0] + p[1] * x - 1.0)
      >>> print(hesskit.gauss_newton_operator(loss, jnp.zeros(2)).dense())
      [[3. 3.]
       [3. 5.]]
    """
    errors.check_callable(value_fn, name="value_fn")
    errors.check_data(args)
    params = errors.check_params(params)
    return of_data(
        lambda fn, data, _: operator(_GaussNewton(fn), params, data), value_fn, args, batches
    )
