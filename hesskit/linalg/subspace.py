r"""The minimizer of a quadratic in the plane of two directions, which may be one to rounding.

    (a x^2 + 2 b x y + c y^2) / 2 - p x - q y                               (1)

with a > 0, from the directions scaled to the same bend, whose cosine is b / sqrt(a c).

Source: Martens & Grosse (2015), section 7, equation (4), for a step and the one before.
"""

import jax.numpy as jnp

from hesskit.core.types import Array

APART = 1e-4
"""The least squared sine at which float32 tells the directions apart."""


def plane_minimizer(a: Array, b: Array, c: Array, p: Array, q: Array) -> tuple[Array, Array]:
    """The minimizer (x, y) of (1); y = 0 where the second direction brings nothing to rounding.

    Args:
      a: the bend of the first direction, ().
      b: that of both, ().
      c: that of the second, ().
      p: minus the slope along the first, ().
      q: minus that along the second, ().

    Returns:
      x and y.

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = plane_minimizer(*jnp.array([2.0, 0.0, 4.0, 1.0, 1.0]))
      >>> print(x, y)
      0.5 0.25
    """
    one, two = jnp.sqrt(jnp.where(a > 0, a, 1)), jnp.sqrt(jnp.where(c > 0, c, 1))
    cosine, p, q = b / (one * two), p / one, q / two
    apart = (c > 0) & (1 - cosine * cosine > APART)
    sine = jnp.where(apart, 1 - cosine * cosine, 1)
    x = jnp.where(apart, (p - cosine * q) / sine, p)
    y = jnp.where(apart, (q - cosine * p) / sine, 0)
    return x / one, y / two
