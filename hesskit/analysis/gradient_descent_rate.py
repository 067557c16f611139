r"""How many steps will gradient descent take?

Near a minimum with mu and L the smallest and largest eigenvalue of the Hessian, kappa = L / mu,

    step 2 / (mu + L):   |x_k - x*|  <=  ((kappa - 1) / (kappa + 1))^k |x_0 - x*|           (1)
    step 1 / L:          |x_k - x*|  <=  (1 - 1/kappa)^k |x_0 - x*|

and no larger step than 2 / L converges. A quadratic attains (1) from the worst start, so that the
error falls by a factor r in log r / log rate steps, about kappa log(1/r) / 2. Newton's method takes
one step there.

Source: Nocedal & Wright (2006), theorem 3.3; Nesterov (2018), Lectures on Convex Optimization,
theorem 2.1.15.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.analysis import _entry, _spectrum
from hesskit.core import answer, errors
from hesskit.core.types import Array, Params
from hesskit.linalg.inertia import zero_tolerance


def _lines(found: "GradientDescentRate") -> list[str]:
    if bool(jnp.isnan(found.rate)):
        return [
            f"no rate: the smallest eigenvalue {float(found.mu):.4g} is not positive beyond "
            "rounding, and nothing contracts along its vector"
        ]
    return [
        f"kappa {float(found.kappa):.5g}, from mu {float(found.mu):.5g} to L "
        f"{float(found.smoothness):.5g}",
        f"step {float(found.best_step):.4g}: the error shrinks by {float(found.rate):.5g} a step, "
        f"{float(found.iterations):.0f} steps for a factor {float(found.reduction):.1g}",
        f"step 1/L: {float(found.iterations_at_inverse):.0f} steps; none beyond "
        f"{2 / float(found.smoothness):.4g} converges",
    ]


@answer.printed("rate", _lines)
class GradientDescentRate(NamedTuple):
    """The answer of `gradient_descent_rate`; `print` it.

    Attributes:
      rate: (kappa - 1) / (kappa + 1), (), of the step 2 / (mu + L); NaN where mu is at most
        10 sqrt(n) eps L.
      iterations: steps until the error has fallen by `reduction`, (), of that step.
      iterations_at_inverse: likewise of the step 1 / L, ().
      best_step: 2 / (mu + L), ().
      kappa: L / mu, ().
      mu: the smallest eigenvalue, ().
      smoothness: L, the largest, ().
      reduction: as asked, ().
    """

    rate: Array
    iterations: Array
    iterations_at_inverse: Array
    best_step: Array
    kappa: Array
    mu: Array
    smoothness: Array
    reduction: Array


def gradient_descent_rate(
    subject: Any,
    params: Params = None,
    *,
    args: Any = (),
    batches: Any = None,
    reduction: Any = 1e-6,
    dense: bool | None = None,
    key: Any = 0,
    max_products: int | None = None,
) -> GradientDescentRate:
    r"""The rate of gradient descent near a minimum, and the steps that it predicts.

    Args:
      subject: `value_fn(params, ...) -> ()`, whose Hessian is meant; an `Operator`; or a symmetric
        matrix.
      params: the minimum, for a function.
      args: its data: a tuple, positional after params, or a dict, by name.
      batches: data in batches in place of args, as in `hesskit.hessian_operator`.
      reduction: the factor by which the error is to fall, between 0 and 1.
      dense: whether the matrix is formed, by n products. None means up to n = 1000; beyond it the
        ends of the spectrum by Lanczos, and the rate is that of the eigenvalues found.
      key: an int or a key, of the random start of Lanczos.
      max_products: its bound.

    Returns:
      A `GradientDescentRate`, in at least float32.

    Raises:
      TypeError: a function without a point, or none of the three.
      ValueError: a matrix that is not square or not symmetric; an argument out of its range.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> found = hesskit.gradient_descent_rate(jnp.diag(jnp.array([1.0, 1000.0])))
      >>> print(found.iterations.round(-2))
      6900.0

    References:
      Nocedal & Wright (2006), Numerical Optimization, theorem 3.3.
    """
    errors.check_number(reduction, name="reduction", high=1.0, open_low=True, none=False)
    op = _entry.as_operator(
        subject, params, args=args, batches=batches, caller="gradient_descent_rate"
    )
    low, high, _ = _spectrum.ends(op, dense, key, max_products)
    factor = jnp.asarray(reduction, low.dtype)
    zero = zero_tolerance(jnp.maximum(jnp.abs(low), jnp.abs(high)), op.shape[0], _entry.eps_of(op))
    mu = jnp.where(low > zero, low, jnp.nan)
    return GradientDescentRate(
        rate=(high - mu) / (high + mu),
        iterations=_steps(factor, 2 * mu / (high + mu)),
        iterations_at_inverse=_steps(factor, mu / high),
        best_step=2 / (high + mu),
        kappa=high / mu,
        mu=low,
        smoothness=high,
        reduction=factor,
    )


def _steps(reduction: Array, share: Array) -> Array:
    """The whole number of steps until (1 - share) to its power is `reduction`; 1 for a share 1."""
    inside = share < 1
    steps = jnp.ceil(jnp.log(reduction) / jnp.log1p(-jnp.where(inside, share, 0.5)))
    return jnp.where(inside, steps, jnp.where(share >= 1, 1, share))
