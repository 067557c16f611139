r"""Traces and diagonals of a matrix known by products, estimated from random probes.

With probes z of mean zero and covariance I,

    Hutchinson   tr H  ~  mean z'Hz                                                      (1)
    Hutch++      tr H  =  tr Q'HQ + tr (I - QQ')H(I - QQ'),   the second by (1)          (2)
    XTrace       the mean over i of (2) with Q = orth(H Z without z_i) and the probe z_i (3)
    diagonal     diag H  ~  mean z * Hz                                                  (4)

After m products the error of (1) falls as m^(-1/2); of (2) and (3) as 1/m, and faster where the
spectrum falls, since Q holds the large eigenvalues and is exact on them.

Source: Hutchinson (1990); Meyer, Musco, Musco & Woodruff (2021), "Hutch++", SOSA; Epperly, Tropp &
Webber (2024), "XTrace", SIAM J. Matrix Anal. Appl. 45, 1-23, section 2; Bekas, Kokiopoulou & Saad
(2007) for (4).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Params, Product
from hesskit.linalg import basis
from hesskit.linalg.probes import normal, signs


class Estimate(NamedTuple):
    """A number, or a vector, and its standard error."""

    value: Any
    standard_error: Any
    num_products: Array  # (), int32
    exact: Array  # (), bool: by the whole matrix, to rounding


def summary(samples: Array, num_products: int) -> Estimate:
    """The mean of equally good samples, (k,), and the standard error of it; inf of one sample."""
    num = samples.shape[0]
    spread = jnp.std(samples, ddof=1) if num > 1 else jnp.full_like(samples[0], jnp.inf)
    count = jnp.asarray(num_products, jnp.int32)
    return Estimate(jnp.mean(samples), spread / num**0.5, count, jnp.array(False))


def _applied(product: Product, rows: Params, like: Params) -> Params:
    """H times each row, one after another, in the dtype of the rows."""

    def one(v: Params) -> Params:
        return tree.cast_like(product(tree.cast_like(v, like)), v)

    return jax.lax.map(one, rows)


def _draw(draw: Any, key: Array, like: Params, num: int) -> Params:
    return jax.vmap(lambda k: draw(k, tree.widen(like)))(jax.random.split(key, num))


def _dots(rows: Params, others: Params) -> Array:
    """The inner products of row i and row i, (m,)."""
    return jax.vmap(tree.vdot)(rows, others)


def hutchinson(product: Product, like: Params, key: Array, *, num_products: int) -> Estimate:
    """The trace by (1) with random signs.

    Args:
      product: `v -> H v`, symmetric.
      like: gives structure, shapes and dtypes.
      key: of the probes, ().
      num_products: static.

    Returns:
      An `Estimate`, ().
    """

    def sample(key: Array) -> Array:
        z = signs(key, like)
        return tree.vdot(z, product(z))

    return summary(jax.lax.map(sample, jax.random.split(key, num_products)), num_products)


def hutchpp(product: Product, like: Params, key: Array, *, num_products: int) -> Estimate:
    """The trace by (2): a third of the products for H S, H Q and the rest each.

    Args:
      product: `v -> H v`, symmetric.
      like: gives structure, shapes and dtypes.
      key: of the probes, ().
      num_products: static, at least 6.

    Returns:
      An `Estimate`, (); the standard error is that of the second term.
    """
    third, sketch, rest = num_products // 3, *jax.random.split(key)
    q = basis.orthonormal(_applied(product, _draw(signs, sketch, like, third), like))
    low = jnp.sum(_dots(q, _applied(product, q, like)))
    z = _draw(signs, rest, like, num_products - 2 * third)
    z = tree.sub(z, basis.combinations(q, basis.gram(q, z).T))
    found = summary(_dots(z, _applied(product, z, like)), num_products)
    return found._replace(value=low + found.value)


def xtrace(product: Product, like: Params, key: Array, *, num_products: int) -> Estimate:
    """The trace by (3), with m = num_products / 2 normal probes that serve both ends.

    With Y = H Z = Q R and s_i the unit vector that R's other columns are orthogonal to, leaving z_i
    out is leaving Q s_i out.

    Args:
      product: `v -> H v`, symmetric.
      like: gives structure, shapes and dtypes.
      key: of the probes, ().
      num_products: static, at least 4.

    Returns:
      An `Estimate`, ().
    """
    m, n = num_products // 2, tree.size(like)
    z = _draw(normal, key, like, m)
    y = _applied(product, z, like)
    q = basis.orthonormal(y)
    hq = _applied(product, q, like)
    w, r, h = basis.gram(q, z), basis.gram(q, y), basis.gram(q, hq)
    eps = jnp.finfo(r.dtype).eps
    s = jnp.linalg.pinv(r, rtol=m * eps).T
    s = s / jnp.maximum(jnp.linalg.norm(s, axis=0), jnp.finfo(r.dtype).tiny)[None, :]
    others = jnp.abs(r.T @ s) * (1 - jnp.eye(m, dtype=r.dtype))
    alone = jnp.max(others, axis=0) <= eps**0.5 * jnp.max(jnp.abs(r))
    s = jnp.where(alone[None, :], s, 0)  # no s_i: Q is spanned without z_i too
    rank = jnp.sum(_dots(q, q)) - alone.astype(r.dtype)
    u = w - s * jnp.sum(s * w, axis=0)[None, :]
    held = jnp.trace(h) - jnp.sum(s * (h @ s), axis=0)
    left = jnp.sum(w * r, axis=0) - 2 * jnp.sum(u * r, axis=0) + jnp.sum(u * (h @ u), axis=0)
    square = _dots(z, z) - 2 * jnp.sum(u * w, axis=0) + jnp.sum(u * u, axis=0)
    seen = square > m * eps * _dots(z, z)
    scale = jnp.where(seen, (n - rank) / jnp.where(seen, square, 1), 0)
    return summary(held + scale * left, 2 * m)


def diagonal(product: Product, like: Params, key: Array, *, num_products: int) -> Estimate:
    """The diagonal by (4) with random signs.

    Args:
      product: `v -> H v`, symmetric.
      like: gives structure, shapes and dtypes.
      key: of the probes, ().
      num_products: static.

    Returns:
      An `Estimate` of pytrees like `like`, in at least float32.
    """
    zero = tree.zeros_like(tree.widen(like))

    def add(carry: tuple[Params, Params, Array], key: Array) -> tuple[Any, None]:
        mean, squares, count = carry
        z = signs(key, like)
        sample = jax.tree.map(jnp.multiply, tree.widen(z), tree.widen(product(z)))
        gap = tree.sub(sample, mean)
        after = tree.axpy(1 / (count + 1), gap, mean)
        more = jax.tree.map(jnp.multiply, gap, tree.sub(sample, after))
        return (after, tree.add(squares, more), count + 1), None

    keys = jax.random.split(key, num_products)
    start = zero, zero, jnp.zeros((), tree.result_dtype(zero))
    (mean, squares, _), _ = jax.lax.scan(add, start, keys)
    degrees = num_products * (num_products - 1)
    spread = jax.tree.map(
        lambda a: jnp.sqrt(a / degrees) if degrees else jnp.full_like(a, jnp.inf), squares
    )
    return Estimate(mean, spread, jnp.asarray(num_products, jnp.int32), jnp.array(False))
