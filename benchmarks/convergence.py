"""Do hesskit's solvers, and their peers, reach a minimum, which one, and at what cost?

    python -m benchmarks.convergence [--dtype float64|float32] [--solvers a,b] [--problems GLOB]
                                     [--seeds 20] [--large-seeds 2] [--quick]

Every solver runs on the same list (`tests/problems.py`), from the published start and from seeded
10 % perturbations of it. Prints a table and writes benchmarks/results/convergence_<dtype>.json.

The returned point is judged in float64, whatever dtype the solver worked in, with gradient g,
Hessian H = sum_k l_k q_k q_k' and eps of the solver's dtype. It is

stationary, if it is finite and both
    1. the gradient is at the floor, by one of
       a. |g| <= gtol max(1, |f|), gtol = 1e-6 (float64) or 1e-3 (float32);
       b. the gain that is left is below the rounding of the value: half the sum of (q_k.g)^2 / l_k
          over l_k > cut is at most 1000 eps |f|, where cut = n eps max |l|, and what g has outside
          of those directions meets (a). Badly scaled fits end here: at Meyer's minimum the
          gradient of the best representable point is 0.6, and no step can lower the value;
       c. |g| <= 10 eps | |H| |x| |: moving each coordinate by ten units in its last place changes
          the gradient by more than all of it. With a minimum of 0 the floor of (b) is 0 as well,
          and rounding of x is what is left (Brown badly scaled in float32: x1 x2 - 2 cannot come
          below 1e-7, where its derivative is 1e6);
    2. no negative curvature: min l >= -sqrt(eps) max |l|. Below that an eigenvalue of H in the
       solver's own precision is noise, and minima with a singular Hessian (Powell singular) have
       such noise;
global, if f <= m + tol max(1, |m|) with m the published global minimum, tol = 1e-6 or 1e-3;
published, if the same holds for any published minimum and |f - m| instead of f - m.

A false success is a run that claims success at a point that is not stationary. Problems unbounded
below count for false success only. The cost is in gradient-equivalents (value 1, gradient 2,
product 4, dense Hessian 2 n); its ratio to scipy.trust-exact's is a median over the problems that
both brought to a stationary point from the published start; "finished" is the same over those
where both also stopped by their own tests, since some peers spin at the rounding floor. Above
n = 200 there are fewer seeds (--large-seeds), and scipy.BFGS, whose step costs n^3, is left out;
its shares are of the rest.
"""

import argparse
import fnmatch
import json
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._peers import LARGE, NOT_LARGE, SOLVERS, Outcome
from tests.problems import PROBLEMS, Problem, perturbed, start

RESULTS = Path(__file__).parent / "results"
GRADIENT = {"float64": 1e-6, "float32": 1e-3}
VALUE = {"float64": 1e-6, "float32": 1e-3}
REFERENCE = "scipy.trust-exact"
QUICK = ("hesskit", REFERENCE, "scipy.BFGS", "optimistix.BFGS", "optax.lbfgs")


class Verdict(NamedTuple):
    """How good a returned point is."""

    stationary: bool
    reached_global: bool
    reached_published: bool
    value: float
    grad_norm: float
    lowest_eigenvalue: float  # relative to the largest magnitude


def gradient_at_floor(value, grad, eigenvalues, eigenvectors, hessian, x, dtype) -> bool:
    """Criterion 1 of the module docstring."""
    eps, n = float(jnp.finfo(dtype).eps), x.size
    gtol = GRADIENT[dtype] * max(1.0, abs(value))
    if np.linalg.norm(grad) <= gtol:
        return True
    rounding = 10.0 * eps * np.linalg.norm(np.abs(hessian) @ np.abs(x))
    if np.linalg.norm(grad) <= rounding:
        return True
    parts = eigenvectors.T @ grad
    kept = eigenvalues > n * eps * np.abs(eigenvalues).max()
    gain = 0.5 * float(np.sum(parts[kept] ** 2 / eigenvalues[kept]))
    return gain <= 1000.0 * eps * abs(value) and np.linalg.norm(parts[~kept]) <= gtol


