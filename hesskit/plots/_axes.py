"""What the plots share: Axes when none is given, colors, and one fit read by field name."""

from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from hesskit.core.entries import as_vector
from hesskit.core.errors import check_count

CURVE = "#1f5a99"
"""The color of what was fitted."""
DATA = "#333333"
"""The color of what was measured."""
SAMPLES = "#8a8a8a"
"""The color of draws."""
UP = "#0072B2"
"""The color of positive curvature."""
DOWN = "#D55E00"
"""The color of negative curvature."""
COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""One a run, told apart by the color-blind (Okabe & Ito 2008); markers tell them apart in print."""
MARKERS = "os^Dv*"


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


def axes_3d(ax: Any) -> Any:
    """`ax`, or the only Axes of a new figure in three dimensions.

    Args:
      ax: an Axes with projection="3d" or None.

    Returns:
      An Axes in three dimensions.

    Raises:
      TypeError: `ax` is something else.
      ValueError: `ax` has two dimensions.
    """
    if ax is None:
        return plt.figure(layout="constrained").add_subplot(projection="3d")
    if not hasattr(one_axes(ax), "plot_surface"):
        raise ValueError(
            "ax has two dimensions; a surface needs three: use fig.add_subplot(projection='3d')"
        )
    return ax


def number(value: Any, digits: int = 4) -> str:
    """A number as a label shows it, -0 as 0."""
    return f"{float(value) + 0.0:.{digits}g}".replace("-", "−")


def limits(value: Any, *, name: str) -> tuple[float, float]:
    """(low, high) of an axis; ValueError if it is something else."""
    ends = np.asarray(value, float)
    if ends.shape != (2,) or not np.isfinite(ends).all() or ends[0] >= ends[1]:
        raise ValueError(f"{name} must be (low, high) with low < high, got {value!r}")
    return float(ends[0]), float(ends[1])


class Grid(NamedTuple):
    """Points of a rectangle.

    Attributes:
      x: (num,).
      y: (num,).
      points: (num * num, 2), y outermost, as `reshape(num, num)` and matplotlib want it.
    """

    x: np.ndarray
    y: np.ndarray
    points: np.ndarray


def grid(xlim: Any, ylim: Any, num: int) -> Grid:
    """num x num points of a rectangle, its edges included."""
    check_count(num, name="num", low=2)
    x = np.linspace(*limits(xlim, name="xlim"), num)
    y = np.linspace(*limits(ylim, name="ylim"), num)
    return Grid(x, y, np.stack([np.tile(x, num), np.repeat(y, num)], axis=1))


def level_curves(ax: Axes, at: Grid, values: np.ndarray, levels: Any) -> None:
    """Pale fields between curves of equal value.

    Args:
      ax: where.
      at: the points.
      values: (num * num,); what is not finite stays blank.
      levels: how many, or the values themselves. A number means levels that split the area: dense
        at the lowest and the highest, and the same for f as for a growing function of f.
    """
    z = np.ma.masked_invalid(values.reshape(at.y.size, at.x.size))
    if np.ndim(levels) == 0:
        check_count(levels, name="levels")
        s = np.linspace(0, 1, int(levels) + 2)[1:-1]
        seen = z.compressed()
        levels = np.unique(np.quantile(seen, s * s * (3 - 2 * s))) if seen.size else ()
    levels = np.asarray(levels, float)
    if not levels.size or not z.count() or z.min() == z.max():
        return
    edges = np.unique(
        np.concatenate([[min(z.min(), levels[0])], levels, [max(z.max(), levels[-1])]])
    )
    shades = LinearSegmentedColormap.from_list("pale", ["#c9d8e8", "#ffffff"])
    bands = [shades(i / max(edges.size - 2, 1)) for i in range(edges.size - 1)]
    ax.contourf(at.x, at.y, z, levels=edges, colors=bands)
    ax.contour(at.x, at.y, z, levels=levels, colors="#6c7a89", linewidths=0.7, linestyles="solid")


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
