r"""Bands of a fitted model: where the curve lies, and where a new observation would.

At each point, with g the gradient of the model there, C the covariance of the parameters and q the
quantile at the level,

    model +- q sqrt(g'C g)              "confidence"                        (1)
    model +- q sqrt(g'C g + sigma^2)    "prediction"

Source: Bates & Watts (1988), Nonlinear Regression Analysis, section 2.3.2.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import errors, prefix, tree
from hesskit.core.types import Array, Params, Scalar
from hesskit.linalg.gram_inverse import row_norms
from hesskit.solvers import quantile
from hesskit.solvers.spread import Spread, free_jacobian, image


class Data(NamedTuple):
    """What a model was fitted to: `model(params, x)` to `y` with standard deviations `sigma`.

    `sigma` is a tree like y with () or full leaves, the covariance matrix of y, or None.
    """

    x: Any
    y: Any
    sigma: Any

    @property
    def correlated(self) -> bool:
        """Whether sigma is the covariance matrix of y."""
        return getattr(self.sigma, "ndim", 0) == 2 and getattr(self.y, "ndim", 0) == 1


class Band(NamedTuple):
    """The model and its limits, three trees like the model's output."""

    value: Any
    lower: Any
    upper: Any


def noise(data: Data, given: Any, *, at_data: bool) -> Any:
    """The standard deviations of new observations, before the scale: a prefix tree of the output.

    Args:
      data: of the fit.
      given: those that the user gave, or None.
      at_data: whether the new points are those of the fit.

    Returns:
      Numbers or arrays.

    Raises:
      ValueError: they differ from point to point and are not given for these.
    """
    if given is not None:
        return given
    if data.sigma is None:
        return 1.0
    if all(jnp.ndim(leaf) == 0 for leaf in jax.tree.leaves(data.sigma)):
        return data.sigma
    if not at_data:
        raise ValueError(
            "sigma differs from point to point, so that of the new points must be given: "
            'band(x, kind="prediction", sigma=...)'
        )
    return jnp.sqrt(jnp.diagonal(data.sigma)) if data.correlated else data.sigma


@functools.partial(jax.jit, static_argnames=("model", "fixed"))
def band(
    params: Params,
    spread: Spread,
    x: Any,
    level: Scalar,
    *,
    model: Callable[..., Any],
    fixed: tuple[bool, ...],
    sigma: Any,
    scale: Array,
    dof: Array | None,
) -> Band:
    """The band (1) of `model(params, x)`.

    Args:
      params: the estimate.
      spread: the distribution about it.
      x: where.
      level: the share of such intervals that hold the truth.
      model: `model(params, x)`, static.
      fixed: which leaves of params are held.
      sigma: of a new observation, a prefix tree of the output; None means a confidence band.
      scale: what sigma is multiplied by, ().
      dof: of Student's t, (); None means the normal distribution.

    Returns:
      A `Band`, NaN where the model depends on what is not determined.

    Raises:
      TypeError: the model's output is complex.
    """

    def curve(point: Params) -> Any:
        with errors.calling("model", point, "band"):
            out = model(point, x)
        if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(out)):
            raise TypeError(
                "band needs a model of real outputs; for the parts of a complex one take "
                "fit.derived(lambda params: model(params, x).real), and .imag"
            )
        return out

    value, rows = free_jacobian(curve, params, fixed)
    size = row_norms(image(rows, spread))
    if sigma is not None:
        new = tree.ravel(prefix.fill(sigma, value, name="sigma")).astype(size.dtype)
        size = jnp.hypot(size, scale.astype(size.dtype) * new)
    if dof is None:
        q = quantile.normal(level, size.dtype)
    else:
        q = quantile.student(level, dof, size.dtype)
    half = tree.unravel(q * size, value)
    return Band(value, tree.sub(value, half), tree.add(value, half))
