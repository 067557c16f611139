"""The pictures of the demo: convergence of every method on a problem, and the paths in 2-D."""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from _demo_problems import Problem
from _demo_runs import WEIGHTS, Run, tolerance
from matplotlib.lines import Line2D

matplotlib.use("Agg")  # needs no screen

# Okabe & Ito's colors, told apart by color-blind readers; line and marker tell them apart in gray.
STYLES = {
    "newton_cg": ("#D55E00", "-", "o"),
    "lbfgs": ("#882255", "--", "*"),
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


def _bottom(curves: list[np.ndarray], rounding: float) -> float:
    """Where zero is drawn on a logarithmic axis: the rounding, or a decade below all else."""
    positive = np.concatenate([curve[curve > 0] for curve in curves])
    return max(rounding, 10.0 ** np.floor(np.log10(positive.min()) - 0.5))


def _draw(axes, runs: list[Run], curves: list[np.ndarray], bottom: float) -> None:
    """A row of two panels: against work and against time."""
    for run, curve in zip(runs, curves, strict=True):
        work, style = run.trace.work, _style(run)
        shown = np.maximum(curve, bottom)
        for ax, x in zip(axes, (work, 1e3 * run.seconds * work / work[-1]), strict=True):
            ax.plot(x, shown, markevery=_spread(work), label=run.method, **style)
            ax.plot(x[-1], shown[-1], "o", ms=10, mfc="none", mec=style["color"], zorder=3)
    for ax in axes:
        ax.set(xscale="log", yscale="log")
        ax.grid(which="major", color="0.88", linewidth=0.6)
        ax.tick_params(labelleft=True, labelbottom=True)
        if any((curve <= bottom).any() for curve in curves):
            ax.axhline(bottom, color="0.5", linewidth=0.8, zorder=1)


def convergence(problem: Problem, runs: list[Run], folder: Path) -> Path:
    """Value gap and gradient norm, best so far, against work and time: `folder/NAME.png`."""
    dtype = jax.tree.leaves(problem.start)[0].dtype
    best = lowest(runs)
    gaps = [np.fmin.accumulate(run.trace.value) - best for run in runs]
    norms = [np.fmin.accumulate(run.trace.grad_norm) for run in runs]
    figure, axes = plt.subplots(2, 2, figsize=(10, 8), sharex="col", sharey="row")
    _draw(axes[0], runs, gaps, _bottom(gaps, float(np.finfo(dtype).eps) * abs(best)))
    _draw(axes[1], runs, norms, _bottom(norms, 0.0))
    for ax in axes[1]:
        ax.axhline(tolerance(dtype) * (1 + abs(best)), color="0.4", lw=0.9, ls=(0, (6, 3)))
    zero = f"bottom line: the rounding of {dtype}" if best else "bottom line: 0"
    axes[0, 0].set_ylabel(f"lowest value so far − best of all\n({zero})")
    axes[1, 0].set_ylabel("smallest gradient norm so far\n(dashed: the tolerance)")
    axes[1, 0].set_xlabel(f"work\n({WEIGHTS})")
    axes[1, 1].set_xlabel("time after compilation [ms]\n(of the whole run, shared out by work)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    handles.append(Line2D([], [], marker="o", ms=10, mfc="none", mec="0.3", ls="none"))
    figure.suptitle(f"{problem.title}; {problem.size} parameters; {dtype}", fontsize=13)
    figure.legend(
        handles,
        [*labels, "where it stopped"],
        loc="outside lower center",
        ncols=5,
        frameon=False,
        handlelength=3,
    )
    figure.set_layout_engine("constrained")
    path = folder / f"{problem.name}.png"
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    return path


def paths(problem: Problem, runs: list[Run], folder: Path) -> Path:
    """The way of every method over the contours of a 2-D problem, a panel each."""
    x, y = np.linspace(-1.7, 1.7, 341), np.linspace(-0.7, 1.9, 261)
    grid = jnp.stack(jnp.meshgrid(x, y), axis=-1)
    height = np.asarray(jax.vmap(jax.vmap(problem.fn))(grid))
    levels = np.geomspace(0.3, 1000, 8)
    rows = -(-len(runs) // 3)
    figure, axes = plt.subplots(rows, 3, figsize=(11, 3 * rows), sharex=True, sharey=True)
    for ax in axes.flat[len(runs) :]:
        ax.set_axis_off()
    for ax, run in zip(axes.flat, runs, strict=False):
        ax.contour(x, y, height, levels=levels, colors="0.75", linewidths=0.7)
        dots = 3.5 if len(run.trace.path) < 100 else 1.5
        ax.plot(*run.trace.path.T, "o-", ms=dots, lw=1, color=_style(run)["color"])
        ax.plot(*run.trace.path[0], "ks", ms=8, mfc="none", label="start")
        ax.plot(1, 1, "k*", ms=13, mfc="white", label="minimum", zorder=3)
        ax.set_title(f"{run.method}: {run.num_steps} steps", fontsize=11)
        ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    for ax in axes[-1]:
        ax.set_xlabel("$x_1$")
    for ax in axes[:, 0]:
        ax.set_ylabel("$x_2$")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    handles.append(Line2D([], [], color="0.75", linewidth=0.9))
    labels.append("levels of the value, 0.3 to 1000, a factor of 3.2 apart")
    figure.suptitle(problem.title + ": every point that each method kept", fontsize=13)
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.set_layout_engine("constrained")
    path = folder / f"{problem.name}_paths.png"
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    return path
