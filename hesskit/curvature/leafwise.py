r"""A preconditioner of Kronecker factors, leaf by leaf, from products with random vectors.

A leaf of params as a matrix of a rows and b columns (its last axis) meets the block A (x) B of a
curvature H that stands for it, (A (x) B) W = A W B. Of M, the leaf's part of H w for w random of
variance 1, the running means

    E[M M']  =  tr(B^2) A^2,      E[M' M]  =  tr(A^2) B^2                   (1)

have t = tr(A^2) tr(B^2) as their trace, so that their roots over t^(1/4) are factors of A (x) B,
whatever H is: no layer is named, and an indefinite block counts by its modulus. The damping is
parted between them as in K-FAC,

    (A + pi sqrt(damping))^{-1}  V  (B + sqrt(damping) / pi)^{-1},                              (2)

pi^2 = (tr(A) / a) / (tr(B) / b). A side that is too long to know, or for its samples, is diagonal:
a vector is a matrix of one column. A mean of few columns is drawn towards its multiple of 1.

Source: Martens & Grosse (2015), "Optimizing neural networks with Kronecker-factored approximate
curvature", sections 5 and 6.3; Gupta, Koren & Singer (2018), "Shampoo", of gradients in place of
products.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import errors, layout, pseudo_random, tree
from hesskit.core.types import Array, Params, Product
from hesskit.linalg.operator import Preconditioner

DECAY = 0.95
"""Of the running means: Martens & Grosse (2015), section 5."""
ENOUGH = 2
"""Columns of M over rows with which a mean of M M' is known: of N >= 2 a independent columns it is
A^2 but for a factor of condition 34 (Marchenko & Pastur 1967); of N < a, singular."""
MAX_DIM = 1024
"""Rows or columns of a dense factor at most: a second for its eigenvectors on a core."""


class Side(NamedTuple):
    """E[M M'] or E[M' M] of a leaf by its eigenvalues, or its diagonal where there are no vectors.

    The eigenvectors are columns.
    """

    values: Array
    vectors: Array | None


class Factors(NamedTuple):
    """The state of the preconditioner."""

    sides: Params  # a pair (rows, columns) of `Side` in the place of each leaf
    num: Array  # (), int32, products that the means hold


def _shape(leaf: Array) -> tuple[int, int]:
    """Rows and columns of a leaf."""
    return (math.prod(leaf.shape[:-1]), leaf.shape[-1]) if leaf.ndim > 1 else (leaf.size, 1)


def _matrix(leaf: Array) -> Array:
    wide = leaf.astype(tree.widest(leaf.dtype))
    if leaf.ndim == 2:
        return wide
    return (wide if leaf.ndim < 2 else layout.gathered(wide)).reshape(_shape(leaf))


def _dot(x: Array, y: Array, like: Array | None = None) -> Array:
    """`x @ y` in full precision, laid out as `like`, or with a copy on each device."""
    where = layout.replicated(x, 2) or layout.replicated(y, 2)
    sharding = where if like is None else layout.explicit(like)
    return jax.lax.dot_general(
        x, y, (((1,), (0,)), ((), ())), precision=jax.lax.Precision.HIGHEST, out_sharding=sharding
    )


def _everywhere(x: Array) -> Array:
    """`x` with a copy on each device, also where the compiler decides."""
    mesh = jax.typeof(x).sharding.mesh
    if mesh.empty:
        return x
    whole = jax.sharding.NamedSharding(mesh, jax.P())
    return jax.lax.with_sharding_constraint(x, whole)


def _empty(k: int, dense: bool, dtype: jnp.dtype) -> Side:
    return Side(jnp.zeros((k,), dtype), jnp.eye(k, dtype=dtype) if dense else None)


def _init(params: Params, *, decay: float, max_dim: int) -> Factors:
    def pair(path: Any, leaf: Array) -> tuple[Side, Side]:
        if jnp.iscomplexobj(leaf):
            raise TypeError(
                f"leafwise_preconditioner takes real params, got params{jax.tree_util.keystr(path)}"
                f" {leaf.dtype}; hand it real and imaginary parts, as the transforms do"
            )
        (a, b), dtype = _shape(leaf), tree.widest(leaf.dtype)
        samples = 1 / (1 - decay) / ENOUGH  # columns of M that a mean of M M' holds, over b
        dense = a <= min(max_dim, samples * b), b <= min(max_dim, samples * a)
        return _empty(a, dense[0], dtype), _empty(b, dense[1], dtype)

    sides = jax.tree_util.tree_map_with_path(pair, params)
    return Factors(sides, jnp.zeros((), jnp.int32))


def _averaged(side: Side, m: Array, weight: Array) -> Side:
    """The mean with `weight` of m m'."""
    keep = 1 - weight
    if side.vectors is None:
        new = layout.gathered(jnp.sum(m * m, axis=1))
        return Side(keep * side.values + weight * new, None)
    old = _dot(side.vectors * side.values[None, :], side.vectors.T)
    mean = _everywhere(keep * old + weight * _dot(m, m.T))
    values, vectors = jnp.linalg.eigh((mean + mean.T) / 2)
    return Side(jnp.maximum(values, 0), vectors)


