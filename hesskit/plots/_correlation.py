"""The correlation matrix of parameters, with its numbers."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hesskit.plots._axes import estimate, one_axes

MOST_NUMBERS = 15
"""Rows up to which the numbers are written into the cells."""
DARK = 0.6
"""|r| from which a number is written in white."""


def correlation(result: Any, ax: Axes | None = None) -> Axes:
    """The correlation matrix of the parameters of a fit or a Laplace approximation.

    Entries that are fixed or have no standard error are left out.

    Args:
      result: what `hesskit.curve_fit`, `hesskit.least_squares` or `hesskit.laplace` returned.
      ax: where; None makes a new figure.

    Returns:
      The Axes.

    Raises:
      TypeError: `result` has no covariance.
      ValueError: no parameter has a standard error, or `result` is a batch.

    Example:
      >>> import jax.numpy as jnp, hesskit, hesskit.plots
      >>> line = lambda p, x: p["a"] + p["b"] * x
      >>> x, y = jnp.arange(4.0), jnp.array([1.0, 2.9, 5.1, 7.0])
      >>> ax = hesskit.plots.correlation(hesskit.curve_fit(line, x, y, {"a": 0.0, "b": 0.0}))
      >>> [label.get_text() for label in ax.get_xticklabels()]
      ['a', 'b']
    """
    known = estimate(result)
    ax = one_axes(ax)
    k = len(known.names)
    image = ax.imshow(known.correlation, cmap="RdBu_r", vmin=-1, vmax=1)
    ax.set_xticks(range(k), known.names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(k), known.names)
    ax.set_xticks(np.arange(k - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(k - 1) + 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=1.5)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    if k <= MOST_NUMBERS:
        for (i, j), r in np.ndenumerate(known.correlation):
            color = "white" if abs(r) > DARK else "black"
            text = "1" if i == j else f"{r:.2f}".replace("-0.00", "0.00")
            ax.text(j, i, text.replace("-", "−"), ha="center", va="center", color=color)
    ax.figure.colorbar(image, ax=ax, label="correlation", shrink=0.8)
    return ax
