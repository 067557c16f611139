r"""The step of a trust region inside a box, by stages on the faces of the box.

From s = 0, with l <= 0 <= u the bounds relative to the current point, lower the model

    m(s) = g.s + s.Bs / 2   subject to   |D s| <= radius,   l <= s <= u     (1)

in stages. Each holds the coordinates A that are at a bound, asks for the minimizer z of m over the
rest of the ball,

    target = argmin m(s_A + z)   over   z_A = 0,   |D z|^2 <= radius^2 - |D s_A|^2    (2)

and goes straight towards it up to the first bound:

    s <- s + t d,   d = target - s,   t = max {t in [0, 1]: l <= s + t d <= u}        (3)

The coordinates that get there are set to the bound exactly and join A. The stages end when none
does: at most n. The first A holds what -g points out of the box, and what has no room.

m falls along (3). The segment from s to the target lies in the set over which the target minimizes
m, for that set is convex: no point of it is below the target. On it m is a parabola, of negative
slope at s (checked). If it opens downwards, it falls throughout; if upwards, it falls up to its
vertex, which is not before t = 1. Two cases, of an indefinite B only, are left:

- m rises from s and falls later. Then s goes to the target clipped to the box, if m is lower there;
  that point is in the ball, since clipping shortens every coordinate.
- m is level at s, as where g is zero on all free coordinates. Then the target is of negative
  curvature, and of it and its mirror image, both as good, the one with more room is taken: so the
  step leaves a saddle or a maximum at the edge of the box.

Stages may hold a coordinate too early (the next step, from the new point, lets go of it), and then
fall behind what convergence asks for. So where a bound was met, the same stages are run with the
targets of steepest descent, which follow the path of the projected gradient to its first minimum or
lower, and the better end is the step: m(step) is never above that of the generalized Cauchy point.

Source: Conn, Gould & Toint (2000), chapter 12; Lin & More (1999), "Newton's method for large
bound-constrained optimization problems", SIAM J. Optim. 9, 1100-1127, who start from the Cauchy
point (over random problems the model then fell by 1 to 20 % less); Nocedal & Wright (2006),
section 16.7.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Scalar

Subproblem = Callable[[Array, Array, Array], tuple[Array, Array]]
"""`subproblem(held, free, room) -> (z, on_boundary)`: the minimizer (2), and whether |D z| = room.

