"""Data with error bars, the fitted curve, and its band."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hesskit.plots._axes import CURVE, DATA, one_axes, single

POINTS = 400
"""Of the curve."""


def fit(
    result: Any,
    ax: Axes | None = None,
    *,
    level: float = 0.683,
    kind: str = "confidence",
    x: Any = None,
    residuals: bool = False,
    labels: tuple[str, str] = ("x", "y"),
) -> Axes:
    """The data of a curve fit with error bars, the curve, and its band.

    Error bars are sigma, times sqrt(chi2 / dof) where absolute_sigma=False. Points of infinite
    sigma, which do not count, are hollow, an arrowhead where one lies beyond the rest.

    Args:
      result: what `hesskit.curve_fit` returned, for xdata and ydata of shape (m,).
      ax: where; None makes a new figure.
      level: that of the band.
      kind: "confidence", where the curve lies, or "prediction", where a new observation would.
      x: points of the curve, (k,); None spans the data evenly on the scale of the axis.
      residuals: add a panel below with data less curve, over sigma where that is known.
      labels: those of the axes.

    Returns:
      The Axes of data and curve.

    Raises:
      TypeError: `result` has no covariance.
      ValueError: there is no model, the data have no single axis, `result` is a batch.

    Example:
      >>> import jax.numpy as jnp, hesskit, hesskit.plots
      >>> line = lambda p, x: p["a"] + p["b"] * x
      >>> x, y = jnp.arange(4.0), jnp.array([1.0, 2.9, 5.1, 7.0])
      >>> ax = hesskit.plots.fit(hesskit.curve_fit(line, x, y, {"a": 0.0, "b": 0.0}))
      >>> print(ax.get_legend_handles_labels()[1])
      ['fit', '68.3 % confidence', 'data']
    """
    single(result)
    data = _data(result)
    ax = one_axes(ax)
    below = _panel_below(ax) if residuals else None
    grid = _curve_points(ax, data[0], x)
    # In the dtype of the data, which the model was made for.
    at = grid.astype(np.result_type(np.asarray(result.data.x), np.float16))
    band = result.band(at, level=level, kind=kind, **_new_sigma(result, kind))
    value, lower, upper = (np.asarray(part, float) for part in band)
    _points(ax, data, label="data")
    ax.plot(grid, value, color=CURVE, label="fit", zorder=3)
    if np.any(np.isfinite(lower)):
        label = f"{100 * level:.4g} % {kind}"
        ax.fill_between(grid, lower, upper, color=CURVE, alpha=0.25, linewidth=0, label=label)
    ax.set_ylabel(labels[1])
    _dropped(ax, data)
    _legend(ax)
    if below is None:
        ax.set_xlabel(labels[0])
        return ax
    _residuals(below, result, data)
    below.set_xlabel(labels[0])
    ax.tick_params(labelbottom=False)
    return ax


def _legend(ax: Axes) -> None:
    """The data first, then what was fitted to them."""
    handles, texts = ax.get_legend_handles_labels()
    ranks = {"data": 0, "data, not counted": 1}
    order = sorted(range(len(texts)), key=lambda i: ranks.get(texts[i], 2))
    ax.legend([handles[i] for i in order], [texts[i] for i in order])


def _data(result: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """x, y and the length of error bars, (m,) each; no bars where sigma is unknown."""
    if getattr(result, "model", None) is None:
        raise ValueError("plots.fit needs a model of x; plot the result of hesskit.curve_fit")
    x, y, sigma = result.data
    shapes = [getattr(part, "shape", None) for part in (x, y)]
    if shapes[0] is None or len(shapes[0]) != 1 or shapes[0] != shapes[1]:
        raise ValueError(
            "plots.fit draws ydata (m,) over xdata (m,); for others draw result.band(...) along a "
            f"line of your choice. Here xdata is {type(x).__name__} {shapes[0]}, ydata {shapes[1]}"
        )
    if np.iscomplexobj(np.asarray(y)):
        raise ValueError("plots.fit draws real ydata")
    x, y = np.asarray(x, float), np.asarray(y, float)
    if sigma is None:
        return x, y, None
    bars = np.asarray(sigma, float)
    bars = np.sqrt(np.diag(bars)) if bars.ndim == 2 else np.broadcast_to(bars, y.shape)
    scale = float(result.scale)
    return x, y, bars * (scale if np.isfinite(scale) else 1)


def _new_sigma(result: Any, kind: str) -> dict[str, Any]:
    """What `band` needs for new points where sigma differs: the median of the data's."""
    if kind != "prediction" or result.data.sigma is None or np.ndim(result.data.sigma) == 0:
        return {}
    bars = np.asarray(result.data.sigma, float)
    bars = np.sqrt(np.diag(bars)) if bars.ndim == 2 else bars
    return {"sigma": float(np.median(bars[np.isfinite(bars)]))}


