r"""The Jacobian of a function of params, dense.

    J_ki  =  d fn_k / d x_i                                                 (1)

Source: Griewank & Walther (2008), chapter 3.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import objective
from hesskit.core.derivatives import applies
from hesskit.core.types import Array, Params
from hesskit.linalg.dense import stacked


def jacobian(fn: Callable[[Params], Any], params: Params) -> tuple[Any, Array]:
    """`fn(params)`, a pytree of k real numbers in all, and its Jacobian.

    Args:
      fn: a function of params, differentiable at least in reverse.
      params: a pytree of arrays; a complex entry counts as two real ones.

    Returns:
      The outputs and the matrix (1), (k, n), rows and columns in the order of `tree.ravel`.

    Raises:
      TypeError: an output is no real float.

    Example:
      >>> import jax.numpy as jnp
      >>> out, matrix = jacobian(lambda p: {"area": p["a"] * p["b"]}, {"a": 2.0, "b": 3.0})
      >>> print(out["area"], matrix)
      6.0 [[3. 2.]]
    """
    params = jax.tree.map(jnp.asarray, params)
    real = objective.split(params)

    def outputs(point: Params) -> Any:
        out = jax.tree.map(jnp.asarray, fn(objective.join(point, params)))
        for path, leaf in jax.tree_util.tree_leaves_with_path(out):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                where = f"the result{jax.tree_util.keystr(path)}"
                parts = "; take its .real or .imag" if jnp.iscomplexobj(leaf) else ""
                raise TypeError(f"{where} is {leaf.dtype}; its error needs a real float{parts}")
        return out

    with contextlib.suppress(TypeError):  # no forward-mode rule; a user's own error comes again
        out, push = jax.linearize(outputs, real)
        if applies(push, real):
            return out, stacked(push, real, out).T
    out, pull = jax.vjp(outputs, real)
    return out, stacked(lambda u: pull(u)[0], out, real)
