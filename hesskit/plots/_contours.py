"""Curves of equal value of a function of two numbers, with the paths of optimizers."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hesskit.core.slices import on_slice
from hesskit.plots._axes import grid, level_curves, one_axes
from hesskit.plots._paths import Path, draw, paths_of

BOX = (-2.0, 2.0)
MARGIN = 0.15
"""Around paths, as a share of their extent."""


def contours(
    value_fn: Callable[..., Any],
    ax: Axes | None = None,
    *,
    paths: Any = None,
    xlim: tuple[float, float] | None = None,
    ylim: tuple[float, float] | None = None,
    args: Any = (),
    levels: Any = 14,
    num: int = 151,
) -> Axes:
    """Curves of equal value, lower in darker fields, and how optimizers went.

    A path begins at its hollow marker.

    Args:
      value_fn: `value_fn(p, ...) -> ()` of p, (2,).
      ax: where; None makes a new figure.
      paths: runs by name, `{"GD": r1, "Newton": r2}`, of `hesskit.minimize(..., history="params")`
        or points (rows, 2); or one of them, or a list.
      xlim: the ends of the first axis; None means what holds the paths, or (-2, 2).
      ylim: those of the second.
      args: data for `value_fn`.
      levels: the values that have a curve, or how many: then they split the area, dense about the
        lowest and the highest.
      num: points along an axis.

    Returns:
      The Axes.

    Raises:
      TypeError: `value_fn` takes more than one argument, its value is no float, a path is no run.
      ValueError: a run has no path or no two entries, the value is no scalar, no interval.

    Example:
      >>> import jax.numpy as jnp, hesskit, hesskit.plots
      >>> bowl = lambda p: p[0] ** 2 + 4 * p[1] ** 2
      >>> run = hesskit.minimize(bowl, jnp.ones(2), hesskit.newton(), history="params")
      >>> ax = hesskit.plots.contours(bowl, paths={"Newton": run})
      >>> print(ax.get_legend_handles_labels()[1])
      ['Newton']
    """
    runs = [] if paths is None else paths_of(paths)
    for i, run in enumerate(runs):
        if run.points.shape[1] != 2:
            raise ValueError(
                f"r{i + 1} has {run.points.shape[1]} entries, contours two; plots.trajectory "
                "draws others"
            )
    where = grid(_span(xlim, runs, 0), _span(ylim, runs, 1), num)
    found = on_slice(
        value_fn,
        np.zeros(2),
        np.eye(2),
        coefficients=where.points,
        args=args,
        caller="plots.contours",
    )
    ax = one_axes(ax)
    level_curves(ax, where, np.asarray(found.values, float), levels)
    draw(ax, runs)
    ax.set(xlabel="x", ylabel="y", xlim=where.x[[0, -1]], ylim=where.y[[0, -1]])
    if runs:
        ax.legend()
    return ax


def _span(given: Any, runs: list[Path], entry: int) -> Any:
    """The given limits, or what holds the finite points of all runs."""
    if given is not None or not runs:
        return BOX if given is None else given
    seen = np.concatenate([run.points[:, entry] for run in runs])
    seen = seen[np.isfinite(seen)]
    if not seen.size:
        return BOX
    reach = MARGIN * (seen.max() - seen.min()) or 1.0
    return seen.min() - reach, seen.max() + reach
