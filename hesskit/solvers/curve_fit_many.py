r"""Many curve fits of one model in one call.

    minimize  1/2 sum_k ((model(p_i, x_ik) - y_ik) / sigma_ik)^2  over p_i,   i = 1 ... N      (1)

Data sets of unequal length are padded, with sigma = inf at the points that are none.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hesskit.core import errors, select
from hesskit.core.types import Array, Params, Scalar
from hesskit.solvers import fit_inputs, fit_model, inputs
from hesskit.solvers.band import Data
from hesskit.solvers.batch import Batch, batched
from hesskit.solvers.call import MAX_STEPS
from hesskit.solvers.curve_fit import Residuals, total_of
from hesskit.solvers.least_squares import check_fit
from hesskit.solvers.least_squares_many import fit_many
from hesskit.solvers.many_result import ManyFits
from hesskit.solvers.solve_many import problem


def curve_fit_many(
    model: Callable[..., Any],
    xdata: Any,
    ydata: Any,
    params: Params,
    *,
    in_axes: Any = 0,
    lanes: int | None = None,
    sigma: Any = None,
    absolute_sigma: bool = False,
    covariance: str = "gauss_newton",
    fixed: Any = None,
    bounds: Any = None,
    loss: str | Callable[[Array], Array] = "linear",
    scale: Scalar = 1.0,
    optimizer: optax.GradientTransformation | None = None,
    gtol: Any = None,
    ftol: Any = None,
    xtol: Any = None,
    max_steps: Any = MAX_STEPS,
    check: str = "second_order",
) -> ManyFits:
    r"""Many fits of one model, each as `hesskit.curve_fit` finds it alone; `print` counts.

    A fixed number of fits is in work at a time, and the next begins where one has ended
    (`hesskit.minimize_many`). Data that are not finite end their own fit with NONFINITE_START.

    Args:
      model: `model(params, xdata) -> ` a pytree of float arrays like the ydata of one fit.
      xdata: any pytree of arrays, or None.
      ydata: a pytree of arrays.
      params: the starts, a pytree of real float arrays.
      in_axes: the axis of fits of xdata, ydata, params and sigma, as in `jax.vmap`: 0 for all, or a
        tuple, `(None, 0, None)` where only ydata differ; a fourth entry is for sigma, which
        without it all share.
      lanes: fits in work at a time; None means 128 to 256, as in `hesskit.minimize_many`.
      sigma: standard deviations of ydata, a number or a prefix tree of arrays, or the covariance
        matrix of y; inf drops a point: so data sets of unequal length are padded.
      absolute_sigma: whether `sigma` is in the unit of ydata; else errors are scaled by
        sqrt(chi2 / dof).
      covariance: "gauss_newton" or "sandwich", as in `hesskit.least_squares`.
      fixed: leaves to hold, of one fit.
      bounds: as in `hesskit.curve_fit`, of one fit; all share them.
      loss: "linear", or for outliers "huber", "soft_l1", "cauchy", "arctan", or rho itself.
      scale: the size of a residual over sigma at which an outlier begins.
      optimizer: any optax transformation; None chooses `hesskit.levenberg_marquardt()`.
      gtol: for the gradient and the relative offset; None means eps^(2/3).
      ftol: for the relative change of the value; None means off.
      xtol: for the relative length of a step; None means off.
      max_steps: trials at most, of each fit.
      check: "second_order" asks for no negative curvature at the answers.

    Returns:
      A `ManyFits`: the fields of `hesskit.FitResult` with a leading axis; `result[i]` is one.

    Raises:
      TypeError: as in `hesskit.curve_fit`, or an axis is no int.
      ValueError: as in `hesskit.curve_fit`; nothing is batched, or numbers of fits differ.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> line = lambda p, x: p["a"] + p["b"] * x
      >>> x, slopes = jnp.arange(5.0), jnp.array([1.0, -2.0, 0.5])
      >>> ys = 1.0 + slopes[:, None] * x + 0.01 * jnp.cos(9 * x)
      >>> start = {"a": jnp.array(0.0), "b": jnp.array(0.0)}
      >>> fits = hesskit.curve_fit_many(line, x, ys, start, in_axes=(None, 0, None))
      >>> print([f"{b:.2f}" for b in fits.params["b"]], int(fits.num_success))
      ['1.00', '-2.00', '0.50'] 3
    """
    fit_model.check_signature(model, params)
    inputs.warn_float64((params, xdata, ydata, sigma))
    params = errors.check_params(params)
    check_fit(params, None, covariance, caller="curve_fit_many")
    batch = _data(xdata, ydata, params, sigma, in_axes)
    model = inputs.hashable(model)
    x, y, start, sd = problem(batch, 0)
    fit_model.check_output(model, start, x, y)
    if sigma is not None and not Data(x, y, sd).correlated:
        fit_inputs.check_sigma((batch.mine[3], batch.shared[3]))
    data, factor = _prepared(batch, sd is None and not absolute_sigma)
    weights = {} if data.sigma is None or factor is not None else {"residual_sigma": data.sigma}
    clean = jax.vmap(fit_inputs.without_dropped)(data) if factor is None else data.y
    both = _rearranged(batch, clean, factor, weights)
    fits = fit_many(
        Residuals(model),
        both,
        optimizer,
        lanes=lanes,
        caller="curve_fit_many",
        has_aux=False,
        fixed=fixed,
        bounds=bounds,
        loss=loss,
        scale=scale,
        absolute_sigma=absolute_sigma,
        covariance=covariance,
        gtol=gtol,
        ftol=ftol,
        xtol=xtol,
        max_steps=max_steps,
        check=check,
    )
    weight = jnp.ones(len(fits)) if not weights else data.sigma
    total = jax.vmap(total_of)(clean, weight, factor).astype(fits.chi2.dtype)
    data, shared = _with_x(data, batch)
    return dataclasses.replace(fits, model=model, data=data, total=total, shared=shared)


def _rearranged(batch: Batch, y: Any, factor: Any, weights: dict[str, Any]) -> Batch:
    """The batch of (params, args, data) as the residuals take them."""
    return Batch(
        (batch.mine[2], (batch.mine[0], y, factor), weights),
        (batch.shared[2], (batch.shared[0], None, None), dict.fromkeys(weights)),
    )


def _data(xdata: Any, ydata: Any, params: Params, sigma: Any, in_axes: Any) -> Batch:
    """The data as arrays, by axes: (xdata, ydata, params, sigma)."""
    y = jax.tree.map(fit_inputs.as_float, fit_inputs.as_arrays(ydata, name="ydata"))
    if isinstance(in_axes, (tuple, list)) and len(in_axes) == 3:
        in_axes = (*in_axes, None)
    return batched(
        {
            "xdata": None if xdata is None else fit_inputs.as_arrays(xdata, name="xdata"),
            "ydata": y,
            "params": params,
            "sigma": None if sigma is None else fit_inputs.as_sigma(sigma, y),
        },
        in_axes,
    )


def _with_x(data: Data, batch: Batch) -> tuple[Data, tuple[bool, ...]]:
    """The data with x, whose shared leaves stay single, and which leaves are."""
    x = select.merge(batch.shared[0], batch.mine[0])
    own = jax.tree.structure(x).flatten_up_to(batch.mine[0])
    data = data._replace(x=x)
    rest = len(jax.tree.leaves(data)) - len(own)
    return data, (*(leaf is None for leaf in own), *(False,) * rest)


@functools.partial(jax.jit, static_argnums=1)
def _prepared(batch: Batch, unknown: bool) -> tuple[Data, Array | None]:
    """The data of each fit without x, with a leading axis, and the factor of a covariance of y."""

    def one(mine: Any) -> tuple[Data, Array | None]:
        _, y, _, sigma = batch.whole(mine)
        if unknown:
            return Data(None, y, fit_inputs.unit(y)), None
        if sigma is None:
            return Data(None, y, None), None
        if Data(None, y, sigma).correlated:
            return Data(None, y, sigma), fit_inputs.cholesky(sigma, y)
        return Data(None, y, fit_inputs.deviations(sigma, y)), None

    num = batch.num()
    return jax.vmap(one, axis_size=num)(batch.mine)
