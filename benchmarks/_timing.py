"""How the benchmarks measure, and how they write down what they found.

Seconds are medians of interleaved runs: one round runs every candidate once, in order, so that a
machine that slows down slows all of them; a ratio is the median of the ratios within a round.
Compile seconds are CPU seconds of the process (all threads), which a busy machine does not stretch
by waiting.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

RESULTS = Path(__file__).parent / "results"


class Target(NamedTuple):
    """One figure of the design held against its bound."""

    what: str
    value: float
    bound: float

    @property
    def met(self) -> bool:
        return bool(self.value <= self.bound)  # NaN is not met; NumPy has bools of its own

    def line(self) -> str:
        verdict = "met" if self.met else "NOT MET"
        return f"{self.what}: {self.value:.3g} (target <= {self.bound:g}, {verdict})"


def interleaved(
    candidates: dict[str, Callable[[], Any]],
    *,
    rounds: int = 9,
    least: float = 0.01,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of a call of each candidate, one entry a round; a call is repeated up to `least`."""
    repeats = {}
    for name, call in candidates.items():
        jax.block_until_ready(call())  # compiles
        begin = clock()
        jax.block_until_ready(call())
        repeats[name] = max(1, round(least / max(clock() - begin, 1e-7)))
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            begin = clock()
            for _ in range(repeats[name]):
                answer = call()
            jax.block_until_ready(answer)
            seconds[name].append((clock() - begin) / repeats[name])
    return seconds


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios within a round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def compiled(fn: Callable[..., Any], *args: Any) -> Any:
    """The program, compiled ahead of time: to call, and to ask for its cost."""
    return jax.jit(fn).lower(*args).compile()


def flops(fn: Callable[..., Any], *args: Any) -> float:
    """XLA's own count for the compiled program; the body of a loop counts once."""
    return float(compiled(fn, *args).cost_analysis()["flops"])


def table(rows: Iterable[dict[str, Any]]) -> str:
    """The rows as aligned columns."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name, "")) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    lines = []
    for line in [names, *cells]:
        padded = [line[0].ljust(widths[0])]
        padded += [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join(padded))
    return "\n".join(lines)


def _cell(item: Any) -> str:
    return f"{item:.3g}" if isinstance(item, float) else str(item)


def report(name: str, question: str, rows: list[dict[str, Any]], targets: list[Target]) -> None:
    """Prints the table without curves, and the targets, and writes results/<name>.json."""
    shown = [{k: v for k, v in row.items() if not isinstance(v, list)} for row in rows]
    print(question, table(shown), *(target.line() for target in targets), sep="\n")
    RESULTS.mkdir(exist_ok=True)
    content = {
        "question": question,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "cpu": cpu(),
        "dtype": "float64" if jax.config.jax_enable_x64 else "float32",
        "rows": rows,
        "targets": [{**target._asdict(), "met": target.met} for target in targets],
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def hold_one_core() -> None:
    """Before jax counts the cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def cpu() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
