r"""Newton-CG in a trust region: second-order steps from products alone.

At parameters x, with gradient g and Hessian H, each update takes

    s  ~  argmin  g.s + s.Hs / 2   subject to   |s|_M <= radius             (1)

by truncated conjugate gradients, which needs only products Hv; nothing n x n exists. CG stops at
|g + Hs| <= eta |g| (both in the dual norm of M) with the forcing term

    eta  =  gamma (|g| / |g_previous|)^2,   at most eta_max                 (2)

which makes the convergence superlinear without solving early systems too well. A direction of
negative curvature is not an error: CG rides it to the boundary. After a rejection the shorter
step is the dogleg through the first CG direction to s, whose products are known: a rejected
update spends none. Where g is zero to the tolerance, at most `max_escape_products` steps of CG on
a fixed pseudo-random right-hand side look for negative curvature before the point is called a
minimum (CG meets it exactly when the Lanczos matrix of as many steps is indefinite); what they
find becomes the step.

Source: Nocedal & Wright (2006), Algorithms 4.1 and 7.2; Steihaug (1983); Eisenstat & Walker
(1996), choice 2; Powell (1970) for the dogleg.
"""

import functools
from typing import Any, NamedTuple

from hesskit.core import acceptance, errors
from hesskit.core.rule import Rule
from hesskit.core.types import Array
from hesskit.curvature import truncated
from hesskit.linalg.operator import Preconditioner
from hesskit.transforms import _build
from hesskit.transforms._build import Transformation

MAX_ESCAPE_PRODUCTS = 20  # design: finds a curvature of -1 % of the largest with odds near 1


class NewtonCGInfo(NamedTuple):
    """What the last update did. For people; the next update never reads it."""

    status: Array  # (), int32, 0 while going on
    accepted: Array  # (), bool
    step_norm: Array  # (), |s| of an accepted step, 0 of a rejected one
    ratio: Array  # (), actual over predicted decrease
    grad_norm: Array  # (), at the kept point
    num_values: Array  # (), int32, evaluations of this update
    num_grads: Array  # (), int32
    num_products: Array  # (), int32
    value_mismatch: Array  # (), |value given - value found|
    radius: Array  # (), the next radius, in the unit of |params|_M
    forcing: Array  # (), eta
    negative_curvature: Array  # (), bool, met at the kept point


def _rule(
    radius: Any,
    max_products: Any,
    max_escape_products: Any,
    preconditioner: Preconditioner | None,
) -> Rule:
    errors.check_number(radius, name="radius", open_low=True, schedule=True)
    errors.check_count(max_products, name="max_products")
    errors.check_count(max_escape_products, name="max_escape_products")
    if max_escape_products is None:
        max_escape_products = MAX_ESCAPE_PRODUCTS
    return Rule(
        info=NewtonCGInfo,
        empty=functools.partial(truncated.empty, preconditioner=preconditioner),
        build=functools.partial(
            truncated.build,
            max_products=max_products,
            max_escape_products=max_escape_products,
            preconditioner=preconditioner,
        ),
        solve=truncated.solve,
        adapt=acceptance.next_radius,
        first_size=lambda model, grad, context: acceptance.first_radius(context.params),
        describe=lambda model, size: {
            "radius": size,
            "forcing": model.forcing,
            "negative_curvature": model.negative_curvature,
        },
        size=radius,
        looks_at_rest=True,
    )


@_build.memoize
def newton_cg(
    learning_rate: Any = None,
    *,
    radius: Any = None,
    max_products: Any = None,
    max_escape_products: int | None = None,
    preconditioner: Preconditioner | None = None,
    has_aux: bool = False,
) -> Transformation:
    r"""Matrix-free Newton: truncated conjugate gradients in a trust region.

    s ~ argmin g.s + s.Hs/2 over |s|_M <= radius, from products Hv alone. One trial per update; a
    rejected one is a zero update without products, and f never increases. It leaves saddles.

    Args:
      learning_rate: None for steps that the method accepts or rejects itself. A number or schedule
        multiplies the step, and the radius stays what it was at first.
      radius: the first, in the unit of |params|_M, or a schedule. None means the largest entry
        of params, or 1.
      max_products: products per update at most; may be traced. None means min(2n, 1000).
      max_escape_products: products where the gradient is zero, to find a way down. None means 20.
      preconditioner: a `Preconditioner` M, which also measures the region. None means M = 1.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation`. Its `update` needs `value_fn`.

    Raises:
      ValueError: `radius` is not positive, or a count no positive integer.
      TypeError: a number was expected.

    For mini-batches: no (it compares values); with `learning_rate` and few `max_products`, yes.

    Cost of an update in gradients: 2 for each product, and 2; a rejected one 1.5 with `value`.

    Example:
      >>> import jax.numpy as jnp
      >>> import hesskit
      >>> quartic = lambda x: jnp.sum((x - 1.0) ** 2) + jnp.sum(x**2) ** 2
      >>> result = hesskit.minimize(quartic, jnp.zeros(1000), hesskit.newton_cg())
      >>> print(result.success, int(result.num_products) < 20)
      True True

    References:
      Steihaug (1983), SIAM J. Numer. Anal. 20, 626-637.
      Eisenstat & Walker (1996), SIAM J. Sci. Comput. 17, 16-32.
    """
    rule = _rule(radius, max_products, max_escape_products, preconditioner)
    return _build.build(
        rule,
        name="newton_cg",
        learning_rate=learning_rate,
        has_aux=has_aux,
        any_structure=preconditioner is None,
    )


@_build.memoize
def scale_by_newton_cg(
    *,
    radius: Any = None,
    max_products: Any = None,
    max_escape_products: int | None = None,
    preconditioner: Preconditioner | None = None,
    has_aux: bool = False,
) -> Transformation:
    r"""The step of Newton-CG with its sign changed, for chains.

    `newton_cg(learning_rate=lr)` is
    `optax.chain(scale_by_newton_cg(), scale_by_learning_rate(lr))`.

    Args:
      radius: as in `newton_cg`; it stays what it was at first.
      max_products: products per update at most. None means min(2n, 1000).
      max_escape_products: products at most where the gradient is zero. None means 20.
      preconditioner: a `Preconditioner`; None means none.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation` whose updates point uphill; its `update` needs `value_fn`.

    For mini-batches: yes, with few products. Cost of an update in gradients: 1, and 2 for each.

    Example:
      >>> import jax, jax.numpy as jnp, hesskit
      >>> f, x = lambda x: jnp.sum((x - 3.0) ** 2), jnp.array([2.5])
      >>> uphill = hesskit.scale_by_newton_cg()
      >>> print(uphill.update(jax.grad(f)(x), uphill.init(x), x, value_fn=f)[0])
      [-0.5]

    References:
      Nocedal & Wright (2006), Numerical Optimization, Algorithm 7.2.
    """
    rule = _rule(radius, max_products, max_escape_products, preconditioner)
    return _build.build(
        rule, name="scale_by_newton_cg", learning_rate=1.0, has_aux=has_aux, sign=-1.0
    )
