r"""A point where the gradient is zero, of whatever kind: minimum, maximum or saddle.

Levenberg-Marquardt on the residuals g(x), whose Jacobian is the Hessian H:

    (H^2 + mu |H|^2) s  =  -H g,    keep s if |g(x + s)| < |g(x)|           (1)

For mu = 0 this is Newton's method on g = 0, which does not ask for the kind of point. mu falls
tenfold with each kept step and rises fourfold with each that is not. The loop ends where the
gradient is zero, or neither a step nor a shorter one makes it smaller in the digits there are. A
minimum of |g| that is no zero of g is an end too, and then no critical point.

Source: Nocedal & Wright (2006), sections 10.3 and 11.2; Nielsen (1999) for the ways of mu.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.derivatives import linearized
from hesskit.core.types import Array, Params
from hesskit.linalg.cg import cg
from hesskit.linalg.dense import dense

START, FALL, RISE = 1e-3, 0.1, 4.0
"""mu at first (Nielsen's tau), and its factors."""
MOST = 1e8
"""With so much damping a step is shorter than rounding leaves room for."""
CG_TOL, CG_PRODUCTS = 1e-3, 200
"""Of (1) by conjugate gradients, in relative residual and in products of H^2."""


class Search(NamedTuple):
    """Where the search ended, and what it cost."""

    params: Params
    grad_norm: Array  # (), |g| there
    largest: Array  # (), the largest |H| on the way
    num_steps: Array  # (), int32, trials


class _Carry(NamedTuple):
    params: Params
    grad_norm: Array
    largest: Array
    mu: Array
    num_steps: Array
    going: Array


def _dense_step(product: Callable, grad: Params, mu: Array) -> tuple[Params, Array]:
    """The solution of (1) by eigenvectors, and |H|."""
    matrix = dense(product, grad)
    finite = jnp.all(jnp.isfinite(matrix))
    w, q = jnp.linalg.eigh(jnp.where(finite, matrix, 0), symmetrize_input=False)
    size = jnp.max(jnp.abs(w))
    denominator = w * w + mu * size * size
    ratio = jnp.where(denominator > 0, w / jnp.where(denominator > 0, denominator, 1), 0)
    step = -q @ (ratio * (q.T @ tree.ravel(grad)))
    return tree.unravel(step, grad), size


def _product_step(product: Callable, grad: Params, mu: Array) -> tuple[Params, Array]:
    """The same by conjugate gradients, with |H| at least |Hg|/|g|."""
    b = tree.negative(product(grad))
    size = tree.norm(b) / jnp.where(tree.norm(grad) > 0, tree.norm(grad), 1)

    def normal(v: Params) -> Params:
        return tree.axpy(mu * size * size, v, product(product(v)))

    tol = CG_TOL * tree.norm(b)
    return cg(normal, b, tol=tol, max_products=CG_PRODUCTS).x, size


def search(
    fn: Callable[[Params], Array], start: Params, max_steps: Array, *, by_matrix: bool
) -> Search:
    """The critical point that (1) leads to from `start`.

    Args:
      fn: f, a function of real params.
      start: a pytree of real arrays.
      max_steps: bound on trials, ().
      by_matrix: static; whether (1) is solved by eigenvectors or by conjugate gradients.

    Returns:
      A `Search`; the best point seen.
    """
    solve = _dense_step if by_matrix else _product_step

    def body(carry: _Carry) -> _Carry:
        at = linearized(fn, carry.params)
        assert at.product is not None
        step, size = solve(at.product, at.grad, carry.mu)
        trial = tree.add(carry.params, step)
        norm = tree.norm(jax.grad(fn)(trial))
        good = norm < carry.grad_norm
        mu = jnp.where(good, FALL * carry.mu, RISE * jnp.maximum(carry.mu, START * FALL))
        stuck = (tree.equal(trial, carry.params) | (carry.mu > MOST)) & ~good
        grad_norm = jnp.where(good, norm, carry.grad_norm)
        return _Carry(
            params=tree.where(good, trial, carry.params),
            grad_norm=grad_norm,
            largest=jnp.maximum(carry.largest, size),
            mu=mu,
            num_steps=carry.num_steps + 1,
            going=~stuck & (grad_norm > 0),
        )

    def unfinished(carry: _Carry) -> Array:
        return carry.going & (carry.num_steps < max_steps)

    norm = tree.norm(jax.grad(fn)(start))
    first = _Carry(
        params=start,
        grad_norm=norm,
        largest=jnp.zeros_like(norm),
        mu=jnp.full_like(norm, START),
        num_steps=jnp.zeros((), jnp.int32),
        going=jnp.isfinite(norm) & (norm > 0),
    )
    end = jax.lax.while_loop(unfinished, body, first)
    return Search(end.params, end.grad_norm, end.largest, end.num_steps)