class Judge:
    """Judges returned points of one problem in float64."""

    def __init__(self, problem: Problem, dtype: str):
        self.problem, self.dtype = problem, dtype
        self.value_and_grad = jax.jit(jax.value_and_grad(problem.fn))
        self.hessian = jax.jit(jax.hessian(problem.fn))

    def __call__(self, x: np.ndarray) -> Verdict:
        with jax.enable_x64(True):
            x = np.asarray(x, np.float64)
            value, grad = (np.asarray(a) for a in self.value_and_grad(x))
            hessian = np.asarray(self.hessian(x))
        value = float(value)
        if not all(np.all(np.isfinite(a)) for a in (x, value, grad, hessian)):
            return Verdict(False, False, False, value, float("nan"), float("nan"))
        eigenvalues, eigenvectors = np.linalg.eigh((hessian + hessian.T) / 2.0)
        lowest = float(eigenvalues[0] / max(np.abs(eigenvalues).max(), 1e-300))
        small = gradient_at_floor(value, grad, eigenvalues, eigenvectors, hessian, x, self.dtype)
        curved = lowest >= -(float(jnp.finfo(self.dtype).eps) ** 0.5)
        minimum = self.problem.minimum
        lowest_known = minimum is not None and value <= minimum + self._slack(minimum)
        others = self.problem.other_minima
        return Verdict(
            bool(small and curved),
            lowest_known,
            lowest_known or any(abs(value - m) <= self._slack(m) for m in others),
            value,
            float(np.linalg.norm(grad)),
            lowest,
        )

    def _slack(self, minimum: float) -> float:
        return VALUE[self.dtype] * max(1.0, abs(minimum))


def record(problem: Problem, outcome: Outcome, verdict: Verdict, seed: int | None) -> dict:
    """One run as it goes into the JSON file."""
    return {
        "problem": problem.name,
        "n": problem.n,
        "bounded": problem.bounded,
        "seed": seed,
        **verdict._asdict(),
        "claims_success": outcome.claims_success,
        "false_success": outcome.claims_success and not verdict.stationary,
        "num_values": outcome.num_values,
        "num_grads": outcome.num_grads,
        "num_hessians": outcome.num_hessians,
        "num_products": outcome.num_products,
        "cost": outcome.cost(),
        "seconds": outcome.seconds,
        "status": outcome.status,
    }


def run_solver(problem: Problem, name: str, judge: Judge, dtype: str, seeds: int) -> list[dict]:
    """Every run of one solver on one problem; the first compiles, the others reuse it."""
    runs = []
    with jax.enable_x64(dtype == "float64"):
        solve = SOLVERS[name](problem.fn, problem.n, dtype)
        for seed in (None, *range(seeds)):
            x0 = start(problem, dtype) if seed is None else perturbed(problem, seed, dtype)
            outcome = solve(x0)
            runs.append(record(problem, outcome, judge(outcome.x), seed))
        if seeds:  # seconds without compilation: the published start once more
            runs[0]["compile_seconds"] = runs[0]["seconds"]
            runs[0]["seconds"] = solve(start(problem, dtype)).seconds
            runs[0]["compile_seconds"] -= runs[0]["seconds"]
    return runs


def share(runs: list[dict], key: str) -> float:
    """Percentage of the runs that have `key`, each problem with equal weight."""
    by_problem: dict[str, list[bool]] = {}
    for run in runs:
        by_problem.setdefault(run["problem"], []).append(run[key])
    if not by_problem:
        return float("nan")
    return 100.0 * statistics.fmean(statistics.fmean(v) for v in by_problem.values())


