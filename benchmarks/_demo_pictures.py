"""The pictures of the demo: convergence of every method on a problem, and the paths in 2-D."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from _demo_problems import Problem
from _demo_runs import WEIGHTS, Run

# Okabe & Ito's colors, told apart by color-blind readers; line and marker tell them apart in gray.
STYLES = {
    "newton_cg": ("#D55E00", "-", "o"),
    "trust_region": ("#0072B2", "-", "s"),
    "cubic_newton": ("#009E73", "--", "^"),
    "newton": ("#CC79A7", "-.", "v"),
    "damped_newton": ("#56B4E9", "--", "D"),
    "saddle_free_newton": ("#E69F00", "-.", "P"),
    "optax.lbfgs": ("#000000", ":", "X"),
    "optax.adam": ("#7F7F7F", "-", None),
}
MARKERS = 7  # a curve
DPI = 150


def _style(run: Run) -> dict:
    color, line, marker = STYLES[run.method.split("(")[0]]
    return {"color": color, "linestyle": line, "marker": marker, "markersize": 5.5, "lw": 1.7}


def _spread(work: np.ndarray) -> list[int]:
    """Rows to mark: about evenly apart on the logarithmic axis, the last always."""
    places = np.geomspace(work[0], work[-1], MARKERS)
    return sorted({int(np.searchsorted(work, place)) for place in places[:-1]} | {len(work) - 1})


def lowest(runs: list[Run]) -> float:
    """The best value that any method found."""
    return min(np.nanmin(run.trace.value) for run in runs)


def _bottom(values: list[np.ndarray]) -> float:
    """Where an exact zero is drawn on a logarithmic axis: a decade below all else."""
    positive = np.concatenate([v[v > 0] for v in values])
    return 10.0 ** np.floor(np.log10(positive.min()) - 0.5)


def convergence(problem: Problem, runs: list[Run], folder: Path) -> Path:
    """Value gap and gradient norm against work and seconds: `folder/NAME.png`."""
    best = lowest(runs)
    rows = (
        ("value − best value found", [run.trace.value - best for run in runs]),
        ("gradient norm", [run.trace.grad_norm for run in runs]),
    )
    figure, axes = plt.subplots(2, 2, figsize=(10, 7.6), sharex="col", sharey="row")
    for row, (label, curves) in enumerate(rows):
        bottom = _bottom(curves)
        has_zero = any((curve <= 0).any() for curve in curves)
        for run, curve in zip(runs, curves, strict=True):
            seconds = run.trace.work * (run.seconds / run.trace.work[-1])
            shown, marks = np.maximum(curve, bottom), _spread(run.trace.work)
            for column, x in enumerate((run.trace.work, 1e3 * seconds)):
                axes[row, column].plot(
                    x, shown, markevery=marks, label=run.method, **_style(run), zorder=2
                )
                axes[row, column].plot(  # where it ended: a ring
                    x[-1], shown[-1], "o", ms=10, mfc="none", mec=_style(run)["color"], zorder=3
                )
        for ax in axes[row]:
            ax.set(xscale="log", yscale="log")
            ax.grid(which="major", color="0.88", linewidth=0.6)
            ax.tick_params(labelleft=True, labelbottom=True)
            if has_zero:
                ax.axhline(bottom, color="0.6", linewidth=0.8, zorder=1)
        word = f"\n(bottom line: {'the best itself' if row == 0 else 'exactly 0'})"
        axes[row, 0].set_ylabel(label + (word if has_zero else ""))
    axes[1, 0].set_xlabel(f"work\n({WEIGHTS})")
    axes[1, 1].set_xlabel("time after compilation [ms]\n(of the whole run, shared out by work)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.suptitle(problem.title + f"; {problem.size} parameters", fontsize=13)
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.set_layout_engine("constrained")
    path = folder / f"{problem.name}.png"
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    return path


def paths(problem: Problem, runs: list[Run], folder: Path) -> Path:
    """The way of every method over the contours of a 2-D problem, a panel each."""
    x, y = np.meshgrid(np.linspace(-1.8, 1.8, 241), np.linspace(-0.9, 2.1, 201))
    height = np.asarray(_on_grid(problem, x, y))
    columns = 4
    figure, axes = plt.subplots(
        -(-len(runs) // columns), columns, figsize=(12, 5.6), sharex=True, sharey=True
    )
    levels = np.geomspace(0.1, 2000, 14)
    for ax, run in zip(axes.flat, runs, strict=False):
        ax.contour(x, y, height, levels=levels, colors="0.78", linewidths=0.7)
        style = _style(run) | {"marker": "o", "markersize": 3, "linestyle": "-", "lw": 1.1}
        ax.plot(*run.trace.path.T, **style)
        ax.plot(*run.trace.path[0], "ks", ms=7, mfc="none", label="start")
        ax.plot(1, 1, "k*", ms=13, mfc="white", label="minimum", zorder=3)
        ax.set_title(f"{run.method}: {run.num_steps} steps", fontsize=10)
        ax.set(xlim=(-1.8, 1.8), ylim=(-0.9, 2.1))
    for ax in axes.flat[len(runs) :]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel("$x_1$")
    for ax in axes[:, 0]:
        ax.set_ylabel("$x_2$")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.suptitle(problem.title + ": the points that each method kept", fontsize=13)
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.set_layout_engine("constrained")
    path = folder / f"{problem.name}_paths.png"
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    return path


def _on_grid(problem: Problem, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda a, b: 100 * (b - a * a) ** 2 + (1 - a) ** 2)(x, y)
