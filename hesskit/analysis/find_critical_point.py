r"""Which critical point is near, and which are there in a box?

From each start Newton's method on g = 0 with a safeguard (solvers/critical_point.py), which goes to
saddles and maxima as readily as to minima; then the second derivative test and beyond
(analysis/_critical.py). In a box starts are drawn at random and equal answers are told once: what
no start led to is not found.

Source: Nocedal & Wright (2006), section 11.2.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.analysis import _critical, _entry
from hesskit.analysis._critical import CriticalKind, CriticalPoint
from hesskit.core import errors, objective, tree
from hesskit.core.keys import as_key
from hesskit.core.leading_form import MAX_ORDER
from hesskit.core.types import Params
from hesskit.solvers import inputs
from hesskit.solvers.critical_point import Search, search
from hesskit.solvers.starts import drawn

MAX_STEPS = 200
"""Trials from one start: simple zeros take about ten, multiple ones a few digits every ten."""
NUM_STARTS = 128
"""Starts in a box: of nine points with equal basins one is missed once in half a million times."""
AT_ONCE = 2**22
"""Entries of the Hessians of all searches that run at the same time: 32 MB in float64."""


@functools.partial(jax.jit, static_argnames=("value_fn", "caller", "by_matrix", "lanes"))
def _search(
    params: Params,
    args: Any,
    max_steps: Any,
    *,
    value_fn: Any,
    caller: str,
    by_matrix: bool,
    lanes: int | None = None,
) -> Search:
    """The search from one start; with `lanes` from many stacked ones, so many at a time."""

    def one(start: Params) -> Search:
        fn, point = objective.real(value_fn, start, args=args, caller=caller)
        found = search(fn, point, max_steps, by_matrix=by_matrix)
        return found._replace(params=objective.join(found.params, start))

    return one(params) if lanes is None else jax.lax.map(one, params, batch_size=lanes)


def _classified(
    fn: Any, found: Search, args: Any, tolerance: Any, gtol: Any, max_order: int, caller: str
) -> CriticalPoint:
    """The kind of what was found; curvature at the rounding of that on the way counts as zero."""
    point = _critical.classify(
        fn,
        found.params,
        args=args,
        tolerance=tolerance,
        gtol=gtol,
        max_order=max_order,
        dense=None,
        key=0,
        max_products=None,
        caller=caller,
    )
    if tolerance is not None:
        return point
    seen = tree.coarsest_eps(found.params) * found.largest
    if not bool(point.tolerance < seen):
        return point
    return _classified(fn, found, args, seen, gtol, max_order, caller)


def find_critical_point(
    value_fn: Callable[..., Any],
    params: Params,
    *,
    args: Any = (),
    tolerance: Any = None,
    gtol: Any = None,
    max_order: int = MAX_ORDER,
    max_steps: Any = MAX_STEPS,
) -> CriticalPoint:
    r"""The critical point near `params`, of whatever kind it is: minimum, maximum or saddle.

    Newton's method on the gradient, with Levenberg-Marquardt damping until steps are good. To go to
    a minimum use `hesskit.minimize`. Runs outside of `jit`.

    Args:
      value_fn: `value_fn(params, ...) -> ()`.
      params: the start, a pytree of float or complex arrays.
      args: data for `value_fn`: a tuple, positional after params, or a dict, by name.
      tolerance: an eigenvalue within it counts as zero; None means the rounding of the Hessian at
        the answer, or, if larger, eps of the largest curvature on the way.
      gtol: a gradient of that norm counts as zero, as in `hesskit.classify_critical_point`; the
        search goes on to the last digit.
      max_order: of derivatives, where the Hessian is silent.
      max_steps: bound on steps.

    Returns:
      A `CriticalPoint`; `params` is the best point seen, and `kind` NOT_CRITICAL if the gradient is
      not zero there.

    Raises:
      TypeError: a leaf or the value is no float, `value_fn` no function.
      ValueError: the value is not a scalar, an argument is out of its range.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> f = lambda p: p[0] ** 4 + p[1] ** 4 - 2 * p[0] ** 2 - 2 * p[1] ** 2 + 1
      >>> found = hesskit.find_critical_point(f, jnp.array([0.9, 0.2]))
      >>> print(found.params.round(3) + 0.0, found.kind)
      [1. 0.] SADDLE

    References:
      Nocedal & Wright (2006), Numerical Optimization, section 11.2.
    """
    caller = "find_critical_point"
    fn = inputs.hashable(errors.check_callable(value_fn, name="value_fn"))
    errors.check_count(max_steps, name="max_steps")
    params = errors.check_params(params)
    by_matrix = tree.size(objective.split(params)) <= _entry.DENSE_LIMIT
    found = _search(params, args, max_steps, value_fn=fn, caller=caller, by_matrix=by_matrix)
    return _classified(fn, found, args, tolerance, gtol, max_order, caller)


def _is_pair(node: Any) -> bool:
    return isinstance(node, (tuple, list)) and len(node) == 2


def _box(box: Any) -> tuple[Params, Params]:
    """The lower and the upper corner."""
    corners = box
    if isinstance(box, dict):
        pairs, structure = jax.tree.flatten(box, is_leaf=_is_pair)
        if not all(map(_is_pair, pairs)):
            raise ValueError("box must have (low, high) at each leaf of params, or be two corners")
        corners = tuple(jax.tree.unflatten(structure, ends) for ends in zip(*pairs, strict=True))
    elif not (isinstance(box, tuple) and len(box) == 2):
        rows = jnp.asarray(box)
        if rows.ndim != 2 or rows.shape[1] != 2:
            raise ValueError(
                f"box must be (lower, upper) or an array of rows (low, high), got {rows.shape}"
            )
        corners = rows[:, 0], rows[:, 1]
    lower, upper = (errors.check_params(corner, name="box") for corner in corners)
    errors.check_like(upper, lower, name="the upper corner of box", dtypes=True)
    if not bool(tree.all_finite(tree.sub(upper, lower))):
        raise ValueError("box must be finite: starts are drawn in it")
    return lower, upper


def find_critical_points(
    value_fn: Callable[..., Any],
    box: Any,
    *,
    args: Any = (),
    num_starts: int = NUM_STARTS,
    key: Any = 0,
    tolerance: Any = None,
    gtol: Any = None,
    max_order: int = MAX_ORDER,
    max_steps: Any = MAX_STEPS,
) -> list[CriticalPoint]:
    r"""The critical points of `value_fn` in a box that random starts lead to, lowest first.

    Args:
      value_fn: `value_fn(params, ...) -> ()`.
      box: the corners `(lower, upper)`, each like params; for params that are a dict also one with
        (low, high) at each leaf; for params of one axis also an array of such rows, (n, 2).
      args: data for `value_fn`: a tuple, positional after params, or a dict, by name.
      num_starts: starts, drawn uniformly in the box.
      key: an int or a key, of the starts.
      tolerance: as in `hesskit.find_critical_point`.
      gtol: likewise.
      max_order: likewise.
      max_steps: likewise, from each start.

    Returns:
      A list of `CriticalPoint`, by value, each at one of the points found: those in the box whose
      gradient is zero, one of all that agree to eps^(1/4) of the box.

    Raises:
      TypeError: a corner or the value is no float, `value_fn` no function.
      ValueError: `box` is none, or not finite; an argument is out of its range.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> f = lambda x: x**3 / 3 - x
      >>> for point in hesskit.find_critical_points(f, (-2.0, 2.0), num_starts=16):
      ...     print(f"{point.params:.3f}", point.kind, f"{point.value:.3f}")
      1.000 MINIMUM -0.667
      -1.000 MAXIMUM 0.667

    References:
      Nocedal & Wright (2006), Numerical Optimization, section 11.2.
    """
    caller = "find_critical_points"
    fn = inputs.hashable(errors.check_callable(value_fn, name="value_fn"))
    errors.check_count(num_starts, name="num_starts")
    errors.check_count(max_steps, name="max_steps")
    lower, upper = _box(box)
    starts = drawn(lower, upper, int(num_starts), as_key(key))
    size = tree.size(lower)
    by_matrix = size <= _entry.DENSE_LIMIT
    lanes = min(num_starts, max(1, AT_ONCE // size ** (2 if by_matrix else 1)))
    ends = _search(
        starts, args, max_steps, value_fn=fn, caller=caller, by_matrix=by_matrix, lanes=lanes
    )
    points = []
    for i in _distinct(ends, lower, upper):
        found = jax.tree.map(lambda a, i=i: a[i], ends)
        points.append(_classified(fn, found, args, tolerance, gtol, max_order, caller))
    critical = [point for point in points if point.kind != CriticalKind.NOT_CRITICAL]
    order = sorted(range(len(critical)), key=lambda i: float(critical[i].value))
    return [critical[i] for i in order]


def _distinct(ends: Search, lower: Params, upper: Params) -> list[int]:
    """The places of ends in the box, the one with the least gradient of all that agree."""
    flat = jax.vmap(tree.ravel)(ends.params)
    low, high = tree.ravel(lower), tree.ravel(upper)
    near = tree.coarsest_eps(lower) ** 0.25 * (high - low)
    inside = jnp.all((flat >= (low - near)[None]) & (flat <= (high + near)[None]), axis=1)
    inside &= jnp.isfinite(ends.grad_norm)
    kept: list[int] = []
    for i in jnp.argsort(ends.grad_norm).tolist():
        if inside[i] and not any(bool(jnp.all(jnp.abs(flat[i] - flat[k]) <= near)) for k in kept):
            kept.append(i)
    return kept