def _update(state: Factors, product: Product, params: Params, *, decay: float) -> Factors:
    """The means with one product more; one that is not finite changes nothing."""
    found = product(pseudo_random.like(params, state.num))
    num = state.num + 1
    weight = jnp.maximum(1 / num, 1 - decay)
    fine = jnp.isfinite(tree.vdot(found, found))  # no entry of (1) is larger

    def averaged(leaf: Array, pair: tuple[Side, Side]) -> tuple[Side, Side]:
        m = jnp.where(fine, _matrix(leaf), 0)
        w = weight.astype(m.dtype)
        return _averaged(pair[0], m, w), _averaged(pair[1], m.T, w)

    sides = jax.tree.map(averaged, found, state.sides)
    kept = tree.where(fine, Factors(sides, num), state)
    return jax.tree.map(_everywhere, kept)


def _known(side: Side, columns: int, num: Array) -> Array:
    """The values of a mean, drawn towards their own mean while it has less than `ENOUGH`."""
    unknown = 1 if side.vectors is None else side.values.size
    lack = jnp.maximum(1 - num * columns / (ENOUGH * unknown), 0).astype(side.values.dtype)
    return side.values + lack * jnp.sum(side.values) / max(side.values.size, 1)


def _roots(pair: tuple[Side, Side], damping: Array, num: Array) -> tuple[Array, Array]:
    """Eigenvalues of both factors, damped by (2)."""
    a, b = (side.values.size for side in pair)
    values = [_known(pair[0], b, num), _known(pair[1], a, num)]
    t = jnp.sum(values[0])
    unit = jnp.where(t > 0, jnp.sqrt(jnp.sqrt(t)), 1)
    a, b = (jnp.sqrt(v) / unit for v in values)
    means = [jnp.sum(v) / max(v.size, 1) for v in (a, b)]
    some = (means[0] > 0) & (means[1] > 0)
    pi = jnp.sqrt(jnp.where(some, means[0] / jnp.where(some, means[1], 1), 1))
    root = jnp.sqrt(damping.astype(a.dtype))
    eps = jnp.finfo(a.dtype).eps  # of what (1) squares, half the digits are known
    damped = []
    for v, share in ((a, pi * root), (b, root / pi)):
        v = v + jnp.maximum(share, eps * jnp.sum(v))
        damped.append(jnp.where(v > 0, v, 1))
    return damped[0], damped[1]


def _solved(pair: tuple[Side, Side], leaf: Array, damping: Array, num: Array) -> Array:
    a, b = _roots(pair, damping, num)
    (_, rows), (_, columns) = pair
    m = _matrix(leaf)
    x = m if rows is None else _dot(rows.T, m, m)
    x = x if columns is None else _dot(x, columns, m)
    x = x / a[:, None] / b[None, :]
    x = x if columns is None else _dot(x, columns.T, m)
    x = x if rows is None else _dot(rows, x, m)
    return layout.like(x.reshape(leaf.shape).astype(leaf.dtype), leaf)


def _apply(state: Factors, vector: Params, damping: Array) -> Params:
    solved = functools.partial(_solved, damping=damping, num=state.num)
    return jax.tree.map(lambda leaf, pair: solved(pair, leaf), vector, state.sides)


@functools.cache
def leafwise_preconditioner(*, decay: float = DECAY, max_dim: int = MAX_DIM) -> Preconditioner:
    r"""Kronecker factors of each leaf's curvature, from one product at each new point.

    For nets whose leaves are weights of layers, without saying which: any pytree, any forward
    function. A leaf of shape (..., b) is a matrix of b columns. It serves `hesskit.hessian_free`,
    which has it by default, and `hesskit.newton_cg`.

    Args:
      decay: of the running means over points, in [0, 1). 0.95 as in K-FAC.
      max_dim: a side of a leaf that is longer is diagonal, and one that is more than
        1 / (2 (1 - decay)) times as long as the other, 10 by default, which too few columns know.

    Returns:
      A `Preconditioner`. Its state holds a^2 + b^2 numbers for an (a, b) leaf.

    Raises:
      ValueError: `decay` is not in [0, 1), `max_dim` no positive integer.
      TypeError: a number was expected; in `init`: a leaf is complex.

    Cost: a product and the eigenvectors of the factors at a new point, four products of the leaf
    with a factor whenever it is applied.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> loss = lambda w: jnp.sum((jnp.arange(1.0, 4.0)[:, None] * w - 1.0) ** 2)
      >>> optimizer = hesskit.newton_cg(preconditioner=hesskit.leafwise_preconditioner())
      >>> print(hesskit.minimize(loss, jnp.zeros((3, 2)), optimizer).success)
      True

    References:
      Martens & Grosse (2015), ICML. Gupta, Koren & Singer (2018), ICML.
    """
    errors.check_number(decay, name="decay", high=1.0, none=False)
    if decay == 1:
        raise ValueError("decay must lie in [0, 1), got 1")
    errors.check_count(max_dim, name="max_dim")
    return Preconditioner(
        init=functools.partial(_init, decay=decay, max_dim=max_dim),
        update=functools.partial(_update, decay=decay),
        apply=_apply,
    )
