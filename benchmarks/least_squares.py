"""Do hesskit and its peers reach the certified fits of NIST, and the global minima of MGH?

    python -m benchmarks.least_squares [--solvers a,b] [--sets nist,mgh] [--problems NAME,NAME]
                                       [--verbose]

One interleaved run in float64: every solver runs from a start before any runs from the next.
NIST are the StRD sets for nonlinear regression from both of their starts (`tests/nist.py`), MGH the
problems of More, Garbow & Hillstrom from 1, 10 and 100 times the standard start
(`tests/least_squares_problems.py`). Prints a table and what each solver missed; a whole run (no
option but --solvers) writes benchmarks/results/least_squares.json, with every run of hesskit and
what its peers missed. Tolerances and what is counted are said in `_least_squares_peers.py`.

With r the residuals, f = sum(r**2) and J the Jacobian at the returned point, a run

has d digits (NIST), if d is the least log relative error over the parameters, at most the 11 that
    are certified;
is global, if f <= 1e-10 + (1 + 1e-6) f*, with f* the least value known (the certified one on NIST);
is known, if f is that of any known minimum to 1e-5, the digits that sources print;
is stationary, if |J_k.r| <= 1e-4 |J_k| |r| for every column k, More's test of the gradient (1978),
    which no scaling of x or r changes; a column of zeros passes.

A false success is a run that claims success at a point that is neither known nor stationary.
Seconds are those of a compiled run; "ms" is their median over all starts.

Reference: More (1978), The Levenberg-Marquardt algorithm: implementation and theory, in Numerical
    Analysis, Lecture Notes in Mathematics 630, 105-116.
"""

import argparse
import functools
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._least_squares_peers import SOLVERS, Outcome
from benchmarks._timing import RESULTS, Target, cpu, table
from benchmarks.convergence import to_json
from tests import least_squares_problems as mgh
from tests import nist

STATIONARY = 1e-4


class Case(NamedTuple):
    """One problem with its starts and what is known of it."""

    collection: str
    name: str
    residual: Callable  # params, *data -> (m,)
    data: tuple
    starts: dict[str, np.ndarray]
    minima: tuple[float, ...]  # of the sum of squares, the global one first
    certified: np.ndarray | None = None


class Run(NamedTuple):
    """One solver from one start."""

    collection: str
    problem: str
    start: str
    solver: str
    value: float
    digits: float | None
    reached_global: bool
    cosine: float  # of the residuals with the nearest column of the Jacobian
    claims_success: bool
    false_success: bool
    evaluations: int
    seconds: float
    status: str

    def missed(self) -> bool:
        """Below 6 digits, not global, or a false success."""
        short = self.digits is not None and self.digits < 6.0
        return short or not self.reached_global or self.false_success

    def line(self) -> str:
        """One line of --verbose."""
        digits = "" if self.digits is None else f" {self.digits:5.2f} digits"
        verdict = "global" if self.reached_global else "elsewhere"
        false = " FALSE SUCCESS" if self.false_success else ""
        return (
            f"{self.solver:<13} {self.problem:<28} {self.start:>4}{digits} {verdict:<9} "
            f"f {self.value:<12.6g} cos {self.cosine:.0e} {self.evaluations:5d} evaluations "
            f"{1e3 * self.seconds:9.2f} ms {self.status}{false}"
        )


# ---- the problems ----------------------------------------------------------------------------


def _nist_residual(model: Callable, params, x, y):
    return model(params, x) - y


def nist_cases() -> Iterator[Case]:
    """The NIST sets, from both starts."""
    for p in nist.problems():
        yield Case(
            "nist",
            p.name,
            functools.partial(_nist_residual, p.model),
            (jnp.asarray(p.x), jnp.asarray(p.y)),
            {"1": p.starts[0], "2": p.starts[1]},
            (p.rss,),
            p.certified,
        )


def mgh_cases() -> Iterator[Case]:
    """The problems of More, Garbow & Hillstrom, from the scaled starts."""
    for p in mgh.PROBLEMS:
        starts = {f"{factor:g}x": factor * p.start for factor in mgh.FACTORS}
        yield Case("mgh", p.name, p.residual, (), starts, p.minima)


