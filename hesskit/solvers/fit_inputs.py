"""What `curve_fit` does with its data: arrays, checked, and the words of likely mistakes."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core import errors, prefix, tree
from hesskit.core.types import Array
from hesskit.solvers.band import Data

INF = float("inf")
ASYMMETRY = 1e-4
"""Of the largest entry of a covariance matrix: a thousand roundings of float32, and no mistake."""

ELSEWHERE = {
    "p0": "call it params",
    "f": "call it model",
    "method": "call it optimizer",
    "f_scale": "call it scale",
    "maxfev": "call it max_steps",
    "max_nfev": "call it max_steps",
    "weights": "pass sigma=1 / sqrt(weights)",
    "jac": "leave it out: JAX differentiates the model",
    "full_output": "leave it out: the result holds everything",
}
"""Arguments of other libraries, and what to do instead."""


def check_names(other: dict[str, Any]) -> None:
    """Raises TypeError if a call had an argument that `curve_fit` has not."""
    for name in other:
        hint = f"; {ELSEWHERE[name]}" if name in ELSEWHERE else ""
        raise TypeError(f"curve_fit has no argument {name!r}{hint}")


def _is_numbers(node: Any) -> bool:
    """Whether `node` is a list of plain numbers, or of such lists."""
    leaves = jax.tree.leaves(node)
    plain = all(isinstance(leaf, (bool, int, float, complex)) for leaf in leaves)
    return isinstance(node, list) and bool(leaves) and plain


def as_arrays(data: Any, *, name: str) -> Any:
    """`data` with arrays at its leaves; a list of numbers is an array.

    Args:
      data: any pytree of arrays and numbers.
      name: the argument's name, for messages.

    Returns:
      The same tree.

    Raises:
      TypeError: a leaf is no array of numbers.
      ValueError: there are no data, or a list is ragged.
    """

    def convert(path: Any, leaf: Any) -> Array:
        where = name + jax.tree_util.keystr(path)
        if isinstance(leaf, str) or str(getattr(leaf, "dtype", "")) == "object":
            what = repr(leaf) if isinstance(leaf, str) else "an array of Python objects"
            raise TypeError(f"{where} is {what}; data must be arrays of numbers")
        try:
            return jnp.asarray(leaf)
        except TypeError as error:
            raise TypeError(f"{where} is {type(leaf).__name__}; expected an array") from error
        except ValueError as error:
            raise ValueError(f"{where} is no array: {error}") from error

    arrays = jax.tree_util.tree_map_with_path(convert, data, is_leaf=_is_numbers)
    if sum(leaf.size for leaf in jax.tree.leaves(arrays)) == 0:
        raise ValueError(f"{name} is empty: got {errors.describe(arrays)}")
    return arrays


def as_sigma(sigma: Any, y: Any) -> Any:
    """`sigma` with arrays at its leaves; a list of numbers is an array unless y is such a list."""
    structure = jax.tree.structure(y)
    if isinstance(sigma, list) and not jax.tree_util.treedef_is_leaf(structure):
        with contextlib.suppress(ValueError):
            full = prefix.spread(sigma, y, name="sigma")
            return jax.tree.map(lambda leaf: as_arrays(leaf, name="sigma"), full)
    return as_arrays(sigma, name="sigma")


def unit(y: Any) -> Array | None:
    """What stands for an unknown sigma: None for 1, or the size of y where squares leave its range.

    Args:
      y: the data, floats; traced ones are judged inside the program.

    Returns:
      None if y is known to be harmless, else a power of two, ().
    """
    info = jnp.finfo(tree.result_dtype(y))
    least = (float(info.tiny) / float(info.eps)) ** 0.5  # a residual of sqrt(eps) y has a square
    most = (float(info.max) / tree.size(y)) ** 0.5

    def is_safe(size: Any) -> Any:
        return (size == 0) | ((size >= least) & (size <= most))

    leaves = jax.tree.leaves(y)
    known = not any(isinstance(leaf, Tracer) for leaf in leaves)
    if known and is_safe(max(float(abs(_on_host(leaf)).max(initial=0)) for leaf in leaves)):
        return None
    size = tree.max_abs(y)
    return jnp.where(is_safe(size), 1, tree.power_of_two(size))


def _on_host(array: Any) -> Any:
    """A concrete array as one of numpy: nothing is compiled for a check."""
    with jax.ensure_compile_time_eval():
        return jax.device_get(array)


def _first(array: Any, wrong: Callable[[Any], Any]) -> tuple[str, Any] | None:
    """Place and value of the first entry that is `wrong`; None if there is none, or if traced."""
    if isinstance(array, Tracer) or array.size == 0:
        return None
    host = _on_host(array)
    flags = wrong(host).reshape(-1)
    if not flags.any():
        return None
    flat = int(flags.argmax())
    value, index = host.reshape(-1)[flat], []
    for length in reversed(host.shape):
        flat, last = divmod(flat, length)
        index.insert(0, last)
    return (str(index) if index else ""), value


def _not_finite(host: Any) -> Any:
    return (host != host) | (abs(host) == INF)


def check_finite(data: Any, *, name: str, hint: str = "") -> None:
    """Raises ValueError with the first index at which concrete data are not finite."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and (bad := _first(leaf, _not_finite)):
            where = name + jax.tree_util.keystr(path) + bad[0]
            raise ValueError(f"{where} is {bad[1]}{hint}")


