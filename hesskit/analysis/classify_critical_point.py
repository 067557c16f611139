r"""What is a point where the gradient is zero?

A minimum, a maximum or a saddle by the signs of the Hessian's eigenvalues; where some are zero and
the others of one sign, by terms of higher order; or not critical at all (analysis/_critical.py).

Source: Munkres (1991), Analysis on Manifolds; Poston & Stewart (1978), chapter 4.
"""

from collections.abc import Callable
from typing import Any

from hesskit.analysis import _critical
from hesskit.analysis._critical import CriticalPoint
from hesskit.core.leading_form import MAX_ORDER
from hesskit.core.types import Params


def classify_critical_point(
    value_fn: Callable[..., Any],
    params: Params,
    *,
    args: Any = (),
    tolerance: Any = None,
    gtol: Any = None,
    max_order: int = MAX_ORDER,
    dense: bool | None = None,
    key: Any = 0,
    max_products: int | None = None,
) -> CriticalPoint:
    r"""What kind of critical point `params` is: minimum, maximum, saddle, degenerate, or none.

    Where the Hessian is semidefinite, derivatives up to `max_order` along curves in its null space
    are looked at: x^4 + y^4 is a minimum at 0, x^4 - y^4 and x^3 - 3xy^2 are neither, and so is
    (y - x^2)(y - 2x^2), which is a minimum along every straight line. Where the first of them that
    is not zero does not decide, the answer is INCONCLUSIVE. In a null space of three and more
    dimensions directions are a sample.

    Args:
      value_fn: `value_fn(params, ...) -> ()`.
      params: the point, a pytree of float or complex arrays.
      args: data for `value_fn`: a tuple, positional after params, or a dict, by name.
      tolerance: an eigenvalue within it counts as zero; None means 10 sqrt(n) eps of the largest
        modulus.
      gtol: a gradient of that norm counts as zero; None means eps^(2/3) times 1 or, if larger, the
        largest curvature times the larger of 1 and |params|, and, where the Hessian is formed, that
        no Newton step is longer than eps^(1/3) times the larger of 1 and |params|.
      max_order: of derivatives; 2 is the second derivative test alone.
      dense: whether the Hessian is formed, by n products. None means up to n = 1000; beyond it the
        ends of the spectrum by Lanczos decide, and a semidefinite Hessian stays INCONCLUSIVE.
      key: an int or a key, of the random start of Lanczos.
      max_products: its bound.

    Returns:
      A `CriticalPoint`: `kind` in MINIMUM, MAXIMUM, SADDLE, DEGENERATE_MINIMUM, DEGENERATE_MAXIMUM,
      DEGENERATE_NEITHER, INCONCLUSIVE, NOT_CRITICAL, with `grad_norm`, `eigenvalues`, `inertia`,
      `tolerance` and `reason`, in at least float32.

    Raises:
      TypeError: a leaf or the value is no float, `value_fn` no function.
      ValueError: the value is not a scalar, an argument is out of its range.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> print(hesskit.classify_critical_point(lambda p: p[0] ** 2 - p[1] ** 2, jnp.zeros(2)))
      saddle at 0, 0: value 0
      eigenvalues -2, 2
      gradient norm 0 and 1 positive, 0 zero, 1 negative eigenvalues
      an eigenvalue within ... counts as zero
      >>> monkey = lambda p: p[0] ** 3 - 3 * p[0] * p[1] ** 2
      >>> print(hesskit.classify_critical_point(monkey, jnp.zeros(2)).kind)
      DEGENERATE_NEITHER

    References:
      Gromoll & Meyer (1969), Topology 8, 361-369 (the splitting lemma).
    """
    return _critical.classify(
        value_fn,
        params,
        args=args,
        tolerance=tolerance,
        gtol=gtol,
        max_order=max_order,
        dense=dense,
        key=key,
        max_products=max_products,
        caller="classify_critical_point",
    )
