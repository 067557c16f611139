"""What `curve_fit` does with its arguments: data as arrays, and the words of likely mistakes."""

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core import errors, prefix, tree
from hesskit.core import signature as signatures
from hesskit.core.types import Array, Params
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


def evaluate(model: Callable[..., Any], params: Params, x: Any) -> Any:
    """`model(params, x)` as arrays; an exception inside it says who called."""
    with errors.calling("model", params, "curve_fit"):
        try:
            return jax.tree.map(jnp.asarray, model(params, x))
        except (TypeError, IndexError, AttributeError, KeyError) as error:
            if _evaluates(model, x, params):
                error.add_note(
                    "model(x, params) runs, but curve_fit calls model(params, x): put params first."
                )
            raise


def _evaluates(model: Callable[..., Any], *args: Any) -> bool:
    """Whether `model(*args)` can be traced."""
    try:
        jax.eval_shape(model, *args)
    except Exception:
        return False
    return True


def _written(params: Params, num: int) -> str:
    """`params` as a tuple of `num` numbers, or ones."""
    leaves = jax.tree.leaves(params)
    numbers = ["1."] * num
    if not any(isinstance(leaf, Tracer) for leaf in leaves):
        flat = [x for leaf in leaves for x in jnp.ravel(jnp.asarray(leaf)).tolist()]
        if len(flat) == num and not any(isinstance(x, complex) for x in flat):
            numbers = [str(float(f"{x:.4g}")) for x in flat]
    return f"({', '.join(numbers)}{',' if num == 1 else ''})"


def check_signature(model: Callable[..., Any], params: Params) -> None:
    """Raises TypeError unless `model` can be called as `model(params, x)`.

    Args:
      model: what the user gave.
      params: the start, for the advice.

    Raises:
      TypeError: it takes its parameters one by one, as SciPy's models do, or not two arguments.
    """
    errors.check_callable(model, name="model", of="params and x")
    signature = signatures.of(model)
    if signature is None:
        return
    kinds = inspect.Parameter
    positional = (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    every = signature.parameters.values()
    names = [p.name for p in every if p.kind in positional and p.default is kinds.empty]
    rest = [f"*{p.name}" for p in every if p.kind is kinds.VAR_POSITIONAL]
    called = getattr(model, "__name__", type(model).__name__)
    if len(names) > 2 or (rest and len(names) == 1):
        start = _written(params, len(names) - 1)
        if rest:
            start = _written(params, sum(jnp.size(leaf) for leaf in jax.tree.leaves(params)))
        raise TypeError(
            f"`{called}` requires {', '.join(names + rest)}; curve_fit passes all parameters as "
            f"one pytree. Write curve_fit(lambda p, x: {called}(x, *p), x, y, {start}). If some of "
            "them are data, put those into xdata."
        )
    try:
        signature.bind(params, None)
    except TypeError as error:
        raise TypeError(
            f"curve_fit calls model(params, x), which `{called}{signature}` does not take: {error}"
        ) from error


@functools.lru_cache(maxsize=64)
def _traced(model: Callable[..., Any]) -> Callable[..., Any]:
    """`evaluate` for one model: the same function each time, so that it is traced once."""
    return jax.jit(functools.partial(evaluate, model))


def check_output(model: Callable[..., Any], params: Params, x: Any, y: Any) -> None:
    """Raises unless `model(params, x)` is like `y`.

    Args:
      model: the model, with a hash.
      params: the start.
      x: the data it is called with.
      y: what it is compared with.

    Raises:
      ValueError: structure or shapes differ.
      TypeError: it returns no floats, or real ones for complex data.
    """
    out = jax.eval_shape(_traced(model), params, x)
    same = jax.tree.structure(out) == jax.tree.structure(y)
    pairs = list(zip(jax.tree_util.tree_leaves_with_path(out), jax.tree.leaves(y), strict=False))
    if not (same and all(a.shape == b.shape for (_, a), b in pairs)):
        advice = "is it model(x, params)? curve_fit calls model(params, x)."
        if same and all(a.size == b.size for (_, a), b in pairs):
            advice = "return the shape of ydata, by jnp.reshape or out[..., 0]."
        raise ValueError(f"model returned {_shapes(out)}, ydata has {_shapes(y)}: {advice}")
    for (path, a), b in pairs:
        where = "model" + jax.tree_util.keystr(path)
        if not jnp.issubdtype(a.dtype, jnp.inexact):
            raise TypeError(f"{where} returned {a.dtype}; return floats: derivatives need them")
        if jnp.iscomplexobj(b) and not jnp.issubdtype(a.dtype, jnp.complexfloating):
            raise TypeError(f"{where} returned {a.dtype}, ydata is {b.dtype}")


def _shapes(data: Any) -> str:
    return str(jax.tree.map(lambda leaf: leaf.shape, data))


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
            raise TypeError(f"{where} is {leaf!r}; data must be arrays of numbers")
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