def check_sigma(sigma: Any) -> None:
    """Raises ValueError with the first index at which a standard deviation is not positive."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(sigma):
        if bad := _first(leaf, lambda host: ~(host > 0)):
            where = "sigma" + jax.tree_util.keystr(path) + bad[0]
            raise ValueError(
                f"{where} is {bad[1]}; standard deviations are positive (inf drops a point)"
            )


def deviations(sigma: Any, y: Any) -> Any:
    """Standard deviations as a tree like `y`, each leaf () or in full shape, checked."""
    prefix.fill(sigma, y, name="sigma")  # for its errors
    full = prefix.spread(sigma, y, name="sigma")
    full = jax.tree.map(lambda a, b: a.astype(jnp.finfo(b.dtype).dtype), full, y)
    check_sigma(full)
    leaves = jax.tree.leaves(full)
    if not any(isinstance(a, Tracer) for a in leaves) and all(
        bool(jnp.all(a == INF)) for a in leaves
    ):
        raise ValueError("sigma is inf everywhere, which drops every point")
    return full


def cholesky(matrix: Array, y: Array) -> Array:
    """The lower factor of a covariance matrix of `y`.

    Args:
      matrix: the covariance, (m, m).
      y: the data, (m,).

    Returns:
      A lower triangular (m, m) array; NaN inside `jit` where there is none.

    Raises:
      ValueError: the matrix has another shape or is not positive definite.
    """
    m = y.shape[0]
    if matrix.shape != (m, m):
        raise ValueError(
            f"sigma has shape {matrix.shape}; for ydata of shape {y.shape} expected (), {y.shape}, "
            f"or {(m, m)} for a covariance matrix"
        )
    check_finite(matrix, name="sigma")
    factor = jnp.linalg.cholesky(matrix.astype(jnp.finfo(y.dtype).dtype))
    uneven = _first(matrix, lambda host: abs(host - host.T) > ASYMMETRY * abs(host).max())
    if uneven or _first(factor, _not_finite):
        raise ValueError("sigma, a covariance matrix, is not symmetric positive definite")
    return factor


def as_float(leaf: Array) -> Array:
    """Counts as floats; what is float or complex as it is."""
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return leaf
    return leaf.astype(jnp.result_type(float))


def without_dropped(data: Data) -> Any:
    """The y of `data`, zero where sigma is inf and y not finite: it counts for nothing there."""
    if data.sigma is None or data.correlated:
        return data.y

    def clean(a: Array, s: Array) -> Array:
        return jnp.where(jnp.isinf(jnp.broadcast_to(s, a.shape)) & ~jnp.isfinite(a), 0, a)

    return jax.tree.map(clean, data.y, data.sigma)
