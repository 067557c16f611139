r"""Curve fits: the parameters of a model of data, with their errors.

    minimize  1/2 sum_i scale^2 rho(((model(p, x_i) - y_i) / (sigma_i scale))^2)  over p      (1)

The residuals are one function of params and data, equal for equal models, so that other data of
the same shapes compile nothing. A covariance matrix of y, K = L L', turns them into L^{-1} r.

Source: Bates & Watts (1988), Nonlinear Regression Analysis; scipy.optimize.curve_fit.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hesskit.core import errors, objective, prefix, tree
from hesskit.core.terms import ByParts
from hesskit.core.types import Array, Params, Scalar
from hesskit.solvers import fit_inputs, fit_model, inputs
from hesskit.solvers.band import Data
from hesskit.solvers.call import MAX_STEPS
from hesskit.solvers.fit_result import FitResult
from hesskit.solvers.least_squares import least_squares
from hesskit.solvers.progress import Progress

_MISSING: Any = object()


@dataclasses.dataclass(frozen=True, eq=False)
class Residuals(ByParts):
    """Model less data; with a factor L of the covariance of the data, L^{-1} of it.

    Attributes:
      model: `model(params, x)`.
    """

    model: Callable[..., Any]

    def __call__(self, params: Params, x: Any, y: Any, factor: Array | None) -> Any:
        """The residuals, like y."""
        out = fit_model.evaluate(self.model, params, x)
        r = jax.tree.map(lambda a, b: a - b.astype(a.dtype), out, y)
        return r if factor is None else _whiten(factor, r)


def _whiten(factor: Array, r: Array) -> Array:
    return jax.scipy.linalg.solve_triangular(factor.astype(r.dtype), r, lower=True)


@jax.jit
def total_of(y: Any, sigma: Any, factor: Array | None) -> Array:
    """The sum of squares of the data about the weighted mean of each leaf, over sigma^2."""

    def squares(leaf: Array, sd: Array) -> Array:
        unit, scaled = (
            r / sd.astype(r.dtype) if factor is None else _whiten(factor, r)
            for r in (jnp.ones_like(leaf), leaf)
        )
        unit /= jnp.max(jnp.abs(unit))  # squares are to be numbers, whatever sigma is
        mean = jnp.sum(unit * scaled) / jnp.sum(unit * unit)
        return jnp.sum((scaled - unit * mean) ** 2)

    found = []
    full = prefix.fill(sigma, y, name="sigma")
    for leaf, sd in zip(jax.tree.leaves(y), jax.tree.leaves(full), strict=True):
        parts = (leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,)
        found += [squares(part, sd) for part in tree.widen(parts)]
    dtype = tree.widest(*(a.dtype for a in found))
    return functools.reduce(operator.add, (a.astype(dtype) for a in found))


def curve_fit(
    model: Callable[..., Any],
    xdata: Any,
    ydata: Any,
    params: Params = _MISSING,
    *,
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
    state: Any = None,
    callback: Callable[[Progress], Any] | None = None,
    history: bool | str = False,
    progress: bool = False,
    **_other: Any,
) -> FitResult:
    r"""The parameters of a model that fit data best, with errors; `print` the answer.

    Least squares of (model(params, xdata) - ydata) / sigma by `hesskit.least_squares`. Unlike
    SciPy's, the model takes all its parameters first, as one pytree, and the start is needed.
    A second fit of the same model to data of the same shapes compiles nothing; for fits of many
    data sets at once there is `hesskit.curve_fit_many`. Parameters and their
    errors are differentiable in xdata, ydata and sigma (see `hesskit.minimize`).

    Args:
      model: `model(params, xdata) -> ` a pytree of float arrays like `ydata`.
      xdata: any pytree of arrays, or None for a model that knows its own.
      ydata: a pytree of arrays, real or complex.
      params: the start, a pytree of real float arrays.
      sigma: standard deviations of ydata: a number, or a prefix tree of ydata with numbers and
        arrays; inf drops a point, also from dof (it may then be NaN). For ydata of shape (m,) also
        its covariance matrix, (m, m). None means one unknown number for all: chi2 is that of sigma
        = 1, or of a power of two near the largest |ydata| if the dtype could not hold its squares.
      absolute_sigma: whether `sigma` is in the unit of ydata. False takes it as relative and
        scales the errors by sqrt(chi2 / dof), as SciPy does by default.
      covariance: "gauss_newton", or "sandwich", which asks neither for the right sigma nor for the
        right loss, as in `hesskit.least_squares`.
      fixed: leaves to hold: a prefix tree of bools, a path ("bg/b", "peak/*") or a list of paths,
        or `f(path, leaf) -> bool`; their standard errors are 0.
      bounds: `(lower, upper)`, each a number, None or a prefix tree of params, or a dict from paths
        to pairs, `{"peak/width": (0, None)}`. The standard error of an entry at a bound is NaN.
      loss: "linear", or for outliers "huber", "soft_l1", "cauchy", "arctan", or rho(z) itself, as
        in `hesskit.least_squares`.
      scale: the size of a residual over sigma at which an outlier begins (SciPy's `f_scale`).
      optimizer: any optax transformation; None chooses `hesskit.levenberg_marquardt()`.
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
      A `FitResult`: `params`, `standard_errors`, `covariance`, `band(x)`, `sample`, `derived`...

    Raises:
      TypeError: an argument of the wrong kind; a model that takes its parameters one by one.
      ValueError: an argument out of its range, a model's output unlike ydata, data that are not
        finite or a sigma that is not positive (with the first index).

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> line = lambda p, x: p["a"] + p["b"] * x
      >>> x, y = jnp.arange(5.0), jnp.array([1.1, 2.9, 5.2, 6.8, 9.1])
      >>> fit = hesskit.curve_fit(line, x, y, {"a": 0.0, "b": 0.0})
      >>> print(f"{fit.params['b']:.3f} +- {fit.standard_errors['b']:.3f}")
      1.990 +- 0.060

    References:
      Bates & Watts (1988), Nonlinear Regression Analysis and Its Applications, chapter 2.
    """
    fit_inputs.check_names(_other)
    if params is _MISSING:
        raise TypeError("curve_fit needs the start: curve_fit(model, xdata, ydata, params)")
    fit_model.check_signature(model, params)
    params, data, factor = _prepared(params, xdata, ydata, sigma)
    if sigma is None and not absolute_sigma:
        data = data._replace(sigma=fit_inputs.unit(data.y))
    model = inputs.hashable(model)
    fit_model.check_output(model, params, data.x, data.y)
    correlated = factor is not None
    fit = least_squares(
        Residuals(model),
        params,
        optimizer,
        args=(data.x, fit_inputs.without_dropped(data), factor),
        fixed=fixed,
        bounds=bounds,
        loss=loss,
        scale=scale,
        sigma=None if correlated else data.sigma,
        absolute_sigma=absolute_sigma,
        covariance=covariance,
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
    weight = 1.0 if correlated or data.sigma is None else data.sigma
    total = total_of(fit_inputs.without_dropped(data), weight, factor).astype(fit.chi2.dtype)
    return dataclasses.replace(fit, model=model, data=data, total=total)


def _prepared(
    params: Params, xdata: Any, ydata: Any, sigma: Any
) -> tuple[Params, Data, Array | None]:
    """Start and data checked, and the Cholesky factor of sigma if that is a covariance matrix."""
    inputs.warn_float64((params, xdata, ydata, sigma))
    params = errors.check_params(params)
    if objective.is_complex(params):
        raise TypeError(
            "curve_fit needs real params, for they have errors; make real and imaginary parts two "
            "leaves: model(p, x) with jax.lax.complex(p['re'], p['im']) inside"
        )
    x = None if xdata is None else fit_inputs.as_arrays(xdata, name="xdata")
    y = jax.tree.map(fit_inputs.as_float, fit_inputs.as_arrays(ydata, name="ydata"))
    fit_inputs.check_finite(x, name="xdata", hint="; leave the point out")
    factor = None
    if sigma is not None:
        sigma = fit_inputs.as_sigma(sigma, y)
        if Data(x, y, sigma).correlated:
            factor = fit_inputs.cholesky(sigma, y)
        else:
            sigma = fit_inputs.deviations(sigma, y)
    data = Data(x, y, sigma)
    fit_inputs.check_finite(
        fit_inputs.without_dropped(data),
        name="ydata",
        hint="; leave the point out, or give it sigma=inf",
    )
    return params, data, factor
