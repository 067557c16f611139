r"""The spectrum that one vector sees: Gauss quadrature by Lanczos.

From a probe z of norm 1, k steps of the three-term recurrence give a tridiagonal T = Y diag(t) Y',
and

    z' f(H) z  ~  sum_i  w_i f(t_i),     w_i = y_{1i}^2,     sum_i w_i = 1            (1)

exactly for polynomials up to degree 2k - 1. No vector but the last two is kept and none is
orthogonalized again: rounding then makes copies of the outer t_i, which share among them the weight
of the one, and (1) holds to rounding all the same.

Source: Golub & Meurant (2010), Matrices, Moments and Quadrature, chapter 6; Greenbaum (1989),
Linear Algebra Appl. 113, 7-63, and Chen, Trogdon & Ubaru (2021), ICML, section 4 (the copies).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Params, Product
from hesskit.linalg.lanczos import NEGLIGIBLE


class Quadrature(NamedTuple):
    """Nodes t and weights w of (1); NaN where a product was not finite."""

    nodes: Array  # (k,)
    weights: Array  # (k,)


class _Carry(NamedTuple):
    q: Params
    before: Params
    beta: Array
    norm: Array  # the largest |Hq| so far
    going: Array


def quadrature(product: Product, probe: Params, num_steps: int) -> Quadrature:
    """The rule (1) of one probe.

    Args:
      product: v -> Hv, symmetric, called at one place.
      probe: z, of any norm but zero; real.
      num_steps: k, static; products spent.

    Returns:
      A `Quadrature` in at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> found = quadrature(lambda v: jnp.array([1.0, 3.0]) * v, jnp.ones(2), 2)
      >>> print(found.nodes.round(4), found.weights.round(4))
      [1. 3.] [0.5 0.5]
    """
    wide = tree.widen(probe)
    q = tree.scale(1 / tree.norm(wide), wide)
    zero = jnp.zeros((), tree.result_dtype(wide))
    negligible = NEGLIGIBLE * jnp.finfo(zero.dtype).eps

    def step(carry: _Carry, _: None) -> tuple[_Carry, tuple[Array, Array]]:
        hq = tree.widen(tree.cast_like(product(tree.cast_like(carry.q, probe)), probe))
        norm = jnp.maximum(carry.norm, tree.norm(hq))
        alpha = tree.vdot(carry.q, hq)
        w = tree.axpy(-alpha, carry.q, tree.axpy(-carry.beta, carry.before, hq))
        beta = tree.norm(w)
        going = carry.going & ~(beta <= negligible * norm)
        q = tree.scale(jnp.where(going, 1 / jnp.where(going, beta, 1), 0), w)
        beta = jnp.where(going, beta, 0)
        row = jnp.where(carry.going, alpha, 0), beta
        return _Carry(q, carry.q, beta, norm, going), row

    first = _Carry(q, tree.zeros_like(q), zero, zero, jnp.array(True))
    _, (alpha, beta) = jax.lax.scan(step, first, None, length=num_steps)
    t = jnp.diag(alpha) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1)
    finite = jnp.all(jnp.isfinite(t))
    nodes, y = jnp.linalg.eigh(jnp.where(finite, t, 0), symmetrize_input=False)
    weights = y[0] ** 2
    return Quadrature(
        jnp.where(finite, nodes, jnp.nan),
        jnp.where(finite, weights / jnp.sum(weights), jnp.nan),
    )
