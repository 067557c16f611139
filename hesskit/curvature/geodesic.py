r"""Geodesic acceleration: the second order of a least-squares step.

Along a step v of the model |A s + b|^2 / 2 residuals bend: with their whitened second derivative
r_vv = F' (d/dt)^2 r(x + t v) and the damping lambda that gave v,

    a  =  -(A'A + lambda D^2)^{-1} A' r_vv,     s  =  v + a / 2             (1)

follows a curved valley where v leaves it; s is taken where 2 |D a| <= ALPHA |D v|, else v alone.
r_vv is found once a point, along the first step v_0 from there. Later ones, after a rejection, take
(v.v_0 / |v_0|^2)^2 r_vv in the product of D, exact for a v along v_0: they cost nothing, and gained
as much on published problems as a second derivative each.

Source: Transtrum & Sethna (2012), "Improvements to the Levenberg-Marquardt algorithm for nonlinear
least-squares minimization", arXiv:1201.5885.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.structured import Structured
from hesskit.core.types import Array, Params

ALPHA = 0.75
"""Twice as much took a tenth fewer evaluations on published problems, and missed more minima from
far starts."""


class Curve(NamedTuple):
    """How residuals bend, in the coordinates of the model: A D^{-1} = U S V', t = V'D v."""

    along: Array  # (k,), of v_0
    bend: Array  # (k,), S U' r_vv, of a step along v_0


class BentRows(NamedTuple):
    """The whitened rows A and b of an objective, and `bend(v)`, its r_vv, (m,).

    `reduced` is what `row_svd.reduce_rows` makes of them, where that is known.
    """

    matrix: Array
    residual: Array | None
    bend: Callable[[Params], Array]
    reduced: tuple[Array, Array, Array] | None = None


def empty(k: int, dtype: jnp.dtype) -> Curve:
    """No curve, in room k."""
    zero = jnp.zeros((k,), dtype)
    return Curve(zero, jnp.copy(zero))


def second_derivative(fn: Structured, params: Params, v: Params) -> Array:
    """The whitened second derivative of the outputs along v: F' r_vv.

    Args:
      fn: the objective; F is that of its loss at the outputs, as of the rows.
      params: the point.
      v: like params.

    Returns:
      r_vv, (m,), as raveled.

    Raises:
      TypeError: there is no forward mode through the outputs.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> loss = hesskit.least_squares_loss(lambda p: p**2).structure((), {}, "")
      >>> print(second_derivative(loss, jnp.array([5.0, 5.0]), jnp.array([1.0, 3.0])))
      [ 2. 18.]
    """

    def slope(point: Params) -> tuple[Params, Params]:
        return jax.jvp(lambda p: fn.inner(p)[0], (point,), (v,))

    try:
        (outputs, _), (_, bent) = jax.jvp(slope, (params,), (v,))
    except TypeError as error:  # the outputs themselves were traced before
        raise TypeError(
            "geodesic=True needs forward-mode derivatives of the residuals, which a custom_vjp "
            "function has not; use geodesic=False"
        ) from error
    return tree.ravel(fn.outer.whiten(outputs, bent))


def half_acceleration(
    eigenvalues: Array, shift: Array, step: Array, curve: Curve
) -> tuple[Array, Array]:
    """a / 2 of (1), or zero where it is too long; and what it adds to the linear model.

    The second order is there to keep what the linear model promises of v, which is therefore what
    is predicted of v + a / 2; that model itself, at v + a / 2, knows no bend and sees a loss.

    Args:
      eigenvalues: S^2, (k,).
      shift: lambda, ().
      step: t of v, (k,).
      curve: at this point.

    Returns:
      The half acceleration in the coordinates t, (k,), and what is to be added to the model's
      value at v + a / 2 so that it is that at v, ().
    """
    w, (along, bend) = eigenvalues, curve
    length = tree.norm(along)
    share = jnp.sum((step / length) * (along / length)) ** 2
    known = (w > 0) & (length > 0)
    a = jnp.where(known, -share * bend / jnp.where(known, w + shift, 1), 0)
    half = jnp.where(2 * tree.norm(a) <= ALPHA * tree.norm(step), a / 2, 0)
    return half, jnp.sum(shift * step * half - w * half * half / 2)
