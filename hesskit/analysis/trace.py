r"""What is the trace of a large matrix: the sum of its eigenvalues, or of its curvatures?

From products with random probes, with a standard error (linalg/stochastic.py); exactly where n
products are no more.

Source: Epperly, Tropp & Webber (2024), SIAM J. Matrix Anal. Appl. 45, 1-23.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.analysis import _entry
from hesskit.core import answer, errors
from hesskit.core.keys import as_key
from hesskit.core.types import Array, Params
from hesskit.linalg import stochastic

METHODS = {
    "xtrace": (stochastic.xtrace, 4),
    "hutch++": (stochastic.hutchpp, 6),
    "hutchinson": (stochastic.hutchinson, 1),
}
"""The estimator, and the products that it needs at least."""


@answer.printed("value", lambda found: answer.estimate("trace", found))
class Trace(NamedTuple):
    """The answer of `trace`; `print` it, or take `float()` of it.

    Attributes:
      value: the trace, ().
      standard_error: of the estimate, (); 0 where it is exact.
      num_products: products spent, (), int32.
      exact: whether the matrix was formed, (), bool.
    """

    value: Array
    standard_error: Array
    num_products: Array
    exact: Array

    def __float__(self) -> float:
        """The value."""
        return float(self.value)


def trace(
    subject: Any,
    params: Params = None,
    *,
    args: Any = (),
    batches: Any = None,
    method: str = "xtrace",
    num_products: int = 100,
    key: Any = 0,
) -> Trace:
    r"""The trace of a Hessian, an operator or a matrix.

    Args:
      subject: `value_fn(params, ...) -> ()`, whose Hessian is meant; an `Operator`; or a symmetric
        matrix.
      params: the point, for a function.
      args: its data: a tuple, positional after params, or a dict, by name.
      batches: data in batches in place of args, as in `hesskit.hessian_operator`.
      method: "xtrace" and "hutch++" keep as many vectors as products, and are far more accurate
        where few eigenvalues are large; "hutchinson" keeps one.
      num_products: products spent; where n is no more, n of them and the trace is exact.
      key: an int or a key, of the probes.

    Returns:
      A `Trace`, in at least float32.

    Raises:
      TypeError: a function without a point, or none of the three.
      ValueError: a matrix that is not square or not symmetric; an argument out of its range.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> print(hesskit.trace(lambda p: jnp.sum(p**2), jnp.ones(7)))
      trace 14, exact, by 7 products

    References:
      Hutchinson (1990); Meyer, Musco, Musco & Woodruff (2021); Epperly, Tropp & Webber (2024).
    """
    errors.check_choice(method, tuple(METHODS), name="method")
    estimator, least = METHODS[method]
    errors.check_count(num_products, name="num_products", low=least)
    op = _entry.as_operator(subject, params, args=args, batches=batches, caller="trace")
    if _entry.size_of(op) <= num_products:
        matrix = _entry.dense(op)
        zero, count = jnp.zeros((), matrix.dtype), jnp.asarray(matrix.shape[0], jnp.int32)
        return Trace(jnp.trace(matrix), zero, count, jnp.array(True))
    return Trace(*_entry.run(estimator, op, as_key(key), num_products=int(num_products)))
