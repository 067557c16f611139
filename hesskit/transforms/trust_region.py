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
from hesskit.core.acceptance import Trial
from hesskit.core.method import Context, Rule, Step
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
    del grad
    best = trust_region_step(model.eigenvalues, model.coefficients, size)
    return spectral.to_step(model, best.step, context.params, on_boundary=best.on_boundary)


def _adapt(size: Array, norm: Array, on_boundary: Array, trial: Trial) -> Array:
    return acceptance.next_radius(size, norm, trial, on_boundary=on_boundary)


def _first_radius(model: Spectrum, grad: Params, context: Context) -> Array:
    del grad
    return acceptance.first_radius(model.scale * tree.ravel(context.params), jnp.min(model.scale))


@_build.memoize
def trust_region(
    learning_rate: Any = None,
    *,
    radius: Any = None,
    scaling: str | None = None,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> Transformation:
    """Doc."""
    errors.check_number(radius, name="radius", open_low=True, schedule=True)
    errors.check_choice(scaling, (None, "curvature"), name="scaling")
    scale = spectral.curvature_scale if scaling == "curvature" else None
    rule = Rule(
        info=TrustRegionInfo,
        empty=spectral.empty,
        build=functools.partial(spectral.build, scale=scale, chunk_size=chunk_size),
        solve=_solve,
        adapt=_adapt,
        first_size=_first_radius,
        describe=lambda model, size: {"radius": size},
        size=radius,
    )
    return _build.build(rule, name="trust_region", learning_rate=learning_rate, has_aux=has_aux)
