"""The way of an optimizer through params, read from its history and drawn in a plane."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from hesskit.core.entries import as_rows, entry_names
from hesskit.plots._axes import COLORS, MARKERS

MANY = 60
"""Points from which only the ends are marked."""


class Path(NamedTuple):
    """One run.

    Attributes:
      label: its name.
      names: of the entries, n of them.
      points: the start first, (rows, n).
    """

    label: str
    names: tuple[str, ...]
    points: np.ndarray


def paths_of(runs: Any) -> list[Path]:
    """The paths of one run, of several, or of a dict of them by name.

    Args:
      runs: what a solver returned with history="params", or an array (rows, n) of points; a list or
        a dict of these.

    Returns:
      A `Path` of each.

    Raises:
      TypeError: something else than a result.
      ValueError: a run has no path or is a batch; there is none.
    """
    if isinstance(runs, Mapping):
        named = [(str(name), run) for name, run in runs.items()]
    else:
        one = hasattr(runs, "history") or getattr(runs, "ndim", 0) == 2
        items = [runs] if one else list(runs)
        named = [(str(getattr(run, "method", f"r{i + 1}")), run) for i, run in enumerate(items)]
    if not named:
        raise ValueError("there is no path to draw")
    known = isinstance(runs, Mapping)
    return [
        _path(run, name, f"r{i + 1}", f" (r{i + 1} is {name!r})" if known else "")
        for i, (name, run) in enumerate(named)
    ]


def _path(run: Any, name: str, who: str, which: str) -> Path:
    if hasattr(run, "history"):
        history = run.history
        if history is None or history.params is None:
            raise ValueError(f"{who} has no path: rerun with history='params'{which}")
        if np.ndim(history.length) != 0:
            raise ValueError(
                f"{who} is a batch; plot one of it: jax.tree.map(lambda a: a[0], result){which}"
            )
        points = np.asarray(as_rows(history.params), float)[: int(history.length)]
        return Path(name, entry_names(run.params), points)
    if getattr(run, "ndim", 0) != 2:
        raise TypeError(
            f"{who} is {type(run).__name__}; pass what hesskit.minimize returns with "
            f"history='params', or points of shape (rows, n){which}"
        )
    points = np.asarray(run, float)
    return Path(name, tuple(f"[{i}]" for i in range(points.shape[1])), points)


def draw(ax: Axes, paths: list[Path]) -> None:
    """Each path of two entries as a line with markers: a hollow one at its start.

    Args:
      ax: where.
      paths: of points (rows, 2).
    """
    for i, path in enumerate(paths):
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        every = None if len(path.points) <= MANY else [len(path.points) - 1]
        (line,) = ax.plot(
            *path.points.T, color=color, marker=marker, markersize=4, linewidth=1.5, zorder=3 + i
        )
        line.set_label(path.label)
        line.set_markevery(every)
        ax.plot(
            *path.points[0], marker, color=color, markerfacecolor="white", markersize=7, zorder=9
        )
