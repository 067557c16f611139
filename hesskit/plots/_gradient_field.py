"""The gradient of a function of two numbers as arrows."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm

from hesskit.core.slices import on_slice
from hesskit.plots._axes import grid, one_axes

SHADES = LinearSegmentedColormap.from_list("blues", ["#7cc0ea", "#08243f"])
"""Darker is steeper, and nothing is too pale for paper."""


def gradient_field(
    value_fn: Callable[..., Any],
    ax: Axes | None = None,
    *,
    xlim: tuple[float, float] = (-2.0, 2.0),
    ylim: tuple[float, float] = (-2.0, 2.0),
    args: Any = (),
    num: int = 20,
    unit: bool = False,
) -> Axes:
    """The gradient on a grid: arrows point uphill, their color is its norm.

    Args:
      value_fn: `value_fn(p, ...) -> ()` of p, (2,).
      ax: where; None makes a new figure.
      xlim: the ends of the first axis.
      ylim: those of the second.
      args: data for `value_fn`.
      num: arrows along an axis.
      unit: all arrows have one length and the color is logarithmic, for very different norms.

    Returns:
      The Axes.

    Raises:
      TypeError: `value_fn` takes more than one argument, or its value is no float.
      ValueError: the value is no scalar, `xlim` or `ylim` no interval.

    Example:
      >>> import hesskit.plots
      >>> ax = hesskit.plots.gradient_field(lambda p: p[0] ** 2 - p[1] ** 2, num=30)
      >>> ax.collections[0].N
      900
    """
    where = grid(xlim, ylim, num)
    found = on_slice(
        value_fn,
        np.zeros(2),
        np.eye(2),
        coefficients=where.points,
        args=args,
        order=1,
        caller="plots.gradient_field",
    )
    arrows = np.asarray(found.slopes, float)
    arrows = np.where(np.isfinite(arrows), arrows, 0)
    norms = np.linalg.norm(arrows, axis=1)
    style: dict[str, Any] = {"cmap": SHADES, "pivot": "middle", "angles": "xy", "width": 0.004}
    if unit:
        arrows = arrows / np.where(norms > 0, norms, 1)[:, None]
    if not norms.any():
        style["scale"] = 1.0  # matplotlib finds none where all arrows are zero
    elif unit:
        style["norm"] = LogNorm(clip=True)
        norms = np.ma.masked_less_equal(norms, 0)
    ax = one_axes(ax)
    drawn = ax.quiver(*where.points.T, *arrows.T, norms, **style)
    ax.set(xlabel="x", ylabel="y")
    ax.figure.colorbar(drawn, ax=ax, label="norm of the gradient")
    return ax
