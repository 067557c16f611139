"""What a user's objective is, tried out before any method depends on it.

Runs eagerly at one point: the value twice, the gradient, one Hessian product. A function that is
no real scalar raises; all else is found and told.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core import errors, objective, pseudo_random, tree
from hesskit.core.derivatives import linearized, value_and_grad
from hesskit.core.types import Params, ValueFn

UNRELATED = (
    "value_fn does not depend on params: its gradient is zero on every leaf. Did it close over "
    "the model?"
)
UNREPEATABLE = "value_fn gave two values at one point: {first:.7g} and {second:.7g}. Fix its key."


class ValueFnCheck(NamedTuple):
    """What `check_value_fn` found; it prints in a few lines.

    Attributes:
      value: at params, a float.
      dtype: of the value.
      repeatable: two calls gave the same value.
      depends_on_params: some leaf has a gradient, at params or near.
      finite: value and gradient are.
      twice_differentiable: a Hessian product could be formed, and is finite if they are.
      remarks: a sentence for each thing that is wrong.
    """

    value: float
    dtype: str
    repeatable: bool
    depends_on_params: bool
    finite: bool
    twice_differentiable: bool
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        """The report."""
        words = {True: "yes", False: "no"}
        rows = [
            f"value               {self.value:.7g} ({self.dtype}, scalar)",
            f"repeatable          {words[self.repeatable]}",
            f"depends on params   {words[self.depends_on_params]}",
            f"finite              {words[self.finite]}",
            f"second derivatives  {words[self.twice_differentiable]}",
        ]
        return "\n".join([*rows, *self.remarks])


def _is_zero(x: Params) -> bool:
    """Whether every entry is zero; NaN is not."""
    return all(bool(jnp.all(leaf == 0)) for leaf in jax.tree.leaves(x))


def _depends(fn: ValueFn, params: Params, grad: Params) -> bool:
    """Whether the gradient is not zero at params or, where params may be critical, beside it."""
    if not _is_zero(grad):
        return True
    beside = tree.add(params, pseudo_random.like(params))
    return not _is_zero(value_and_grad(fn, beside).grad)


def _product(fn: ValueFn, params: Params) -> Params | str:
    """A Hessian product, or why there is none."""
    try:
        product = linearized(fn, params).product
        assert product is not None
        return product(pseudo_random.like(params))
    except Exception as error:
        return f"no second derivatives: {type(error).__name__}: {str(error).splitlines()[0]}"


def _finite_remarks(value: Any, grad: Params) -> list[str]:
    """Where value and gradient are not finite."""
    remarks = [] if jnp.isfinite(value) else [f"the value is {float(value)}"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(grad):
        if not jnp.all(jnp.isfinite(leaf)):
            remarks.append(f"the gradient is not finite at params{jax.tree_util.keystr(path)}")
    return remarks


def check_value_fn(
    value_fn: Callable[..., Any],
    params: Params,
    *,
    args: tuple[Any, ...] | Mapping[str, Any] = (),
    has_aux: bool = False,
    **data: Any,
) -> ValueFnCheck:
    r"""Tries `value_fn` at `params` and prints what a second-order method should know of it.

    Whether it gives the same value twice, depends on params, is finite, and has second
    derivatives. For a session, not for a program: it runs eagerly and prints.

    Args:
      value_fn: `value_fn(params, ...) -> ()`, or `-> ((), aux)` with `has_aux`.
      params: where to try it.
      args: data: a tuple, positional after params, or a dict, by name.
      has_aux: whether `value_fn` returns a pair.
      **data: data by name.

    Returns:
      The findings.

    Raises:
      TypeError: the value is no real number, data is missing or unknown, or params is traced.
      ValueError: the value is not ().

    Cost: three values, one gradient, one Hessian product.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> loss = lambda w, x: jnp.mean((x @ w) ** 2)
      >>> found = hesskit.check_value_fn(loss, jnp.ones(3), x=jnp.eye(3))
      value               1 (float32, scalar)
      repeatable          yes
      depends on params   yes
      finite              yes
      second derivatives  yes
    """
    if not args:
        args, data = data, {}  # by name, and an unknown name is an error
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((params, args, data))):
        raise TypeError("check_value_fn runs eagerly and prints: call it outside jit")
    params = errors.check_params(params)
    fn, point = objective.real(
        value_fn, params, args=args, data=data, has_aux=has_aux, caller="check_value_fn"
    )
    first, second = fn(point), fn(point)
    grad = value_and_grad(fn, point).grad
    repeatable = bool((first == second) | (jnp.isnan(first) & jnp.isnan(second)))
    depends = _depends(fn, point, grad)
    remarks = _finite_remarks(first, grad)
    finite = not remarks
    product = _product(fn, point)
    smooth = not isinstance(product, str) and (not finite or bool(tree.all_finite(product)))
    if not repeatable:
        remarks.append(UNREPEATABLE.format(first=float(first), second=float(second)))
    if not depends:
        remarks.append(UNRELATED)
    if not smooth:
        remarks.append(product if isinstance(product, str) else "a Hessian product is not finite")
    found = ValueFnCheck(
        value=float(first),
        dtype=str(first.dtype),
        repeatable=repeatable,
        depends_on_params=depends,
        finite=finite,
        twice_differentiable=smooth,
        remarks=tuple(remarks),
    )
    print(found)
    return found
