r"""What a step that was kept tells of the curvature along it: the pair (s, y).

With g the gradient before and g+ that after the step s from x,

    y  =  g+ - g  +  theta s / s.s,   theta = 6 (f - f+) + 3 (g + g+).s     (1)

The first two terms are the mean curvature over the step. The third, from the values, makes it that
at x + s to one order more: it is zero for a quadratic. It is held to 30 % of s.(g+ - g), and left
out where the values differ by little more than rounding. On tests/problems.py it saves L-BFGS 6 %
of the evaluations in the mean.

Source: Zhang, Deng & Chen (1999), J. Optim. Theory Appl. 102, 147-167, (2.9).
"""

from typing import NamedTuple

import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Params

LIMIT = 0.3
CLEAR = 10.0  # times the rounding floor: theta is then known to a few percent


class Point(NamedTuple):
    """One end of the step: f, g and g.s."""

    value: Array
    grad: Params
    slope: Array


class Pair(NamedTuple):
    """The pair; `grad` is that before, `length` the multiple of the direction, `norm` is |s|."""

    step: Params
    change: Params
    grad: Params
    length: Array
    norm: Array


def learned(
    before: Point, after: Point, step: Params, *, norm: Array, length: Array, noise: Array
) -> Pair:
    """The pair (1).

    Args:
      before: value, gradient and slope g.s at x.
      after: those at x + s.
      step: s.
      norm: |s|, ().
      length: the multiple of the direction that s is, ().
      noise: a difference of values up to this is rounding, ().

    Returns:
      The pair.
    """
    fall = before.value - after.value

    def weight() -> Array:
        most = LIMIT * jnp.abs(after.slope - before.slope)
        theta = 6 * fall + 3 * (before.slope + after.slope)
        return jnp.clip(theta, -most, most) / norm / norm

    clear = (jnp.abs(fall) > CLEAR * noise) & (norm > 0)
    more = tree.while_once(clear, weight, jnp.zeros_like(norm))
    change = tree.axpy(more, step, tree.sub(after.grad, before.grad))
    return Pair(step, change, before.grad, length, norm)
