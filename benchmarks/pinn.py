"""How soon does a physics-informed network reach an accuracy, by which method?

    python -m benchmarks.pinn [--plot] [--problems poisson,burgers] [--methods a,b]
                              [--dtypes float64,float32] [--seconds 6] [--seeds 3]

Relative L2 error against seconds of one core, from the same start on the same points for every
method, by hesskit and its peers (`_pinn_problems.py`, `_pinn_methods.py`). The process holds on to
one core and the clock is its CPU time: on a quiet core these are seconds, and on a busy one
waiting is left out (neighbors still take cache). Methods take turns of `TURN` seconds; the clock
stands while an error is found, and compiling is counted apart. "error at 2.3 s" is that of the last
point known by then, the median over seeds of points and starts; a whole run (no option but
--plot) writes benchmarks/results/pinn.json with the curves of the first seed, and --plot pinn.png
beside it.
"""

import argparse
import json
import os
import statistics
import time
from typing import Any, NamedTuple

import jax
import matplotlib
import matplotlib.pyplot as plt
import numpy as np

import hesskit
from benchmarks._pinn_methods import METHODS, Method
from benchmarks._pinn_problems import PROBLEMS, Problem
from benchmarks._timing import RESULTS, Target, cpu, table

TURN = 0.2
MARKS = (2.3, 5.6)
OURS = ("levenberg_marquardt", "natural_gradient")
# Okabe & Ito's colors, told apart by color-blind readers.
STYLES = {
    "levenberg_marquardt": ("#D55E00", "-"),
    "natural_gradient": ("#0072B2", "-"),
    "ssbroyden": ("#009E73", "-"),
    "optax.adam(0.001)": ("#999999", ":"),
    "optax.adam(0.003)": ("#777777", "--"),
    "optax.adam(0.01)": ("#555555", "-."),
    "optax.lbfgs": ("#000000", "-"),
    "optimistix.BFGS": ("#CC79A7", "--"),
    "optimistix.LevenbergMarquardt": ("#56B4E9", "--"),
}


class Race(NamedTuple):
    """One method from one start: the curve holds (seconds, error)."""

    curve: list[tuple[float, float]]
    num_steps: int
    compile_seconds: float

    def at(self, seconds: float) -> float:
        """The error of the last point known by then."""
        return next(error for clock, error in reversed(self.curve) if clock <= seconds)


class Runner:
    """A method on its way, with its clock."""

    def __init__(self, method: Method, start: Any, points: Any, error: Any):
        self.method, self.points, self.error = method, points, error
        begin = time.process_time()
        carry = method.begin(start, points)
        for _ in range(2):  # the second call meets a carry of its own making
            carry = jax.block_until_ready(method.advance(carry, points, 1))
        self.compile_seconds = time.process_time() - begin
        self.carry = method.begin(start, points)
        self.seconds = self.step_seconds = 0.0
        self.num_steps = 0
        self.curve = [(0.0, self._error())]

    def _error(self) -> float:
        return float(self.error(self.method.params(self.carry)))

    def advance(self, until: float) -> None:
        """Steps to about `until` on the method's own clock."""
        while self.seconds < until:
            left = until - self.seconds
            num = 1 if self.step_seconds == 0.0 else max(1, round(left / self.step_seconds))
            begin = time.process_time()
            carry = self.method.advance(self.carry, self.points, num)
            self.carry = jax.block_until_ready(carry)
            spent = time.process_time() - begin
            self.seconds, self.num_steps = self.seconds + spent, self.num_steps + num
            self.step_seconds = spent / num
            self.curve.append((self.seconds, self._error()))

    def race(self) -> Race:
        return Race(self.curve, self.num_steps, self.compile_seconds)


def race(problem: Problem, methods: dict[str, Method], dtype: str, seed: int, seconds: float):
    """Every method from one start, taking turns."""
    start, points, error = (
        problem.start(seed, dtype),
        problem.points(seed, dtype),
        problem.error(dtype),
    )
    runners = {name: Runner(method, start, points, error) for name, method in methods.items()}
    for turn in range(round(seconds / TURN)):
        for runner in runners.values():
            runner.advance((turn + 1) * TURN)
    return {name: runner.race() for name, runner in runners.items()}


