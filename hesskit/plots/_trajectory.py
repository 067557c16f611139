r"""The path of an optimizer through any params: two entries of it, or its two main directions.

The main directions are the leading right singular vectors of the points less their mean.

Source: Li, Xu, Taylor, Studer & Goldstein (2018), Visualizing the loss landscape of neural nets.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hesskit.plots._axes import one_axes
from hesskit.plots._paths import Path, draw, paths_of


def trajectory(
    results: Any, ax: Axes | None = None, *, entries: Sequence[str] | None = None
) -> Axes:
    """The path of params, from its hollow marker on.

    Params of two entries are drawn as they are; of more, the displacement along the two directions
    that hold most of all paths together, with the share of it that each holds.

    Args:
      results: what a solver returned with history="params", points (rows, n), or several of these
        in a list or in a dict by name. Runs of one picture have params of one form.
      ax: where, perhaps over a picture that is there; None makes a new figure.
      entries: the names of two entries to draw, as "w[0]" or "bg/b".

    Returns:
      The Axes.

    Raises:
      TypeError: something else than a result.
      ValueError: a run has no path, runs differ in entries, `entries` are no two of them.

    Example:
      >>> import jax.numpy as jnp, hesskit, hesskit.plots
      >>> fn = lambda p: p["a"] ** 2 + jnp.sum(p["b"] ** 4)
      >>> start = {"a": jnp.array(1.0), "b": jnp.ones(3)}
      >>> run = hesskit.minimize(fn, start, hesskit.newton(), history="params")
      >>> ax = hesskit.plots.trajectory(run, entries=["a", "b[0]"])
      >>> print(ax.get_xlabel(), ax.get_ylabel())
      a b[0]
    """
    runs = paths_of(results)
    for i, run in enumerate(runs):
        if run.names != runs[0].names:
            raise ValueError(f"r{i + 1} has other entries than r1; draw them apart")
    fresh = ax is None
    ax = one_axes(ax)
    runs, labels = _plane(runs, entries)
    draw(ax, runs)
    if fresh or not ax.get_xlabel():
        ax.set(xlabel=labels[0], ylabel=labels[1])
    ax.legend()
    return ax


def _plane(runs: list[Path], entries: Sequence[str] | None) -> tuple[list[Path], list[str]]:
    """The runs in two numbers, and what these are."""
    names = runs[0].names
    if entries is None and len(names) == 2:
        entries = names
    if entries is not None:
        missing = [name for name in entries if name not in names]
        if isinstance(entries, str) or len(entries) != 2 or missing:
            raise ValueError(f"entries must be two of {', '.join(names)}; got {entries!r}")
        pick = [names.index(name) for name in entries]
        chosen = [run._replace(points=run.points[:, pick]) for run in runs]
        return chosen, [f"entry {name}" if name[:1] == "[" else name for name in entries]
    if len(names) < 2:
        raise ValueError("params have one entry; plots.convergence draws such runs")
    together = np.concatenate([run.points for run in runs])
    together = together[np.isfinite(together).all(axis=1)]
    if len(together) < 2:
        raise ValueError("there are fewer than two finite points to draw")
    center = together.mean(axis=0)
    _, sizes, rows = np.linalg.svd(together - center, full_matrices=False)
    shares = 100 * sizes**2 / max(np.sum(sizes**2), np.finfo(float).tiny)
    plane = [run._replace(points=(run.points - center) @ rows[:2].T) for run in runs]
    order = ("first", "second")
    return plane, [f"{order[i]} direction ({shares[i]:.3g} %)" for i in (0, 1)]
