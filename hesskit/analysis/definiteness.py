r"""Is a symmetric matrix positive definite, and how surely is that known?

    H > 0   if all eigenvalues are positive,   H >= 0   if none is negative, ...        (1)

A small matrix is decided by all its eigenvalues: those within the tolerance count as zero
(linalg/inertia.py), and for two rows by the minors of Sylvester as well,

    H > 0  if  H_11 > 0 and det H > 0,     H indefinite  if  det H < 0.                 (2)

A large one by Lanczos: an eigenvalue lies within the residual of each Ritz value. That H is
indefinite is then certain, two vectors show it; that nothing lies beyond the ends is not, since the
random start may have missed it.

Source: Golub & Van Loan (2013), sections 8.1 and 10.1; Kuczynski & Wozniakowski (1992), SIAM J.
Matrix Anal. Appl. 13, 1094-1122 (how seldom a random start misses an end).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.analysis import _entry, _spectrum
from hesskit.core import answer, errors
from hesskit.core.types import Array, Params
from hesskit.linalg import inertia as signs
from hesskit.linalg.inertia import DefiniteKind
from hesskit.linalg.thick_restart import Pairs


def _lines(found: "Definiteness") -> list[str]:
    low, high = found.smallest, found.largest
    shown = [f"{found.kind.name.lower().replace('_', ' ')}"]
    if found.inertia is None:
        shown += [
            f"smallest eigenvalue in [{low[0]:.6g}, {low[1]:.6g}], largest in "
            f"[{high[0]:.6g}, {high[1]:.6g}], by {int(found.num_products)} products"
        ]
    else:
        positive, zero, negative = (int(c) for c in found.inertia)
        shown += [
            f"eigenvalues {answer.row(found.eigenvalues)}",
            f"{positive} positive, {zero} zero, {negative} negative",
        ]
    if found.minors is not None:
        shown.append(f"leading minors {answer.row(found.minors)}")
    return [*shown, f"an eigenvalue within {float(found.tolerance):.1e} counts as zero"]


@answer.printed("code", _lines)
class Definiteness(NamedTuple):
    """The answer of `definiteness`; `print` it.

    Attributes:
      code: of `kind`, (), int32.
      eigenvalues: ascending: all, (n,), or of a large matrix the two at the ends, (2,).
      smallest: an interval, (2,): the smallest eigenvalue is at most its upper end and, by what
        was seen, at least its lower end.
      largest: likewise; the largest is at least its lower end.
      inertia: how many eigenvalues are positive, zero, and negative, (3,) int32; None of a large
        matrix.
      minors: H_11 and det H, (2,), of a matrix of two rows; else None.
      tolerance: what counts as zero, ().
      num_products: products spent, (), int32.
    """

    code: Array
    eigenvalues: Array
    smallest: Array
    largest: Array
    inertia: Array | None
    minors: Array | None
    tolerance: Array
    num_products: Array

    @property
    def kind(self) -> Any:
        """A `hesskit.DefiniteKind`, printed by name; inside jit its code."""
        return answer.word(DefiniteKind, self.code)


def definiteness(
    subject: Any,
    params: Params = None,
    *,
    args: Any = (),
    batches: Any = None,
    tolerance: Any = None,
    dense: bool | None = None,
    key: Any = 0,
    max_products: int | None = None,
) -> Definiteness:
    r"""Whether a Hessian, an operator or a matrix is positive definite, semidefinite, or neither.

    Args:
      subject: `value_fn(params, ...) -> ()`, whose Hessian is meant; an `Operator`; or a symmetric
        matrix.
      params: the point, for a function.
      args: its data: a tuple, positional after params, or a dict, by name.
      batches: data in batches in place of args, as in `hesskit.hessian_operator`.
      tolerance: an eigenvalue within it counts as zero. None means 10 sqrt(n) eps of the largest
        modulus: the rounding of a product and of an eigenvalue.
      dense: whether the matrix is formed, by n products. None means up to n = 1000.
      key: an int or a key, of the random start of Lanczos.
      max_products: its bound.

    Returns:
      A `Definiteness`, in the dtype of the products. `kind` is POSITIVE_DEFINITE,
      POSITIVE_SEMIDEFINITE, ZERO, NEGATIVE_SEMIDEFINITE, NEGATIVE_DEFINITE, INDEFINITE; or
      UNDECIDED, where a product is not finite or zero lies in an interval.

    Raises:
      TypeError: a function without a point, or none of the three.
      ValueError: a matrix that is not square or not symmetric; an argument out of its range.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> print(hesskit.definiteness(jnp.array([[6.0, 2.0], [2.0, 2.0]])))
      positive definite
      eigenvalues 1.1716, 6.8284
      2 positive, 0 zero, 0 negative
      leading minors 6, 8
      an eigenvalue within ... counts as zero
      >>> print(hesskit.definiteness(lambda p: p[0] ** 2 - p[1] ** 2, jnp.zeros(2)).kind)
      INDEFINITE

    References:
      Golub & Van Loan (2013), Matrix Computations, section 8.1.
    """
    errors.check_number(tolerance, name="tolerance")
    op = _entry.as_operator(subject, params, args=args, batches=batches, caller="definiteness")
    if _entry.takes_dense(op, dense):
        return _of_matrix(_entry.dense(op), tolerance, _entry.eps_of(op))
    pairs = _spectrum.pairs_at_ends(op, lowest=1, highest=1, key=key, max_products=max_products)
    return _of_ends(pairs, tolerance, _entry.eps_of(op), op.shape[0])


@jax.jit
def _of_matrix(matrix: Array, tolerance: Any, eps: float) -> Definiteness:
    w, _ = signs.eigen(matrix)
    n = w.shape[0]
    tol = _spectrum.tolerance_of(tolerance, jnp.max(jnp.abs(w)), n, eps)
    inertia = signs.count(w, tol)
    minors = None
    if n == 2:
        determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
        minors = jnp.stack([matrix[0, 0], determinant])
    around = jnp.stack([-tol, tol])
    return Definiteness(
        code=signs.kind_of(inertia, n),
        eigenvalues=w,
        smallest=w[0] + around,
        largest=w[-1] + around,
        inertia=inertia,
        minors=minors,
        tolerance=tol,
        num_products=jnp.asarray(n, jnp.int32),
    )


def _of_ends(pairs: Pairs, tolerance: Any, eps: float, n: int) -> Definiteness:
    """The kind that two Ritz values with their residuals leave."""
    tol = _spectrum.tolerance_of(tolerance, pairs.norm, n, eps)
    gap = pairs.residual_norms
    zero = jnp.zeros_like(tol)
    return Definiteness(
        code=signs.kind_of_ends(pairs.values, gap, tol),
        eigenvalues=pairs.values,
        smallest=pairs.values[0] + jnp.stack([-gap[0], zero]),
        largest=pairs.values[1] + jnp.stack([zero, gap[1]]),
        inertia=None,
        minors=None,
        tolerance=tol,
        num_products=pairs.num_products,
    )