def summarize(problem: str, dtype: str, method: str, races: list[Race]) -> dict[str, Any]:
    """A row of the table, and the curve of the first seed."""
    last = [race.curve[-1][0] / race.num_steps for race in races]
    return {
        "problem": problem,
        "dtype": dtype,
        "method": method,
        **{f"error at {t} s": statistics.median(race.at(t) for race in races) for t in MARKS},
        "ms a step": 1e3 * statistics.median(last),
        "compile s": races[0].compile_seconds,
        "curve": [(round(t, 4), float(f"{e:.4g}")) for t, e in races[0].curve],
    }


def targets(rows: list[dict[str, Any]]) -> list[Target]:
    """The bounds of the design: on Poisson, in float64, by our best."""
    found = []
    for seconds, bound in ((2.5, 1e-3), (5.0, 1e-4)):
        best = [
            Race(row["curve"], 1, 0.0).at(seconds)
            for row in rows
            if (row["problem"], row["dtype"]) == ("Poisson", "float64") and row["method"] in OURS
        ]
        if best:
            found.append(Target(f"Poisson in float64, error at {seconds} s", min(best), bound))
    return found


def draw(rows: list[dict[str, Any]], path: Any) -> None:
    """Error against seconds: a panel for each problem and dtype."""
    panels = list(dict.fromkeys((row["problem"], row["dtype"]) for row in rows))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 4.6), sharex=True, sharey="row", squeeze=False
    )
    for ax, panel in zip(axes[0], panels, strict=True):
        for row in rows:
            if (row["problem"], row["dtype"]) == panel:
                color, line = STYLES[row["method"]]
                seconds, errors = np.array(row["curve"]).T
                ax.plot(seconds, errors, line, color=color, label=row["method"], lw=1.6)
        ax.set(yscale="log", title=", ".join(panel), xlabel="seconds of one core", xlim=(0, None))
        ax.grid(color="0.9", linewidth=0.6)
    axes[0, 0].set_ylabel("relative L2 error")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.set_layout_engine("constrained")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def write(rows: list[dict[str, Any]], held: list[Target]) -> None:
    """benchmarks/results/pinn.json."""
    content = {
        "question": __doc__.splitlines()[0],
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "cpu": cpu(),
        "targets": [{**target._asdict(), "met": target.met} for target in held],
        "rows": rows,
    }
    text = json.dumps(content, indent=1)
    (RESULTS / "pinn.json").write_text(text + "\n")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pinn")
    split = lambda text: text.split(",")
    parser.add_argument("--problems", type=split, default=list(PROBLEMS))
    parser.add_argument("--methods", type=split, default=list(METHODS))
    parser.add_argument("--dtypes", type=split, default=["float64", "float32"])
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", action="store_true")
    return parser.parse_args(argv)


def hold_one_core() -> None:
    """Before jax counts the cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main(argv: list[str] | None = None) -> None:
    """Run, print, write, draw."""
    hold_one_core()
    matplotlib.use("Agg")
    arguments = parse(argv)
    rows = []
    for name in arguments.problems:
        problem = PROBLEMS[name]()
        for dtype in arguments.dtypes:
            with jax.enable_x64(dtype == "float64"):
                loss = hesskit.least_squares_loss(
                    problem.residuals, weights=problem.weights, reduction="mean"
                )
                methods = {key: METHODS[key](problem, loss) for key in arguments.methods}
                races = [
                    race(problem, methods, dtype, seed, arguments.seconds)
                    for seed in range(arguments.seeds)
                ]
            rows += [
                summarize(problem.name, dtype, key, [by_seed[key] for by_seed in races])
                for key in methods
            ]
            shown = [{k: v for k, v in row.items() if k != "curve"} for row in rows]
            print(table(shown[-len(methods) :]), flush=True)
            jax.clear_caches()
    held = targets(rows)
    print(*(target.line() for target in held), sep="\n")
    if parse([]) == argparse.Namespace(**{**vars(arguments), "plot": False}):
        write(rows, held)
    if arguments.plot:
        draw(rows, RESULTS / "pinn.png")


if __name__ == "__main__":
    main()
