r"""The shape of a quadratic form: how far one may go for a given change of value.

    { h :  h.Hh / 2 = +-rise },     semi-axes  sqrt(2 rise / |w_i|)  along q_i                  (1)

with H q_i = w_i q_i: an ellipse at a minimum or a maximum, hyperbolas at a saddle, parallel lines
where an eigenvalue is zero.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hesskit.core import errors
from hesskit.plots._axes import DATA, DOWN, UP, number, one_axes

POINTS = 721
BEYOND = 2.5
"""Branches that go to infinity end at so many times the longest finite semi-axis."""


def eigen_ellipse(found: Any, ax: Axes | None = None, *, rise: float = 1.0) -> Axes:
    """Where the second-order term of a function is `rise` and `-rise`, with its eigenvectors.

    Solid blue where the function rises, dashed orange where it falls. Of more than two entries the
    plane of the eigenvectors of the lowest and the highest eigenvalue.

    Args:
      found: what `hesskit.classify_critical_point` or `hesskit.find_critical_point` returned, or a
        symmetric matrix.
      ax: where; None makes a new figure.
      rise: the change of value, positive.

    Returns:
      The Axes, in displacements from the point.

    Raises:
      TypeError: `found` has no eigenvalues and is no matrix.
      ValueError: `found` has no eigenvectors or is a batch, the matrix is not square and symmetric,
        all eigenvalues are zero.

    Example:
      >>> import jax.numpy as jnp, hesskit, hesskit.plots
      >>> ax = hesskit.plots.eigen_ellipse(jnp.array([[6.0, 2.0], [2.0, 2.0]]))
      >>> print(ax.get_legend_handles_labels()[1])
      ['rises by 1', 'eigenvalue 1.172', 'eigenvalue 6.828']
    """
    errors.check_number(rise, name="rise", open_low=True, none=False)
    w, q, small = _pairs(found)
    n = w.size
    if n < 2:
        raise ValueError("an ellipse needs two eigenvalues, there is one")
    w, q = w[[0, -1]], (q[:, [0, -1]] if n == 2 else np.eye(2))
    w = np.where(np.abs(w) <= small, 0, w)
    if not w.any():
        raise ValueError("all eigenvalues are zero: there is no ellipse")
    axes = np.sqrt(2 * rise / np.where(w == 0, np.inf, np.abs(w)))
    longest = BEYOND * axes.max() if (w.min() <= 0 <= w.max()) else 2 * axes.max()
    ax = one_axes(ax)
    angle = np.linspace(0, 2 * np.pi, POINTS)
    # The angle of the unit circle that axes stretch, so that a needle is smooth.
    scale = np.where(axes == 0, longest, axes)
    way = np.stack([scale[0] * np.cos(angle), scale[1] * np.sin(angle)])
    form = w @ (way * way) / 2
    for sign, color, style, word in ((1, UP, "-", "rises"), (-1, DOWN, "--", "falls")):
        factor = np.sqrt(rise / np.where(sign * form > 0, sign * form, np.nan))
        curve = way * factor
        curve = np.where(np.hypot(*curve) <= longest, curve, np.nan)
        if np.isfinite(curve).any():
            ax.plot(*(q @ curve), style, color=color, linewidth=2, label=f"{word} by {rise:.4g}")
    for value, vector, size, style in zip(w, q.T, scale, ("-", ":"), strict=True):
        vector = vector * np.sign(vector[np.argmax(np.abs(vector))])
        ends = np.stack([np.zeros(2), size * vector], axis=1)
        label = f"eigenvalue {number(value)}"
        ax.plot(*ends, style, color=DATA, linewidth=1.5, label=label)
        ax.plot(*ends[:, 1:], "o", color=DATA, markersize=4)
    names = ("x", "y") if n == 2 else ("along the lowest", "along the highest")
    ax.set(xlabel=f"displacement {names[0]}", ylabel=f"displacement {names[1]}")
    ax.margins(0.15)
    ax.set_aspect("equal", adjustable="datalim")
    # Above: whatever is inside may be an ellipse.
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return ax


def _pairs(found: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Eigenvalues, ascending, eigenvectors, and what counts as zero."""
    if hasattr(found, "eigenvalues"):
        w, q = np.asarray(found.eigenvalues, float), getattr(found, "eigenvectors", None)
        if w.ndim != 1:
            raise ValueError(
                "the answer is a batch; plot one of it: jax.tree.map(lambda a: a[0], found)"
            )
        if not hasattr(q, "shape"):
            raise ValueError(
                "the answer has no matrix of eigenvectors; classify it with dense=True"
            )
        return w, np.asarray(q, float), float(getattr(found, "tolerance", 0.0))
    if callable(found) or np.ndim(found) != 2:
        raise TypeError(
            "plots.eigen_ellipse draws what hesskit.classify_critical_point returns, or a matrix; "
            f"got {type(found).__name__}"
        )
    matrix = np.asarray(found, float)
    if matrix.shape[0] != matrix.shape[1] or not np.allclose(matrix, matrix.T, rtol=1e-4):
        raise ValueError(f"the matrix must be square and symmetric, got shape {matrix.shape}")
    w, q = np.linalg.eigh(matrix)
    return w, q, 1e-7 * float(np.abs(w).max())
