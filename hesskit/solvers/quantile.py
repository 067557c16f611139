r"""How many standard errors on either side hold a share of a distribution.

    P(|T| <= q) = level,   T of Student's t with nu degrees of freedom, or normal    (1)

With I the incomplete beta function, 1 - level = I_x(nu / 2, 1 / 2) at x = nu / (nu + q^2), which
is solved by bisection for nu <= 30; beyond, the expansion of q in 1 / nu about the normal quantile
is right to 1e-6 where I is not in float32.

Source: Abramowitz & Stegun (1972), 26.5.27 and 26.7.5.
"""

import functools

import jax
import jax.numpy as jnp

from hesskit.core.types import Array, Scalar

FEW = 30
"""Degrees of freedom from which the expansion holds to 1e-6 at levels up to 0.999."""
LOG_RANGE = (-12.0, 50.0)
"""Of the quantile: levels down to 1e-5, and those that round to 1 at one degree of freedom."""
HALVINGS = 60


def normal(level: Scalar, dtype: jnp.dtype) -> Array:
    """The q of (1) for a normal distribution, () of `dtype`."""
    return -jax.scipy.special.ndtri(jnp.asarray((1 - level) / 2, dtype))


@functools.partial(jax.jit, static_argnums=2)
def student(level: Scalar, dof: Array, dtype: jnp.dtype) -> Array:
    """The q of (1) for Student's t.

    Args:
      level: the share, between 0 and 1.
      dof: nu, ().
      dtype: of the answer.

    Returns:
      A () array; NaN unless nu is positive.

    Example:
      >>> import jax.numpy as jnp
      >>> print(f"{student(0.95, jnp.array(10), jnp.float32):.3f}")
      2.228
    """
    nu = jnp.asarray(dof).astype(dtype)
    few = jnp.clip(nu, 1, FEW)
    tail = jnp.asarray(1 - level, dtype)

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        x = few / (few + jnp.exp(2 * middle))
        short = jax.scipy.special.betainc(few / 2, jnp.full_like(few, 0.5), x) > tail
        return jnp.where(short, middle, low), jnp.where(short, high, middle)

    ends = tuple(jnp.full_like(few, end) for end in LOG_RANGE)
    low, high = jax.lax.fori_loop(0, HALVINGS, halve, ends)
    exact = jnp.exp((low + high) / 2)
    z = normal(level, dtype)
    many = jnp.maximum(nu, FEW)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    series = z
    for order, term in enumerate(terms, start=1):
        series = series + term / many**order
    return jnp.where(nu > 0, jnp.where(nu <= FEW, exact, series), jnp.nan)
