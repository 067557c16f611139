"""The graph of a function of two numbers, with its second derivatives at a point."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from hesskit.core.slices import on_slice
from hesskit.plots._axes import DATA, DOWN, UP, axes_3d, grid, number


def surface(
    value_fn: Callable[..., Any],
    ax: Any = None,
    *,
    xlim: tuple[float, float] = (-2.0, 2.0),
    ylim: tuple[float, float] = (-2.0, 2.0),
    args: Any = (),
    at: Any = None,
    num: int = 61,
) -> Any:
    """The surface z = f(x, y), with two curves through a point and the second derivatives there.

    The curve along x is solid, along y dashed; blue where it curves up, orange where down.

    Args:
      value_fn: `value_fn(p, ...) -> ()` of p, (2,).
      ax: where, with projection="3d"; None makes a new figure.
      xlim: the ends of the first axis.
      ylim: those of the second.
      args: data for `value_fn`.
      at: the point, (2,); None means the middle.
      num: points along an axis.

    Returns:
      The Axes, in three dimensions.

    Raises:
      TypeError: `value_fn` takes more than one argument, or its value is no float.
      ValueError: `ax` has two dimensions, the value is no scalar, `xlim` or `ylim` no interval.

    Example:
      >>> import hesskit.plots
      >>> ax = hesskit.plots.surface(lambda p: p[0] ** 2 - p[1] ** 2)
      >>> print(ax.get_legend_handles_labels()[1])
      ['∂²f/∂x² = 2', '∂²f/∂y² = −2', '∂²f/∂x∂y = 0 at (0, 0)']
    """
    where = grid(xlim, ylim, num)
    middle = (np.mean(where.x[[0, -1]]), np.mean(where.y[[0, -1]]))
    point = np.asarray(middle if at is None else at, float)
    if point.shape != (2,):
        raise ValueError(f"at must be a point (x, y), got {at!r}")
    given: dict[str, Any] = {"args": args, "caller": "plots.surface"}
    along_x = np.stack([where.x, np.full(num, point[1])], axis=1)
    along_y = np.stack([np.full(num, point[0]), where.y], axis=1)
    points = np.concatenate([where.points, along_x, along_y, point[None]])
    found = on_slice(value_fn, np.zeros(2), np.eye(2), coefficients=points, **given)
    bends = on_slice(
        value_fn, np.zeros(2), np.eye(2), coefficients=point[None], order=2, **given
    ).bends
    values, bend = np.asarray(found.values, float), np.asarray(bends, float)[0]
    ax = axes_3d(ax)
    z = np.where(np.isfinite(values), values, np.nan)
    x, y = (where.points[:, i].reshape(num, num) for i in (0, 1))
    ax.plot_surface(
        x, y, z[: num * num].reshape(num, num), cmap="cividis", alpha=0.6, linewidth=0, zorder=1
    )
    curves = (z[num * num : -1 - num], z[-1 - num : -1])
    for name, style, line, height, value in (
        ("∂²f/∂x²", "-", along_x, curves[0], bend[0, 0]),
        ("∂²f/∂y²", "--", along_y, curves[1], bend[1, 1]),
    ):
        look: dict[str, Any] = {
            "color": UP if value >= 0 else DOWN,
            "linestyle": style,
            "linewidth": 2.2,
        }
        ax.plot(*line.T, height, label=f"{name} = {number(value)}", zorder=5, **look)
    label = f"∂²f/∂x∂y = {number(bend[0, 1])} at ({number(point[0])}, {number(point[1])})"
    ax.plot(*point[:, None], z[-1:], "o", color=DATA, markersize=6, label=label, zorder=6)
    ax.set(xlabel="x", ylabel="y", zlabel="f", xlim=xlim, ylim=ylim)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    # Below: wherever it stood inside, it would hide a corner of some surface.
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.03), ncols=2, frameon=False)
    return ax
