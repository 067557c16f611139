"""How soon does a physics-informed network reach an accuracy, by which method?

    python -m benchmarks.pinn [--plot] [--problems poisson,burgers] [--methods a,b]
                              [--dtypes float64,float32] [--seeds 3]

Relative L2 error against seconds of one core, from the same start on the same points for every
method, by hesskit and its peers (`_pinn_problems.py`, `_pinn_methods.py`). The process holds on to
one core and the clock is its CPU time: on a quiet core these are seconds, and on a busy one
waiting is left out (neighbors still take cache). Methods take turns of `TURN` seconds; the clock
stands while an error is found, and compiling is counted apart. An error at some seconds is that of
the last point known by then, the median over seeds of points and starts. A run of all methods
writes its problems and dtypes into benchmarks/results/pinn.json, with the curves of the first seed,
and leaves the others there as they are; --plot draws pinn.png beside it.
"""

import argparse
import json
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
from benchmarks._timing import RESULTS, Target, cpu, hold_one_core, table

TURN = 0.5
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
        """As many steps as end before `until` on the method's own clock."""
        while until - self.seconds > self.step_seconds and not self.method.stopped(self.carry):
            left = until - self.seconds
            num = 1 if self.step_seconds == 0.0 else int(left / self.step_seconds)
            begin = time.process_time()
            carry = self.method.advance(self.carry, self.points, num)
            self.carry = jax.block_until_ready(carry)
            spent = time.process_time() - begin
            self.seconds, self.num_steps = self.seconds + spent, self.num_steps + num
            self.step_seconds = spent / num
            self.curve.append((self.seconds, self._error()))

    def race(self) -> Race:
        return Race(self.curve, self.num_steps, self.compile_seconds)


def race(problem: Problem, methods: dict[str, Method], dtype: str, seed: int) -> dict[str, Race]:
    """Every method from one start, taking turns."""
    start, points, error = (
        problem.start(seed, dtype),
        problem.points(seed, dtype),
        problem.error(dtype),
    )
    runners = {name: Runner(method, start, points, error) for name, method in methods.items()}
    turns = np.arange(TURN, problem.marks[-1], TURN)
    for until in sorted({*turns.tolist(), *problem.marks}):
        for runner in runners.values():
            runner.advance(until)
    return {name: runner.race() for name, runner in runners.items()}


def summarize(problem: Problem, dtype: str, method: str, races: list[Race]) -> dict[str, Any]:
    """A row of the table, and the curve of the first seed."""
    last = [race.curve[-1][0] / race.num_steps for race in races]
    return {
        "problem": problem.name,
        "dtype": dtype,
        "method": method,
        **{
            f"error at {t} s": statistics.median(race.at(t) for race in races)
            for t in problem.marks
        },
        "seeds": len(races),
        "ms a step": 1e3 * statistics.median(last),
        "compile s": races[0].compile_seconds,
        "curve": [(round(t, 4), float(f"{e:.4g}")) for t, e in races[0].curve],
    }


def targets(rows: list[dict[str, Any]]) -> list[Target]:
    """The bounds of the design: on Poisson's equation in float64, by our best."""
    own = [
        row
        for row in rows
        if (row["problem"], row["dtype"]) == ("Poisson", "float64") and row["method"] in OURS
    ]
    bounds = {"error at 2.5 s": 1e-3, "error at 5.0 s": 1e-4} if own else {}
    return [
        Target(f"Poisson in float64, {what}", min(row[what] for row in own), bound)
        for what, bound in bounds.items()
    ]


def draw(rows: list[dict[str, Any]], path: Any) -> None:
    """Error against seconds: a panel for each problem and dtype."""
    panels = list(dict.fromkeys((row["problem"], row["dtype"]) for row in rows))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 4.6), sharey="row", squeeze=False
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


def write(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """benchmarks/results/pinn.json, with rows of other problems and dtypes from before."""
    path = RESULTS / "pinn.json"
    known = json.loads(path.read_text())["rows"] if path.exists() else []
    new = {(row["problem"], row["dtype"]) for row in rows}
    rows = [row for row in known if (row["problem"], row["dtype"]) not in new] + rows
    content = {
        "question": __doc__.splitlines()[0],
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "cpu": cpu(),
        "targets": [{**target._asdict(), "met": target.met} for target in targets(rows)],
        "rows": rows,
    }
    path.write_text(json.dumps(content) + "\n")
    return rows


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pinn")
    split = lambda text: text.split(",")
    parser.add_argument("--problems", type=split, default=list(PROBLEMS))
    parser.add_argument("--methods", type=split, default=list(METHODS))
    parser.add_argument("--dtypes", type=split, default=["float64", "float32"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", action="store_true")
    return parser.parse_args(argv)


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
                races = [race(problem, methods, dtype, seed) for seed in range(arguments.seeds)]
            rows += [
                summarize(problem, dtype, key, [by_seed[key] for by_seed in races])
                for key in methods
            ]
            shown = [{k: v for k, v in row.items() if k != "curve"} for row in rows]
            print(table(shown[-len(methods) :]), flush=True)
            jax.clear_caches()
    print(*(target.line() for target in targets(rows)), sep="\n")
    if arguments.methods == list(METHODS):
        rows = write(rows)
    if arguments.plot:
        draw(rows, RESULTS / "pinn.png")


if __name__ == "__main__":
    main()