COLLECTIONS = {"nist": nist_cases, "mgh": mgh_cases}


# ---- a run and its verdict -------------------------------------------------------------------


def largest_cosine(residuals: np.ndarray, jacobian: np.ndarray) -> float:
    """max_k |J_k.r| / (|J_k| |r|), over the columns that are not 0; 0 where r is 0."""
    if not np.any(residuals):
        return 0.0
    r = residuals / np.max(np.abs(residuals))  # first, so that no square under- or overflows
    largest = np.max(np.abs(jacobian), axis=0)
    columns = jacobian[:, largest > 0.0] / largest[largest > 0.0]
    cosines = np.abs(columns.T @ r) / (np.linalg.norm(columns, axis=0) * np.linalg.norm(r))
    return float(np.max(cosines, initial=0.0))


class Judge:
    """Judges the returned points of one problem."""

    def __init__(self, case: Case):
        self.case = case
        self.residual = jax.jit(case.residual)
        self.jacobian = jax.jit(jax.jacfwd(case.residual))

    def __call__(self, solver: str, start: str, outcome: Outcome) -> Run:
        case, x = self.case, outcome.x
        residuals, jacobian = (np.asarray(f(x, *case.data)) for f in (self.residual, self.jacobian))
        finite = all(np.all(np.isfinite(a)) for a in (x, residuals, jacobian))
        with np.errstate(over="ignore", invalid="ignore"):
            value = float(np.sum(residuals**2))
        cosine = largest_cosine(residuals, jacobian) if finite else float("inf")
        known = any(abs(value - m) <= 1e-10 + 1e-5 * m for m in case.minima)
        reached = value <= 1e-10 + (1.0 + 1e-6) * case.minima[0]
        right = finite and (known or reached or cosine <= STATIONARY)
        return Run(
            case.collection,
            case.name,
            start,
            solver,
            value,
            None if case.certified is None else nist.digits(x, case.certified),
            finite and reached,
            cosine,
            outcome.claims_success,
            outcome.claims_success and not right,
            outcome.evaluations,
            outcome.seconds,
            outcome.status,
        )


def run_case(case: Case, names: list[str]) -> Iterator[Run]:
    """Every solver from every start, interleaved; the first start is run twice, once to compile."""
    judge = Judge(case)
    solves = {name: SOLVERS[name](case.residual, case.data) for name in names}
    first = next(iter(case.starts.values()))
    for solve in solves.values():
        solve(first)
    for start, x0 in case.starts.items():
        for name, solve in solves.items():
            yield judge(name, start, solve(x0))


# ---- what is reported ------------------------------------------------------------------------


def _median(values) -> float:
    values = list(values)
    return float(statistics.median(values)) if values else float("nan")


def summarize_nist(runs: list[Run]) -> dict:
    """The row of a solver on NIST."""
    return {
        "runs": len(runs),
        "4 digits": sum(r.digits >= 4.0 for r in runs),
        "6 digits": sum(r.digits >= 6.0 for r in runs),
        "median digits": _median(r.digits for r in runs),
        "median evaluations": _median(r.evaluations for r in runs),
        "false": sum(r.false_success for r in runs),
        "ms": 1e3 * _median(r.seconds for r in runs),
    }


def summarize_mgh(runs: list[Run]) -> dict:
    """The row of a solver on MGH."""
    starts = dict.fromkeys(r.start for r in runs)
    return {
        "runs": len(runs),
        **{s: sum(r.reached_global for r in runs if r.start == s) for s in starts},
        "median evaluations": _median(r.evaluations for r in runs),
        "false": sum(r.false_success for r in runs),
        "ms": 1e3 * _median(r.seconds for r in runs),
    }


SUMMARIES = {"nist": summarize_nist, "mgh": summarize_mgh}


