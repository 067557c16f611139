r"""A line search that survives float32: one evaluation at a time, approximate Wolfe under rounding.

Along a direction d from x, with phi(a) = f(x + a d), a length a is kept if

    phi(a) <= phi(0) + delta a phi'(0)   and   phi'(a) >= sigma phi'(0)               (1)

or, since values may be equal to rounding while slopes still tell,

    phi(a) <= ceiling   and   (2 delta - 1) phi'(0) >= phi'(a) >= sigma phi'(0)       (2)

The search keeps an interval [low, high] that holds such an `a`: phi'(low) < 0 with phi(low) under
the ceiling, and at `high` the slope is up, the value above the ceiling, or something not finite.
Trials come from the cubic through both ends, the secant of the slopes where values are noise, or
bisection where the interval shrinks too slowly. It is a machine: `begin`, then one `tell` for each
evaluation at `length`; nothing here calls the objective.

Source: Hager & Zhang (2005), SIAM J. Optim. 16, 170-192, (2.2), (4.1) and section 4; Nocedal &
Wright (2006), (3.59) for the cubic.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.types import Array, Params, Scalar

DELTA = 0.1  # Hager & Zhang (2005), section 5
SIGMA = 0.9  # the same
SHRINK = 0.66  # gamma, the same: an interval that keeps more than this of its width is bisected
EXPAND = (2.0, 10.0)  # around their rho = 5
INSIDE = 0.02  # a trial keeps this part of the interval from its ends
RETREAT = 0.2  # after a trial that was not finite
MAX_TRIALS = 30  # float32 halves 24 times before nothing moves


class LineSearchInfo(NamedTuple):
    """What the last update did. For people; the next update never reads it."""

    status: Array  # (), int32, 0 while going on
    accepted: Array  # (), bool
    step_norm: Array  # (), |s| of an accepted step, 0 of a rejected one
    ratio: Array  # (), decrease over that of a parabola with the slopes met
    grad_norm: Array  # (), at the kept point
    num_values: Array  # (), int32, evaluations of this update
    num_grads: Array  # (), int32
    num_products: Array  # (), int32, 0
    value_mismatch: Array  # (), 0: nothing is evaluated at the kept point
    learning_rate: Array  # (), the length along the direction
    num_linesearch_steps: Array  # (), int32, trials of the last search
    num_pairs: Array  # (), int32, held by the memory
    decrease_error: Array  # (), by how much the last trial missed sufficient decrease
    curvature_error: Array  # (), and the curvature condition

    @property
    def info(self) -> "LineSearchInfo":
        """Itself: `state[-1].info` is how loops around `optax.lbfgs` read it."""
        return self


class End(NamedTuple):
    """A point on the line; all ()."""

    length: Array
    value: Array
    slope: Array


class LineSearch(NamedTuple):
    """What the next `tell` needs; all ().

    `start` is the point of length 0; `longest` the length that may not be passed; `closing` says
    that `length` is that of `best` again, for want of anything better; `met` that a trial was
    finite and not at the start again; the errors are by how much the last trial missed the two
    parts of (1), 0 if it did not.
    """

    start: End
    longest: Array
    low: End
    high: End
    best: End
    length: Array  # to evaluate next
    num_trials: Array
    accepted: Array  # the last trial is the answer
    exhausted: Array  # there is no answer
    closing: Array
    met: Array
    decrease_error: Array
    curvature_error: Array


class Rules(NamedTuple):
    """The constants of a search: delta and sigma of (1), the most trials."""

    delta: Any = DELTA
    sigma: Any = SIGMA
    max_trials: Any = MAX_TRIALS


DEFAULT = Rules()


def begin(value: Array, slope: Array, length: Scalar, longest: Scalar = jnp.inf) -> LineSearch:
    """The search before its first trial.

    Args:
      value: phi(0), ().
      slope: phi'(0) < 0, ().
      length: the first trial, positive.
      longest: the length that may not be passed.

    Returns:
      The first state.
    """
    zero, no = jnp.zeros_like(slope), jnp.array(False)
    longest = jnp.asarray(longest, slope.dtype)
    start = End(zero, value.astype(slope.dtype), slope)
    return LineSearch(
        start=start,
        longest=longest,
        low=start,
        high=End(jnp.full_like(zero, jnp.inf), zero, zero),
        best=start,
        length=jnp.minimum(jnp.asarray(length, slope.dtype), longest),
        num_trials=jnp.zeros((), jnp.int32),
        accepted=no,
        exhausted=no,
        closing=no,
        met=no,
        decrease_error=zero,
        curvature_error=zero,
    )


def first_step(params: Params, grad_norm: Array) -> Array:
    """The length of the first step: |g|, at most 1, and between 1e-3 and 1 of |params|."""
    size = tree.norm(params)
    size = jnp.where(size > 0, size, 1)
    return jnp.clip(jnp.minimum(grad_norm, 1), 1e-3 * size, size)


def sloped(search: LineSearch, slope: Array) -> LineSearch:
    """The search with its slope at length 0, where `begin` did not know it."""
    start = search.start._replace(slope=slope.astype(search.start.slope.dtype))
    at_start = search.low.length == 0
    return search._replace(start=start, low=tree.where(at_start, start, search.low))


def walled(search: LineSearch) -> Array:
    """Whether it met nothing but the start again and values that are not finite."""
    return ~search.met & ~jnp.isfinite(search.high.value)


def _errors(search: LineSearch, trial: End, rules: Rules) -> tuple[Array, Array]:
    """By how much the trial misses the two parts of (1); NaN stays."""
    start = search.start
    decrease = trial.value - start.value - rules.delta * trial.length * start.slope
    return jnp.maximum(decrease, 0), jnp.maximum(rules.sigma * start.slope - trial.slope, 0)


def _keeps(search: LineSearch, trial: End, ceiling: Array, rules: Rules) -> Array:
    """(1) or (2); at the longest length the slope may still point down. NaN fails."""
    decrease, curvature = _errors(search, trial, rules)
    turned = curvature <= 0
    flat = (2 * rules.delta - 1) * search.start.slope >= trial.slope
    end = trial.length >= search.longest
    return ((decrease <= 0) & (turned | end)) | ((trial.value <= ceiling) & flat & turned)


def _cubic(low: End, high: End) -> Array:
    """The minimizer of the cubic through values and slopes of both ends; NaN if it has none."""
    width = high.length - low.length
    bend = low.slope + high.slope - 3 * (high.value - low.value) / width
    unit = jnp.maximum(jnp.abs(bend), jnp.maximum(jnp.abs(low.slope), jnp.abs(high.slope)))
    bend, first, last = bend / unit, low.slope / unit, high.slope / unit
    root = jnp.sqrt(bend * bend - first * last)
    return high.length - width * (last + root - bend) / (last - first + 2 * root)


def _secant(low: End, high: End) -> Array:
    """Where the line through both slopes is zero; NaN or worse unless they differ."""
    width = high.length - low.length
    return low.length - width * low.slope / (high.slope - low.slope)


def _inside(search: LineSearch, slow: Array, noise: Array) -> Array:
    """The next trial between the ends."""
    low, high = search.low, search.high
    width = high.length - low.length
    least, most = low.length + INSIDE * width, high.length - INSIDE * width
    smooth = jnp.isfinite(high.value) & jnp.isfinite(high.slope)
    seen = jnp.abs(high.value - low.value) > noise
    curve = jnp.where(
        seen, _cubic(low, high), jnp.where(high.slope > 0, _secant(low, high), jnp.nan)
    )
    middle = low.length + width / 2
    guess = jnp.where(jnp.isfinite(curve), jnp.clip(curve, least, most), middle)
    guess = jnp.where(slow, middle, guess)
    return jnp.where(smooth, guess, low.length + RETREAT * width)


def _beyond(search: LineSearch, before: End) -> Array:
    """The next trial past `low`: the secant of the last two slopes, held to [2, 10] lengths."""
    low = search.low
    guess = _secant(before, low)
    short, long = EXPAND[0] * low.length, EXPAND[1] * low.length
    guess = jnp.where(guess > 0, jnp.clip(guess, short, long), long)
    return jnp.minimum(guess, search.longest)


def tell(
    search: LineSearch,
    value: Array,
    slope: Array,
    *,
    finite: Array,
    calmer: Array,
    ceiling: Array,
    noise: Array,
    lowest: Scalar = -jnp.inf,
    rules: Rules = DEFAULT,
) -> LineSearch:
    """The next state, from the evaluation at `search.length`.

    Args:
      search: the search.
      value: phi there, ().
      slope: phi' there, ().
      finite: whether value and gradient are finite, () bool.
      calmer: whether the gradient is no longer than at length 0, () bool: a step that changes the
        value by rounding alone must at least do that, or a run could go in circles.
      ceiling: the highest value that counts as no increase, ().
      noise: a difference of values up to this is rounding, ().
      lowest: a value below this is progress, however small the difference: the lowest so far, ().
      rules: the constants.

    Returns:
      The search, `accepted` if this trial is the answer, `exhausted` if there will be none.
    """
    start, nan = search.start, jnp.full_like(search.length, jnp.nan)
    trial = End(search.length, value.astype(nan.dtype), slope.astype(nan.dtype))
    trial = tree.where(finite, trial, End(search.length, nan, nan))
    sure = calmer | (start.value - trial.value > noise) | (trial.value < lowest)
    content = sure & _keeps(search, trial, ceiling, rules)
    rising = ~((trial.slope < 0) & (trial.value <= ceiling))  # NaN too
    better = trial.value < search.best.value
    moved = search._replace(
        low=tree.where(rising, search.low, trial),
        high=tree.where(rising, trial, search.high),
        best=tree.where(better, trial, search.best),
    )
    length = _next(search, moved, noise)
    low, high, num = moved.low.length, moved.high.length, search.num_trials + 1
    stuck = ~((length > low) & (length < high)) | (low >= search.longest)
    ended = ~content & (stuck | (num >= rules.max_trials))
    usable = start.value - moved.best.value > noise
    closed = search.closing & finite & (trial.value <= ceiling)
    accepted = content | (ended & usable & better) | closed
    closing = ended & usable & ~accepted & ~search.closing
    decrease, curvature = _errors(search, trial, rules)
    return moved._replace(
        length=jnp.where(accepted, trial.length, jnp.where(closing, moved.best.length, length)),
        num_trials=num,
        accepted=accepted,
        exhausted=(ended | search.closing) & ~accepted & ~closing,
        closing=closing,
        met=search.met | (finite & ((trial.value != start.value) | (trial.slope != start.slope))),
        decrease_error=decrease,
        curvature_error=curvature,
    )


def _next(before: LineSearch, now: LineSearch, noise: Array) -> Array:
    """The length to try next, from the search before and after its ends moved."""
    width, old = (s.high.length - s.low.length for s in (now, before))
    # Above the ceiling with the slope still down there is a hill between: bisect (their U3).
    slow = (jnp.isfinite(old) & (width > SHRINK * old)) | (now.high.slope < 0)
    inside = _inside(now, slow, noise)
    return jnp.where(jnp.isfinite(now.high.length), inside, _beyond(now, before.low))
