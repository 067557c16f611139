r"""Bounds on parameters: what a user may write, and the geometry of the box.

The box and the projection onto it are

    l <= x <= u,     P(x) = min(max(x, l), u)                               (1)

entry by entry. A point of the box is stationary for f iff its projected gradient

    p_i  =  0      where x_i is at a bound that -g_i points out of          (2)
            g_i    elsewhere

is zero, with g the gradient of f: no direction within the box goes downhill to first order.

Source: Calamai & More (1987), "Projected gradient methods for linearly constrained problems";
Nocedal & Wright (2006), section 16.7.
"""

import contextlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core import layout, select
from hesskit.core.types import Array, Params, Product

INF = float("inf")
ROUNDINGS = 4.0
"""Of the larger of start and point: x + (l - x) is within one of l, a length near 1 adds some."""


class Bounds(NamedTuple):
    """The box (1): two pytrees like params, of real arrays in each leaf's shape and precision."""

    lower: Params  # -inf where there is none
    upper: Params  # inf where there is none


def parse(bounds: Any, params: Params, *, name: str = "bounds") -> Bounds | None:
    """What a user wrote for bounds, as two full pytrees.

    Checks are made on concrete numbers only, in the precision of params: a traced bound or start
    passes, and so does a start that is NaN (whoever evaluates there says so).

    Args:
      bounds: None; or `(lower, upper)`, each a number, None (no bound) or a prefix tree of params
        with numbers, None, and arrays of a leaf's shape (lists too, where params has an array);
        or a dict from paths as in `select.select` to such pairs, `{"peak/width": (0, None)}`.
      params: the start, a pytree of float or complex arrays, or numbers.
      name: the argument's name, for messages.

    Returns:
      The box; None if `bounds` is None or an empty dict. Parsing a `Bounds` again changes nothing.

    Raises:
      TypeError: `bounds` has none of these forms, a bound is no real number, or a complex leaf
        would be bounded.
      ValueError: a tree or shape does not fit, a path matches nothing, two paths name one leaf,
        a bound is NaN, a box is empty or a single value, or the start is outside.

    Example:
      >>> start = {"bg": 1.0, "peak": {"mu": 0.0, "width": 2.0}}
      >>> print(parse({"peak/width": (0, None)}, start).lower["peak"]["width"])
      0.0
    """
    if bounds is None or (isinstance(bounds, dict) and not bounds):
        return None
    leaves, structure = jax.tree.flatten(params)
    paths = select.names(params)
    if _is_by_path(bounds):
        pairs = _by_path(bounds, params, paths, name)
    elif isinstance(bounds, tuple) and len(bounds) == 2:
        pairs = list(zip(*(_spread(side, params, name) for side in bounds), strict=True))
    else:
        raise TypeError(_forms(name, bounds))
    full = []
    for path, leaf, (low, high) in zip(paths, leaves, pairs, strict=True):
        sides = (
            _fill(low, leaf, none=-INF, what=f"{name}: the lower bound of {path}"),
            _fill(high, leaf, none=INF, what=f"{name}: the upper bound of {path}"),
        )
        _check(sides, leaf, path, name)
        full.append(sides)
    return Bounds(*(jax.tree.unflatten(structure, [pair[i] for pair in full]) for i in (0, 1)))


def project(params: Params, bounds: Bounds) -> Params:
    """The point P(params) of (1), in the dtype of params; complex leaves as they are."""

    def clip(x: Array, low: Array, high: Array) -> Array:
        return x if jnp.iscomplexobj(x) else jnp.clip(x, low, high)

    return jax.tree.map(clip, params, *bounds)


def landed(point: Params, start: Params, bounds: Bounds) -> Params:
    """P(point), and on a bound where `point` misses it by no more than the rounding of a step.

    Args:
      point: start + step as it was rounded.
      start: where the step began.
      bounds: the box.

    Returns:
      A point of the box.
    """

    def land(x: Array, a: Array, low: Array, high: Array) -> Array:
        if jnp.iscomplexobj(x):
            return x
        near = ROUNDINGS * float(jnp.finfo(x.dtype).eps) * jnp.maximum(jnp.abs(x), jnp.abs(a))
        x = jnp.where(x - low <= near, low, x)
        return jnp.where(high - x <= near, high, x)

    return jax.tree.map(land, point, start, *bounds)


