"""The eigenvalues of a matrix: a density as a curve, single ones as stems."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hesskit.plots._axes import CURVE, DOWN, UP, one_axes

TALL = 0.14
"""Of the height of the picture: stems under a density."""
TOGETHER = 1e-3
"""Eigenvalues within this share of the range count as one of several."""
FAINT = 0.05
"""The bottom of a logarithmic picture, in heights of the bump of one eigenvalue."""


def spectrum(
    found: Any,
    ax: Axes | None = None,
    *,
    eigenvalues: Any = None,
    width: float | None = None,
    log: bool = True,
) -> Axes:
    """A spectral density with its standard error, or eigenvalues as stems, or both.

    Alone, a stem is as high as there are eigenvalues at its place. Negative ones are orange, with
    another marker.

    Args:
      found: what `hesskit.spectral_density`, `hesskit.eigenpairs` or
        `hesskit.classify_critical_point` returned, or eigenvalues, (k,).
      ax: where; None makes a new figure.
      eigenvalues: stems to add to a density, the same but a density.
      width: standard deviation of the bumps of a density; None means a fiftieth of the range.
      log: whether the axis of a density is logarithmic, so that single outliers are seen.

    Returns:
      The Axes.

    Raises:
      TypeError: `found` or `eigenvalues` is something else.
      ValueError: it is a batch, or no eigenvalue is finite.

    Example:
      >>> import jax.numpy as jnp, hesskit, hesskit.plots
      >>> density = hesskit.spectral_density(jnp.diag(jnp.linspace(-1.0, 3.0, 200)))
      >>> ax = hesskit.plots.spectrum(density, eigenvalues=jnp.array([-1.0, 3.0]))
      >>> print(ax.get_legend_handles_labels()[1])
      ['density', 'one standard error', 'eigenvalues', 'negative eigenvalues']
    """
    is_density = hasattr(found, "density")
    values = _values(eigenvalues if is_density else found)
    ax = one_axes(ax)
    if is_density:
        _curve(ax, found, width, log=log)
    if values is not None:
        _stems(ax, values, under=is_density)
    ax.set_xlabel("eigenvalue")
    if ax.get_legend_handles_labels()[1]:
        ax.legend()
    return ax


def _values(found: Any) -> np.ndarray | None:
    """Finite eigenvalues, ascending."""
    if found is None:
        return None
    given = getattr(found, "eigenvalues", found)
    if not (hasattr(given, "shape") or isinstance(given, (list, tuple))):
        raise TypeError(
            "plots.spectrum draws what hesskit.spectral_density or hesskit.eigenpairs returns, or "
            f"eigenvalues (k,); got {type(found).__name__}"
        )
    values = np.asarray(given, float)
    if values.ndim != 1:
        raise ValueError(f"eigenvalues must be of shape (k,), got {values.shape}")
    values = np.sort(values[np.isfinite(values)])
    if not values.size:
        raise ValueError("no eigenvalue is finite")
    return values


def _curve(ax: Axes, found: Any, width: float | None, *, log: bool) -> None:
    if np.ndim(found.size) != 0:
        raise ValueError(
            "the density is a batch; plot one of it: jax.tree.map(lambda a: a[0], found)"
        )
    points, estimate = found.density(width=width)
    x, y = np.asarray(points, float), np.asarray(estimate.value, float)
    if not np.isfinite(y).any():
        raise ValueError("no eigenvalue is finite")
    error = np.nan_to_num(np.asarray(estimate.standard_error, float))
    ax.plot(x, y, color=CURVE, linewidth=1.8, label="density")
    if error.any():
        ax.fill_between(
            x, np.maximum(y - error, 0), y + error, color=CURVE, alpha=0.25, linewidth=0,
            label="one standard error",
        )  # fmt: skip
    ax.set_ylabel("density of eigenvalues")
    if log:
        low, high = (float(end) for end in found.ends)
        bump = 0.4 / max((high - low) / 50 if width is None else width, np.finfo(float).tiny)
        ax.set_yscale("log")
        ax.set_ylim(FAINT * bump / int(found.size), 2 * y.max())
    else:
        ax.set_ylim(bottom=0)


def _stems(ax: Axes, values: np.ndarray, *, under: bool) -> None:
    """Lines up to a marker: at one height below a density, else as high as there are of them."""
    near = TOGETHER * max(values[-1] - values[0], np.finfo(float).tiny)
    groups = np.split(values, np.flatnonzero(np.diff(values) > near) + 1)
    if under:
        groups = [values[i : i + 1] for i in range(values.size)]
    x = np.array([group.mean() for group in groups])
    height = np.full(x.size, TALL) if under else np.array([float(g.size) for g in groups])
    place: dict[str, Any] = {"transform": ax.get_xaxis_transform()} if under else {}
    for mine, color, marker, label in (
        (x >= 0, UP, "o", "eigenvalues"),
        (x < 0, DOWN, "v", "negative eigenvalues"),
    ):
        if mine.any():
            ax.vlines(x[mine], 0, height[mine], color=color, linewidth=1.2, **place)
            ax.plot(x[mine], height[mine], marker, color=color, markersize=5, label=label, **place)
    if not under:
        ax.set_ylabel("number of eigenvalues")
        ax.set_ylim(0, 1.15 * height.max())
        ax.axhline(0, color="black", linewidth=0.8)