def targets(rows: dict[str, dict[str, dict]]) -> list[Target]:
    """The bounds of the design, on a whole run that has hesskit."""
    own = {key: rows[key].get("hesskit") for key in rows}
    found = []
    if own.get("nist"):
        row = own["nist"]
        found += [
            Target(f"NIST runs not correct to {d} digits", row["runs"] - row[f"{d} digits"], 0)
            for d in (4, 6)
        ]
        found.append(Target("NIST, 10 less the median digits", 10.0 - row["median digits"], 0.0))
        found.append(Target("NIST, median evaluations", row["median evaluations"], 20.0))
    if own.get("mgh"):
        row = own["mgh"]
        allowed = {"1x": 0, "10x": 1, "100x": 5}
        found += [
            Target(f"MGH global minima missed from {s}", row["runs"] // 3 - row[s], most)
            for s, most in allowed.items()
        ]
    if found:
        found.append(Target("false successes", sum(r["false"] for r in own.values() if r), 0))
    return found


def misses(runs: list[Run], name: str) -> str:
    """What a solver missed, by name."""
    own = [r for r in runs if r.solver == name]
    lists = {
        "below 6 digits": [r for r in own if r.digits is not None and r.digits < 6.0],
        "not global": [r for r in own if r.digits is None and not r.reached_global],
        "false success": [r for r in own if r.false_success],
    }
    named = {key: ", ".join(f"{r.problem} {r.start}" for r in rs) for key, rs in lists.items()}
    return "\n".join(f"{name}, {key}: {names or '-'}" for key, names in named.items())


def available(names: list[str]) -> list[str]:
    """The solvers that are there; says which are not."""
    found = []
    for name in names:
        try:
            SOLVERS[name](lambda x: x, ())
            found.append(name)
        except (ImportError, AttributeError) as error:
            print(f"skipping {name}: {error}", file=sys.stderr)
    return found


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line; an unknown name ends it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.least_squares")
    split = lambda text: text.split(",")
    parser.add_argument("--solvers", type=split, default=list(SOLVERS))
    parser.add_argument("--sets", type=split, default=list(COLLECTIONS))
    parser.add_argument("--problems", type=split, help="names (default: all)")
    parser.add_argument("--verbose", action="store_true", help="one line a run")
    arguments = parser.parse_args(argv)
    for asked, there in ((arguments.solvers, SOLVERS), (arguments.sets, COLLECTIONS)):
        if unknown := set(asked) - set(there):
            parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(there)}")
    return arguments


def write(rows: dict, held: list[Target], runs: list[Run]) -> None:
    """benchmarks/results/least_squares.json."""
    content = {
        "question": __doc__.splitlines()[0],
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "cpu": cpu(),
        "dtype": "float64",
        "rows": [
            {"solver": name, "set": key, **row}
            for key, by_solver in rows.items()
            for name, row in by_solver.items()
        ],
        "targets": [{**target._asdict(), "met": target.met} for target in held],
        "runs": [run._asdict() for run in runs if run.solver == "hesskit" or run.missed()],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "least_squares.json").write_text(to_json(content) + "\n")


def main(argv: list[str] | None = None) -> None:
    """Run, print, write."""
    arguments = parse(argv)
    jax.config.update("jax_enable_x64", True)
    names = available(arguments.solvers)
    cases = [case for key in arguments.sets for case in COLLECTIONS[key]()]
    if arguments.problems:
        cases = [case for case in cases if case.name in arguments.problems]
    if not names or not cases:
        sys.exit("nothing to run")
    runs: list[Run] = []
    for case in cases:
        for run in run_case(case, names):
            runs.append(run)
            if arguments.verbose:
                print(run.line(), flush=True)
        jax.clear_caches()
    rows = {
        key: {
            name: SUMMARIES[key]([r for r in runs if (r.collection, r.solver) == (key, name)])
            for name in names
        }
        for key in dict.fromkeys(case.collection for case in cases)
    }
    for key, by_solver in rows.items():
        print(
            f"\n{key}",
            table([{"solver": name, **row} for name, row in by_solver.items()]),
            sep="\n",
        )
    print("", *(misses(runs, name) for name in names), sep="\n")
    whole = not arguments.problems and set(arguments.sets) == set(COLLECTIONS)
    held = targets(rows) if whole else []
    print(*(target.line() for target in held), sep="\n")
    if whole:
        write(rows, held, runs)


if __name__ == "__main__":
    main()
