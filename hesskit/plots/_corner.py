"""Every pair of parameters at once: 68 and 95 % ellipses of the normal approximation."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from hesskit.core.digits import rounded
from hesskit.core.entries import as_rows
from hesskit.plots._axes import CURVE, SAMPLES, Estimate, estimate

LEVELS = (0.95, 0.68)
WIDTH = 3.4
"""Standard errors to either side: the 95 % ellipse reaches 2.45."""
CELL = 1.75
"""Inches of one panel."""
MOST_POINTS = 2000
"""Of samples drawn in a panel."""


def corner(
    result: Any, ax: Any = None, *, samples: Any = None, names: list[str] | None = None
) -> np.ndarray:
    """A grid of all parameters against all others, from the covariance.

    On the diagonal the normal density of each parameter, with its value and standard error; below
    it the ellipses that hold 68 and 95 % of the probability of each pair.

    Args:
      result: what `hesskit.curve_fit`, `hesskit.least_squares` or `hesskit.laplace` returned.
      ax: a (k, k) array of Axes, k parameters; None makes a figure.
      samples: draws to lay beneath, a tree like params with a leading axis: `result.sample(0,
        5000)`, or a chain from elsewhere.
      names: which entries, of `result.names`, in this order; None means all that have a standard
        error.

    Returns:
      The (k, k) array of Axes; those above the diagonal are invisible.

    Raises:
      TypeError: `result` has no covariance.
      ValueError: a name is unknown or has no standard error, `ax` has another shape.

    Example:
      >>> import jax.numpy as jnp, hesskit, hesskit.plots
      >>> line = lambda p, x: p["a"] + p["b"] * x
      >>> x, y = jnp.arange(4.0), jnp.array([1.0, 2.9, 5.1, 7.0])
      >>> hesskit.plots.corner(hesskit.curve_fit(line, x, y, {"a": 0.0, "b": 0.0})).shape
      (2, 2)
    """
    known = estimate(result)
    order = _order(known, names)
    k = len(order)
    axes = _grid(ax, k)
    draws = None if samples is None else np.asarray(as_rows(samples), float)[:, known.places]
    for row in range(k):
        for column in range(k):
            panel, pair = axes[row, column], (order[row], order[column])
            if column > row:
                panel.set_visible(False)
            elif column == row:
                _density(panel, known, pair[0], draws)
            else:
                _ellipses(panel, known, pair, draws)
            _labels(panel, known, pair, place=(row, column), last=k - 1)
    axes[0, 0].figure.align_labels(list(axes[:, 0]) + list(axes[-1, :]))
    return axes


def _order(known: Estimate, names: list[str] | None) -> list[int]:
    for name in names or ():
        if name not in known.names:
            raise ValueError(
                f"{name!r} is not among the entries with a standard error: {', '.join(known.names)}"
            )
    return [known.names.index(name) for name in (known.names if names is None else names)]


def _grid(ax: Any, k: int) -> np.ndarray:
    if ax is None:
        side = CELL * k + 1
        layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
        return plt.subplots(k, k, figsize=(side, side), squeeze=False, layout=layout)[1]
    axes = np.atleast_2d(np.asarray(ax, dtype=object))
    if axes.shape != (k, k):
        raise ValueError(
            f"ax has shape {np.shape(ax)}, and there are {k} parameters: pass "
            f"plt.subplots({k}, {k})[1], or choose names=[...]"
        )
    return axes


def _reach(known: Estimate, i: int) -> tuple[float, float]:
    return known.mean[i] - WIDTH * known.errors[i], known.mean[i] + WIDTH * known.errors[i]


def _density(ax: Axes, known: Estimate, i: int, draws: np.ndarray | None) -> None:
    t = np.linspace(-WIDTH, WIDTH, 201)
    density = np.exp(-(t**2) / 2)
    x = known.mean[i] + t * known.errors[i]
    if draws is not None:
        counts, edges = np.histogram(draws[:, i], bins=40, range=_reach(known, i))
        width = WIDTH * 2 / 40
        share = counts / (draws.shape[0] * width) * np.sqrt(2 * np.pi)
        ax.stairs(share, edges, fill=True, color=SAMPLES, alpha=0.4, linewidth=0)
    within = np.abs(t) <= 1
    ax.fill_between(x[within], density[within], color=CURVE, alpha=0.25, linewidth=0)
    ax.plot(x, density, color=CURVE)
    ax.axvline(known.mean[i], color=CURVE, linewidth=0.8, linestyle="--")
    value, error = rounded(known.mean[i], known.errors[i])
    ax.set_title(f"{known.names[i]}\n{value} ± {error}".replace("-", "−"), fontsize="small")
    ax.set_xlim(*_reach(known, i))
    ax.set_ylim(0, 1.25)


def _ellipses(ax: Axes, known: Estimate, pair: tuple[int, int], draws: np.ndarray | None) -> None:
    (i, j), angle = pair, np.linspace(0, 2 * np.pi, 181)
    r = known.correlation[i, j]
    # x and y with this correlation from the unit circle: the Cholesky factor of [[1, r], [r, 1]].
    u = np.cos(angle)
    v = r * u + np.sqrt(max(1 - r * r, 0)) * np.sin(angle)
    if draws is not None:
        some = draws[:MOST_POINTS]
        ax.plot(some[:, j], some[:, i], ".", color=SAMPLES, markersize=1.5, alpha=0.5, zorder=1)
    for level in LEVELS:
        size = np.sqrt(-2 * np.log(1 - level))  # chi-squared with two degrees of freedom
        x = known.mean[j] + size * u * known.errors[j]
        y = known.mean[i] + size * v * known.errors[i]
        ax.fill(x, y, color=CURVE, alpha=0.2, linewidth=0)
        ax.plot(x, y, color=CURVE, linewidth=1)
    ax.plot(known.mean[j], known.mean[i], "+", color=CURVE)
    ax.set_xlim(*_reach(known, j))
    ax.set_ylim(*_reach(known, i))


def _labels(
    ax: Axes, known: Estimate, pair: tuple[int, int], *, place: tuple[int, int], last: int
) -> None:
    """Names and numbers at the left and the bottom of the grid only."""
    row, column = place
    ax.xaxis.set_major_locator(MaxNLocator(3, prune="both"))
    ax.yaxis.set_major_locator(MaxNLocator(3, prune="both"))
    ax.tick_params(labelsize="small")
    if row == last:
        ax.set_xlabel(known.names[pair[1]])
        ax.tick_params(axis="x", labelrotation=45)
    else:
        ax.tick_params(labelbottom=False)
    if row == column:
        ax.set_yticks([])
    elif column == 0:
        ax.set_ylabel(known.names[pair[0]])
    else:
        ax.tick_params(labelleft=False)
