"""Curve fits of real data with their error bars, beside certified ones."""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import hesskit
import hesskit.plots

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # the data and its models live with the tests

from tests import nist  # noqa: E402 - after the path

NAMES = ("Gauss1", "BoxBOD", "Thurber", "MGH10")


def fits(folder: Path) -> list[Path]:
    """Prints a table for each set, value and error beside the certified ones; draws the first.

    Args:
      folder: where pictures go.

    Returns:
      Their paths.
    """
    print("\nCurve fits of NIST's reference data, each from its far start, float64")
    pictures = []
    with jax.enable_x64(True):
        for name in NAMES:
            problem = nist.by_name(name)
            x, y, start = (jnp.asarray(a) for a in (problem.x, problem.y, problem.starts[0]))
            begin = time.perf_counter()
            fit = jax.block_until_ready(hesskit.curve_fit(problem.model, x, y, start))
            seconds = time.perf_counter() - begin
            _table(problem, fit, seconds)
            if not pictures:
                pictures.append(_picture(name, fit, folder))
    return pictures


def _table(problem: nist.NistProblem, fit: hesskit.FitResult, seconds: float) -> None:
    value = nist.digits(np.asarray(fit.params), problem.certified)
    error = nist.digits(np.asarray(fit.standard_errors), problem.deviations)
    print(
        f"{problem.name}: {len(problem.y)} points, {int(fit.num_values)} evaluations, "
        f"{seconds:.1f} s with compilation; {value:.1f} digits of the values and {error:.1f} of "
        "the errors agree"
    )
    print(f"    {'':<4}{'value':>18}{'certified':>18}{'error':>14}{'certified':>14}")
    rows = zip(fit.params, problem.certified, fit.standard_errors, problem.deviations, strict=True)
    for i, (found, certified, deviation, known) in enumerate(rows, start=1):
        print(f"    b{i:<3}{found:>18.10g}{certified:>18.10g}{deviation:>14.6g}{known:>14.6g}")


def _picture(name: str, fit: hesskit.FitResult, folder: Path) -> Path:
    path = folder / f"fit_{name}.png"
    figure, ax = plt.subplots(figsize=(8, 5))
    hesskit.plots.fit(fit, ax)
    ax.set_title(f"{name} (NIST): data, fit, 68 % band")
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path
