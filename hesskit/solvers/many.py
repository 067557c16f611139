r"""Many minimizations in one call, none of which waits for the slowest.

    minimize f(x_i, data_i) over x_i,   i = 1 ... N                         (1)

The machine of `minimize` runs on a fixed number of lanes of one compiled loop; a lane whose
problem has ended takes the next (lanes.py).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hesskit.core import errors
from hesskit.core.types import Params
from hesskit.solvers import inputs
from hesskit.solvers.batch import batched
from hesskit.solvers.call import MAX_STEPS, arrays
from hesskit.solvers.many_result import ManyResult
from hesskit.solvers.solve_many import call_many


def minimize_many(
    value_fn: Callable[..., Any],
    params: Params,
    optimizer: optax.GradientTransformation | None = None,
    *,
    args: Any = (),
    in_axes: Any = 0,
    lanes: int | None = None,
    has_aux: bool = False,
    fixed: Any = None,
    bounds: Any = None,
    gtol: Any = None,
    ftol: Any = None,
    xtol: Any = None,
    max_steps: Any = MAX_STEPS,
    check: str = "second_order",
) -> ManyResult:
    r"""The minima of many problems of one form, each as `hesskit.minimize` finds it alone.

    `jax.vmap` of a solver takes as many trips as its slowest problem, for all of them. Here `lanes`
    problems are in work at a time, and the next begins where one has ended. Answers are the same to
    rounding (which can also decide by which test a run ends); a problem of NaN harms none. Works
    under `jit`. Data split along the axis of problems over the devices of a mesh stay there: each
    device works through its own queue, and hears nothing of the others (under `jit` only where the
    axes of the mesh are explicit). Answers are differentiable in their data as those of
    `hesskit.minimize` are.

    Args:
      value_fn: `value_fn(params, ...) -> ()`, or `-> ((), aux)` with `has_aux`, of one problem.
      params: the starts, a pytree of float or complex arrays, with an axis of problems where
        `in_axes` says so.
      optimizer: any optax transformation; None chooses as `hesskit.minimize` does for one problem.
        A `key` of the optimizer is folded with the number of the problem.
      args: data for `value_fn`: a tuple, positional after params, or a dict, by name.
      in_axes: what it means in `jax.vmap(solve, in_axes)(params, args)`: the axis of problems of
        each leaf, None for what all share: 0, or a tuple of prefix trees for params and args,
        `(None, (0, None))`. Sizes are never guessed from.
      lanes: problems in work at a time, of each device. None means 128 to 256, by the size of
        their data (all, where they are fewer): every trip starts some hundred small parts of a
        program, which many lanes share; but at the end, when the queue is empty, all lanes wait for
        the last, and their data should fit in the caches. Fewer for objectives with much data.
      has_aux: whether `value_fn` returns a pair.
      fixed: leaves to hold, as in `hesskit.minimize`, of one problem.
      bounds: as in `hesskit.minimize`, of one problem; all share them.
      gtol: for the gradient; None means eps^(2/3).
      ftol: for the relative change of the value; None means off.
      xtol: for the relative length of a step; None means off.
      max_steps: trials at most, of each problem.
      check: "second_order" asks for no negative curvature at the answers.

    Returns:
      A `ManyResult`: the fields of `hesskit.Result` with a leading axis of problems; `print` counts
      by status, `result.failed` gives indices, `result[i]` one problem's `Result`.

    Raises:
      TypeError: as in `hesskit.minimize`, or an axis is no int.
      ValueError: as in `hesskit.minimize`; nothing is batched, or numbers of problems differ.

    Example:
      >>> import jax.numpy as jnp
      >>> import hesskit
      >>> def rosenbrock(p, scale):
      ...     return (1 - p["x"]) ** 2 + scale * (p["y"] - p["x"] ** 2) ** 2
      >>> start = {"x": jnp.array(-1.2), "y": jnp.array(1.0)}
      >>> scales = jnp.array([1.0, 10.0, 100.0])
      >>> result = hesskit.minimize_many(rosenbrock, start, args=(scales,), in_axes=(None, 0))
      >>> print(result)
      trust_region: 3 of 3 succeeded: 3 GRADIENT_TOL
    """
    errors.check_callable(value_fn, name="value_fn")
    inputs.warn_float64((params, args))
    args = arrays(args)
    errors.check_data(args)
    trees = {
        "params": errors.check_params(params),
        "args": jax.tree.map(jnp.asarray, args),
    }
    return call_many(
        value_fn,
        batched(trees, in_axes),
        optimizer,
        lanes=lanes,
        caller="minimize_many",
        has_aux=has_aux,
        fixed=fixed,
        bounds=bounds,
        gtol=gtol,
        ftol=ftol,
        xtol=xtol,
        max_steps=max_steps,
        check=check,
    )
