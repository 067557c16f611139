r"""Pytrees as vectors of R^n.

A pytree of arrays is one vector; its inner product is

    <x, y> = Re sum_leaf sum_i conj(x_i) y_i                                (1)

so that C^n is R^{2n}. Sums accumulate in at least float32 whatever the leaves' dtype, and are
elementwise products followed by a reduction, never a matrix multiplication: TensorFloat-32 and
bfloat16 matmul units cannot touch them, and a sharded leaf keeps its sharding. Nothing here
ravels a leaf.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import layout
from hesskit.core.types import Array, Params, Scalar

FEW = 8
"""Entries up to which sums and the like are written out."""


def widest(*dtypes: jnp.dtype) -> jnp.dtype:
    """The real floating dtype with the most bits, at least float32."""
    return jnp.dtype(
        max((jnp.finfo(d).dtype for d in (jnp.float32, *dtypes)), key=lambda d: jnp.finfo(d).bits)
    )


def result_dtype(*trees: Params) -> jnp.dtype:
    """The real dtype in which sums over `trees` are kept: their widest, at least float32."""
    return widest(*[jnp.result_type(leaf) for leaf in jax.tree.leaves(trees)])


def coarsest_eps(tree: Params) -> float:
    """The largest machine epsilon among the leaves; float32's for a tree without leaves."""
    eps = [float(jnp.finfo(jnp.result_type(leaf)).eps) for leaf in jax.tree.leaves(tree)]
    return max(eps, default=float(jnp.finfo(jnp.float32).eps))


