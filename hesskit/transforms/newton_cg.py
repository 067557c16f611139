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

import jax.numpy as jnp

from hesskit.core import acceptance, errors, tree
from hesskit.core.derivatives import Evaluation
from hesskit.core.method import Built, Context, Rule, Step
from hesskit.core.types import Array, Params
from hesskit.linalg.dogleg import Plane, dogleg, line
from hesskit.linalg.operator import Preconditioner
from hesskit.linalg.steihaug import SteihaugResult, steihaug
from hesskit.transforms import _build
from hesskit.transforms._build import Transformation

GAMMA = 0.9  # Eisenstat & Walker (1996), choice 2
ETA_MAX = 0.5
ETA_MEMORY = 0.1  # their safeguard: a fall of eta by more than this rule allows is held back
MAX_PRODUCTS = 1000
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


class Path(NamedTuple):
    """What CG left at the kept point: the step, and what shorter ones need."""

    plane: Plane
    on_boundary: Array  # (), bool
    grad_norm: Array  # (), of the point before, for (2)
    forcing: Array  # (), eta
    negative_curvature: Array  # (), bool
    preconditioner: Any


def _empty(params: Params, *, preconditioner: Preconditioner | None) -> Path:
    zero, no = jnp.zeros((), tree.result_dtype(params)), jnp.zeros((), bool)
    s, hs, u, hu = (tree.zeros_like(params) for _ in range(4))
    plane = Plane(s, hs, u, hu, zero, zero)
    state = None if preconditioner is None else preconditioner.init(params)
    return Path(plane, no, zero, zero, no, state)


def _forcing(model: Path, grad_norm: Array) -> Array:
    """(2) with its safeguards; ETA_MAX at the first point."""
    known = model.grad_norm > 0
    eta = GAMMA * (grad_norm / jnp.where(known, model.grad_norm, 1)) ** 2
    held = GAMMA * model.forcing**2
    eta = jnp.where(held > ETA_MEMORY, jnp.maximum(eta, held), eta)
    return jnp.where(known, jnp.minimum(eta, ETA_MAX), ETA_MAX)


def _build_path(
    evaluation: Evaluation,
    rhs: Params,
    model: Path,
    context: Context,
    *,
    max_products: Any,
    max_escape_products: Any,
    preconditioner: Preconditioner | None,
) -> Built:
    product, rest = evaluation.product, context.at_rest
    assert product is not None
    grad_norm = tree.norm(rhs)
    eta = _forcing(model, grad_norm)
    state, precondition = None, None
    if preconditioner is not None:
        state = preconditioner.update(model.preconditioner, product, context.params)
        precondition = functools.partial(_apply, preconditioner, state)
    limit = jnp.minimum(2 * tree.size(rhs), MAX_PRODUCTS) if max_products is None else max_products
    force = grad_norm if precondition is None else jnp.sqrt(tree.vdot(rhs, precondition(rhs)))
    radius = jnp.where(context.size > 0, context.size, acceptance.first_radius(context.params))
    found = steihaug(
        product,
        tree.where(rest, tree.pseudo_random_like(rhs), rhs),
        jnp.where(rest, jnp.inf, radius),  # a boundary would end the search early
        tol=jnp.where(rest, 0, eta * force),
        max_products=jnp.where(rest, max_escape_products, limit),
        precondition=precondition,
    )
    plane = Plane(
        found.step,
        found.hessian_step,
        found.first_direction,
        found.first_product,
        found.step_norm,
        found.cosine,
    )
    down = found.negative_curvature & _significant(found, rhs)
    plane = tree.where(rest, _way_down(found, evaluation.grad, radius, down), plane)
    lost = ~rest & (found.step_norm == 0)  # a product was not finite: the gradient's line is left
    plane = tree.where(lost, line(tree.scale(radius, found.first_direction), 0.0, radius), plane)
    path = Path(
        plane=plane,
        on_boundary=jnp.where(rest, down, found.on_boundary | lost),
        grad_norm=grad_norm,
        forcing=eta,
        negative_curvature=jnp.where(rest, down, found.negative_curvature),
        preconditioner=state,
    )
    return Built(path, path.negative_curvature, found.num_products)


def _significant(found: SteihaugResult, like: Params) -> Array:
    """Whether the curvature is below the rounding of products of the size that were met."""
    met = tree.norm(found.first_product) / tree.norm(found.first_direction)
    return acceptance.is_negative(found.rayleigh, met, tree.coarsest_eps(like))


def _way_down(found: SteihaugResult, grad: Params, radius: Array, down: Array) -> Plane:
    """The line along negative curvature to the boundary, downhill; no step where there is none."""
    length = jnp.where(down, radius, 0)
    signed = jnp.where(tree.vdot(found.direction, grad) > 0, -length, length)
    return line(tree.scale(signed, found.direction), found.rayleigh, length)


def _apply(preconditioner: Preconditioner, state: Any, vector: Params) -> Params:
    return preconditioner.apply(state, vector, jnp.zeros((), tree.result_dtype(vector)))


def _solve(model: Path, grad: Params, size: Array, context: Context) -> Step:
    del context
    plane = model.plane
    short = dogleg(plane, grad, size)
    cut = plane.s_norm > size * (1 + 1e-6)
    whole = Step(plane.s, plane.s_product, plane.s_norm, model.on_boundary)
    return tree.where(cut, Step(*short, on_boundary=cut), whole)


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
        empty=functools.partial(_empty, preconditioner=preconditioner),
        build=functools.partial(
            _build_path,
            max_products=max_products,
            max_escape_products=max_escape_products,
            preconditioner=preconditioner,
        ),
        solve=_solve,
        adapt=acceptance.next_radius,
        first_size=lambda model, grad, context: acceptance.first_radius(context.params),
        describe=lambda model, size: {
            "radius": size,
            "forcing": model.forcing,
            "negative_curvature": model.negative_curvature,
        },
        size=radius,
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
