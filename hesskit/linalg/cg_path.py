r"""Conjugate gradients that keep their way: iterates at a few marks, for whoever turns back.

For A symmetric positive definite, from a start x_0, each iterate lowers

    q(x)  =  x.A x / 2 - b.x  =  -x.(b + r) / 2,     r = b - A x            (1)

until the last k = max(10, i / 10) products lowered it by less than k 5e-4 of what it is. Iterates
and residuals are kept at marks that grow by a factor of 1.3, and the last one.

Source: Martens (2010), "Deep learning via Hessian-free optimization", sections 4.4 and 4.6.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Params, Product, Scalar

PROGRESS = 5e-4
SPACING = 1.3


class Path(NamedTuple):
    """What was kept; row `num - 1` is the last, and rows beyond it mean nothing."""

    iterates: Params  # (k, ...), x
    residuals: Params  # (k, ...), b - A x
    num: Array  # (), int32, at least 1
    num_products: Array  # (), int32


class _Carry(NamedTuple):
    x: Params
    r: Params
    d: Params
    rz: Array
    history: Array  # q after each product
    path: Path
    going: Array


def marks(max_products: int) -> tuple[int, ...]:
    """The numbers of products after which an iterate is kept."""
    found = [1]
    while found[-1] < max_products:
        found.append(min(max(found[-1] + 1, math.ceil(SPACING * found[-1])), max_products))
    return tuple(found)


def empty(like: Params, max_products: int) -> Path:
    """A path of the right shapes: one row of zeros."""
    rows = tree.rows_like(like, len(marks(max_products)))
    zero = jnp.zeros((), jnp.int32)
    return Path(rows, jax.tree.map(jnp.copy, rows), jnp.ones((), jnp.int32), zero)


def row(rows: Params, index: Array) -> Params:
    """One row of each leaf."""
    take = jax.lax.dynamic_index_in_dim
    return jax.tree.map(lambda a: take(a, index, keepdims=False), rows)


def _write(rows: Params, x: Params, index: Array | int) -> Params:
    put = jax.lax.dynamic_update_index_in_dim
    return jax.tree.map(lambda a, b: put(a, b.astype(a.dtype), index, 0), rows, x)


def _q(b: Params, x: Params, r: Params) -> Array:
    return -tree.vdot(x, tree.add(b, r)) / 2


def cg_path(
    product: Product,
    b: Params,
    x0: Params,
    *,
    max_products: int,
    precondition: Callable[[Params], Params] | None = None,
    needed: Scalar = True,
) -> Path:
    """The way from x0 towards A x = b.

    Ends also where r is rounding, and before a step where d.A d is not positive or not finite.

    Args:
      product: v -> A v.
      b: the right-hand side.
      x0: the start, which costs a product.
      max_products: a bound beside that one, which sets the number of rows.
      precondition: v -> M^{-1} v, symmetric positive definite; None is the identity.
      needed: False spends no product but that of x0.

    Returns:
      A `Path`; its first row is x0 where no step could be taken.

    Example:
      >>> import jax.numpy as jnp
      >>> b = jnp.ones(2)
      >>> path = cg_path(lambda v: jnp.array([1.0, 4.0]) * v, b, jnp.zeros(2), max_products=5)
      >>> print(row(path.iterates, path.num - 1).round(3), path.num_products)
      [1.   0.25] 3
    """
    places = jnp.asarray(marks(max_products), jnp.int32)

    solve = (lambda r: r) if precondition is None else precondition
    r = tree.sub(b, product(x0))
    z = solve(r)
    first = _q(b, x0, r)
    history = jnp.zeros((max_products + 1,), first.dtype).at[0].set(first)
    start = empty(b, max_products)
    path = Path(
        _write(start.iterates, x0, 0), _write(start.residuals, r, 0), start.num, start.num_products
    )
    rz = tree.vdot(r, z)
    rounding = jnp.asarray(tree.coarsest_eps(b) ** 2, rz.dtype) * tree.vdot(b, solve(b))

    def body(carry: _Carry) -> _Carry:
        product_d = product(carry.d)
        curvature = tree.vdot(carry.d, product_d)
        sound = (curvature > 0) & jnp.isfinite(curvature)
        alpha = jnp.where(sound, carry.rz / jnp.where(sound, curvature, 1), 0)
        x, r = tree.axpy(alpha, carry.d, carry.x), tree.axpy(-alpha, product_d, carry.r)
        z = solve(r)
        rz = tree.vdot(r, z)
        i = carry.path.num_products + 1
        # The open row holds the newest iterate; a mark closes it.
        before = i - 1
        slot = jnp.sum(places <= before).astype(jnp.int32)
        slot = jnp.where(sound, slot, carry.path.num - 1)
        path = Path(
            _write(carry.path.iterates, x, slot),
            _write(carry.path.residuals, r, slot),
            slot + 1,
            i,
        )
        history = carry.history.at[i].set(_q(b, x, r))
        k = jnp.maximum(10, i // 10)
        gain = history[jnp.maximum(i - k, 0)] - history[i]
        least = -PROGRESS * k.astype(gain.dtype) * history[i]
        enough = (i > k) & (history[i] < 0) & (gain < least)
        going = sound & ~enough & (rz > rounding) & jnp.isfinite(rz)
        d = tree.axpy(rz / jnp.where(carry.rz > 0, carry.rz, 1), carry.d, z)
        return _Carry(x, r, d, rz, history, path, going)

    going = jnp.asarray(needed) & (rz > rounding) & jnp.isfinite(rz)
    carry = _Carry(x0, r, z, rz, history, path, going)
    found = jax.lax.while_loop(
        lambda c: c.going & (c.path.num_products < max_products),
        lambda c: tree.cast_like(body(c), c),
        carry,
    )
    return found.path._replace(num_products=found.path.num_products + 1)