def size(tree: Params) -> int:
    """The number of entries in all leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _vdot_leaf(x: Array, y: Array, dtype: jnp.dtype) -> Array:
    if jnp.iscomplexobj(x) or jnp.iscomplexobj(y):
        parts = (jnp.real(x), jnp.real(y)), (jnp.imag(x), jnp.imag(y))
        return functools.reduce(operator.add, (_vdot_leaf(a, b, dtype) for a, b in parts))
    return _folded(jnp.sum, operator.add, x.astype(dtype) * y.astype(dtype))


def _folded(whole: Callable[..., Array], pair: Callable[..., Array], x: Array) -> Array:
    """`whole(x)`, written out where entries are few: under `vmap` a reduction is a kernel more."""
    if not 0 < x.size <= FEW or layout.explicit(x) is not None:
        return whole(x)
    return functools.reduce(pair, jnp.unstack(x.reshape(-1)))


def vdot(x: Params, y: Params) -> Array:
    """The real inner product (1), a () array of `result_dtype`."""
    dtype = result_dtype(x, y)
    terms = jax.tree.map(lambda a, b: _vdot_leaf(a, b, dtype), x, y)
    return functools.reduce(operator.add, jax.tree.leaves(terms), jnp.zeros((), dtype))


@jax.custom_jvp
def norm(x: Params) -> Array:
    """The Euclidean norm, safe from overflow and underflow.

    The plain sum of squares, where it is far from the ends of the dtype's range; else that at one
    of two other scales (the idea of Blue 1978, ACM TOMS 4, 15-23). On many devices all three are
    found at once, by one reduction. Of few entries the largest gives the scale.

    Args:
      x: a pytree of arrays.

    Returns:
      A () array of `result_dtype`; not finite where an entry is not.
    """
    if size(x) <= FEW:
        return _norm_by_largest(x)
    if any(layout.on_mesh(leaf) for leaf in jax.tree.leaves(x)):
        # XLA may multiply the two factors of a square first; the barrier keeps them apart.
        scaled = jax.lax.optimization_barrier(tuple(_sizes(x, unit) for unit in _units(x)))
        squares = vdot(x, x)
        low, high = (u * jnp.sqrt(vdot(a, a)) for u, a in zip(_units(x), scaled, strict=True))
        small, large = _ends(squares.dtype)
        middle = jnp.where(squares > large, high, jnp.sqrt(squares))
        return jnp.where(squares < small, low, middle)
    squares = vdot(x, x)
    small, large = _ends(squares.dtype)

    def rescaled(x: Params) -> Array:
        low, high = _units(x)
        unit = jnp.where(squares > large, high, low).astype(squares.dtype)
        sizes = _sizes(x, unit)
        return unit * jnp.sqrt(vdot(sizes, sizes))

    usual = (squares > small) & (squares < large)
    return while_once(~usual, rescaled, jnp.sqrt(squares), x)


@norm.defjvp
def _norm_jvp(primals: tuple[Params], tangents: tuple[Params]) -> tuple[Array, Array]:
    """<x, dx> / |x|, 0 at 0: reverse mode too, which a loop has not."""
    (x,), (dx,) = primals, tangents
    size = norm(x)
    whole = jnp.where(size > 0, size, jnp.inf)
    unit = jax.tree.map(lambda a: a / whole.astype(jnp.finfo(a.dtype).dtype), x)
    return size, vdot(unit, dx)


def _ends(dtype: jnp.dtype) -> tuple[float, float]:
    """A sum of squares between them has neither lost terms to underflow nor run over."""
    top = int(jnp.finfo(dtype).maxexp)
    return 2.0 ** (-5 * top // 8), 2.0 ** (3 * top // 4)


def _units(x: Params) -> tuple[float, float]:
    """Those for sums of squares below and above `_ends`."""
    half = int(jnp.finfo(result_dtype(x)).maxexp) // 2
    return 2.0 ** -(half - 1), 2.0 ** (half + 8)


def _sizes(x: Params, unit: Scalar) -> Params:
    """Moduli in `result_dtype`, over a unit: a product XLA might take apart in a square."""
    dtype = result_dtype(x)
    return jax.tree.map(lambda a: jnp.abs(a).astype(dtype) / jnp.asarray(unit, dtype), x)


def _norm_by_largest(x: Params) -> Array:
    unit = power_of_two(max_abs(x))
    sizes = _sizes(x, unit)
    return unit * jnp.sqrt(vdot(sizes, sizes))


def max_abs(x: Params) -> Array:
    """The largest modulus, a () array of `result_dtype`; NaN if any entry is NaN."""
    dtype = result_dtype(x)
    sizes = [jnp.abs(a).astype(dtype) for a in jax.tree.leaves(x)]
    peaks = [_folded(functools.partial(jnp.max, initial=0), jnp.maximum, a) for a in sizes]
    return functools.reduce(jnp.maximum, peaks, jnp.zeros((), dtype))


def scale(c: Scalar, x: Params) -> Params:
    """`c x` with every leaf in its own dtype."""
    return jax.tree.map(lambda a: jnp.asarray(c, jnp.finfo(a.dtype).dtype) * a, x)


def _rounded(a: Array) -> Array:
    """`a`, rounded to its dtype: XLA may keep a bfloat16 that stays inside a program in float32."""
    if a.dtype not in (jnp.bfloat16, jnp.float16):
        return a
    info = jnp.finfo(a.dtype)
    return jax.lax.reduce_precision(a, exponent_bits=info.nexp, mantissa_bits=info.nmant)


def add(x: Params, y: Params) -> Params:
    """`x + y` in the dtype of `x`, to the bit what `optax.apply_updates` gives."""
    return jax.tree.map(lambda a, b: _rounded(a + _rounded(b.astype(a.dtype))), x, y)


def axpy(c: Scalar, x: Params, y: Params) -> Params:
    """`c x + y` in the dtype of `y`."""
    return add(y, scale(c, x))


def sub(x: Params, y: Params) -> Params:
    """`x - y` in the dtype of `x`."""
    return jax.tree.map(lambda a, b: a - b.astype(a.dtype), x, y)


def negative(x: Params) -> Params:
    """`-x`."""
    return jax.tree.map(jnp.negative, x)


def zeros_like(x: Params, dtype: jnp.dtype | None = None) -> Params:
    """Zeros of the structure, shapes and (unless `dtype` is given) dtypes of `x`."""
    # a concrete sharded array met while tracing loses its layout in jnp.zeros_like
    return jax.tree.map(lambda a: layout.like(jnp.zeros_like(a, dtype=dtype), a), x)


def zeros_of(struct: Any) -> Any:
    """Zeros for a leaf that has only a shape and a dtype; any other leaf as it is."""
    if not isinstance(struct, jax.ShapeDtypeStruct):
        return struct
    return jnp.zeros(struct.shape, struct.dtype, device=struct.sharding)


def rows_like(x: Params, num: int) -> Params:
    """Zeros for `num` vectors like `x`, stacked along a new first axis of each leaf."""
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (num, *a.shape)), zeros_like(x))


def where(condition: Array, x: Params, y: Params) -> Params:
    """`x` if `condition` (a () bool) else `y`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), x, y)


