r"""Is what we call the Hessian the symmetric Jacobian of the gradient?

    H_ij  =  H_ji   (Clairaut),       H v  =  lim  (g(x + t v) - g(x - t v)) / 2t           (1)

Products of automatic differentiation against each other, u.Hv = v.Hu, and against differences of
gradients. Both fail for a function whose rule of differentiation is wrong (a `custom_jvp`, say),
and the second where the function is not smooth enough at x: there second derivatives mislead.

Source: Munkres (1991), Analysis on Manifolds, theorem 6.3 (Clairaut); Nocedal & Wright (2006),
section 8.1 (the length of a difference).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import answer, errors, objective, tree
from hesskit.core.derivatives import linearized
from hesskit.core.keys import as_key
from hesskit.core.types import Array, Params
from hesskit.linalg.probes import normal
from hesskit.solvers import inputs

SHARES = (1, 4, 16)
"""Differences at a length and its parts, the best of which counts: functions have scales too."""


def _lines(found: "HessianCheck") -> list[str]:
    words = {True: "yes", False: "no"}
    return [
        f"symmetric                 {words[bool(found.symmetric)]}, |u.Hv - v.Hu| is "
        f"{float(found.asymmetry):.1e} of its size",
        f"Jacobian of the gradient  {words[bool(found.is_jacobian)]}, differences are off by "
        f"{float(found.jacobian_error):.1e}",
        f"{found.num_entries} second derivatives, {found.num_distinct} of them distinct",
    ]


@answer.printed("asymmetry", _lines)
class HessianCheck(NamedTuple):
    """The answer of `check_hessian`; `print` it.

    Attributes:
      symmetric: whether the asymmetry is rounding, () bool.
      is_jacobian: whether products are differences of gradients to their accuracy, () bool.
      asymmetry: the largest |u.Hv - v.Hu| / (|u||Hv| + |v||Hu|) of all pairs, ().
      jacobian_error: the largest |Hv - difference| / |Hv|, (), of the best of three lengths.
      size: n, a Python int, or (), int32 if it comes out of jit.
    """

    symmetric: Array
    is_jacobian: Array
    asymmetry: Array
    jacobian_error: Array
    size: Any

    @property
    def num_entries(self) -> int:
        """n^2, a Python int; not under jit."""
        return int(self.size) ** 2

    @property
    def num_distinct(self) -> int:
        """n (n + 1) / 2, likewise."""
        return int(self.size) * (int(self.size) + 1) // 2


def check_hessian(
    value_fn: Callable[..., Any],
    params: Params,
    *,
    args: Any = (),
    num_probes: int = 4,
    key: Any = 0,
) -> HessianCheck:
    r"""Whether Hessian products are symmetric and differences of gradients, along random vectors.

    Args:
      value_fn: `value_fn(params, ...) -> ()`.
      params: the point, a pytree of float or complex arrays.
      args: data for `value_fn`: a tuple, positional after params, or a dict, by name.
      num_probes: vectors tried, two products and six gradients each.
      key: an int or a key, of the vectors.

    Returns:
      A `HessianCheck`.

    Raises:
      TypeError: a leaf or the value is no float, `value_fn` no function.
      ValueError: the value is not a scalar, `num_probes` no positive integer.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> f = lambda p: p[0] ** 2 * p[1] + jnp.sin(p[0] * p[1])
      >>> found = hesskit.check_hessian(f, jnp.array([1.0, 2.0]))
      >>> print(found.symmetric, found.is_jacobian, found.num_distinct)
      True True 3

    References:
      Nocedal & Wright (2006), Numerical Optimization, section 8.1.
    """
    fn = inputs.hashable(errors.check_callable(value_fn, name="value_fn"))
    errors.check_count(num_probes, name="num_probes")
    params = errors.check_params(params)
    found = _check(params, args, as_key(key), value_fn=fn, num_probes=int(num_probes))
    return found._replace(size=tree.size(objective.split(params)))


@functools.partial(jax.jit, static_argnames=("value_fn", "num_probes"))
def _check(
    params: Params, args: Any, key: Array, *, value_fn: Any, num_probes: int
) -> HessianCheck:
    fn, point = objective.real(value_fn, params, args=args, caller="check_hessian")
    product = linearized(fn, point).product
    assert product is not None
    eps = tree.coarsest_eps(params)
    length = eps ** (1 / 3) * jnp.maximum(1, tree.norm(point))

    def one(key: Array) -> tuple[Array, Array]:
        of_u, of_v = jax.random.split(key)
        u, v = normal(of_u, point), normal(of_v, point)
        v = tree.scale(1 / tree.norm(v), v)
        hu, hv = product(u), product(v)
        size = tree.norm(u) * tree.norm(hv) + tree.norm(v) * tree.norm(hu)
        gap = jnp.abs(tree.vdot(u, hv) - tree.vdot(v, hu))

        def off(length: Array) -> Array:
            sides = [jax.grad(fn)(tree.axpy(s * length, v, point)) for s in (1.0, -1.0)]
            difference = tree.scale(1 / (2 * length), tree.sub(sides[0], sides[1]))
            rounding = tree.norm(sides[0]) * eps / length
            error = tree.norm(tree.sub(hv, difference))
            return _share(error, tree.norm(hv) + rounding)

        errors_of = jax.lax.map(off, jnp.stack([length / share for share in SHARES]))
        return _share(gap, size), jnp.min(errors_of)

    asymmetry, error = jax.lax.map(one, jax.random.split(key, num_probes))
    asymmetry, error = jnp.max(asymmetry), jnp.max(error)
    return HessianCheck(
        symmetric=asymmetry <= 1e3 * eps,
        is_jacobian=error <= eps**0.25,
        asymmetry=asymmetry,
        jacobian_error=error,
        size=0,
    )


def _share(part: Array, whole: Array) -> Array:
    return jnp.where(part > 0, part / jnp.where(whole > 0, whole, 1), part)
