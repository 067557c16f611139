r"""The eigenvalues at the ends of a spectrum, with their vectors, of a matrix known by products.

    H v_i  =  w_i v_i,     |H v_i - w_i v_i| = r_i                          (1)

By thick-restart Lanczos (linalg/thick_restart.py): memory of a few times the pairs asked for, and
one product a step, so that n may be millions. An eigenvalue of H lies within r_i of w_i, and where
the others are at least g away, within r_i^2 / g.

Source: Wu & Simon (2000), SIAM J. Matrix Anal. Appl. 22, 602-616; Parlett (1998), The Symmetric
Eigenvalue Problem, section 11.7 (the bounds).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.analysis import _entry, _spectrum
from hesskit.core import answer, errors
from hesskit.core.types import Array, Params

SIDES = ("largest", "smallest", "both")


def _lines(found: "Eigenpairs") -> list[str]:
    good, num = int(jnp.sum(found.converged)), len(found.eigenvalues)
    return [
        f"{num} eigenvalues {answer.row(found.eigenvalues)}",
        f"residual norms up to {float(jnp.max(found.residual_norms)):.1e}, by "
        f"{int(found.num_products)} products",
        f"{good} of {num} within the tolerance {float(found.tolerance):.1e}"
        + ("" if good == num else ": raise max_products or num_rows"),
    ]


@answer.printed("tolerance", _lines)
class Eigenpairs(NamedTuple):
    """The answer of `eigenpairs`; `print` it.

    Attributes:
      eigenvalues: ascending, (k,).
      eigenvectors: a tree like params with a leading axis of k, each of norm 1.
      residual_norms: |H v - w v| of each, (k,).
      converged: whether that is within the tolerance, (k,) bool.
      tolerance: on residual norms, in the unit of H, ().
      num_products: products spent, (), int32.
    """

    eigenvalues: Array
    eigenvectors: Params
    residual_norms: Array
    converged: Array
    tolerance: Array
    num_products: Array


def eigenpairs(
    subject: Any,
    params: Params = None,
    num: int = 6,
    *,
    args: Any = (),
    batches: Any = None,
    which: str = "largest",
    tol: Any = None,
    max_products: int | None = None,
    num_rows: int | None = None,
    key: Any = 0,
) -> Eigenpairs:
    r"""The largest or smallest eigenvalues of a Hessian, an operator or a matrix, with vectors.

    Of a block of a Hessian: `eigenpairs(hessian_operator(f, x).block("layer/*"))`.

    Args:
      subject: `value_fn(params, ...) -> ()`, whose Hessian is meant; an `Operator`; or a symmetric
        matrix.
      params: the point, for a function.
      num: how many, at each end that is asked for; at most n in all.
      args: its data: a tuple, positional after params, or a dict, by name.
      batches: data in batches in place of args, as in `hesskit.hessian_operator`.
      which: "largest", "smallest" or "both", of eigenvalues with their signs.
      tol: of residual norms, relative to |H|; None means eps^(2/3): the error of an eigenvalue
        apart from others is its square. 0 spends all of `max_products`.
      max_products: bound on products; None means 50 times `num_rows`.
      num_rows: vectors kept in memory; None means twice the pairs and 20, at least 40. More of them
        take fewer products.
      key: an int or a key, of the random start.

    Returns:
      `Eigenpairs`, in at least float32; NaN where a product is not finite.

    Raises:
      TypeError: a function without a point, or none of the three.
      ValueError: a matrix that is not square or not symmetric; an argument out of its range.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> f = lambda p: jnp.sum(jnp.arange(1.0, 101.0) * p**2) / 2
      >>> found = hesskit.eigenpairs(f, jnp.ones(100), 2, which="both")
      >>> print(found.eigenvalues.round(2), found.converged.all())
      [  1.   2.  99. 100.] True

    References:
      Wu & Simon (2000), SIAM J. Matrix Anal. Appl. 22, 602-616.
    """
    errors.check_choice(which, SIDES, name="which")
    errors.check_count(num, name="num")
    op = _entry.as_operator(subject, params, args=args, batches=batches, caller="eigenpairs")
    n = _entry.size_of(op)
    lowest = int(num) if which != "largest" else 0
    highest = int(num) if which != "smallest" else 0
    if lowest + highest > n:
        raise ValueError(f"num={num} at {which!r} asks for more than the {n} eigenvalues there are")
    accuracy = _spectrum.accuracy(op, tol)
    pairs = _spectrum.pairs_at_ends(
        op,
        lowest=lowest,
        highest=highest,
        key=key,
        tol=accuracy,
        max_products=max_products,
        num_rows=num_rows,
    )
    least = jnp.maximum(jnp.asarray(accuracy, pairs.norm.dtype), _spectrum.noise(op)) * pairs.norm
    return Eigenpairs(
        eigenvalues=pairs.values,
        eigenvectors=_entry.restored_rows(op, pairs.vectors),
        residual_norms=pairs.residual_norms,
        converged=pairs.residual_norms <= least,
        tolerance=least,
        num_products=pairs.num_products,
    )