def cast_like(x: Params, like: Params) -> Params:
    """`x` with the leaf dtypes of `like`."""
    return jax.tree.map(lambda a, b: jnp.asarray(a, jnp.result_type(b)), x, like)


def all_finite(x: Params) -> Array:
    """Whether every entry is finite, a () bool."""
    flags = [_folded(jnp.all, operator.and_, jnp.isfinite(a)) for a in jax.tree.leaves(x)]
    return functools.reduce(jnp.logical_and, flags, jnp.array(True))


def equal(x: Params, y: Params) -> Array:
    """Whether `x` and `y` agree in every entry, a () bool; False where either is NaN."""
    pairs = zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    flags = [_folded(jnp.all, operator.and_, a == b) for a, b in pairs]
    return functools.reduce(jnp.logical_and, flags, jnp.array(True))


def negligible(step: Params, x: Params) -> Array:
    """Whether no entry of `step` is more than a rounding of that of `x`, a () bool."""

    def hardly(s: Array, a: Array) -> Array:
        eps = float(jnp.finfo(a.dtype).eps)
        return _folded(jnp.all, operator.and_, jnp.abs(s) <= eps * (jnp.abs(a) + eps))

    flags = jax.tree.leaves(jax.tree.map(hardly, step, x))
    return functools.reduce(jnp.logical_and, flags, jnp.array(True))


def while_once(
    needed: Array, compute: Callable[..., Params], otherwise: Params, *given: Params
) -> Params:
    """`compute()` if `needed` else `otherwise`, as a loop of one or zero trips.

    Under `vmap` a `lax.cond` runs both branches in every lane; this loop runs only if some lane
    needs it.

    Args:
      needed: () bool.
      compute: what to do; it closes over its data, or takes what is given.
      otherwise: the answer where nothing is done; gives structure, shapes and dtypes.
      *given: data that XLA is not to use before it is known that they are needed: what depends on
        nothing else in the loop it may move out.

    Returns:
      One of the two.
    """

    def body(carry: tuple[Array, Params]) -> tuple[Array, Params]:
        flag, data = jax.lax.optimization_barrier((carry[0], given)) if given else (carry[0], ())
        return jnp.zeros_like(flag), cast_like(compute(*data), otherwise)

    return jax.lax.while_loop(lambda carry: carry[0], body, (needed, otherwise))[1]


def ravel(tree: Params) -> Array:
    """All leaves as one vector of `result_dtype`, in the order of `jax.tree.leaves`.

    For dense methods only: a sharded leaf is gathered.

    Args:
      tree: a pytree of real arrays.

    Returns:
      An (n,) array.
    """
    dtype = result_dtype(tree)
    leaves = [layout.gathered(a).astype(dtype).reshape(-1) for a in jax.tree.leaves(tree)]
    return jnp.concatenate(leaves) if leaves else jnp.zeros((0,), dtype)


def unravel(vector: Array, like: Params) -> Params:
    """The inverse of `ravel`, in the dtypes and shapes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    parts, start = [], 0
    for leaf in leaves:
        part = vector[start : start + leaf.size].reshape(leaf.shape).astype(leaf.dtype)
        parts.append(layout.like(part, leaf))
        start += leaf.size
    return jax.tree.unflatten(structure, parts)


def widen(x: Params) -> Params:
    """`x` with every leaf in at least float32."""
    return jax.tree.map(lambda a: a if jnp.finfo(a.dtype).bits >= 32 else a.astype(jnp.float32), x)


def power_of_two(x: Array) -> Array:
    """The largest power of two up to `x` (scaling by it is exact); 1 unless 0 < x < inf."""
    info = jnp.finfo(x.dtype)
    field = jnp.asarray(jnp.inf, x.dtype).view(f"uint{info.bits}")  # the bits of the exponent
    power = (x.view(field.dtype) & field).view(x.dtype)
    power = jnp.clip(power, 2.0 ** (info.minexp + 1), 2.0 ** (info.maxexp - 2))
    return jnp.where(jnp.isfinite(x) & (x > 0), power, 1)
