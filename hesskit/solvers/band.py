r"""Bands of a fitted model: where the curve lies, and where a new observation would.

At each point, with g the gradient of the model there, C the covariance of the parameters and q the
quantile at the level,

    model +- q sqrt(g'C g)              "confidence"                        (1)
    model +- q sqrt(g'C g + sigma^2)    "prediction"

A complex model has a band of its real part and one of its imaginary part.

Source: Bates & Watts (1988), Nonlinear Regression Analysis, section 2.3.2.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import errors, objective, prefix, tree
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
    """The model and its limits, three trees like the model's output.

    Of a complex output the limits are those of its real part + i times those of its imaginary part.
    """

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
    """

    def curve(point: Params) -> Any:
        with errors.calling("model", point, "band"):
            return model(point, x)

    like = jax.eval_shape(curve, params)
    value, rows = free_jacobian(lambda point: objective.split(curve(point)), params, fixed)
    size = row_norms(image(rows, spread))
    if sigma is not None:
        each = _of_parts(prefix.fill(sigma, like, name="sigma"), like)
        new = tree.ravel(each).astype(size.dtype)
        size = jnp.hypot(size, scale.astype(size.dtype) * new)
    if dof is None:
        q = quantile.normal(level, size.dtype)
    else:
        q = quantile.student(level, dof, size.dtype)
    half = tree.unravel(q * size, value)
    limits = value, tree.sub(value, half), tree.add(value, half)
    return Band(*(objective.join(part, like) for part in limits))


def _of_parts(sigma: Any, like: Any) -> Any:
    """Deviations like an output, for its real and imaginary parts where it is complex."""
    return jax.tree.map(lambda s, a: jnp.stack([s, s]) if jnp.iscomplexobj(a) else s, sigma, like)
