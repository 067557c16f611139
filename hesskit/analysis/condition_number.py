r"""How unequal are the curvatures?

    kappa  =  max |w_i|  /  min |w_i|                                       (1)

over the eigenvalues w of a symmetric matrix: the ratio of its singular values, at least 1, whatever
their signs. The ratio max w / min w is that only where H is positive definite; elsewhere it is no
condition number, and may be negative.

Source: Golub & Van Loan (2013), section 2.6.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.analysis import _entry, _spectrum
from hesskit.core import answer, errors
from hesskit.core.types import Array, Params
from hesskit.linalg import inertia as signs
from hesskit.linalg.inertia import DefiniteKind

DEFINITE = (DefiniteKind.POSITIVE_DEFINITE, DefiniteKind.NEGATIVE_DEFINITE)
"""The ends of such a spectrum are its smallest and largest modulus."""
SEMIDEFINITE = (DefiniteKind.POSITIVE_SEMIDEFINITE, DefiniteKind.NEGATIVE_SEMIDEFINITE)
"""One end of such a spectrum is zero."""


def _lines(found: "ConditionNumber") -> list[str]:
    kind = found.definiteness
    floor = 1.001 * float(jnp.finfo(found.value.dtype).eps) ** 0.5 * float(found.largest)
    least = not bool(found.exact) and 0 < float(found.smallest) <= floor
    shown = [
        f"condition number {'at least ' if least else ''}{float(found.value):.7g}",
        f"|eigenvalues| from {float(found.smallest):.6g} to {float(found.largest):.6g}",
        f"the matrix is {kind.name.lower().replace('_', ' ')}",
    ]
    if not bool(found.exact):
        shown.append(f"estimated by {int(found.num_products)} products: kappa is at least that")
    return shown


@answer.printed("value", _lines)
class ConditionNumber(NamedTuple):
    """The answer of `condition_number`; `print` it, or take `float()` of it.

    Attributes:
      value: kappa, (); inf where the matrix is singular to rounding.
      code: of `definiteness`, (), int32.
      smallest: the smallest modulus of an eigenvalue, ().
      largest: the largest, ().
      exact: whether all eigenvalues are known, () bool; else `value` is a lower bound.
      num_products: products spent, (), int32.
    """

    value: Array
    code: Array
    smallest: Array
    largest: Array
    exact: Array
    num_products: Array

    def __float__(self) -> float:
        """The value."""
        return float(self.value)

    @property
    def definiteness(self) -> Any:
        """A `hesskit.DefiniteKind`, printed by name; inside jit its code."""
        return answer.word(DefiniteKind, self.code)


def condition_number(
    subject: Any,
    params: Params = None,
    *,
    args: Any = (),
    batches: Any = None,
    tolerance: Any = None,
    dense: bool | None = None,
    key: Any = 0,
    max_products: int | None = None,
) -> ConditionNumber:
    r"""The condition number max|w| / min|w| of a Hessian, an operator or a matrix.

    Args:
      subject: `value_fn(params, ...) -> ()`, whose Hessian is meant; an `Operator`; or a symmetric
        matrix.
      params: the point, for a function.
      args: its data: a tuple, positional after params, or a dict, by name.
      batches: data in batches in place of args, as in `hesskit.hessian_operator`.
      tolerance: an eigenvalue within it counts as zero; None means 10 sqrt(n) eps of the largest
        modulus.
      dense: whether the matrix is formed, by n products. None means up to n = 1000; beyond it the
        smallest modulus is found as that of H^2 by Lanczos, at two products a step; rounding
        hides moduli under sqrt(eps) of the largest there, unless one sign of the spectrum is
        missing and an end is seen to be zero.
      key: an int or a key, of the random start of Lanczos.
      max_products: its bound.

    Returns:
      A `ConditionNumber`, in the dtype of the products; `float(answer)` is its value.

    Raises:
      TypeError: a function without a point, or none of the three.
      ValueError: a matrix that is not square or not symmetric; an argument out of its range.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> rosenbrock = lambda p: (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2
      >>> print(hesskit.condition_number(rosenbrock, jnp.array([0.5, 0.5])))
      condition number 6.499...
      |eigenvalues| from 54.9... to 356.9...
      the matrix is indefinite

    References:
      Golub & Van Loan (2013), Matrix Computations, section 2.6.
    """
    errors.check_number(tolerance, name="tolerance")
    op = _entry.as_operator(subject, params, args=args, batches=batches, caller="condition_number")
    if _entry.takes_dense(op, dense):
        return _of_matrix(_entry.dense(op), tolerance, _entry.eps_of(op))
    ends = _spectrum.pairs_at_ends(op, lowest=1, highest=1, key=key, max_products=max_products)
    tol = _spectrum.tolerance_of(tolerance, ends.norm, op.shape[0], _entry.eps_of(op))
    code = signs.kind_of_ends(ends.values, ends.residual_norms, tol)
    smallest, num_products = jnp.min(jnp.abs(ends.values)), ends.num_products
    kind = answer.word(DefiniteKind, code)
    if not (isinstance(kind, DefiniteKind) and kind in DEFINITE):
        inner = _spectrum.pairs_at_ends(
            op, lowest=1, highest=0, key=key, max_products=max_products, squared=True
        )
        floor = _entry.eps_of(op) ** 0.5 * jnp.max(jnp.abs(ends.values))
        of_square = jnp.maximum(jnp.sqrt(jnp.maximum(inner.values[0], 0)), floor)
        within = jnp.where(_is(code, SEMIDEFINITE), 0, ends.residual_norms)
        seen = jnp.minimum(jnp.min(jnp.abs(ends.values) + within), of_square)
        smallest = jnp.where(_is(code, DEFINITE), smallest, seen)
        num_products = num_products + 2 * inner.num_products
    largest = jnp.max(jnp.abs(ends.values))
    return ConditionNumber(
        value=_ratio(largest, smallest, tol),
        code=code,
        smallest=smallest,
        largest=largest,
        exact=jnp.array(False),
        num_products=num_products,
    )


def _is(code: Array, kinds: tuple[DefiniteKind, ...]) -> Array:
    return jnp.isin(code, jnp.asarray(kinds, jnp.int32))


@jax.jit
def _of_matrix(matrix: Array, tolerance: Any, eps: float) -> ConditionNumber:
    w, _ = signs.eigen(matrix)
    smallest, largest = jnp.min(jnp.abs(w)), jnp.max(jnp.abs(w))
    tol = _spectrum.tolerance_of(tolerance, largest, w.shape[0], eps)
    return ConditionNumber(
        value=_ratio(largest, smallest, tol),
        code=signs.kind_of(signs.count(w, tol), w.shape[0]),
        smallest=smallest,
        largest=largest,
        exact=jnp.array(True),
        num_products=jnp.asarray(w.shape[0], jnp.int32),
    )


def _ratio(largest: Array, smallest: Array, tol: Array) -> Array:
    regular = smallest > tol
    ratio = jnp.where(regular, largest / jnp.where(regular, smallest, 1), jnp.inf)
    return jnp.where(jnp.isfinite(largest), ratio, jnp.nan)
