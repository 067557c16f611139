r"""A quasi-Newton direction inside a box: the minimizer of the L-BFGS model on a face.

The BFGS matrix of the last m pairs (curvature/secant.py) in compact form is

    B  =  theta I  -  W' K^{-1} W,    W = [Y; theta S],    K = [[-D, L'], [L, theta S S']]    (1)

with theta = 1/gamma, D = diag(s_i.y_i), L_ij = s_i.y_j for i younger than j, pairs as rows. On the
free coordinates F, with W_F the columns of W there,

    B_FF^{-1} v  =  v / theta  +  W_F' (K - W_F W_F' / theta)^{-1} W_F v / theta^2            (2)

From s = 0 the model g.s + s.Bs/2 is minimized over F; coordinates whose minimizer leaves the box
are set to their bound and held, and the rest is minimized again, until none leaves. The first face
holds what the gradient pushes out of the box. Where the outcome does not descend, as after a wrong
guess of the face, the step is that of the projected gradient, s = P(x - g / theta) - x.

Source: Byrd, Lu, Nocedal & Zhu (1995), "A limited memory algorithm for bound constrained
optimization", (3.2) and (5.11); Morales & Nocedal (2011), which projects the subspace minimizer;
Bertsekas (1982) for the face.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Scalar

MAX_FACES = 10
DESCENT = 1e-8
"""The least cosine of the step with the negative gradient on its face."""


class Compact(NamedTuple):
    """The matrix (1)."""

    theta: Array  # ()
    rows: Array  # (2m, n), W
    inner: Array  # (2m, 2m), K


def compact(steps: Array, changes: Array, age: Array, num_pairs: Array, *, scaled: bool) -> Compact:
    """The matrix of the pairs.

    Args:
      steps: s, (m, n), a ring.
      changes: y, (m, n).
      age: of each row, 0 for the newest, (m,).
      num_pairs: how many are held, ().
      scaled: theta = y.y / s.y of the newest pair; else 1.

    Returns:
      A `Compact`; without pairs the identity.
    """
    held = age < num_pairs
    s, y = (jnp.where(held[:, None], a, 0) for a in (steps, changes))
    precise = jax.lax.Precision.HIGHEST
    sy = jnp.dot(s, y.T, precision=precise)
    ss = jnp.dot(s, s.T, precision=precise)
    newest = age == 0
    curve = jnp.sum(jnp.where(newest, jnp.diagonal(sy), 0))
    square = jnp.sum(jnp.where(newest[:, None], y * y, 0))
    known = (num_pairs > 0) & (curve > 0) & scaled
    theta = jnp.where(known, square / jnp.where(known, curve, 1), 1)
    younger = age[:, None] < age[None, :]
    lower = jnp.where(younger, sy, 0)
    diagonal = jnp.where(held, jnp.diagonal(sy), 1)
    corner = theta * ss + jnp.diag(jnp.where(held, 0, 1).astype(ss.dtype))
    inner = jnp.block([[-jnp.diag(diagonal), lower.T], [lower, corner]])
    return Compact(theta, jnp.concatenate([y, theta * s]), inner)


def _product(b: Compact, v: Array) -> Array:
    """B v."""
    return b.theta * v - jnp.linalg.solve(b.inner, b.rows @ v) @ b.rows


def _solve_on(b: Compact, free: Array, v: Array) -> Array:
    """(2) times v, zero where not free."""
    rows = jnp.where(free, b.rows, 0)
    small = b.inner - jnp.dot(rows, rows.T, precision=jax.lax.Precision.HIGHEST) / b.theta
    return v / b.theta + jnp.linalg.solve(small, rows @ v) @ rows / b.theta**2


class _Face(NamedTuple):
    step: Array  # (n,), on the coordinates that are held
    free: Array  # (n,), bool
    target: Array  # (n,), the minimizer on the face
    going: Array  # (), bool
    num: Array  # (), int32


def boxed_step(
    b: Compact, grad: Array, lower: Array, upper: Array, *, length: Scalar | None = None
) -> Array:
    """The step on a face of the box, in the box to rounding.

    Args:
      b: the matrix.
      grad: g, (n,).
      lower: bounds relative to the point, at most 0, (n,).
      upper: at least 0, (n,).
      length: the multiple of -g that is projected where the face gives no descent; None means
        1 / theta.

    Returns:
      s, (n,), with g.s < 0 unless the projected gradient is zero.
    """
    pushed = ((lower >= 0) & (grad > 0)) | ((upper <= 0) & (grad < 0))
    zero = jnp.zeros_like(grad)

    def face(carry: _Face) -> _Face:
        held = jnp.where(carry.free, 0, carry.step)
        slope = grad + _product(b, held)
        z = -_solve_on(b, carry.free, jnp.where(carry.free, slope, 0))
        target = jnp.where(carry.free, z, held)
        out = carry.free & ((target < lower) | (target > upper))
        clipped = jnp.clip(target, lower, upper)
        return _Face(
            step=jnp.where(out, clipped, held),
            free=carry.free & ~out,
            target=clipped,
            going=jnp.any(out),
            num=carry.num + 1,
        )

    first = _Face(zero, ~pushed, zero, jnp.array(True), jnp.zeros((), jnp.int32))
    last = jax.lax.while_loop(lambda c: c.going & (c.num < MAX_FACES), face, first)
    inward = jnp.where(pushed, 0, grad)
    least = DESCENT * tree.norm(inward) * tree.norm(last.target)
    descends = jnp.all(jnp.isfinite(last.target)) & (-jnp.sum(grad * last.target) > least)
    along = -grad * (1 / b.theta if length is None else length)
    return jnp.where(descends, last.target, jnp.clip(along, lower, upper))


def reach(step: Array, lower: Array, upper: Array) -> Array:
    """The largest t for which t step stays in the box, at least 1, ()."""
    ahead = jnp.where(step > 0, upper, lower) / jnp.where(step == 0, 1, step)
    return jnp.maximum(jnp.min(jnp.where(step == 0, jnp.inf, ahead)), 1)
