"""Fits with a known answer: straight lines, whose errors have a closed form."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from hesskit.core.status import Status
from hesskit.solvers.band import Data
from hesskit.solvers.fit_result import FitResult, fit_result
from hesskit.solvers.result import Result

X = np.linspace(0.0, 2.0, 12)
Y = 1.5 + 0.8 * X + 0.1 * np.random.default_rng(0).normal(size=12)
SIGMA = np.linspace(0.1, 0.3, 12)


def line(params, x):
    return params["a"] + params["b"] * x


def result_of(params, value=0.0) -> Result:
    """An answer of a solver with these params."""
    one = jnp.ones((), jnp.int32)
    params = jax.tree.map(jnp.asarray, params)
    value = jnp.asarray(value, jnp.result_type(jax.tree.leaves(params)[0]))
    return Result(
        params=params,
        value=value,
        grad_norm=jnp.full_like(value, 1e-7),
        status=one * Status.GRADIENT_TOL,
        stationary=jnp.array(True),
        num_steps=7 * one,
        num_values=8 * one,
        num_grads=8 * one,
        num_products=9 * one,
        aux=None,
        history=None,
        state=None,
        method="levenberg_marquardt",
    )


def closed_form(x, y, sigma):
    """Parameters and (X'X)^{-1} of a line through y with these deviations, and chi2, by numpy."""
    rows = np.stack([np.ones_like(x), x], axis=1) / np.broadcast_to(sigma, y.shape)[:, None]
    inverse = np.linalg.inv(rows.T @ rows)
    params = inverse @ rows.T @ (y / sigma)
    return params, inverse, float(np.sum((y / sigma - rows @ params) ** 2)), rows


def straight_line(
    dtype="float32", *, sigma=SIGMA, absolute_sigma=False, with_model=True, **kwargs
) -> FitResult:
    """The fit of a line to X and Y, made by hand."""
    params, _, chi2, rows = closed_form(X, Y, sigma)
    a, b = (jnp.asarray(p, dtype) for p in params)
    fit = fit_result(
        result_of({"a": a, "b": b}, chi2 / 2),
        jnp.asarray(rows, dtype),
        chi2=jnp.asarray(chi2, dtype),
        num_residuals=X.size,
        absolute_sigma=absolute_sigma,
        **kwargs,
    )
    if not with_model:
        return fit
    x, y, sigma = (jnp.asarray(part, dtype) for part in (X, Y, sigma))
    mean = np.average(Y, weights=np.broadcast_to(SIGMA, Y.shape) ** -2.0)
    total = jnp.asarray(np.sum(((Y - mean) / SIGMA) ** 2), dtype)
    return dataclasses.replace(fit, model=line, data=Data(x, y, sigma), total=total)
