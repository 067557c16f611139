r"""How many directions does the data determine?

    d  =  sum_i  w_i / (w_i + a)                                                         (1)

over the eigenvalues of the Hessian of a loss, with a the curvature of a prior, or a damping: each
direction that is much more curved than the prior counts as one, each that is much less as none.
Negative eigenvalues count as zero.

Source: MacKay (1992), Neural Computation 4, 448-472; Maddox, Benton & Wilson (2020).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.analysis import _entry, _spectrum
from hesskit.core import answer, errors
from hesskit.core.types import Array, Params


@answer.printed("value", lambda found: answer.estimate("effective dimension", found))
class EffectiveDimension(NamedTuple):
    """The answer of `effective_dimension`; `print` it, or take `float()` of it.

    Attributes:
      value: d of (1), ().
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


def effective_dimension(
    subject: Any,
    params: Params = None,
    *,
    args: Any = (),
    batches: Any = None,
    damping: Any,
    num_probes: int = 10,
    num_steps: int = 50,
    key: Any = 0,
    dense: bool | None = None,
) -> EffectiveDimension:
    r"""The number of directions more curved than `damping`, of a Hessian, an operator or a matrix.

    Args:
      subject: `value_fn(params, ...) -> ()`, whose Hessian is meant; an `Operator`; or a symmetric
        matrix.
      params: the point, for a function.
      args: its data: a tuple, positional after params, or a dict, by name.
      batches: data in batches in place of args, as in `hesskit.hessian_operator`.
      damping: a of (1), positive, in the unit of the Hessian.
      num_probes: of the quadrature; at least 2 for a standard error.
      num_steps: products of each probe, about the root of |H| / damping or more. Too few bias the
        answer, which the standard error does not show: double them to see.
      key: an int or a key, of the probes.
      dense: whether the matrix is formed, by n products, and the answer exact. None means up to
        n = 1000.

    Returns:
      An `EffectiveDimension`, in at least float32; NaN where a product is
      not finite.

    Raises:
      TypeError: a function without a point, or none of the three.
      ValueError: a matrix that is not square or not symmetric; an argument out of its range.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> print(hesskit.effective_dimension(jnp.diag(jnp.array([9.0, 1.0, 0.0])), damping=1.0))
      effective dimension 1.4, exact, by 3 products

    References:
      MacKay (1992), Neural Computation 4, 448-472.
    """
    errors.check_number(damping, name="damping", open_low=True, none=False)
    op = _entry.as_operator(
        subject, params, args=args, batches=batches, caller="effective_dimension"
    )
    prior = jnp.asarray(damping, op.damping.dtype)

    def share(w: Array) -> Array:
        return jnp.maximum(w, 0) / (jnp.maximum(w, 0) + prior)

    return EffectiveDimension(*_spectrum.spectral_sum(op, share, dense, num_probes, num_steps, key))
