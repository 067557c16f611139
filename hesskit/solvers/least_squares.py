r"""Least squares: the fit of residuals, with the errors of its parameters.

    minimize  1/2 sum_i scale^2 rho((r_i(p) / (sigma_i scale))^2)  over p   (1)

The answer is that of `minimize` for `least_squares_loss`; the covariance of the parameters comes
from the whitened Jacobian there (fit_result.py), in one more compiled function.

Source: Nocedal & Wright (2006), chapter 10; Seber & Wild (2003), Nonlinear Regression, chapter 5.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hesskit.core import errors, objective, prefix, select, tree
from hesskit.core.bounds import Bounds, at_bound, parse
from hesskit.core.composite import Composite, Structured
from hesskit.core.residuals import least_squares_loss
from hesskit.core.status import Status
from hesskit.core.types import Array, Params, Scalar
from hesskit.linalg.whitened import evaluate
from hesskit.solvers.call import MAX_STEPS, arrays, call, held_leaves
from hesskit.solvers.fit_result import FitResult, fit_result
from hesskit.solvers.inputs import hashable
from hesskit.solvers.progress import Progress
from hesskit.solvers.result import Result
from hesskit.solvers.spread import MOST

LOST = 64
"""Roundings of a residual: as many as linalg/gram_inverse.py allows its rows."""


class _Answer(NamedTuple):
    """What is known of the residuals at the answer, k entries being free."""

    rows: Array | None  # (m, k), None where k is too large
    residual: Array | None  # (m,), of the whitened rows
    at_bound: Array  # (k,), bool
    num_residuals: Array  # (), int32, of positive weight
    underflow: Array  # (), bool, residuals are more than rounding and their squares are zero


def _underflow(rows: Array, residual: Array, free: Params, value: Array) -> Array:
    """Whether the value says that residuals vanish and they do not."""
    noise = LOST * float(jnp.finfo(rows.dtype).eps) * (jnp.abs(rows) @ jnp.abs(tree.ravel(free)))
    return (value == 0) & jnp.any(jnp.abs(residual) > noise)


def _free_entries(flags: Params, params: Params, held: tuple[bool, ...]) -> Array:
    """One bool for each entry that is not held, raveled."""
    full = jax.tree.map(lambda a, b: jnp.broadcast_to(a, b.shape), flags, params)
    free, _ = select.split(full, held)
    return jnp.concatenate([jnp.ravel(a) for a in jax.tree.leaves(free)])


def _answer(
    loss: Composite,
    held: tuple[bool, ...],
    params: Params,
    args: Any,
    data: dict[str, Any],
    bounds: Bounds | None,
    value: Array,
) -> _Answer:
    fn = objective.bind(loss, args=args, data=data, caller="least_squares")
    assert isinstance(fn, Structured)
    free, rest = select.split(params, held)
    rows, residual, underflow = None, None, jnp.array(False)
    if tree.size(free) <= MOST:
        of_free = objective.precompose(fn, lambda point: select.merge(point, rest))
        rows, residual, _ = evaluate(of_free, free).rows()
        underflow = _underflow(rows, residual, free, value)
    outputs, _ = fn.inner(params)
    # A robust loss may give an outlier no curvature at all; it counts all the same.
    linear = dataclasses.replace(loss, outer=dataclasses.replace(loss.outer, loss="linear"))
    plain = objective.bind(linear, args=args, data=data, caller="least_squares").outer
    counted = plain.whiten(outputs, jax.tree.map(jnp.ones_like, outputs))
    num = sum(jnp.sum(leaf != 0) for leaf in jax.tree.leaves(counted))
    touching = jax.tree.map(lambda a: jnp.zeros(a.shape, bool), params)
    if bounds is not None:
        touching = at_bound(params, bounds)
    stuck = _free_entries(touching, params, held)
    return _Answer(rows, residual, stuck, jnp.asarray(num, jnp.int32), underflow)


def check_fit(params: Params, sigma: Any, covariance: Any, *, caller: str) -> Params:
    """`params` as arrays; raises TypeError for complex ones, ValueError for a wrong option."""
    params = errors.check_params(params)
    if objective.is_complex(params):
        raise TypeError(
            f"{caller} needs real params, for they have errors; fit the real and imaginary "
            "parts, or minimize hesskit.least_squares_loss(residual_fn)"
        )
    prefix.check_positive(sigma, name="sigma", hint="inf drops a residual")
    errors.check_choice(covariance, ("gauss_newton", "sandwich"), name="covariance")
    return params


@functools.partial(jax.jit, static_argnames=("loss", "held", "absolute_sigma", "covariance"))
def _fitted(
    loss: Composite,
    held: tuple[bool, ...],
    result: Result,
    args: Any,
    data: dict[str, Any],
    box: Bounds | None,
    *,
    absolute_sigma: bool,
    covariance: str,
) -> FitResult:
    found = _answer(loss, held, result.params, args, data, box, result.value)
    honest = dataclasses.replace(
        result,
        status=jnp.where(found.underflow, Status.ROUNDOFF_LIMITED, result.status),
        stationary=result.stationary & ~found.underflow,
    )
    return fit_result(
        honest,
        found.rows,
        held=held,
        at_bound=found.at_bound,
        bounds=box,
        chi2=2 * result.value,
        num_residuals=found.num_residuals,
        absolute_sigma=absolute_sigma,
        residual=found.residual if covariance == "sandwich" else None,
    )


def with_errors(
    result: Result,
    loss: Composite,
    args: Any,
    data: dict[str, Any],
    held: tuple[bool, ...],
    box: Bounds | None,
    absolute_sigma: bool,
    covariance: str,
) -> FitResult:
    """The answer with the covariance of its parameters."""
    bare = dataclasses.replace(result, aux=None, history=None, state=None)
    fit = _fitted(
        loss, held, bare, args, data, box, absolute_sigma=absolute_sigma, covariance=covariance
    )
    return dataclasses.replace(fit, aux=result.aux, history=result.history, state=result.state)


def least_squares(
    residual_fn: Callable[..., Any],
    params: Params,
    optimizer: optax.GradientTransformation | None = None,
    *,
    args: Any = (),
    has_aux: bool = False,
    fixed: Any = None,
    bounds: Any = None,
    loss: str | Callable[[Array], Array] = "linear",
    scale: Scalar = 1.0,
    sigma: Any = None,
    absolute_sigma: bool = False,
    covariance: str = "gauss_newton",
    gtol: Any = None,
    ftol: Any = None,
    xtol: Any = None,
    max_steps: Any = MAX_STEPS,
    check: str = "second_order",
    state: Any = None,
    callback: Callable[[Progress], Any] | None = None,
    history: bool | str = False,
    progress: bool = False,
) -> FitResult:
    r"""The parameters that make residuals small, with their covariance and an honest status.

    Minimizes half the sum of squared residuals over sigma, or a robust form of it, by
    `hesskit.levenberg_marquardt()`. Everything that `hesskit.minimize` says of `args`, `fixed`,
    `bounds`, tolerances, `state`, `history`, statuses and derivatives holds here: parameters and
    errors are differentiable in the data, with the whole Hessian, not J'J. Besides the gradient,
    the method ends where the residual is orthogonal to the columns of the Jacobian to `gtol` (the
    relative offset of Bates & Watts), which knows no units.

    Args:
      residual_fn: `residual_fn(params, ...) -> residuals`, any pytree of float or complex arrays, m
        numbers in all, or `-> (residuals, aux)`. More parameters than residuals are fine.
      params: the start, a pytree of real float arrays.
      optimizer: any optax transformation; None chooses `hesskit.levenberg_marquardt()`.
      args: data for `residual_fn`: a tuple, positional after params, or a dict, by name.
      has_aux: whether `residual_fn` returns a pair; then `result.aux["aux"]`.
      fixed: leaves to hold, as in `hesskit.minimize`; their standard errors are 0.
      bounds: as in `hesskit.minimize`; the standard error of an entry at a bound is NaN.
      loss: "linear", or for outliers "huber", "soft_l1", "cauchy", "arctan", or rho(z) itself,
        elementwise in z = (r / (sigma scale))^2, with rho(0) = 0 and rho'(0) = 1.
      scale: the size of r / sigma at which an outlier begins (SciPy's `f_scale`).
      sigma: standard deviations of the residuals, a prefix tree of scalars or arrays; inf drops a
        residual, also from dof.
      absolute_sigma: whether `sigma` is known. False scales the covariance by chi2 / dof.
      covariance: "gauss_newton", (J'J)^{-1} of the rows over sigma, takes residuals over sigma to
        be of one size, and a robust loss for their negative log-likelihood. "sandwich" (Huber 1967,
        White 1980; HC0) takes nothing of the kind, and wants more data than parameters by far: the
        choice with robust losses, or where the noise is uneven and sigma unknown.
      gtol: for the gradient and the relative offset; None means eps^(2/3).
      ftol: for the relative change of the value; None means off.
      xtol: for the relative length of a step; None means off.
      max_steps: trials at most.
      check: "second_order" asks for no negative curvature of the objective at the answer.
      state: `result.state` of a run to continue.
      callback: `callback(progress) -> stop`.
      history: True or "params" records the run.
      progress: show a live bar.

    Returns:
      A `FitResult`; `value` is (1), `aux["terms"]` its part of each leaf of the residuals. Of more
      than 4000 free entries there is no covariance, and standard errors are NaN.

    Raises:
      TypeError: an argument of the wrong kind, residuals that are no floats, complex params.
      ValueError: an argument out of its range, no residuals, a prefix that does not fit.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> t = jnp.arange(6.0)
      >>> y = jnp.array([2.1, 1.2, 0.75, 0.44, 0.27, 0.17])
      >>> decay = lambda p: p["a"] * jnp.exp(-p["k"] * t) - y
      >>> fit = hesskit.least_squares(decay, {"a": 1.0, "k": 1.0})
      >>> print(fit.params["k"].round(2), fit.standard_errors["k"] < 0.02, bool(fit.success))
      0.52 True True

    References:
      Nocedal & Wright (2006), Numerical Optimization, chapter 10; Seber & Wild (2003).
    """
    objective_fn = least_squares_loss(
        hashable(residual_fn), loss=loss, scale=scale, has_aux=has_aux
    )
    params = check_fit(params, sigma, covariance, caller="least_squares")
    args, sigma = arrays(args), arrays(sigma)
    data = {} if sigma is None else {"residual_sigma": sigma}
    result = call(
        objective_fn,
        params,
        optimizer,
        caller="least_squares",
        args=args,
        data=data,
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
    held, box = held_leaves(optimizer, fixed, result.params), parse(bounds, result.params)
    return with_errors(result, objective_fn, args, data, held, box, absolute_sigma, covariance)
