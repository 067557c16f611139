r"""What is the log-determinant of a large positive definite matrix?

    log det (H + d I)  =  sum_i log(w_i + d)  =  n mean log(w + d)                        (1)

by the quadrature of random probes, which never forms the matrix; or of all eigenvalues.

Source: Ubaru, Chen & Saad (2017), SIAM J. Matrix Anal. Appl. 38, 1075-1099.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.analysis import _entry, _spectrum
from hesskit.core import answer, errors
from hesskit.core.types import Array, Params


@answer.printed("value", lambda found: answer.estimate("log det", found))
class LogDet(NamedTuple):
    """The answer of `logdet`; `print` it, or take `float()` of it.

    Attributes:
      value: log det (H + damping), ().
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


def logdet(
    subject: Any,
    params: Params = None,
    *,
    args: Any = (),
    batches: Any = None,
    damping: Any = 0.0,
    num_probes: int = 10,
    num_steps: int = 50,
    key: Any = 0,
    dense: bool | None = None,
) -> LogDet:
    r"""The logarithm of the determinant of a Hessian, an operator or a matrix, damped if asked.

    Args:
      subject: `value_fn(params, ...) -> ()`, whose Hessian is meant; an `Operator`; or a symmetric
        matrix.
      params: the point, for a function.
      args: its data: a tuple, positional after params, or a dict, by name.
      batches: data in batches in place of args, as in `hesskit.hessian_operator`.
      damping: a multiple of the identity that is added, ().
      num_probes: of the quadrature; at least 2 for a standard error.
      num_steps: products of each probe; about the root of the condition number, or n, are enough.
      key: an int or a key, of the probes.
      dense: whether the matrix is formed, by n products, and the answer exact. None means up to
        n = 1000.

    Returns:
      A `LogDet`, in at least float32; NaN where a node, and so some
      eigenvalue, is not positive.

    Raises:
      TypeError: a function without a point, or none of the three.
      ValueError: a matrix that is not square or not symmetric; an argument out of its range.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> print(hesskit.logdet(jnp.diag(jnp.array([2.0, 4.0]))))
      log det 2.079442, exact, by 2 products

    References:
      Ubaru, Chen & Saad (2017), SIAM J. Matrix Anal. Appl. 38, 1075-1099.
    """
    errors.check_number(damping, name="damping", low=-jnp.inf)
    op = _entry.as_operator(subject, params, args=args, batches=batches, caller="logdet")
    shift = jnp.asarray(damping, op.damping.dtype)

    def log(w: Array) -> Array:
        return jnp.log(jnp.where(w + shift > 0, w + shift, jnp.nan))

    return LogDet(*_spectrum.spectral_sum(op, log, dense, num_probes, num_steps, key))
