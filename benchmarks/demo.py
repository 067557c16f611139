"""Do second-order methods earn their keep on ordinary problems?

    python benchmarks/demo.py [--x64] [--only NAME ...] [--output FOLDER]        (make demo)

Five problems by every method of hesskit that applies (dense ones up to 200 parameters), beside
optax.lbfgs and the best of three learning rates of optax.adam. Prints a table for each problem and
saves its pictures. Nothing is tuned but Adam.
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np
from _demo_pictures import convergence, lowest, paths
from _demo_problems import PROBLEMS, Problem
from _demo_runs import RATES, WEIGHTS, Run, methods, tolerance

COLUMNS = (  # title, width
    ("method", -20),
    ("steps", 6),
    ("values", 7),
    ("grads", 7),
    ("products", 9),
    ("work", 7),
    ("run [ms]", 9),
    ("compile [s]", 12),
    ("value", 14),
    ("|grad|", 9),
)


def _line(cells: list[str], status: str) -> str:
    padded = [
        f"{cell:<{-width}}" if width < 0 else f"{cell:>{width}}"
        for cell, (_, width) in zip(cells, COLUMNS, strict=True)
    ]
    return "".join(padded) + "  " + status


def header() -> str:
    """The first line of every table."""
    return _line([title for title, _ in COLUMNS], "status")


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}" if seconds < 0.01 else f"{1e3 * seconds:.0f}"


def row(run: Run) -> str:
    """One line of a table."""
    counts = (run.num_steps, run.num_values, run.num_grads, run.num_products)
    cells = [
        run.method,
        *(str(count) for count in counts),
        f"{run.trace.work[-1]:.0f}",
        _milliseconds(run.seconds),
        f"{run.compile_seconds:.1f}",
        f"{run.value:.7g}",
        f"{run.grad_norm:.1e}",
    ]
    return _line(cells, run.status)


def summary(problem: Problem, runs: list[Run]) -> str:
    """Who came within the goal of the best value, at what work, in what time."""
    best = lowest(runs)
    goal = problem.goal or tolerance(jax.tree.leaves(problem.start)[0].dtype) * max(1.0, abs(best))
    work, seconds = {}, {}
    for run in runs:
        arrived = np.flatnonzero(run.trace.value - best <= goal)
        if arrived.size:
            work[run.method] = run.trace.work[arrived[0]]
            seconds[run.method] = run.seconds * work[run.method] / run.trace.work[-1]
    least, fastest = min(work, key=work.get), min(seconds, key=seconds.get)
    text = (
        f"Within {goal:.0e} of the best value, {best:.7g}: least work {least} "
        f"({work[least]:.0f}), fastest {fastest} ({_milliseconds(seconds[fastest])} ms)"
    )
    failed = [run.method for run in runs if run.method not in work]
    return text + (f"; not {', '.join(failed)}." if failed else "; all arrive.")


def solve(problem: Problem, folder: Path) -> list[Path]:
    """Prints the table of a problem as it grows; returns its pictures."""
    print(f"\n{problem.title}; {problem.size} parameters")
    print(header(), flush=True)
    runs = []
    for method in methods(problem):
        runs.append(method(problem))
        print(row(runs[-1]), flush=True)
    print(summary(problem, runs))
    if problem.note:
        print(f"({problem.note})")
    pictures = [convergence(problem, runs, folder)]
    if problem.draws_paths:
        pictures.append(paths(problem, runs, folder))
    return pictures


def main() -> None:
    """Reads the options, solves the problems, names the pictures."""
    names = [make.__name__ for make in PROBLEMS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--x64", action="store_true", help="work in float64; the default is 32")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="for pictures")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", options.x64)
    options.output.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    dtype = "float64" if options.x64 else "float32"
    print(f"{dtype} on {jax.devices()[0].platform}, jax {jax.__version__}")
    print(f"work: {WEIGHTS}; a dense Hessian is n products in its column")
    print(f"optax.adam: the best of the learning rates {', '.join(f'{r:g}' for r in RATES)}")
    print("run: after compilation, median of 3; all stop where |grad| <= eps^(2/3) (1 + |value|)")
    pictures = []
    for make in PROBLEMS:
        if not options.only or make.__name__ in options.only:
            pictures += solve(make(), options.output)
    print(f"\n{time.perf_counter() - begin:.0f} seconds in all. Pictures:")
    for picture in pictures:
        print(f"  {picture}")


if __name__ == "__main__":
    main()
