"""A function and its second-order Taylor model along a direction."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hesskit.core import errors, pseudo_random, tree
from hesskit.core.slices import on_slice, stacked
from hesskit.plots._axes import CURVE, DATA, DOWN, number, one_axes

POINTS = 201


def taylor(
    model: Any, ax: Axes | None = None, *, direction: Any = None, length: float = 1.0
) -> Axes:
    """f and m at a + t d for t in [-length, length], and the order of what is between them.

    Args:
      model: what `hesskit.taylor` returned.
      ax: where; None makes a new figure.
      direction: d, like params; None means that of `model.remainder_order()`, a fixed pseudo-random
        one of length 1.
      length: how far to either side, in units of `direction`.

    Returns:
      The Axes.

    Raises:
      TypeError: `model` is something else, or `direction` has another dtype.
      ValueError: `direction` differs from params in structure or shapes, `length` is not positive.

    Example:
      >>> import jax.numpy as jnp, hesskit, hesskit.plots
      >>> model = hesskit.taylor(lambda p: jnp.exp(p[0] + p[1]), jnp.zeros(2))
      >>> ax = hesskit.plots.taylor(model, direction=jnp.array([1.0, 1.0]))
      >>> print(ax.get_legend_handles_labels()[1][:2])
      ['function', 'second-order model']
    """
    if not hasattr(model, "displaced"):
        raise TypeError(
            f"plots.taylor draws what hesskit.taylor returns, got {type(model).__name__}"
        )
    errors.check_number(length, name="length", open_low=True, none=False)
    if direction is None:
        direction = pseudo_random.like(model.params)
        direction = tree.scale(1 / tree.norm(direction), direction)
    else:
        direction = errors.check_params(direction, name="direction")
        errors.check_like(direction, model.params, name="direction", dtypes=True)
    order = model.remainder_order(direction, length=length)
    reach = tree.scale(float(length), direction)
    s = np.linspace(-1, 1, POINTS)
    found = on_slice(
        model.value_fn,
        model.params,
        stacked(reach),
        coefficients=s[:, None],
        args=model.args,
        caller="plots.taylor",
    )
    here, ahead = float(model.value), float(model.displaced(reach))
    behind = float(model.displaced(tree.negative(reach)))
    # The parabola through its values at -1, 0, 1.
    parabola = here + s * (ahead - behind) / 2 + s * s * ((ahead + behind) / 2 - here)
    ax = one_axes(ax)
    t, values = s * float(length), np.asarray(found.values, float)
    ax.plot(t, values, color=CURVE, linewidth=2, label="function")
    ax.plot(t, parabola, "--", color=DOWN, linewidth=2, label="second-order model")
    if int(order.num_visible) >= 2:
        label = f"remainder of order {number(order.order, 3)}"
        ax.fill_between(t, values, parabola, color=DOWN, alpha=0.15, linewidth=0, label=label)
    ax.plot(0, here, "o", color=DATA)
    ax.set_xlabel("displacement t along the direction")
    ax.set_ylabel("f(a + t d)")
    ax.legend()
    return ax
