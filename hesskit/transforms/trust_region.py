r"""Newton's method in a trust region, each subproblem solved exactly.

At parameters x, with gradient g and dense Hessian H, each update takes

    s  =  argmin  g.s + s.Hs / 2   subject to   |D s| <= radius             (1)

to the hard case, from the eigen-decomposition of H. An indefinite H is no obstacle: at a saddle
or a maximum, where g = 0, the step follows the lowest eigenvector. The step is kept if f falls by
at least eta of what (1) predicts; the radius follows the ratio of the two.

Source: Nocedal & Wright (2006), Algorithm 4.1 and section 4.3; More & Sorensen (1983).
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import acceptance, errors, tree
from hesskit.core.rule import Context, Rule, Step
from hesskit.core.types import Array, Params
from hesskit.curvature import spectral
from hesskit.curvature.spectral import Spectrum
from hesskit.linalg.more_sorensen import trust_region_step
from hesskit.transforms import _build
from hesskit.transforms._build import Transformation


class TrustRegionInfo(NamedTuple):
    """What the last update did. For people; the next update never reads it."""

    status: Array  # (), int32, 0 while going on
    accepted: Array  # (), bool
    step_norm: Array  # (), |s| of an accepted step, 0 of a rejected one
    ratio: Array  # (), actual over predicted decrease
    grad_norm: Array  # (), at the kept point
    num_values: Array  # (), int32, evaluations of this update
    num_grads: Array  # (), int32
    num_products: Array  # (), int32, n for a new Hessian
    value_mismatch: Array  # (), |value given - value found|
    radius: Array  # (), the next radius, in the unit of |D params|


def _solve(model: Spectrum, grad: Params, size: Array, context: Context) -> Step:
    if context.bounds is not None:
        return spectral.bounded_step(model, grad, size, context)
    best = trust_region_step(model.eigenvalues, model.coefficients, size)
    return spectral.to_step(model, best.step, context.params, on_boundary=best.on_boundary)


def _first_radius(model: Spectrum, grad: Params, context: Context) -> Array:
    del grad
    return acceptance.first_radius(model.scale * tree.ravel(context.params), jnp.min(model.scale))


def _rule(radius: Any, scaling: str | None, chunk_size: int | None, bounds: Any = None) -> Rule:
    errors.check_number(radius, name="radius", open_low=True, schedule=True)
    errors.check_choice(scaling, (None, "curvature"), name="scaling")
    errors.check_count(chunk_size, name="chunk_size")
    scale = spectral.curvature_scale if scaling == "curvature" else None
    return Rule(
        info=TrustRegionInfo,
        empty=spectral.empty,
        build=functools.partial(spectral.build, scale=scale, chunk_size=chunk_size),
        solve=_solve,
        adapt=acceptance.next_radius,
        first_size=_first_radius,
        describe=lambda model, size: {"radius": size},
        size=radius,
        bounds=bounds,
    )


@_build.memoize
def trust_region(
    learning_rate: Any = None,
    *,
    radius: Any = None,
    scaling: str | None = None,
    chunk_size: int | None = None,
    bounds: Any = None,
    has_aux: bool = False,
) -> Transformation:
    r"""Newton's method in a trust region, each subproblem solved exactly; the method of choice.

    s = argmin g.s + s.Hs/2 over |D s| <= radius, to the hard case. One trial per update; a rejected
    one is a zero update, and f never increases. It leaves saddles and maxima, converges
    quadratically, and minimizes a convex quadratic in one step where the region allows.

    Args:
      learning_rate: None for steps that the method accepts or rejects itself. A number or schedule
        multiplies the step, and the radius stays what it was at first.
      radius: the first radius, in the unit of |D params|; a schedule of the count sets it anew at
        each point. None means the largest entry of D params, or the least of D where that is
        more: the scale of one parameter (measured on published problems).
      scaling: None for a round region, D = 1. "curvature": D_ii is the largest sqrt|H_ii| so far
        (More 1978), for parameters of unlike units.
      chunk_size: Hessian columns found at once; None: by memory.
      bounds: `(lower, upper)`, prefix trees of params, or `{"path": (lower, upper)}`; None or inf
        means none. Steps are minimizers on the faces of the box. The start must be inside.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation`. Its `update` needs `value_fn`.

    Raises:
      ValueError: `radius` is not positive, `scaling` none of the above.
      TypeError: a number was expected.

    For mini-batches: no in the accepting form (it compares values); with `learning_rate` and a
    small `radius`, yes.

    Cost of an update in gradients: 2n for the Hessian, and 2; a rejected one 1.5 with `value`
    passed on. Memory n^2.

    Example:
      >>> import jax.numpy as jnp
      >>> import hesskit
      >>> saddles = lambda x: jnp.sum(x**4 - 2 * x**2) + 1.0
      >>> result = hesskit.minimize(saddles, jnp.zeros(2), hesskit.trust_region())
      >>> print(jnp.abs(result.params).round(3), result.success)
      [1. 1.] True

    References:
      More & Sorensen (1983), SIAM J. Sci. Stat. Comput. 4, 553-572.
      Nocedal & Wright (2006), Numerical Optimization, Algorithm 4.1 and section 4.3.
    """
    rule = _rule(radius, scaling, chunk_size, bounds)
    return _build.build(
        rule,
        name="trust_region",
        learning_rate=learning_rate,
        has_aux=has_aux,
        any_structure=bounds is None,
        special=lambda box, _: rule if box is None else rule._replace(bounds=box),
    )


@_build.memoize
def scale_by_trust_region(
    *,
    radius: Any = None,
    scaling: str | None = None,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> Transformation:
    r"""The trust-region step with its sign changed, for chains.

    `trust_region(learning_rate=lr)` is
    `optax.chain(scale_by_trust_region(), scale_by_learning_rate(lr))`.

    Args:
      radius: as in `trust_region`; it stays what it was at first.
      scaling: None or "curvature", as in `trust_region`.
      chunk_size: Hessian columns found at once; None: by memory.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation` whose updates point uphill; its `update` needs `value_fn`.

    For mini-batches: yes, with a small `radius`. Cost of an update in gradients: 2n + 1.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> import hesskit
      >>> f = lambda x: jnp.sum((x - 3.0) ** 2)
      >>> scaled = hesskit.scale_by_trust_region(radius=0.5)
      >>> x = jnp.array([1.0])
      >>> updates, _ = scaled.update(jax.grad(f)(x), scaled.init(x), x, value_fn=f)
      >>> print(updates)
      [-0.5]

    References:
      Nocedal & Wright (2006), Numerical Optimization, section 4.3.
    """
    return _build.build(
        _rule(radius, scaling, chunk_size),
        name="scale_by_trust_region",
        learning_rate=1.0,
        has_aux=has_aux,
        sign=-1.0,
    )
