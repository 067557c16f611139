"""What the plots share: Axes when none is given, and one fit read by field name."""

from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from hesskit.core.entries import as_vector

CURVE = "#1f5a99"
"""The color of what was fitted."""
DATA = "#333333"
"""The color of what was measured."""
SAMPLES = "#8a8a8a"
"""The color of draws."""


def one_axes(ax: Any) -> Axes:
    """`ax`, or the only Axes of a new figure.

    Args:
      ax: an Axes or None.

    Returns:
      An Axes.

    Raises:
      TypeError: `ax` is something else, such as an array of Axes.
    """
    if ax is None:
        return plt.subplots(layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be a matplotlib Axes or None, got {type(ax).__name__}")
    return ax


def single(result: Any) -> None:
    """Raises ValueError if `result` is a batch, TypeError if it has no errors."""
    if not hasattr(result, "covariance"):
        raise TypeError(
            f"{type(result).__name__} has no covariance; plot what hesskit.curve_fit, "
            "hesskit.least_squares or hesskit.laplace returns"
        )
    if np.ndim(result.spread.at_bound) != 1:
        raise ValueError(
            "the result is a batch; plot one of it: jax.tree.map(lambda a: a[0], result)"
        )


class Estimate(NamedTuple):
    """The entries of an answer that have a standard error, k of them.

    Attributes:
      names: their paths.
      places: which entries of params they are, (k,).
      mean: their values, (k,).
      errors: their standard errors, (k,).
      correlation: (k, k).
    """

    names: list[str]
    places: np.ndarray
    mean: np.ndarray
    errors: np.ndarray
    correlation: np.ndarray


def estimate(result: Any) -> Estimate:
    """Center, errors and correlations of a fit or a Laplace approximation.

    Args:
      result: what `curve_fit`, `least_squares` or `laplace` returned.

    Returns:
      An `Estimate` of the entries that are neither fixed nor without a standard error.

    Raises:
      ValueError: there is none; or `result` is a batch.
    """
    single(result)
    errors = np.asarray(as_vector(result.standard_errors), float)
    places = np.flatnonzero(np.isfinite(errors) & (errors > 0))
    if not places.size:
        raise ValueError("no parameter has a standard error; print(result) says why")
    center = result.mean if hasattr(result, "mean") else result.params
    return Estimate(
        names=[result.names[i] for i in places],
        places=places,
        mean=np.asarray(as_vector(center), float)[places],
        errors=errors[places],
        correlation=np.asarray(result.correlation, float)[np.ix_(places, places)],
    )