def cost_ratio(runs: list[dict], reference: list[dict], key: str = "cost") -> float:
    """Median ratio to the reference, over published starts that both brought to the floor."""
    solved = {r["problem"]: r[key] for r in reference if r["seed"] is None and r["stationary"]}
    both = [r for r in runs if r["seed"] is None and r["stationary"] and r["problem"] in solved]
    ratios = [r[key] / solved[r["problem"]] for r in both if solved[r["problem"]] > 0]
    return statistics.median(ratios) if ratios else float("nan")


def finished(runs: list[dict]) -> list[dict]:
    """The runs that stopped by their own tests: none spins at its floor until the limit."""
    return [r for r in runs if r["claims_success"]]


def summarize(runs: list[dict], reference: list[dict]) -> dict:
    """The scores of one solver."""
    plain = [r for r in runs if r["seed"] is None]
    moved = [r for r in runs if r["seed"] is not None]
    bounded = [r for r in plain if r["bounded"]]
    moved_bounded = [r for r in moved if r["bounded"]]
    return {
        "stationary": share(bounded, "stationary"),
        "global": share(bounded, "reached_global"),
        "published": share(bounded, "reached_published"),
        "claims": share(bounded, "claims_success"),
        "false_successes": sum(r["false_success"] for r in plain),
        "seeds_stationary": share(moved_bounded, "stationary"),
        "seeds_global": share(moved_bounded, "reached_global"),
        "seeds_published": share(moved_bounded, "reached_published"),
        "seeds_false_successes": sum(r["false_success"] for r in moved),
        "cost_ratio": cost_ratio(runs, reference),
        "cost_ratio_finished": cost_ratio(finished(runs), finished(reference)),
        "seconds_ratio": cost_ratio(runs, reference, "seconds"),
        "not_stationary": [r["problem"] for r in bounded if not r["stationary"]],
        "not_global": [r["problem"] for r in bounded if not r["reached_global"]],
        "false": [r["problem"] for r in plain if r["false_success"]],
    }


def perturbed_counts(runs: list[dict]) -> dict[str, dict]:
    """Of the perturbed starts of each problem: how many there are, and how many did what."""
    keys = ("stationary", "reached_global", "reached_published", "false_success")
    counts: dict[str, dict] = {}
    for run in runs:
        if run["seed"] is not None:
            entry = counts.setdefault(run["problem"], {"runs": 0, **dict.fromkeys(keys, 0)})
            entry["runs"] += 1
            for key in keys:
                entry[key] += bool(run[key])
    return counts


def to_json(answer) -> str:
    """Strict JSON, a line for each innermost entry: six digits, null for what is not finite."""

    def plain(item):
        if isinstance(item, dict):
            return {key: plain(value) for key, value in item.items()}
        if isinstance(item, (list, tuple)):
            return [plain(value) for value in item]
        if isinstance(item, (float, np.floating)):
            return float(f"{item:.6g}") if np.isfinite(item) else None
        return bool(item) if isinstance(item, np.bool_) else item

    text = json.dumps(plain(answer), allow_nan=False)
    return text.replace("}, {", "},\n{").replace('}, "', '},\n"')


COLUMNS = (  # heading, key, format
    ("stationary %", "stationary", ".1f"),
    ("global %", "global", ".1f"),
    ("published %", "published", ".1f"),
    ("claims %", "claims", ".1f"),
    ("false", "false_successes", "d"),
    ("seeds: stat. %", "seeds_stationary", ".1f"),
    ("global %", "seeds_global", ".1f"),
    ("publ. %", "seeds_published", ".1f"),
    ("false", "seeds_false_successes", "d"),
    ("cost ratio", "cost_ratio", ".2f"),
    ("finished", "cost_ratio_finished", ".2f"),
    ("time ratio", "seconds_ratio", ".3g"),
)