`held` is s_A, zero where `free` (n,) bool; z where not `free` is not read, but must be finite."""
Slope = Callable[[Array, Array], Array]
"""`slope(s, d) -> ()`: the derivative (g + B s).d of m at s along d."""


class BoundedStep(NamedTuple):
    """The step, and what held it back."""

    step: Array  # (n,), in the box to the bit
    on_boundary: Array  # (), bool: the ball, not the box, held the last stage back
    active: Array  # (n,), bool: at a bound of the box
    num_stages: Array  # (), int32, calls of the subproblem


class _Region(NamedTuple):
    lower: Array  # (n,)
    upper: Array  # (n,)
    scale: Array  # (n,)
    radius: Array  # ()


class _Carry(NamedTuple):
    step: Array  # (n,)
    free: Array  # (n,), bool
    on_boundary: Array  # (), bool
    going: Array  # (), bool
    num_stages: Array  # (), int32


def _room(held: Array, region: _Region) -> Array:
    """sqrt(radius^2 - |D held|^2), for a radius of 0, of inf, or whose square overflows."""
    radius = region.radius
    share = tree.norm(region.scale * held) / jnp.where(radius > 0, radius, 1)
    return radius * jnp.sqrt(jnp.maximum((1 - share) * (1 + share), 0))


def _reach(s: Array, d: Array, region: _Region) -> Array:
    """The t at which each coordinate of s + t d meets its bound; inf where d is zero."""
    ahead = jnp.where(d > 0, region.upper, region.lower) - s
    return jnp.where(d == 0, jnp.inf, ahead / jnp.where(d == 0, 1, d))


def _advance(
    carry: _Carry, target: Array, straight: Array, region: _Region
) -> tuple[Array, Array, Array]:
    """(3) if `straight`, else the clipped target.

    Returns:
        The new s, the coordinates that meet their bound, and whether the target is met.
    """
    s, (lower, upper) = carry.step, region[:2]
    d = target - s
    reach = _reach(s, d, region)
    first = jnp.min(reach)
    t = jnp.where(straight, jnp.minimum(first, 1), 1)
    new = jnp.where(t < 1, s + t * d, target)
    beyond = ((d > 0) & (new >= upper)) | ((d < 0) & (new <= lower))  # by rounding
    hit = carry.free & ((reach <= t) | beyond)
    return jnp.where(hit, jnp.where(d > 0, upper, lower), new), hit, first >= 1


def _stage(carry: _Carry, subproblem: Subproblem, slope: Slope, region: _Region) -> _Carry:
    """One stage; a target that is not finite, or no lower, is the last and does not count."""
    s, free = carry.step, carry.free
    held = jnp.where(free, 0, s)
    z, on_boundary = subproblem(held, free, _room(held, region))
    target = jnp.where(free, z, s)
    change = slope(s, target - s)
    level = (change == 0) & jnp.all(held == s)  # then the mirror image is in the ball, too
    ahead, behind = (jnp.min(_reach(s, d, region)) for d in (target - s, s - target))
    target = jnp.where(level & free & (behind > ahead), -target, target)
    straight = (change < 0) | level
    new, hit, arrived = _advance(carry, target, straight, region)
    lower = slope(s, new - s) + slope(new, new - s) < 0
    moves = (lower | (straight & jnp.any(target != s))) & jnp.all(
        jnp.isfinite(z) & jnp.isfinite(new)
    )
    rest = free & ~(hit & moves)
    return _Carry(
        step=jnp.where(moves, new, s),
        free=rest,
        on_boundary=jnp.where(moves, on_boundary & arrived, carry.on_boundary),
        going=moves & jnp.any(hit) & jnp.any(rest),
        num_stages=carry.num_stages + 1,
    )


def _stages(
    subproblem: Subproblem, slope: Slope, region: _Region, free: Array, needed: Array
) -> _Carry:
    """All stages from s = 0; none if not `needed`."""
    start = _Carry(
        step=jnp.zeros_like(region.scale),
        free=free,
        on_boundary=jnp.zeros((), bool),
        going=needed & jnp.any(free),
        num_stages=jnp.zeros((), jnp.int32),
    )
    return jax.lax.while_loop(
        lambda carry: carry.going,
        lambda carry: _stage(carry, subproblem, slope, region),
        start,
    )


def _steepest(gradient: Array, slope: Slope, scale: Array) -> Subproblem:
    """(2) over the multiples of -D^{-2} g alone."""

    def subproblem(held: Array, free: Array, room: Array) -> tuple[Array, Array]:
        u = jnp.where(free, -gradient / scale / scale, 0)
        length = tree.norm(scale * u)
        bounded = jnp.isfinite(room) & (room > 0)
        # As long as may be: in the difference below the bend is not to drown in the slope.
        u = u / jnp.where(length > 0, length, 1) * jnp.where(bounded, room, 1)
        most = jnp.where(bounded, 1, room)
        bend = slope(u, u) - jnp.sum(gradient * u)
        vertex = jnp.where(bend > 0, -slope(held, u) / jnp.where(bend > 0, bend, 1), jnp.inf)
        return jnp.where(u == 0, 0, jnp.clip(vertex, 0, most) * u), vertex >= most

    return subproblem


def bounded_step(
    subproblem: Subproblem,
    slope: Slope,
    *,
    gradient: Array,
    lower: Array,
    upper: Array,
    scale: Array,
    radius: Scalar,
) -> BoundedStep:
    """Lowers the model (1) in a ball and a box, by stages.

    A target that is not finite, or is no lower, ends the stages with the step so far.

    Args:
        subproblem: solves (2) to the global minimum; called at one place, once a stage.
        slope: the derivative of the model; called three to five times a stage.
        gradient: g, shape (n,), float32 or float64.
        lower: l, at most 0; -inf where there is none; shape (n,).
        upper: u, at least 0; inf where there is none; shape (n,).
        scale: the diagonal of D, positive, shape (n,).
        radius: shape (), at least 0. May be inf where B is positive definite or all bounds are
            finite: no room goes beyond the corner of the box that is farthest.

    Returns:
        A `BoundedStep`, with m(step) <= 0. Where no bound is met the step is that of `subproblem`.

    Example:
        >>> import jax.numpy as jnp
        >>> from hesskit.linalg.bounded import bounded_step
        >>> b, g = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.array([-5.0, -4.0])
        >>> def newton(held, free, room):
        ...     block = jnp.where(free[:, None] & free[None, :], b, jnp.eye(2))
        ...     return jnp.linalg.solve(block, jnp.where(free, -g - b @ held, 0)), jnp.array(False)
        >>> box = bounded_step(newton, lambda s, d: (g + b @ s) @ d, gradient=g,
        ...                    lower=-jnp.ones(2), upper=jnp.array([1.0, 9.0]),
        ...                    scale=jnp.ones(2), radius=jnp.inf)
        >>> print(box.step, box.active, box.num_stages)
        [1. 1.5] [ True False] 2
    """
    radius = jnp.asarray(radius, gradient.dtype)
    farthest = tree.norm(scale * jnp.maximum(-lower, upper))
    region = _Region(lower, upper, scale, jnp.minimum(radius, farthest))
    pushed = ((lower >= 0) & (gradient > 0)) | ((upper <= 0) & (gradient < 0))
    free = ~pushed & (lower < upper)
    end = _stages(subproblem, slope, region, free, jnp.ones((), bool))
    met = jnp.any(end.free != free)
    cauchy = _stages(_steepest(gradient, slope, scale), slope, region, free, met)

    def model(s: Array) -> Array:  # twice m
        return jnp.sum(gradient * s) + slope(s, s)

    best = tree.where(model(cauchy.step) < model(end.step), cauchy, end)
    return BoundedStep(
        step=best.step,
        on_boundary=best.on_boundary & (region.radius == radius),
        active=(best.step <= lower) | (best.step >= upper),
        num_stages=end.num_stages,
    )
