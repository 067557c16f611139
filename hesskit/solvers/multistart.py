r"""The best of many starts, and every minimum that was found on the way.

Runs that ended at stationary points are taken in the order of their values; a run belongs to the
first minimum before it that it lies beside,

    max_k |x_k - y_k|  <=  tolerance max(1, max_k |y_k|)                    (1)

else it is a minimum of its own.

Source: Rinnooy Kan & Timmer (1987), "Stochastic global optimization methods", Mathematical
Programming 39, 27-78, for the method (its clustering is done before the runs).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from hesskit.core import errors, tree
from hesskit.core.bounds import parse
from hesskit.core.keys import as_key
from hesskit.core.types import Array, Params, Scalar
from hesskit.solvers import starts
from hesskit.solvers.call import MAX_STEPS, held_leaves
from hesskit.solvers.many import minimize_many
from hesskit.solvers.many_result import ManyResult
from hesskit.solvers.result import Result

MOST_LISTED = 10


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Multistart:
    """The answer of `multistart`; `print` lists the minima.

    Attributes:
      runs: all runs, a `ManyResult`.
      first: of each run the lowest run at the same minimum, (N,) int32; -1 if it failed.
      best: the number of the lowest run that succeeded, () int32; of the lowest, if none did.
    """

    runs: ManyResult
    first: Array
    best: Array

    @property
    def result(self) -> Result:
        """The `Result` of the best run."""
        return self.runs[self.best]

    @property
    def params(self) -> Params:
        """The best point found."""
        return self.result.params

    @property
    def value(self) -> Array:
        """The value there, ()."""
        return self.result.value

    @property
    def minima(self) -> Array:
        """The runs that stand for distinct minima, by ascending value. Not under jit."""
        own = jnp.flatnonzero(self.first == jnp.arange(len(self.runs), dtype=jnp.int32))
        return own[jnp.argsort(self.runs.value[own], stable=True)]

    @property
    def counts(self) -> Array:
        """How many runs ended at each of `minima`. Not under jit."""
        return jnp.sum(
            self.first[None, :] == self.minima[:, None].astype(jnp.int32), axis=1, dtype=jnp.int32
        )

    def __str__(self) -> str:
        """The distinct minima with their values and how often they were met."""
        if isinstance(self.best, Tracer):
            return "Multistart"
        minima, counts = self.minima.tolist(), self.counts.tolist()
        lines = [f"{len(minima)} distinct minima; {self.runs}"]
        for index, count in list(zip(minima, counts, strict=True))[:MOST_LISTED]:
            lines.append(f"  value {float(self.runs.value[index]):.10g} from {count} starts")
        if len(minima) > MOST_LISTED:
            lines.append(f"  ... and {len(minima) - MOST_LISTED} more")
        return "\n".join(lines)


@jax.jit
def _first(runs: ManyResult, tolerance: Array) -> Array:
    """Of each run the lowest at the same minimum (1), or -1."""
    num = runs.status.shape[0]
    points = jnp.concatenate(
        [
            jnp.stack([leaf.real, leaf.imag], 1).reshape(num, -1)
            for leaf in jax.tree.leaves(runs.params)
        ],
        axis=1,
    )
    good = runs.success
    order = jnp.argsort(jnp.where(good, runs.value, jnp.inf), stable=True)
    x, good = points[order], good[order]
    size = jnp.maximum(1, jnp.max(jnp.abs(x), axis=1, initial=0))

    def take(is_own: Array, i: Array) -> tuple[Array, Array]:
        apart = jnp.max(jnp.abs(x - x[i][None, :]), axis=1, initial=0)
        beside = is_own & (apart <= tolerance * size)
        own = good[i] & ~jnp.any(beside)
        owner = jnp.where(own, i, jnp.argmax(beside).astype(jnp.int32))
        return is_own.at[i].set(own), jnp.where(good[i], owner, -1)

    places = jnp.arange(num, dtype=jnp.int32)
    _, owners = jax.lax.scan(take, jnp.zeros((num,), bool), places)
    labels = jnp.where(owners >= 0, order[owners], -1).astype(jnp.int32)
    return jnp.zeros((num,), jnp.int32).at[order].set(labels)


def _drawn(params: Params, held: tuple[bool, ...], box: Any, num: int, key: Any) -> Params:
    """`num` starts: `params` itself, and points uniform in the box but for the leaves held."""
    sides = parse(box, params, name="box")
    assert sides is not None
    leaves, structure = jax.tree.flatten(params)
    points = starts.drawn(sides.lower, sides.upper, num, as_key(key))
    made = []
    for leaf, point, stays in zip(leaves, jax.tree.leaves(points), held, strict=True):
        if stays:
            made.append(jnp.broadcast_to(leaf, (num, *leaf.shape)))
            continue
        if not isinstance(point, Tracer) and not bool(jnp.all(jnp.isfinite(point))):
            raise ValueError("box must be finite on both sides: starts are drawn uniformly in it")
        made.append(point.astype(leaf.dtype).at[0].set(leaf))
    return jax.tree.unflatten(structure, made)


def multistart(
    value_fn: Callable[..., Any],
    params: Params,
    optimizer: optax.GradientTransformation | None = None,
    *,
    box: Any = None,
    num_starts: int = 100,
    key: Any = 0,
    tolerance: Scalar | None = None,
    args: Any = (),
    lanes: int | None = None,
    has_aux: bool = False,
    fixed: Any = None,
    bounds: Any = None,
    gtol: Any = None,
    ftol: Any = None,
    xtol: Any = None,
    max_steps: Any = MAX_STEPS,
    check: str = "second_order",
) -> Multistart:
    r"""The best minimum from many starts, with all distinct minima that were found.

    Runs `hesskit.minimize_many` from `params` and from points drawn uniformly in `box`, or from
    the starts given. Nothing proves that the best is the global minimum.

    Args:
      value_fn: `value_fn(params, ...) -> ()`, or `-> ((), aux)` with `has_aux`.
      params: one start; or, without `box`, all of them, with a leading axis on every leaf.
      optimizer: as in `hesskit.minimize`.
      box: where starts are drawn, `(lower, upper)` or by path as `bounds` of `hesskit.minimize`,
        finite, with `params` inside. It does not bound the runs. Leaves that are held (`fixed`, or
        `hesskit.freeze` around the optimizer) are not drawn and need no box.
      num_starts: how many starts with `box`, `params` among them.
      key: for the starts, an int or a key of `jax.random`.
      tolerance: two runs end at the same minimum if no entry differs by more, relative to the
        largest entry or 1; None means eps^(1/3), 5e-3 in float32, 6e-6 in float64. Runs to a
        degenerate minimum such as that of sum((p - 1)**4) end farther apart, and then it is listed
        more than once: give a larger one.
      args: data for `value_fn`, shared by all runs.
      lanes: runs in work at a time, as in `hesskit.minimize_many`.
      has_aux: whether `value_fn` returns a pair.
      fixed: leaves to hold.
      bounds: as in `hesskit.minimize`.
      gtol: for the gradient; None means eps^(2/3).
      ftol: for the relative change of the value; None means off.
      xtol: for the relative length of a step; None means off.
      max_steps: trials at most, of each run.
      check: "second_order" asks for no negative curvature at the answers.

    Returns:
      A `Multistart`: `params`, `value` and `result` of the best, `minima`, `counts`, `runs`.

    Raises:
      TypeError: as in `hesskit.minimize`.
      ValueError: as in `hesskit.minimize`; the box is not finite.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> wells = lambda p: jnp.sum(p**4 - 2 * p**2) + 1
      >>> found = hesskit.multistart(wells, jnp.array([0.3, 0.2]), box=(-2, 2), num_starts=40)
      >>> print(len(found.minima), f"{found.value:.3f}")
      4 -1.000

    References:
      Rinnooy Kan & Timmer (1987), "Stochastic global optimization methods", part I.
    """
    params = errors.check_params(params)
    if box is not None:
        errors.check_count(num_starts, name="num_starts")
        params = _drawn(params, held_leaves(optimizer, fixed, params), box, int(num_starts), key)
    runs = minimize_many(
        value_fn,
        params,
        optimizer,
        args=args,
        in_axes=(0, None),
        lanes=lanes,
        has_aux=has_aux,
        fixed=fixed,
        bounds=bounds,
        gtol=gtol,
        ftol=ftol,
        xtol=xtol,
        max_steps=max_steps,
        check=check,
    )
    if tolerance is None:
        tolerance = tree.coarsest_eps(params) ** (1 / 3)
    first = _first(runs, jnp.asarray(tolerance, runs.value.dtype))
    lowest = jnp.where(jnp.isnan(runs.value), jnp.inf, runs.value)
    own = jnp.where(runs.success, lowest, jnp.inf)
    best = jnp.argmin(jnp.where(jnp.any(runs.success), own, lowest)).astype(jnp.int32)
    return Multistart(runs, first, best)