def table(summaries: dict[str, dict]) -> str:
    """The scores as text, then the unsolved problems by name."""
    width = max(len(name) for name in summaries)
    lines = [" " * width + "".join(f"  {heading:>{len(heading)}}" for heading, _, _ in COLUMNS)]
    for name, summary in summaries.items():
        cells = (f"{summary[key]:>{len(heading)}{form}}" for heading, key, form in COLUMNS)
        lines.append(f"{name:<{width}}  " + "  ".join(cells))
    for name, summary in summaries.items():
        lines.append("")
        lines.append(f"{name} not stationary: {', '.join(summary['not_stationary']) or '-'}")
        lines.append(f"{name} not global: {', '.join(summary['not_global']) or '-'}")
        lines.append(f"{name} false success: {', '.join(summary['false']) or '-'}")
    return "\n".join(lines)


def choose(arguments: argparse.Namespace) -> tuple[list[str], list[Problem]]:
    """The solvers and problems asked for."""
    names = list(QUICK if arguments.quick else SOLVERS)
    if arguments.solvers:
        patterns = arguments.solvers.split(",")
        names = [n for n in SOLVERS if any(fnmatch.fnmatch(n, p) for p in patterns)]
    problems = [p for p in PROBLEMS if fnmatch.fnmatch(p.name, arguments.problems)]
    if arguments.quick:
        problems = [p for p in problems if p.n <= 12]
    if not names or not problems:
        sys.exit(f"nothing to run; solvers are {', '.join(SOLVERS)}")
    return names, problems


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convergence")
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--solvers", help="comma-separated names or globs (default: all)")
    parser.add_argument("--problems", default="*", help="glob over problem names")
    parser.add_argument("--seeds", type=int, default=20, help="perturbed starts a problem")
    parser.add_argument("--large-seeds", type=int, default=2, help=f"the same for n > {LARGE}")
    parser.add_argument("--quick", action="store_true", help="n <= 12, five solvers, two seeds")
    parser.add_argument("--output", type=Path, help="where to write the JSON instead")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.seeds = min(arguments.seeds, 2)
    arguments.large_seeds = min(arguments.seeds, arguments.large_seeds)
    return arguments


def available(names: list[str]) -> list[str]:
    """The solvers whose package is installed; says which are not."""
    found = []
    for name in names:
        try:
            with jax.enable_x64(True):
                SOLVERS[name](jnp.sum, 1, "float64")
            found.append(name)
        except (ImportError, AttributeError) as error:
            print(f"skipping {name}: {error}", file=sys.stderr)
    return found


def main(argv: list[str] | None = None) -> dict:
    """Run, print, write."""
    arguments = parse(argv)
    names, problems = choose(arguments)
    names = available(names)
    runs: dict[str, list[dict]] = {name: [] for name in names}
    for index, problem in enumerate(problems, 1):
        judge = Judge(problem, arguments.dtype)
        seeds = arguments.large_seeds if problem.n > LARGE else arguments.seeds
        for name in names:
            if problem.n > LARGE and name in NOT_LARGE:
                continue
            runs[name] += run_solver(problem, name, judge, arguments.dtype, seeds)
        jax.clear_caches()
        print(f"{index}/{len(problems)} {problem.name}", file=sys.stderr, flush=True)
    reference = runs.get(REFERENCE, [])
    summaries = {name: summarize(runs[name], reference) for name in names}
    print(f"{len(problems)} problems, {arguments.dtype}, {arguments.seeds} seeds")
    print(table(summaries))
    answer = {
        "dtype": arguments.dtype,
        "jax": jax.__version__,
        "seeds": arguments.seeds,
        "large_seeds": arguments.large_seeds,
        "summary": summaries,
        "runs": {name: [r for r in runs[name] if r["seed"] is None] for name in names},
        "perturbed": {name: perturbed_counts(runs[name]) for name in names},
    }
    output = arguments.output or RESULTS / f"convergence_{arguments.dtype}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(to_json(answer) + "\n")
    return answer


if __name__ == "__main__":
    main()
