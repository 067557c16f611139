r"""The solution of a symmetric system known by its products, or the word that there is none.

Few unknowns: with D the square roots of the diagonal of H, which makes units matter to nothing,

    D^{-1} H D^{-1}  =  V W V',     x  =  D^{-1} V W^{-1} V' D^{-1} b       (1)

and H is singular if an eigenvalue in W is zero to rounding. It may be indefinite. Many unknowns:
conjugate gradients, which form no matrix, need H positive definite, and see that it is not only
along the directions that b leads to.

Source: Golub & Van Loan (2013), Matrix Computations, sections 8.1 and 11.3.
"""

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Params, Product
from hesskit.linalg.cg import cg
from hesskit.linalg.dense import dense
from hesskit.linalg.gram_inverse import NOISE

DENSE = 500
"""Unknowns up to which H is formed: a tenth of a second on a core, 2 MB, and n products, which
conjugate gradients need too where H is badly conditioned."""

SOUGHT, ENOUGH = 2 / 3, 1 / 2
"""Conjugate gradients run to a residual of eps^SOUGHT |b|, and eps^ENOUGH |b| is an answer."""


def solve(product: Product, b: Params) -> tuple[Params, Array]:
    """The x of H x = b, and whether it is one.

    Args:
      product: v -> H v, symmetric, on real vectors like `b`.
      b: the right-hand side.

    Returns:
      x, finite or not, and whether H is not singular to rounding (and, for many unknowns, positive
      definite as far as seen) and x solves the system, () bool.

    Example:
      >>> import jax.numpy as jnp
      >>> h = jnp.array([[2.0, 1.0], [1.0, 3.0]])
      >>> x, sound = solve(lambda v: h @ v, jnp.array([3.0, 4.0]))
      >>> print(x.round(4), sound)
      [1. 1.] True
    """
    if tree.size(b) <= DENSE:
        x, sound = _by_eigenvalues(dense(product, b), tree.ravel(b))
        return tree.unravel(x, b), sound
    eps, size = tree.coarsest_eps(b), tree.norm(b)
    found = cg(product, b, tol=eps**SOUGHT * size, max_products=10 * tree.size(b))
    solved = found.residual_norm <= eps**ENOUGH * size
    return found.x, solved & ~(found.negative_curvature | found.flat)


def _by_eigenvalues(matrix: Array, b: Array) -> tuple[Array, Array]:
    """The solution (1), and whether no eigenvalue is zero."""
    eps, n = jnp.finfo(matrix.dtype).eps, b.size
    diagonal = jnp.abs(jnp.diagonal(matrix))
    unit = 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
    w, v = jnp.linalg.eigh(unit[:, None] * matrix * unit[None, :], symmetrize_input=False)
    least = NOISE * eps * n**0.5 * jnp.max(jnp.abs(w))
    sound = jnp.min(jnp.abs(w)) > least
    inside = jnp.matmul(v.T, unit * b, precision=jax.lax.Precision.HIGHEST)
    inside = inside / jnp.where(w == 0, 1, w)
    return unit * jnp.matmul(v, inside, precision=jax.lax.Precision.HIGHEST), sound
