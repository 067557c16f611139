"""Do second-order methods earn their keep on ordinary problems?

    python benchmarks/demo.py [--x64] [--only NAME ...] [--output FOLDER]        (make demo)

Five problems by every method of hesskit that applies (dense ones up to 200 parameters), beside
optax.lbfgs and the best of three learning rates of optax.adam; and four curve fits with their error
bars, beside NIST's. Prints a table for each problem and saves pictures. Nothing is tuned but the
rate of Adam.
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np
from _demo_fit import fits
from _demo_optax import RATES, adam, lbfgs
from _demo_pictures import convergence, lowest, paths
from _demo_problems import PROBLEMS, Problem
from _demo_runs import WEIGHTS, Method, Run, hesskit_method, tolerance
from threadpoolctl import threadpool_limits

import hesskit

DENSE_LIMIT = 200
KRYLOV = 30

NOTES = f"""\
work: {WEIGHTS}; in `products` a dense Hessian counts n
run: after compilation, the median of 3 (of 1 or 2 where they take long); LAPACK on one thread,
     for two that share a matrix of order 100 mostly wait for each other
stop: |grad| <= eps^(2/3) (1 + |value|); optax.lbfgs also where it no longer moves
optax.adam: the best of the learning rates {", ".join(f"{rate:g}" for rate in RATES)}
above {DENSE_LIMIT} parameters: no dense methods, and saddle_free_newton(num_krylov={KRYLOV})"""

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


def methods(problem: Problem) -> list[Method]:
    """What applies: dense methods to at most DENSE_LIMIT entries, the Krylov form beyond."""
    if problem.size <= DENSE_LIMIT:
        names = ("trust_region", "cubic_newton", "newton", "damped_newton", "saddle_free_newton")
        chosen = [hesskit_method(name, getattr(hesskit, name)(), dense=True) for name in names]
    else:
        krylov = hesskit.saddle_free_newton(num_krylov=KRYLOV)
        chosen = [hesskit_method("saddle_free_newton", krylov, dense=False)]
    newton_cg = hesskit_method("newton_cg", hesskit.newton_cg(), dense=False)
    ours = hesskit_method("lbfgs", hesskit.lbfgs(), dense=False)
    return [newton_cg, ours, *chosen, lbfgs, adam]


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
    print(NOTES)
    pictures = []
    with threadpool_limits(1, user_api="blas"):
        for make in PROBLEMS:
            if not options.only or make.__name__ in options.only:
                pictures += solve(make(), options.output)
    if not options.only:
        pictures += fits(options.output)
    print(f"\n{time.perf_counter() - begin:.0f} seconds in all. Pictures:")
    for picture in pictures:
        print(f"  {picture}")


if __name__ == "__main__":
    main()
