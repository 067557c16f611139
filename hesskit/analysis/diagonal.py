r"""What is the diagonal of a large matrix?

From products with random signs, z * Hz in the mean, with standard errors (linalg/stochastic.py); by
n products exactly. `hesskit.compare_diagonals` sets six of them side by side.

Source: Bekas, Kokiopoulou & Saad (2007), Applied Numerical Mathematics 57, 1214-1229.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.analysis import _entry
from hesskit.core import answer, errors, objective, tree
from hesskit.core.keys import as_key
from hesskit.core.types import Array, Params
from hesskit.linalg import stochastic


def _lines(found: "Diagonal") -> list[str]:
    entries = tree.ravel(objective.split(found.value))
    error = float(tree.max_abs(objective.split(found.standard_error)))
    how = "exact" if bool(found.exact) else f"standard errors up to {error:.1g}"
    return [
        f"diagonal of {entries.size} entries {answer.row(entries)}",
        f"{how}, by {int(found.num_products)} products",
    ]


@answer.printed("num_products", _lines)
class Diagonal(NamedTuple):
    """The answer of `diagonal`; `print` it.

    Attributes:
      value: like params; of a complex entry the two curvatures are the real and imaginary part.
      standard_error: likewise; 0 where it is exact.
      num_products: products spent, (), int32.
      exact: whether the matrix was formed, (), bool.
    """

    value: Params
    standard_error: Params
    num_products: Array
    exact: Array


def diagonal(
    subject: Any,
    params: Params = None,
    *,
    args: Any = (),
    batches: Any = None,
    num_products: int = 100,
    key: Any = 0,
) -> Diagonal:
    r"""The diagonal of a Hessian, an operator or a matrix.

    Args:
      subject: `value_fn(params, ...) -> ()`, whose Hessian is meant; an `Operator`; or a symmetric
        matrix.
      params: the point, for a function.
      args: its data: a tuple, positional after params, or a dict, by name.
      batches: data in batches in place of args, as in `hesskit.hessian_operator`.
      num_products: products spent; where n is no more, n of them and the diagonal is exact.
      key: an int or a key, of the probes.

    Returns:
      A `Diagonal`: trees like params.

    Raises:
      TypeError: a function without a point, or none of the three.
      ValueError: a matrix that is not square or not symmetric; an argument out of its range.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> print(hesskit.diagonal(lambda p: jnp.sum(p**3), jnp.array([1.0, 2.0])).value)
      [ 6. 12.]

    References:
      Bekas, Kokiopoulou & Saad (2007), Applied Numerical Mathematics 57, 1214-1229.
    """
    errors.check_count(num_products, name="num_products")
    op = _entry.as_operator(subject, params, args=args, batches=batches, caller="diagonal")
    if _entry.size_of(op) <= num_products:
        entries = jnp.diagonal(_entry.dense(op))
        count = jnp.asarray(entries.size, jnp.int32)
        found = stochastic.Estimate(entries, jnp.zeros_like(entries), count, jnp.array(True))
    else:
        found = _entry.run(stochastic.diagonal, op, as_key(key), num_products=int(num_products))
    return Diagonal(
        _entry.restored(op, found.value),
        _entry.restored(op, found.standard_error),
        found.num_products,
        found.exact,
    )
