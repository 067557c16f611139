"""A function of one number, where it curves up and where down, and its second derivative."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hesskit.core.slices import on_slice
from hesskit.plots._axes import DATA, DOWN, UP, limits, number, one_axes

POINTS = 401
REACH = 0.25
"""The parabola goes so far to either side, as a share of the axis."""


def curvature_1d(
    value_fn: Callable[..., Any],
    ax: Axes | None = None,
    *,
    xlim: tuple[float, float] = (-2.0, 2.0),
    args: Any = (),
    at: float | None = None,
) -> Axes:
    """The curve of a function of one number with the parabola that touches it at a point.

    Solid blue where the second derivative is positive, dashed orange where it is negative.

    Args:
      value_fn: `value_fn(x, ...) -> ()` of x, ().
      ax: where; None makes a new figure.
      xlim: the ends of the axis.
      args: data for `value_fn`.
      at: the point; None means the middle.

    Returns:
      The Axes.

    Raises:
      TypeError: `value_fn` takes more than one argument, or its value is no float.
      ValueError: its value is no scalar, `xlim` no interval.

    Example:
      >>> import hesskit.plots
      >>> ax = hesskit.plots.curvature_1d(lambda x: -(x**2))
      >>> print(ax.get_legend_handles_labels()[1])
      ['curves down', 'f″(0) = −2']
    """
    low, high = limits(xlim, name="xlim")
    place = (low + high) / 2 if at is None else float(at)
    x = np.append(np.linspace(low, high, POINTS), place)
    found = on_slice(
        value_fn,
        np.zeros(()),
        np.ones(1),
        coefficients=x[:, None],
        args=args,
        order=2,
        caller="plots.curvature_1d",
    )
    values, slopes, bends = (np.asarray(part, float).reshape(-1) for part in found)
    ax = one_axes(ax)
    signs = _signs(bends[:-1])
    for label, sign, color, style in (
        ("curves up", 1, UP, "-"),
        ("curves down", -1, DOWN, "--"),
        ("straight", 0, DATA, ":"),
    ):
        if (signs == sign).any():
            # a step further, so that neighbors touch
            mine = (signs == sign) | (np.append(signs[1:], np.nan) == sign)
            shown = np.where(mine, values[:-1], np.nan)
            ax.plot(x[:-1], shown, color=color, linestyle=style, linewidth=2, label=label)
    h = np.linspace(-1, 1, 101) * REACH * (high - low)
    touching = values[-1] + slopes[-1] * h + bends[-1] * h * h / 2
    label = f"f″({number(place)}) = {number(bends[-1])}"
    frame = ax.get_ylim()
    ax.plot(place + h, touching, color=DATA, linewidth=5, alpha=0.25, label=label)
    ax.plot(place, values[-1], "o", color=DATA, markersize=5)
    ax.set_ylim(*frame)
    ax.set_xlim(low, high)
    ax.set_xlabel("x")
    ax.set_ylabel("f(x)")
    ax.legend()
    return ax


def _signs(bends: np.ndarray) -> np.ndarray:
    """Signs; a single zero between others goes with the one before."""
    signs = np.sign(bends)
    alone = (signs[1:-1] == 0) & (signs[:-2] != 0) & (signs[2:] != 0)
    signs[1:-1] = np.where(alone, signs[:-2], signs[1:-1])
    return signs
