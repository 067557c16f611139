r"""A loss about a point, in the plane of the two extreme eigenvectors of its Hessian.

    f(x + s u + t v),     H u = w_max u,  H v = w_min v,  |u| = |v| = 1                    (1)

Source: Li, Xu, Taylor, Studer & Goldstein (2018), Visualizing the loss landscape of neural nets;
Yao, Gholami, Keutzer & Mahoney (2020), PyHessian.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hesskit.analysis.eigenpairs import eigenpairs
from hesskit.core.slices import on_slice, picked
from hesskit.plots._axes import DATA, grid, level_curves, number, one_axes


def landscape(
    value_fn: Callable[..., Any],
    ax: Axes | None = None,
    *,
    params: Any = None,
    pairs: Any = None,
    xlim: tuple[float, float] = (-1.0, 1.0),
    ylim: tuple[float, float] = (-1.0, 1.0),
    args: Any = (),
    levels: Any = 14,
    num: int = 51,
    key: Any = 0,
) -> Axes:
    """Curves of equal value in the plane (1); a surface where `ax` has three dimensions.

    It takes `num` squared values beside the eigenvectors, one after another where params are many.

    Args:
      value_fn: `value_fn(params, ...) -> ()`.
      ax: where; None makes a new figure.
      params: the point, any pytree.
      pairs: what `hesskit.eigenpairs` returned there, of which the first and the last are taken;
        None means `eigenpairs(value_fn, params, 1, which="both")`.
      xlim: the ends of s, along the eigenvector of the largest eigenvalue.
      ylim: those of t, along that of the smallest.
      args: data for `value_fn`.
      levels: the values that have a curve, or how many.
      num: points along an axis.
      key: an int or a key, of the random start of Lanczos.

    Returns:
      The Axes.

    Raises:
      TypeError: `params` is missing, a leaf or the value is no float.
      ValueError: params have one entry, `pairs` is one pair, the value is no scalar, no interval.

    Example:
      >>> import jax.numpy as jnp, hesskit.plots
      >>> loss = lambda p: jnp.sum(p["w"] ** 2) - 2 * p["b"] ** 2
      >>> point = {"w": jnp.zeros(3), "b": jnp.array(0.0)}
      >>> ax = hesskit.plots.landscape(loss, params=point)
      >>> print(ax.get_xlabel(), "and", ax.get_ylabel())
      eigenvector of 2 and eigenvector of −4
    """
    if params is None:
        raise TypeError("plots.landscape needs the point: landscape(f, params=x)")
    if pairs is None:
        pairs = eigenpairs(value_fn, params, 1, args=args, which="both", key=key)
    w = np.asarray(pairs.eigenvalues, float)
    if w.shape[0] < 2:
        raise ValueError('pairs must be two or more: eigenpairs(f, x, 1, which="both")')
    where = grid(xlim, ylim, num)
    found = on_slice(
        value_fn,
        params,
        picked(pairs.eigenvectors, (-1, 0)),
        coefficients=where.points,
        args=args,
        caller="plots.landscape",
    )
    values = np.asarray(found.values, float)
    labels = [f"eigenvector of {number(w[i])}" for i in (-1, 0)]
    ax = one_axes(ax)
    if not hasattr(ax, "plot_surface"):
        level_curves(ax, where, values, levels)
        ax.plot(0, 0, "o", color=DATA)
    else:
        x, y = np.meshgrid(where.x, where.y)
        z = np.where(np.isfinite(values), values, np.nan).reshape(num, num)
        solid: Any = ax
        solid.plot_surface(x, y, z, cmap="cividis", alpha=0.85, linewidth=0)
        solid.set_zlabel("value")
    ax.set(xlabel=labels[0], ylabel=labels[1], xlim=xlim, ylim=ylim)
    return ax
