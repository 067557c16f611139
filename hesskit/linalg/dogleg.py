r"""A shorter step after a rejection, from what truncated CG left: two vectors and their products.

The path of CG starts along u = -M^{-1} g (of norm 1) to the Cauchy point c = gamma u and ends at
s. For a radius shorter than |s|, the step is where the dogleg 0 -> c -> s leaves the region:

    radius u                          if radius <= gamma                    (1)
    c + t (s - c),  |c + t (s - c)| = radius    otherwise                   (2)

with gamma = -g.u / u.Hu, infinite without positive curvature. Everything is a combination of u and
s, so no product is needed. The model falls along (1) at least as far as at the Cauchy point of the
radius; where rounding or an indefinite H makes (2) no better than c, the step is c.

Source: Powell (1970), "A hybrid method for nonlinear equations"; Nocedal & Wright (2006),
section 4.1; Steihaug (1983) for the path.
"""

from typing import NamedTuple

import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Params, Scalar


class Plane(NamedTuple):
    """Two vectors with their products, and their geometry in the norm of the region.

    `u` is of norm 1, or zero; `s_norm` and `cosine` (of the angle between u and s) are ().
    """

    s: Params
    s_product: Params
    u: Params
    u_product: Params
    s_norm: Array
    cosine: Array


def line(s: Params, curvature: Scalar, length: Array) -> Plane:
    """A plane that is a line: the step s of this length, with s.Hs = curvature s.s."""
    zero = tree.zeros_like(s)
    return Plane(s, tree.scale(curvature, s), zero, zero, length, jnp.zeros_like(length))


class DoglegStep(NamedTuple):
    """`step` and `product` (H step) are like the vectors; `norm` is (), that of the region."""

    step: Params
    product: Params
    norm: Array


def dogleg(plane: Plane, gradient: Params, radius: Array) -> DoglegStep:
    """The point of norm `radius`, or shorter, on the dogleg of `plane`.

    Args:
        plane: what CG left at this point.
        gradient: g, like the vectors.
        radius: shape (), less than `plane.s_norm`.

    Returns:
        A `DoglegStep`; a zero plane gives a zero step.

    Example:
        >>> import jax.numpy as jnp
        >>> from hesskit.linalg.dogleg import Plane, dogleg
        >>> h, g = jnp.array([1.0, 4.0]), jnp.array([-3.0, -4.0])
        >>> u = -g / 5
        >>> s = -g / h
        >>> norm = jnp.linalg.norm(s)
        >>> plane = Plane(s, h * s, u, h * u, norm, u @ s / norm)
        >>> print(dogleg(plane, g, 2.0).step.round(3))
        [1.542 1.273]
    """
    slope, bend = tree.vdot(gradient, plane.u), tree.vdot(plane.u, plane.u_product)
    end_slope, end_bend = tree.vdot(gradient, plane.s), tree.vdot(plane.s, plane.s_product)
    mixed = tree.vdot(plane.u, plane.s_product)
    within = (bend * radius > -slope) | (slope >= 0)  # the Cauchy point; at 0 where u is uphill
    gamma = jnp.where(within, jnp.maximum(-slope, 0) / jnp.where(bend > 0, bend, 1), radius)

    def model(on_u: Array, on_s: Array) -> Array:
        linear = on_u * slope + on_s * end_slope
        return linear + (on_u * (on_u * bend + 2 * on_s * mixed) + on_s * on_s * end_bend) / 2

    overlap = gamma * plane.s_norm * plane.cosine - gamma**2  # c.(s - c)
    length = plane.s_norm**2 - gamma**2 - 2 * overlap  # |s - c|^2
    room = (radius - gamma) * (radius + gamma)
    root = jnp.sqrt(jnp.maximum(overlap**2 + length * room, 0))
    ahead = overlap + root
    t = jnp.where(overlap > 0, room / ahead, (root - overlap) / jnp.where(length > 0, length, 1))
    t = jnp.clip(jnp.where(within & (length > 0), t, 0), 0, 1)
    t = jnp.where(model((1 - t) * gamma, t) <= model(gamma, jnp.zeros_like(t)), t, 0)
    on_u, norm = (1 - t) * gamma, jnp.where(t > 0, radius, gamma)
    return DoglegStep(
        step=tree.axpy(on_u, plane.u, tree.scale(t, plane.s)),
        product=tree.axpy(on_u, plane.u_product, tree.scale(t, plane.s_product)),
        norm=norm,
    )
