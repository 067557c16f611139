r"""Conjugate gradients for a truncated step: warm by a direction, ended by profit, the way kept.

For A symmetric positive definite, each direction d lowers

    q(x)  =  x.Ax / 2 - b.x     by     (r.d)^2 / (2 d.Ad),      r = b - Ax  (1)

The first direction may be given. Of the solution of the system before it takes the best multiple,
so that q < 0, and b.x > 0, at every iterate, and no part of it has to be chosen. The others are
conjugate to it, called w, and to the one before, hence to all, with z = M^{-1} r:

    d  =  z - (z.Ad_old / d_old.Ad_old) d_old - (z.Aw / w.Aw) w             (2)

CG ends where a product earns less than the average so far, in which `overhead` products stand for
the cost of whatever CG is a part of: with gain_i = -q after i products,

    gain_i - gain_{i-w}  <  w gain_i / (i + overhead)                       (3)

This is the relative progress of Martens (2010) with 1 / (i + overhead) for his 5e-4, and ends where
the gain in a given time is greatest (Charnov 1976, "the marginal value theorem").

Source: Martens (2010), "Deep learning via Hessian-free optimization", sections 4.4 to 4.6;
Hestenes & Stiefel (1952) for (2).
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Params, Product, Scalar

NUM_KEPT = 8
"""Iterates that are kept, each 1.3 times as far as the one before: a factor of 8 in products."""
WINDOW = 3
"""w of (3): CG gains by fits and starts. On three nets 2, 3 and 5 are alike, 10 loses."""


class Way(NamedTuple):
    """Iterates that were passed: `NUM_KEPT` of them, and a spare row."""

    iterates: Params  # (NUM_KEPT + 1, ...)
    bends: Array  # (NUM_KEPT,), x.Ax
    marks: Array  # (NUM_KEPT,), int32, products spent there; 0: no iterate


class WarmCG(NamedTuple):
    """The last iterate and how it was reached."""

    x: Params
    bend: Array  # (), x.Ax
    residual: Array  # (), |r| beside |b|, in the norm of M^{-1}
    num_products: Array  # (), int32
    sound: Array  # (), bool: some direction had d.Ad > 0, beyond rounding
    way: Way


class _Carry(NamedTuple):
    x: Params
    r: Params
    d: Params
    rz: Array
    gain: Array
    recent: Array  # gains of the last iterates, oldest first
    num_products: Array
    given: Array  # d is the direction that was given
    w: Params
    aw: Params
    waw: Array  # 0: there is no w
    sound: Array
    going: Array
    way: Way


def empty(like: Params) -> Way:
    """No iterates yet."""
    dtype = tree.result_dtype(like)
    marks = jnp.zeros((NUM_KEPT,), jnp.int32)
    return Way(tree.rows_like(like, NUM_KEPT + 1), jnp.zeros((NUM_KEPT,), dtype), marks)


def iterate(way: Way, index: Array) -> Params:
    """One of the iterates."""
    take = jax.lax.dynamic_index_in_dim
    return jax.tree.map(lambda a: take(a, index, keepdims=False), way.iterates)


def lengths(way: Way) -> Array:
    """|x| of each iterate, (NUM_KEPT,)."""
    dtype = way.bends.dtype
    unit = tree.power_of_two(tree.max_abs(way.iterates))
    squares = [
        jnp.sum((a[:-1].astype(dtype) / unit) ** 2, axis=tuple(range(1, a.ndim)))
        for a in jax.tree.leaves(way.iterates)
    ]
    return unit * jnp.sqrt(functools.reduce(operator.add, squares))


def _kept(way: Way, x: Params, bend: Array, num_products: Array, commit: Array) -> Way:
    """The way with `x`, if it is 1.3 times as far as the last that was kept."""
    last, newest = jnp.max(way.marks), jnp.argmax(way.marks)
    due = commit & (num_products >= last + jnp.maximum(1, (3 * last + 9) // 10))
    row = jnp.where(last > 0, (newest + 1) % NUM_KEPT, 0)
    place = jnp.where(due, row, NUM_KEPT)
    put = jax.lax.dynamic_update_index_in_dim
    return Way(
        jax.tree.map(lambda a, b: put(a, b.astype(a.dtype), place, 0), way.iterates, x),
        way.bends.at[place].set(bend, mode="drop"),
        way.marks.at[place].set(num_products, mode="drop"),
    )


def _start(b: Params, wide: Params, z: Params, first: Params | None, needed: Scalar) -> _Carry:
    """At zero, with `wide` = b / unit for residual, along `first` or z = M^{-1} r."""
    rz = tree.vdot(wide, z)
    given, d = jnp.array(False), z
    if first is not None:
        size = tree.max_abs(first)
        given = (size > 0) & jnp.isfinite(size)
        d = tree.where(given, tree.widen(tree.scale(1 / tree.power_of_two(size), first)), z)
    zero, zeros = jnp.zeros((), rz.dtype), tree.zeros_like(wide)
    return _Carry(
        x=zeros,
        r=wide,
        d=tree.cast_like(d, b),
        rz=rz,
        gain=zero,
        recent=jnp.zeros((WINDOW,), rz.dtype),
        num_products=jnp.zeros((), jnp.int32),
        given=given,
        w=zeros,
        aw=zeros,
        waw=zero,
        sound=jnp.array(False),
        going=jnp.asarray(needed) & (rz > 0) & jnp.isfinite(rz),
        way=empty(b),
    )


def _advance(
    carry: _Carry, product: Product, solve: Callable[[Params], Params], b: Params
) -> _Carry:
    """One product, and the step along its direction; `going` says whether that was sound."""
    product_d = tree.cast_like(product(carry.d), carry.d)
    d, hd = tree.widen(carry.d), tree.widen(product_d)
    kappa, slope = tree.vdot(d, hd), tree.vdot(d, carry.r)
    eps = tree.coarsest_eps(carry.d)
    sound = (kappa > eps * tree.norm(d) * tree.norm(hd)) & jnp.isfinite(kappa)
    unit = jnp.where(sound, kappa, 1)
    x, r = tree.axpy(slope / unit, d, carry.x), tree.axpy(-slope / unit, hd, carry.r)
    sound = sound & tree.all_finite(x) & tree.all_finite(r)
    r = tree.where(sound, r, carry.r)
    z = solve(r)
    rz = tree.vdot(r, z)
    beta = jnp.where(sound, -tree.vdot(z, hd) / unit, 0)
    share = -tree.vdot(z, carry.aw) / jnp.where(carry.waw > 0, carry.waw, 1)
    gain = carry.gain + jnp.where(sound, slope**2 / (2 * unit), 0)
    x, count = tree.where(sound, x, carry.x), carry.num_products + 1
    bend = tree.vdot(x, tree.sub(b, r))
    following = tree.axpy(beta, tree.where(sound, d, tree.zeros_like(d)), z)
    warm = carry.given & sound
    return carry._replace(
        x=x,
        r=r,
        d=tree.cast_like(tree.axpy(share, carry.w, following), carry.d),
        rz=rz,
        gain=gain,
        num_products=count,
        given=jnp.zeros_like(carry.given),
        w=tree.where(warm, d, carry.w),
        aw=tree.where(warm, hd, carry.aw),
        waw=jnp.where(warm, kappa, carry.waw),
        sound=carry.sound | sound,
        going=sound | carry.given,  # a given direction that is of no use is left
        way=_kept(carry.way, x, bend, count, sound),
    )


def warm_cg(
    product: Product,
    b: Params,
    *,
    overhead: Scalar,
    max_products: Scalar,
    tol: Scalar,
    first: Params | None = None,
    precondition: Callable[[Params], Params] | None = None,
    needed: Scalar = True,
) -> WarmCG:
    """Lowers (1) until (3), `max_products` or the tolerance.

    Ends also at a direction whose d.Ad is not positive beyond rounding, or not finite, before the
    step; a given direction is then passed over.

    Args:
      product: v -> A v, called at one place.
      b: the right-hand side.
      overhead: of (3), in products.
      max_products: a bound, (); may be traced.
      tol: on |r| beside |b|, in the norm of M^{-1}.
      first: the first direction, like b; None or zero means M^{-1} b.
      precondition: v -> M^{-1} v, symmetric positive definite; None is the identity.
      needed: (), bool; False spends no product.

    Returns:
      A `WarmCG`; x is zero, and not `sound`, where no step was taken.

    Example:
      >>> import jax.numpy as jnp
      >>> from hesskit.linalg.warm_cg import warm_cg
      >>> product = lambda v: jnp.array([1.0, 4.0]) * v
      >>> found = warm_cg(product, jnp.ones(2), overhead=3, max_products=9, tol=1e-6)
      >>> print(found.x.round(4), found.num_products)
      [1.   0.25] 2
    """
    dtype = tree.result_dtype(b)
    unit = tree.power_of_two(tree.max_abs(b))
    wide = tree.scale(1 / unit, tree.widen(b))

    def solve(r: Params) -> Params:
        return r if precondition is None else tree.widen(precondition(tree.cast_like(r, b)))

    start = _start(b, wide, solve(wide), first, needed)
    rz = start.rz
    goal = jnp.asarray(tol, dtype) ** 2 * rz

    def body(carry: _Carry) -> _Carry:
        new = _advance(carry, product, solve, wide)
        count = new.num_products.astype(dtype)
        poor = new.gain - carry.recent[0] < WINDOW * new.gain / (count + overhead)
        # An iterate a window ago is needed, and not what the given direction found.
        poor &= new.num_products > WINDOW
        more = (new.rz > goal) & jnp.isfinite(new.rz) & ~poor
        recent = jnp.concatenate([carry.recent[1:], new.gain[None]])
        return new._replace(recent=recent, going=new.going & more)

    end: Any = jax.lax.while_loop(lambda c: c.going & (c.num_products < max_products), body, start)
    square = unit * unit
    way = end.way._replace(
        iterates=jax.tree.map(lambda a: tree.scale(unit, a), end.way.iterates),
        bends=square * end.way.bends,
    )
    return WarmCG(
        x=tree.cast_like(tree.scale(unit, end.x), b),
        bend=square * tree.vdot(end.x, tree.sub(wide, end.r)),
        residual=jnp.sqrt(jnp.maximum(end.rz, 0) / jnp.where(rz > 0, rz, 1)),
        num_products=end.num_products,
        sound=end.sound,
        way=way,
    )
