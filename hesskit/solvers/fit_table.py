"""A fit as people like to read it: values with errors, how good it is, and what was strange."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core import objective, tree
from hesskit.core.digits import rounded
from hesskit.core.types import Array, Params
from hesskit.solvers.result import Result, count_statuses
from hesskit.solvers.spread import MOST, UNFORMED

STRONG = 0.5
"""Correlations above it are worth a line: half of one error is shared with another."""
MOST_CORRELATIONS = 6
MOST_ENTRIES = 40


def flat(params: Params) -> list[float]:
    """All entries as numbers, in the order of names."""
    return jax.device_get(tree.ravel(objective.split(params))).tolist()


def relative(value: float, error: float) -> str:
    """The error in percent of the value."""
    if not (math.isfinite(value) and math.isfinite(error) and error > 0 and value != 0):
        return ""
    percent = 100 * error / abs(value)
    if percent >= 1000:
        return "> 1000 %"
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:#.2g} %"


def columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows of cells as lines, the first and last column to the left and the rest to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *middle, last = row
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(middle, widths[1:-1], strict=True)]
        lines.append("  " + "  ".join([*cells, last]).rstrip())
    return lines


def entries(
    names: tuple[str, ...], values: list[float], errors: list[float], notes: list[str]
) -> list[str]:
    """The table of parameters: name, value, standard error, relative error, note."""
    rows = [("", "value", "std. error", "relative", "")]
    for name, value, error, note in zip(names, values, errors, notes, strict=True):
        rows.append((name, *rounded(value, error), relative(value, error), note))
    lines = columns(rows[: MOST_ENTRIES + 1])
    if len(rows) > len(lines):
        lines.append(f"  ... and {len(rows) - len(lines)} more")
    return lines


def correlations(names: tuple[str, ...], matrix: Array) -> list[str]:
    """A line for the largest correlations, or none."""
    found = [
        (abs(r), f"{names[i]} ~ {names[j]} {r:+.2f}")
        for i, row in enumerate(jax.device_get(matrix).tolist())
        for j, r in enumerate(row[:i])
        if abs(r) > STRONG
    ]
    strongest = sorted(found, key=lambda pair: -pair[0])[:MOST_CORRELATIONS]
    if not strongest:
        return []
    more = f" (of {len(found)})" if len(found) > len(strongest) else ""
    return [f"correlations: {', '.join(text for _, text in strongest)}{more}"]


def _interval(fit: Any) -> list[str]:
    """The bounds of each entry, as "[0, inf]"; empty without bounds."""
    if fit.bounds is None:
        return [""] * len(fit.names)
    sides = zip(flat(fit.bounds.lower), flat(fit.bounds.upper), strict=True)
    return [f" [{low:.4g}, {high:.4g}]" for low, high in sides]


def _notes(fit: Any) -> list[str]:
    """What is to be said of each entry."""
    intervals = _interval(fit)
    touching, is_open = (jax.device_get(a).tolist() for a in (fit.at_bound, fit.undetermined))
    notes = []
    for i, held in enumerate(fit.fixed):
        if held:
            notes.append("fixed")
        elif touching[i]:
            notes.append(f"at bound{intervals[i]}")
        else:
            notes.append("singular" if is_open[i] else "")
    return notes


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _open(names: tuple[str, ...], notes: list[str]) -> list[str]:
    """Sentences for entries that have no standard error."""
    noted = list(zip(names, notes, strict=True))
    stuck = [name for name, note in noted if note.startswith("at bound")]
    single = [name for name, note in noted if note == "singular"]
    lines = []
    if stuck:
        whole = not any("[" in name for name in stuck)
        how = f"fixed={(stuck[0] if len(stuck) == 1 else stuck)!r}" if whole else "fixed="
        lines.append(
            f"{_listed(stuck)}: no standard error at a bound; the errors of the others hold it "
            f"there. What depends on it (band, derived, sample) is NaN; refit with {how} to hold "
            "it in these, too."
        )
    if single:
        lines.append(
            f"{_listed(single)}: no standard error, since the data do not determine it: other "
            "values fit as well. Fix some, or ask derived(fn) for what is determined."
        )
    return lines


def _quality(fit: Any) -> list[str]:
    """The line of chi2, and the sentence on the scale of the errors."""
    chi2, dof = float(fit.chi2), int(fit.dof)
    parts = [f"chi2 = {chi2:.5g}", f"dof = {dof}"]
    if dof > 0:
        parts.append(f"chi2/dof = {chi2 / dof:.4g}")
    if math.isfinite(fit.r_squared):
        parts.append(f"R^2 = {float(fit.r_squared):.6g}")
    if fit.absolute_sigma and dof > 0:
        parts.append(f"p = {float(fit.p_value):.2g}")
    lines = [", ".join(parts)]
    if not math.isfinite(chi2):
        return lines
    if not fit.spread.is_formed:
        count = fit.spread.at_bound.size
        lines.append("no standard errors, for there is " + UNFORMED.format(most=MOST, count=count))
    elif fit.sandwich and dof > 0:
        lines.append('errors of covariance="sandwich", which no scale of sigma changes')
    elif not fit.absolute_sigma and dof > 0:
        scale = float(fit.scale)
        lines.append(f"errors scaled by sqrt(chi2/dof) = {scale:.3g} (absolute_sigma=False)")
    elif not fit.absolute_sigma:
        lines.append(
            f"no standard errors: dof = {dof} leaves nothing to estimate the size of sigma from; "
            "give sigma and absolute_sigma=True"
        )
    return lines


def _cost(fit: Result) -> str:
    steps, values, grads = (int(n) for n in (fit.num_steps, fit.num_values, fit.num_grads))
    return f"{steps} steps, {values} values, {grads} gradients"


def table(fit: Any) -> str:
    """The text of `print(fit)`.

    Args:
      fit: a `FitResult`.

    Returns:
      Some ten lines; one for a batch, or inside `jit`.
    """
    if isinstance(fit.value, Tracer):
        return f"FitResult of {fit.method}"
    if jnp.ndim(fit.status) > 0:
        return f"{fit.method}: {count_statuses(fit)}"
    word = "success" if bool(fit.success) else "no success"
    known = math.isfinite(fit.chi2)  # else nothing is known of the errors
    notes = _notes(fit) if known else ["" for _ in fit.names]
    return "\n".join(
        [
            f"{fit.method}: {word}, {_cost(fit)}",
            *entries(fit.names, flat(fit.params), flat(fit.standard_errors), notes),
            *_quality(fit),
            fit.message,
            *_open(fit.names, notes),
            *(correlations(fit.names, fit.correlation) if known and fit.spread.is_formed else []),
        ]
    )
