"""Value or gradient norm against steps or evaluations, one curve a run."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hesskit.core import errors
from hesskit.plots._axes import COLORS, MARKERS, one_axes

Y = {"value": "value", "grad_norm": "gradient norm"}
X = {"steps": "steps", "evaluations": "evaluations of the function"}
MANY = 60
"""Steps from which only the ends are marked."""
DECADE = 10.0
"""The largest value over the least positive one from which the axis is logarithmic."""


class Curve(NamedTuple):
    """One run.

    Attributes:
      label: its name.
      x: (rows,), the start first.
      y: (rows,).
    """

    label: str
    x: np.ndarray
    y: np.ndarray


def convergence(
    results: Any,
    ax: Axes | None = None,
    *,
    labels: Sequence[str] | None = None,
    sequential: bool = False,
    x: str = "steps",
    y: str = "value",
) -> Axes:
    """How runs came down: value or gradient norm at each step, the start included.

    The axis is logarithmic where the curves span more than a decade. Where a value is negative,
    all are shown above the lowest, which the label names.

    Args:
      results: what a solver returned with `history=True`, several of them, or a dict of such from
        their labels.
      ax: where; None makes a new figure.
      labels: a name for each run; None takes that of its method. Runs of one name have one color.
      sequential: each run goes on where the one before ended, as with `state=`, or from another
        method's params.
      x: "steps", or "evaluations" of the function, of which a line search takes several a step.
      y: "value" or "grad_norm".

    Returns:
      The Axes.

    Raises:
      TypeError: something else than a result.
      ValueError: a run has no history or is a batch; a number of labels that does not fit; `x` or
        `y` is none of these.

    Example:
      >>> import jax.numpy as jnp, hesskit, hesskit.plots
      >>> fn = lambda p: (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2
      >>> methods, start = (hesskit.newton(), hesskit.lbfgs()), jnp.array([-1.2, 1.0])
      >>> runs = [hesskit.minimize(fn, start, method, history=True) for method in methods]
      >>> ax = hesskit.plots.convergence(runs, x="evaluations")
      >>> print(ax.get_yscale(), ax.get_legend_handles_labels()[1])
      log ['newton', 'lbfgs']
    """
    errors.check_choice(x, tuple(X), name="x")
    errors.check_choice(y, tuple(Y), name="y")
    if isinstance(results, dict):
        labels, results = labels or list(results), list(results.values())
    runs = [results] if hasattr(results, "history") else list(results)
    curves = _curves(runs, _names(runs, labels, numbered=not sequential), x=x, y=y)
    if sequential:
        curves = _joined(curves)
    ax = one_axes(ax)
    seen = np.concatenate([curve.y[np.isfinite(curve.y)] for curve in curves])
    lowest = seen.min() if seen.size and seen.min() < 0 else 0.0
    places: dict[str, int] = {}
    for curve in curves:
        label = curve.label if curve.label not in places else None
        style = _style(places.setdefault(curve.label, len(places)))
        (line,) = ax.plot(curve.x, curve.y - lowest, markersize=3.5, linewidth=1.4, **style)
        line.set_label(label or "_again")
        line.set_markevery([0, -1] if curve.x.size > MANY else None)
    _scale(ax, seen - lowest)
    if ax.get_xscale() == "linear":
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    ax.set_xlabel(X[x])
    ax.set_ylabel(Y[y] if lowest == 0 else f"{Y[y]} above the lowest, {lowest:.6g}")
    ax.legend()
    return ax


def _style(i: int) -> dict[str, Any]:
    """The look of run i: six colors with their markers, then the same dashed."""
    n = len(COLORS)
    return {
        "color": COLORS[i % n],
        "marker": MARKERS[i % n],
        "linestyle": ("-", "--", ":")[min(i // n, 2)],
    }


def _names(runs: list[Any], labels: Sequence[str] | None, *, numbered: bool) -> list[str]:
    """One name a run; methods that occur twice are numbered where they are no one run."""
    if labels is None:
        names = [str(getattr(run, "method", "")) for run in runs]
        if not numbered:
            return names
        return [
            f"{n} {names[:i].count(n) + 1}" if names.count(n) > 1 else n
            for i, n in enumerate(names)
        ]
    if isinstance(labels, str) or len(labels) != len(runs):
        raise ValueError(f"labels must be one name for each of {len(runs)} runs, got {labels!r}")
    return list(labels)


def _curves(runs: list[Any], names: list[str], *, x: str, y: str) -> list[Curve]:
    if not runs:
        raise ValueError("there is no result to plot")
    curves = []
    for i, (run, name) in enumerate(zip(runs, names, strict=True)):
        who = f"r{i + 1}"
        if not hasattr(run, "history"):
            raise TypeError(f"{who} is {type(run).__name__}; pass what hesskit.minimize returns")
        if run.history is None:
            raise ValueError(f"{who} has no history: rerun with history=True")
        if np.ndim(run.history.length) != 0:
            raise ValueError(
                f"{who} is a batch; plot one of it: jax.tree.map(lambda a: a[0], result)"
            )
        rows = int(run.history.length)
        counts = np.arange(rows) if x == "steps" else np.asarray(run.history.num_values)[:rows]
        curves.append(Curve(name, counts, np.asarray(getattr(run.history, y), float)[:rows]))
    return curves


def _joined(curves: list[Curve]) -> list[Curve]:
    """Each curve where the one before ended."""
    found, end = [], 0
    for curve in curves:
        found.append(curve._replace(x=curve.x + end))
        end = found[-1].x[-1]
    return found


def _scale(ax: Axes, shown: np.ndarray) -> None:
    """Logarithmic where it helps; zeros fall through the bottom."""
    positive = shown[shown > 0]
    if positive.size and positive.max() > DECADE * positive.min():
        ax.set_yscale("log", nonpositive="clip")
