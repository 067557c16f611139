r"""A few vectors in memory, one a row of each leaf: Q' of shape (m, *shape).

    coefficients  Q'x,     combination  Q c,     combinations  Q C'         (1)

of real vectors, as matrix products at HIGHEST precision in at least float32; combinations of leaves
laid out along the axes of an explicit mesh as products and sums that keep the layout.
"""

import functools
import operator

import jax
import jax.numpy as jnp

from hesskit.core import layout, tree
from hesskit.core.types import Array, Params

HIGHEST = jax.lax.Precision.HIGHEST


def size(rows: Params) -> int:
    """The number m of vectors."""
    return jax.tree.leaves(rows)[0].shape[0]


def coefficients(rows: Params, x: Params) -> Array:
    """Q'x, (m,); () zero for vectors without leaves."""
    dtype = tree.result_dtype(rows)

    def leaf(a: Array, b: Array) -> Array:
        axes = (tuple(range(1, a.ndim)), tuple(range(b.ndim)))
        return jax.lax.dot_general(
            a.astype(dtype),
            b.astype(dtype),
            (axes, ((), ())),
            precision=HIGHEST,
            out_sharding=layout.replicated(b, 1),
        )

    parts = jax.tree.leaves(jax.tree.map(leaf, rows, x))
    return functools.reduce(operator.add, parts) if parts else jnp.zeros((), dtype)


def combination(rows: Params, c: Array) -> Params:
    """The vector Q c, for c (m,), in the dtypes of the rows."""
    return jax.tree.map(lambda a: a[0], combinations(rows, c[None]))


def combinations(rows: Params, c: Array) -> Params:
    """The p vectors Q c_i for c (p, m), one a row."""
    if _spread(rows):

        def one(r: Array) -> Params:
            return jax.tree.map(lambda a: jnp.sum(a, axis=0), jax.vmap(tree.scale)(r, rows))

        return jax.vmap(one)(c)

    def leaf(a: Array) -> Array:
        out = jnp.matmul(c.astype(a.dtype), a.reshape(a.shape[0], -1), precision=HIGHEST)
        return out.reshape(c.shape[0], *a.shape[1:])

    return jax.tree.map(leaf, rows)


def gram(rows: Params, others: Params) -> Array:
    """The inner products of two sets, (m, k)."""
    return jax.vmap(lambda x: coefficients(rows, x), out_axes=1)(others)


def orthonormal(rows: Params) -> Params:
    """An orthonormal basis of the span of the rows, by Gram-Schmidt done twice, one after another.

    Args:
      rows: m vectors, (m, *shape) each leaf.

    Returns:
      m rows; zero where a row is in the span of those before it.
    """
    num = size(rows)
    index = jnp.arange(num, dtype=jnp.int32)
    eps = jnp.finfo(tree.result_dtype(rows)).eps

    def step(i: Array, done: Params) -> Params:
        x = jax.tree.map(lambda a: a[i], rows)
        before = tree.norm(x)
        for _ in range(2):
            c = jnp.where(index < i, coefficients(done, x), 0)
            x = tree.sub(x, combination(done, c))
        after = tree.norm(x)
        new = after > 100 * eps * before
        q = tree.scale(jnp.where(new, 1 / jnp.where(new, after, 1), 0), x)
        return jax.tree.map(lambda a, b: a.at[i].set(b), done, q)

    return jax.lax.fori_loop(0, num, step, jax.tree.map(jnp.zeros_like, rows))


def _spread(rows: Params) -> bool:
    return any(layout.explicit(a) is not None for a in jax.tree.leaves(rows))
