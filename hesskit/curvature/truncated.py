r"""The model of a truncated step: what conjugate gradients leave at a kept point.

    s  ~  argmin  g.s + s.Bs / 2   subject to   |s|_M <= radius             (1)

by CG on products Bv, stopped at |g + Bs| <= eta |g| with the forcing term

    eta  =  gamma (|g| / |g_previous|)^2,   at most eta_max                 (2)

Shorter steps, after a rejection, are the dogleg through the first CG direction to s, whose
products are known. Where g is zero to the tolerance, CG on a fixed pseudo-random right-hand side
looks for negative curvature, if it may spend products on it; a product that is not finite there
makes the step NaN, since nothing then tells a minimum from a saddle.

Source: Steihaug (1983); Eisenstat & Walker (1996), choice 2; Powell (1970) for the dogleg.
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import acceptance, pseudo_random, tree
from hesskit.core.derivatives import Evaluation
from hesskit.core.rule import Built, Context, Step
from hesskit.core.types import Array, Params
from hesskit.linalg.dogleg import Plane, dogleg, line
from hesskit.linalg.operator import Preconditioner
from hesskit.linalg.steihaug import SteihaugResult, steihaug

GAMMA = 0.9  # Eisenstat & Walker (1996), choice 2
ETA_MAX = 0.5
ETA_MEMORY = 0.1  # their safeguard: a fall of eta by more than this rule allows is held back
MAX_PRODUCTS = 1000


class Path(NamedTuple):
    """What CG left at the kept point: the step, and what shorter ones need."""

    plane: Plane
    on_boundary: Array  # (), bool
    grad_norm: Array  # (), of the point before, for (2)
    forcing: Array  # (), eta
    negative_curvature: Array  # (), bool
    preconditioner: Any


def empty(params: Params, *, preconditioner: Preconditioner | None = None) -> Path:
    """A path of the right shapes, for the state before the first model."""
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


def build(
    evaluation: Evaluation,
    rhs: Params,
    model: Path,
    context: Context,
    *,
    max_products: Any = None,
    max_escape_products: Any = 0,
    preconditioner: Preconditioner | None = None,
) -> Built:
    """The path at the kept point, from products.

    Args:
      evaluation: with a product.
      rhs: the gradient, or what an upstream transform made of it.
      model: the path before.
      context: the kept point.
      max_products: bound on products; None means min(2 n, MAX_PRODUCTS).
      max_escape_products: bound on those that look for negative curvature where g is zero.
      preconditioner: for CG and the norm of the region.

    Returns:
      The `Path`, `indefinite` where it has negative curvature.
    """
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
        tree.where(rest, pseudo_random.like(rhs), rhs),
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
    unknown = rest & (found.step_norm == 0) & (found.num_products > 0)  # a product is not finite
    plane = plane._replace(s=tree.where(unknown, tree.scale(jnp.nan, plane.s), plane.s))
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


def solve(model: Path, grad: Params, size: Array, context: Context) -> Step:
    """The step of at most length `size`: that of CG, or the dogleg to it."""
    del context
    plane = model.plane
    short = dogleg(plane, grad, size)
    cut = plane.s_norm > size * (1 + 1e-6)
    whole = Step(plane.s, plane.s_product, plane.s_norm, model.on_boundary)
    return tree.where(cut, Step(*short, on_boundary=cut), whole)
