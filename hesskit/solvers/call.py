"""What `minimize` and `least_squares` do with their arguments before the compiled solve."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hesskit.core import errors, objective, select, tree
from hesskit.core.bounds import Bounds, parse
from hesskit.core.method import default_tolerance
from hesskit.core.types import Params
from hesskit.solvers import inputs
from hesskit.solvers import progress as live
from hesskit.solvers.implicit import solved
from hesskit.solvers.loop import Limits, Static
from hesskit.solvers.result import Result
from hesskit.transforms._build import Transformation
from hesskit.transforms.lbfgs import lbfgs
from hesskit.transforms.levenberg_marquardt import levenberg_marquardt
from hesskit.transforms.newton_cg import newton_cg
from hesskit.transforms.trust_region import trust_region

DENSE_LIMIT = 100
MAX_STEPS = 5000


def _number(item: Any, dtype: jnp.dtype) -> Any:
    """A number of that type; a plain one is not put on a device, which would take a program."""
    return jnp.asarray(item, dtype) if isinstance(item, jax.Array) else dtype.type(item)


def default_optimizer(
    value_fn: Callable[..., Any], params: Params, fixed: tuple[bool, ...], bounds: Any = None
) -> Transformation:
    """The method for an objective, by its structure and the number of entries that are not fixed.

    Args:
      value_fn: the objective.
      params: the start.
      fixed: the leaves that are held.
      bounds: the box, or None.

    Returns:
      `levenberg_marquardt()` for sums of squares and such with penalties, else `trust_region()`
      for at most DENSE_LIMIT entries, beyond it `newton_cg()`, or `lbfgs()` where there are bounds.
    """
    if objective.is_squares(value_fn):
        return levenberg_marquardt()
    num = tree.size(objective.split(select.split(params, fixed)[0]))
    if num <= DENSE_LIMIT:
        return trust_region()
    return newton_cg() if bounds is None else lbfgs()


def _check_optimizer(optimizer: Any, bounds: Any) -> None:
    if isinstance(optimizer, tuple) and hasattr(optimizer, "update"):
        if bounds is not None and getattr(optimizer, "special", None) is None:
            name = getattr(optimizer, "name", "this optimizer")
            raise ValueError(f"{name} does not take bounds; use optimizer=None")
        return
    hint = ""
    if callable(optimizer):
        hint = f"; call it: {getattr(optimizer, '__name__', 'optimizer')}()"
    raise TypeError(
        "optimizer must be an optax transformation, such as hesskit.trust_region(); got "
        f"{optimizer!r}{hint}"
    )


def fixed_leaves(fixed: Any, params: Params) -> tuple[bool, ...]:
    """Which leaves are held."""
    if fixed is None:
        return (False,) * len(jax.tree.leaves(params))
    chosen = select.select(fixed, params, name="fixed")
    if all(chosen):
        raise ValueError("fixed selects every leaf of params: nothing is left to optimize")
    return chosen


def released(
    optimizer: Any, params: Params, fixed: tuple[bool, ...]
) -> tuple[Any, tuple[bool, ...]]:
    """The transform inside `freeze`, with the leaves that it holds among the fixed."""
    if getattr(optimizer, "held", None) is None:
        return optimizer, fixed
    inner, choose = optimizer.held
    both = tuple(a or b for a, b in zip(fixed, choose(params), strict=True))
    if all(both):
        raise ValueError("freeze holds every leaf of params: nothing is left to optimize")
    return released(inner, params, both)


def held_leaves(optimizer: Any, fixed: Any, params: Params) -> tuple[bool, ...]:
    """Which leaves `fixed` holds, or a `freeze` around the optimizer."""
    return released(optimizer, params, fixed_leaves(fixed, params))[1]


def arrays(args: Any) -> Any:
    """`args` with series and tables of other libraries as arrays."""

    def convert(leaf: Any) -> Any:
        known = isinstance(leaf, jax.Array) or type(leaf).__module__ == "numpy"
        return leaf if known or not hasattr(leaf, "__array__") else jnp.asarray(leaf.__array__())

    return jax.tree.map(convert, args)


def limits_of(gtol: Any, ftol: Any, xtol: Any, max_steps: Any, params: Params) -> Limits:
    """The tolerances checked, as arrays."""
    for name, item in (("gtol", gtol), ("ftol", ftol), ("xtol", xtol)):
        errors.check_number(item, name=name)
    if max_steps is None:
        raise TypeError("max_steps must be an integer, got None")
    errors.check_count(max_steps, name="max_steps")
    dtype = tree.result_dtype(params)
    return Limits(
        tolerance=_number(default_tolerance(params) if gtol is None else gtol, dtype),
        ftol=_number(0 if ftol is None else ftol, dtype),
        xtol=_number(0 if xtol is None else xtol, dtype),
        max_steps=_number(inputs.limit_of(max_steps), jnp.dtype(jnp.int32)),
    )


class Checked(NamedTuple):
    """The arguments of a solve, checked, as the compiled program takes them."""

    static: Static
    params: Params
    args: Any
    limits: Limits
    box: Bounds | None


def checked(
    value_fn: Callable[..., Any],
    params: Params,
    optimizer: optax.GradientTransformation | None,
    *,
    caller: str,
    args: Any,
    has_aux: bool,
    fixed: Any,
    bounds: Any,
    gtol: Any,
    ftol: Any,
    xtol: Any,
    max_steps: Any,
    check: str,
    callback: Callable[[live.Progress], Any] | None = None,
    history: bool | str = False,
    progress: bool = False,
) -> Checked:
    """The arguments of a solver of one problem, checked; they are those of `minimize`.

    Args:
      value_fn: the objective.
      params: the start.
      optimizer: any optax transformation, or None.
      caller: the solver's name, for messages.
      args: data of `value_fn`.
      has_aux: whether it returns a pair.
      fixed: the leaves to hold.
      bounds: the box.
      gtol: for the gradient.
      ftol: for the change of the value.
      xtol: for the length of a step.
      max_steps: trials at most.
      check: "second_order" or "first_order".
      callback: called each step.
      history: what to record.
      progress: whether to show a bar.

    Returns:
      A `Checked`.
    """
    if callback is not None:
        errors.check_callable(callback, name="callback", of="a step")
    errors.check_choice(check, ("second_order", "first_order"), name="check")
    errors.check_choice(history, (False, True, "params"), name="history")
    params = errors.check_params(params)
    args = arrays(args)
    errors.check_data(args)
    chosen = fixed_leaves(fixed, params)
    if optimizer is None:
        optimizer = default_optimizer(value_fn, params, chosen, bounds)
    run, chosen = released(optimizer, params, chosen)
    _check_optimizer(run, bounds)
    box = parse(bounds, params)
    live.check(progress)
    limits = limits_of(gtol, ftol, xtol, max_steps, params)
    static = Static(
        value_fn=inputs.hashable(value_fn),
        optimizer=run,
        fixed=chosen,
        flat=inputs.may_ravel(params),
        caller=caller,
        has_aux=has_aux,
        check=check,
        history=history,
        rows=inputs.rows(max_steps) if history else 0,
        callback=None if callback is None else inputs.hashable(callback),
        progress=progress,
    )
    return Checked(static, params, args, limits, box)


def call(
    value_fn: Callable[..., Any],
    params: Params,
    optimizer: optax.GradientTransformation | None,
    *,
    args: Any,
    state: Any,
    data: dict[str, Any] | None = None,
    **options: Any,
) -> Result:
    """The checked call of a solver of one problem.

    Args:
      value_fn: the objective.
      params: the start.
      optimizer: any optax transformation, or None.
      args: data of `value_fn`.
      state: that of a run to continue.
      data: more data by name; names that `value_fn` does not take are ignored.
      **options: as in `checked`.

    Returns:
      A `Result`.
    """
    inputs.warn_float64((params, args))
    here = checked(value_fn, params, optimizer, args=args, **options)
    with live.raising():
        result = solved(
            here.static, here.params, here.args, data or {}, here.limits, state, here.box
        )
        if here.static.callback is not None:
            jax.block_until_ready(result)
    if result.history is None:
        return result
    return dataclasses.replace(result, history=inputs.trimmed(result.history))
