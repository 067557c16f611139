r"""One call runs a method to a trustworthy answer with an honest status.

    minimize f(x, data) over x: params -> Result                            (1)

The whole solve is one compiled function (solve.py), so that a second call with new params, data
or tolerances compiles nothing. Under `vmap` a finished lane is frozen and a lane of NaN harms none.
"""

from collections.abc import Callable
from typing import Any

import optax

from hesskit.core import errors
from hesskit.core.types import Params
from hesskit.solvers.call import MAX_STEPS, call
from hesskit.solvers.progress import Progress
from hesskit.solvers.result import Result


def minimize(
    value_fn: Callable[..., Any],
    params: Params,
    optimizer: optax.GradientTransformation | None = None,
    *,
    args: Any = (),
    has_aux: bool = False,
    fixed: Any = None,
    bounds: Any = None,
    gtol: Any = None,
    ftol: Any = None,
    xtol: Any = None,
    max_steps: Any = MAX_STEPS,
    check: str = "second_order",
    state: Any = None,
    callback: Callable[[Progress], Any] | None = None,
    history: bool | str = False,
    progress: bool = False,
) -> Result:
    r"""The minimum of `value_fn` over a pytree of parameters, with an honest status.

    Runs `optimizer` from `params` until

        |g| <= gtol,   |f - f+| <= ftol max(|f|, |f+|),   |s| <= xtol (|x| + xtol),             (1)

    with g the gradient, f and f+ the values around a kept step s, and x the parameters; a zero
    ftol or xtol turns its test off. The first ends in GRADIENT_TOL, which also means that no
    negative curvature was found; VALUE_TOL and STEP_TOL count as `success` only where the gradient
    is small for the dtype. Never raises for numbers: `result.status` says why it stopped,
    `result.message` says it in a sentence.

    Works under `jit` and `vmap`: finished lanes are frozen. `value_fn` is traced and cached as
    under `jax.jit`: what changes from call to call goes into `params` or `args`, and then nothing
    is compiled again.

    Differentiable by the implicit function theorem, in both modes and twice, with respect to
    `args`, what `value_fn` closes over, held leaves and bounds; never through the loop. `params`,
    `value` and `aux` carry tangents; the start has no influence. A tangent is NaN unless the run
    ended at a stationary point, which `status` says, and that of `params` is NaN too where the
    Hessian is singular to rounding. Of more than 500 free entries it is solved for by conjugate
    gradients, without a matrix; a singular Hessian is then seen only where the tangent meets its
    null space, and else the tangent is the shortest there is.

    Args:
      value_fn: `value_fn(params, ...) -> ()`, or `-> ((), aux)` with `has_aux`.
      params: the start, a pytree of float or complex arrays; C^n is R^{2n}.
      optimizer: any optax transformation. None chooses `hesskit.levenberg_marquardt()` for a
        `hesskit.least_squares_loss` and sums of such and `hesskit.l2`, else
        `hesskit.trust_region()` for at most 100 free entries, beyond it `hesskit.newton_cg()`, or
        `hesskit.lbfgs()` where there are bounds.
      args: data for `value_fn`: a tuple, positional after params, or a dict, by name.
      has_aux: whether `value_fn` returns a pair; `result.aux` is its second part at the answer.
      fixed: leaves to hold: a prefix tree of bools, a path ("bg/b", "peak/*") or a list of paths,
        or `f(path, leaf) -> bool`.
      bounds: `(lower, upper)`, each a number, None or a prefix tree of params, or a dict from paths
        to pairs, `{"peak/width": (0, None)}`; None or inf means none. Steps are minimizers on the
        faces of the box; `result.grad_norm` is that of the projected gradient. Only for optimizers
        that take bounds: `hesskit.trust_region`, `hesskit.levenberg_marquardt`, `hesskit.lbfgs`.
      gtol: for the Euclidean norm of the gradient. None means eps^(2/3), eps
        of the coarsest leaf: between sqrt(eps), which is easy, and eps, which rounding forbids.
      ftol: for the relative change of the value; None means 0, off: a slow run is no answer.
      xtol: for the relative length of a step; None means 0, off, likewise.
      max_steps: trials at most (updates of an optax optimizer). 5000 is a limit, not a plan: a
        hundred times the median of our methods on tests/problems.py.
      check: "second_order" asks for no negative curvature at the answer; methods that do not
        know it spend at most 20 Hessian products at the end. "first_order" asks for the gradient.
      state: `result.state` of a run to continue, with `result.params` as `params`. Value and
        gradient are evaluated anew; radius, damping and, where the value is the same, the model
        are kept: two runs of n steps are one of 2n.
      callback: `callback(progress) -> stop`, called each step with numbers and params; True stops.
        Under `vmap` it is called for each running lane.
      history: True records value, grad_norm, step_norm, accepted and num_values by step, "params"
        the points as well (max_steps + 1 rows are allocated).
      progress: show a live bar (needs tqdm: `pip install 'hesskit[progress]'`).

    Returns:
      A `Result`; its `params` are the best point found, finite if the start was.

    Raises:
      TypeError: an argument of the wrong kind, a leaf or a value that is no float, missing data.
      ValueError: an argument out of its range, a value that is not (), a `fixed` that fits nothing,
        a `state` of another run, bounds that do not fit or that the start is outside of.

    Example:
      >>> import jax.numpy as jnp
      >>> import hesskit
      >>> def rosenbrock(p, scale):
      ...     return (1 - p["x"]) ** 2 + scale * (p["y"] - p["x"] ** 2) ** 2
      >>> start = {"x": jnp.array(-1.2), "y": jnp.array(1.0)}
      >>> result = hesskit.minimize(rosenbrock, start, args=(100.0,))
      >>> print(result.params["x"].round(3), bool(result.success), result.method)
      1.0 True trust_region

    References:
      Nocedal & Wright (2006), Numerical Optimization, chapters 4 and 7; Conn, Gould & Toint (2000),
      Trust-Region Methods, section 17.4 (rounding).
    """
    errors.check_callable(value_fn, name="value_fn")
    return call(
        value_fn,
        params,
        optimizer,
        caller="minimize",
        args=args,
        has_aux=has_aux,
        fixed=fixed,
        bounds=bounds,
        gtol=gtol,
        ftol=ftol,
        xtol=xtol,
        max_steps=max_steps,
        check=check,
        state=state,
        callback=callback,
        history=history,
        progress=progress,
    )