def projected_gradient(grad: Params, params: Params, bounds: Bounds) -> Params:
    """The projected gradient (2).

    Args:
      grad: g, a pytree like params.
      params: x, in the box or (by rounding) beyond it.
      bounds: the box.

    Returns:
      A pytree like `grad`, zero exactly at first-order points; NaN stays.
    """

    def inward(g: Array, x: Array, low: Array, high: Array) -> Array:
        if jnp.iscomplexobj(x):
            return g
        return jnp.where(((x <= low) & (g > 0)) | ((x >= high) & (g < 0)), 0, g)

    return jax.tree.map(inward, grad, params, *bounds)


def on_face(product: Product, grad: Params, params: Params, bounds: Bounds) -> Product:
    """The product restricted to the face that -grad does not leave: P H P.

    Args:
      product: v -> H v.
      grad: g at `params`.
      params: x.
      bounds: the box.

    Returns:
      v -> P H P v, with P zero where the projected gradient (2) is cut.
    """
    inward = projected_gradient(grad, params, bounds)

    def keep(v: Params) -> Params:
        return jax.tree.map(lambda a, b, c: jnp.where(a == b, c, 0), inward, grad, v)

    return lambda v: keep(product(keep(v)))


def at_bound(params: Params, bounds: Bounds) -> Params:
    """Which entries of params are at a bound, or beyond: a pytree of bool arrays."""

    def touches(x: Array, low: Array, high: Array) -> Array:
        if jnp.iscomplexobj(x):
            return jnp.zeros(x.shape, bool)
        return (x <= low) | (x >= high)

    return jax.tree.map(touches, params, *bounds)


def _forms(name: str, got: Any) -> str:
    return (
        f"{name} must be (lower, upper) of numbers or None, (lower, upper) of prefix trees of "
        f'params, or {{"path": (lower, upper), ...}}; got {got!r}'
    )


def _is_by_path(bounds: Any) -> bool:
    return isinstance(bounds, dict) and all(
        isinstance(key, str) and isinstance(pair, (tuple, list)) and len(pair) == 2
        for key, pair in bounds.items()
    )


def _by_path(
    bounds: dict[str, Any], params: Params, paths: tuple[str, ...], name: str
) -> list[tuple[Any, Any]]:
    """The pair of each leaf; (None, None) for one that no path names."""
    pairs: list[tuple[Any, Any]] = [(None, None)] * len(paths)
    named: dict[int, str] = {}
    for pattern, (low, high) in bounds.items():
        for i, chosen in enumerate(select.select(pattern, params, name=name)):
            if chosen and i in named:
                raise ValueError(
                    f"{name} has two entries for {paths[i]}, {named[i]!r} and {pattern!r}; "
                    "write one that holds"
                )
            if chosen:
                named[i], pairs[i] = pattern, (low, high)
    return pairs


def _children(node: Any) -> tuple[list[Any], Any]:
    """One level of a pytree: what `node` holds, and the structure that holds it."""
    return jax.tree.flatten(node, is_leaf=lambda inner: inner is not node)


def _spread(side: Any, params: Params, name: str) -> list[Any]:
    """One side, a prefix tree, with an entry for each leaf of params."""

    def spread(bound: Any, node: Any) -> list[Any]:
        inside, holder = _children(node)
        if len(inside) == 1 and inside[0] is node:  # a leaf
            return [bound]
        if bound is None or jax.tree_util.all_leaves([bound]):
            return [bound] * jax.tree.structure(node).num_leaves
        parts, like = _children(bound)
        if like != holder:
            raise ValueError(f"{_forms(name, side)}, which does not fit params of {holder}")
        return [x for pair in zip(parts, inside, strict=True) for x in spread(*pair)]

    return spread(side, params)