def _curve_points(ax: Axes, x: np.ndarray, given: Any) -> np.ndarray:
    if given is not None:
        return np.asarray(given, float)
    if ax.get_xscale() == "log":
        return np.geomspace(x[x > 0].min(), x.max(), POINTS)
    return np.linspace(x.min(), x.max(), POINTS)


def _points(
    ax: Axes, data: tuple[np.ndarray, np.ndarray, np.ndarray | None], *, label: str = ""
) -> None:
    """Data that count, with bars."""
    x, y, bars = data
    counts = np.ones(x.shape, bool) if bars is None else np.isfinite(bars)
    size = 4 if x.size <= 200 else 2
    style: dict[str, Any] = {"color": DATA, "markersize": size, "linestyle": "none", "marker": "o"}
    length = None if bars is None else bars[counts]
    ax.errorbar(
        x[counts], y[counts], length, elinewidth=0.9, alpha=0.8, zorder=2, label=label, **style
    )


def _dropped(ax: Axes, data: tuple[np.ndarray, np.ndarray, np.ndarray | None]) -> None:
    """What does not count, hollow; an arrowhead at the edge for what lies beyond the rest."""
    x, y, bars = data
    lost = np.zeros(x.shape, bool) if bars is None else ~np.isfinite(bars) & np.isfinite(y)
    if not lost.any():
        return
    low, high = ax.get_ylim()  # of all that counts
    x, y = x[lost], y[lost]
    style: dict[str, Any] = {"color": DATA, "markerfacecolor": "none", "linestyle": "none"}
    label: str | None = "data, not counted"
    for marker, there, at in (
        ("o", (y >= low) & (y <= high), y),
        ("^", y > high, np.full(y.shape, high)),
        ("v", y < low, np.full(y.shape, low)),
    ):
        if there.any():
            ax.plot(
                x[there],
                at[there],
                marker,
                label=label,
                clip_on=False,
                scaley=False,
                alpha=0.6,
                **style,
            )
            label = None


def _panel_below(ax: Axes) -> Axes:
    """A flat panel below `ax`, which shares its x axis and gives room to it."""
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError("residuals=True needs an ax made by plt.subplots or fig.add_subplot")
    rows = place.subgridspec(2, 1, height_ratios=(3, 1), hspace=0.05)
    ax.set_subplotspec(rows[0])
    return ax.figure.add_subplot(rows[1], sharex=ax)


def _residuals(
    ax: Axes, result: Any, data: tuple[np.ndarray, np.ndarray, np.ndarray | None]
) -> None:
    x, y, bars = data
    model = np.asarray(result.model(result.params, result.data.x), float)
    ax.axhline(0, color=CURVE, linewidth=1)
    ax.margins(y=0.2)  # whole markers, in a flat panel
    if bars is None:
        _points(ax, (x, y - model, None))
        ax.set_ylabel("residual")
        return
    counts = np.isfinite(bars)
    _points(ax, (x[counts], (y - model)[counts] / bars[counts], np.ones(counts.sum())))
    ax.set_ylabel("residual / σ")
