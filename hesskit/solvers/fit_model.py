"""The model that `curve_fit` is given: how it is called, and the words of likely mistakes."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core import errors
from hesskit.core import signature as signatures
from hesskit.core.types import Params


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
