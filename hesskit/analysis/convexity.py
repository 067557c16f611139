r"""Is a function convex over a region, and how strongly?

    mu I  <=  H(x)  <=  L I     for all x of the region                     (1)

mu > 0 is strong convexity, mu >= 0 convexity, L the Lipschitz constant of the gradient. Points are
drawn from the region, so that what is found bounds mu from above and L from below: a negative
eigenvalue refutes convexity for good, and none found proves nothing.

Source: Boyd & Vandenberghe (2004), Convex Optimization, sections 3.1.4 and 9.1.2.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.analysis import _entry, _spectrum
from hesskit.core import answer, errors, objective, tree
from hesskit.core.answer import Kind
from hesskit.core.derivatives import linearized
from hesskit.core.keys import as_key
from hesskit.core.types import Array, Params
from hesskit.linalg.dense import dense
from hesskit.linalg.inertia import eigen, zero_tolerance
from hesskit.linalg.probes import normal
from hesskit.solvers import inputs


class ConvexityKind(Kind):
    """What was seen of the Hessian in the region; `print` gives the name."""

    UNDECIDED = 0
    STRONGLY_CONVEX_SO_FAR = 1
    CONVEX_SO_FAR = 2
    NEITHER = 3
    CONCAVE_SO_FAR = 4


def _lines(found: "Convexity") -> list[str]:
    return [
        f"{found.kind.name.lower().replace('_', ' ')}, at {int(found.num_points)} sampled points",
        f"mu is at most {float(found.mu_at_most):.6g}, L at least "
        f"{float(found.smoothness_at_least):.6g}",
    ]


@answer.printed("code", _lines)
class Convexity(NamedTuple):
    """The answer of `convexity`; `print` it.

    Attributes:
      code: of `kind`, (), int32.
      mu_at_most: the smallest eigenvalue seen, (): mu of the region is no larger.
      smoothness_at_least: the largest eigenvalue seen, (): the largest of the region is no smaller.
      least_convex: the point of the smallest eigenvalue, like params.
      num_points: points looked at, (), int32.
    """

    code: Array
    mu_at_most: Array
    smoothness_at_least: Array
    least_convex: Params
    num_points: Array

    @property
    def kind(self) -> Any:
        """A `hesskit.ConvexityKind`, printed by name; inside jit its code."""
        return answer.word(ConvexityKind, self.code)


def convexity(
    subject: Any,
    params: Params = None,
    *,
    args: Any = (),
    radius: Any = 1.0,
    num_points: int = 100,
    key: Any = 0,
) -> Convexity:
    r"""Sampled bounds on the curvature of a function in a ball: is it convex there?

    Args:
      subject: `value_fn(params, ...) -> ()`; or an `Operator` or a symmetric matrix, the Hessian of
        a quadratic function, of which one point says all.
      params: the center, for a function, a pytree of float or complex arrays; looked at too.
      args: data for `value_fn`: a tuple, positional after params, or a dict, by name.
      radius: of the ball, ().
      num_points: points drawn uniformly in it; n products and an eigen-decomposition each.
      key: an int or a key, of the points.

    Returns:
      A `Convexity`, in at least float32.

    Raises:
      TypeError: a leaf or the value is no float, `value_fn` no function.
      ValueError: the value is not a scalar, an argument is out of its range.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> print(hesskit.convexity(lambda p: jnp.sum(p**2), jnp.zeros(2)))
      strongly convex so far, at 101 sampled points
      mu is at most 2, L at least 2

    References:
      Boyd & Vandenberghe (2004), Convex Optimization, sections 3.1.4 and 9.1.2.
    """
    errors.check_number(radius, name="radius", none=False)
    errors.check_count(num_points, name="num_points")
    op = _entry.as_operator(subject, params, args=args, caller="convexity")
    if params is None:
        low, high, _ = _spectrum.ends(op, None, key, None)
        return _answer(low, high, op.like, _entry.size_of(op), _entry.eps_of(op), 1)
    params, fn = errors.check_params(params), inputs.hashable(subject)
    return _sampled(params, args, radius, as_key(key), value_fn=fn, num_points=int(num_points))


@functools.partial(jax.jit, static_argnames=("value_fn", "num_points"))
def _sampled(
    params: Params, args: Any, radius: Any, key: Array, *, value_fn: Any, num_points: int
) -> Convexity:
    fn, center = objective.real(value_fn, params, args=args, caller="convexity")
    n, dtype = tree.size(center), tree.result_dtype(center)

    def point(index: Array) -> Params:
        of_direction, of_length = jax.random.split(jax.random.fold_in(key, index))
        d = normal(of_direction, center)
        length = radius * jax.random.uniform(of_length, (), dtype) ** (1 / n)
        return tree.axpy(jnp.where(index > 0, length, 0) / tree.norm(d), d, center)

    def spectrum(index: Array) -> tuple[Array, Array]:
        x = point(index)
        product = linearized(fn, x).product
        assert product is not None
        w, _ = eigen(dense(product, x))
        return w[0], w[-1]

    low, high = jax.lax.map(spectrum, jnp.arange(num_points + 1, dtype=jnp.int32))
    worst = objective.join(point(jnp.argmin(low).astype(jnp.int32)), params)
    eps = tree.coarsest_eps(params)
    return _answer(jnp.min(low), jnp.max(high), worst, n, eps, num_points + 1)


def _answer(mu: Array, top: Array, worst: Params, n: int, eps: float, num: int) -> Convexity:
    tol = zero_tolerance(jnp.maximum(jnp.abs(mu), jnp.abs(top)), n, eps)
    rows = [
        (mu > tol, ConvexityKind.STRONGLY_CONVEX_SO_FAR),
        (mu >= -tol, ConvexityKind.CONVEX_SO_FAR),
        (top <= tol, ConvexityKind.CONCAVE_SO_FAR),
        ((mu < -tol) & (top > tol), ConvexityKind.NEITHER),
    ]
    code = jnp.asarray(int(ConvexityKind.UNDECIDED), jnp.int32)
    for holds, kind in reversed(rows):
        code = jnp.where(holds, jnp.int32(kind), code)
    return Convexity(code, mu, top, worst, jnp.asarray(num, jnp.int32))