def _fill(raw: Any, leaf: Any, *, none: float, what: str) -> Array:
    """One side of one leaf, in its full shape, real dtype and layout."""
    shape, dtype = jnp.shape(leaf), jnp.finfo(jnp.result_type(leaf)).dtype
    if isinstance(raw, list):  # of an array's entries; a tuple would look like a pair
        raw = jax.tree.map(lambda x: none if x is None else x, raw, is_leaf=lambda x: x is None)
    raw = none if raw is None else raw
    is_traced = any(isinstance(x, Tracer) for x in jax.tree.leaves(raw))
    # Inside jit, too, a concrete bound is to stay concrete: it can be checked.
    with contextlib.nullcontext() if is_traced else jax.ensure_compile_time_eval():
        value = _real_array(raw, dtype, what)
        if value.shape not in ((), shape):
            raise ValueError(f"{what} has shape {value.shape}, expected () or {shape}")
        if jnp.iscomplexobj(leaf) and (is_traced or not bool(jnp.all(value == none))):
            raise TypeError(
                f"{what} is {raw!r}, but the leaf is {jnp.result_type(leaf)}, which has no "
                "order; make its real and imaginary parts two leaves, or bound the others by path"
            )
        return layout.like(jnp.broadcast_to(value, shape), leaf)


def _real_array(raw: Any, dtype: jnp.dtype, what: str) -> Array:
    try:
        if not isinstance(raw, list) and not jax.tree_util.all_leaves([raw]):
            raise TypeError("a container")
        for entry in jax.tree.leaves(raw):
            if not (hasattr(entry, "dtype") or isinstance(entry, (int, float))):
                raise TypeError(type(entry).__name__)
            kind = jnp.result_type(entry)
            if jnp.issubdtype(kind, jnp.bool_) or jnp.issubdtype(kind, jnp.complexfloating):
                raise TypeError(str(kind))
        return jnp.asarray(raw, dtype)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{what} must be a real number, None or an array of the leaf's shape; got {raw!r}"
        ) from error


def _check(sides: tuple[Array, Array], leaf: Any, path: str, name: str) -> None:
    """Raises unless the box of one leaf has an interior and holds the start."""
    if any(isinstance(side, Tracer) for side in sides):
        return
    low, high = jax.device_get(sides)  # numpy arrays: inside jit, too, they can be compared
    if bad := _first((low != low) | (high != high), path, low, high):
        where, least, most = bad
        raise ValueError(f"{name} of {where} are NaN: lower = {least}, upper = {most}")
    if bad := _first((low > high) | (low == INF) | (high == -INF), path, low, high):
        where, least, most = bad
        raise ValueError(f"{name} of {where} hold no number: lower = {least}, upper = {most}")
    if bad := _first(low == high, path, low, high):
        where, value, _ = bad
        hint = "" if (low == high).all() else " (it holds whole leaves: make the entry a leaf)"
        raise ValueError(
            f"{name} of {where} leave one value, lower = upper = {value}; to hold a parameter, "
            f"start it there and pass fixed={path!r}{hint}"
        )
    if isinstance(leaf, Tracer) or jnp.iscomplexobj(leaf):
        return
    with jax.ensure_compile_time_eval():
        start = jax.device_get(jnp.asarray(leaf, low.dtype))
    if bad := _first((start < low) | (start > high), path, start, low, high):
        where, at, least, most = bad
        raise ValueError(f"start {where} = {at} is outside its bounds [{least}, {most}]")


def _first(wrong: Any, path: str, *arrays: Any) -> list[str] | None:
    """The path of the first wrong entry and its number in each (numpy) array, or None."""
    if not wrong.any():
        return None
    flat, index = int(wrong.reshape(-1).argmax()), []
    for length in reversed(wrong.shape):
        flat, last = divmod(flat, length)
        index.insert(0, last)
    # The shortest digits that tell a number from its neighbors: 0.1, not 0.10000000149.
    numbers = [str(array[tuple(index)]).removesuffix(".0") for array in arrays]
    return [path + (str(index) if index else ""), *numbers]
