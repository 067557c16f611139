r"""Adaptive cubic regularization of Newton's method, each subproblem solved exactly.

At parameters x, with gradient g and dense Hessian H, each update takes

    s  =  argmin  g.s + s.Hs / 2 + sigma |s|^3 / 3                          (1)

to the hard case, from the eigen-decomposition of H. With sigma above half the Lipschitz constant of
H the model lies above f; nobody knows that constant, so sigma follows the ratio r of actual to
predicted decrease of (1):

    sigma / 4                      if r >= 0.9
    sigma                          if the step is kept
    what shortens s to a part      else                                     (2)

where the part is the minimizer of the parabola through f, g.s and the trial value, in [0.25, 0.5].
At a saddle or a maximum, where g = 0, the minimizer of (1) lies along the lowest eigenvector.

Source: Cartis, Gould & Toint (2011), Mathematical Programming 127, Algorithm 2.1; interpolation
instead of doubling in the spirit of Gould, Porcelli & Toint (2012), "Updating the regularization
parameter in the adaptive cubic regularization algorithm".
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import acceptance, errors, tree
from hesskit.core.acceptance import Trial
from hesskit.core.rule import Context, Rule, Step
from hesskit.core.types import Array, Params
from hesskit.curvature import spectral
from hesskit.curvature.spectral import Spectrum
from hesskit.linalg.cubic import cubic_step
from hesskit.transforms import _build
from hesskit.transforms._build import Transformation

VERY_SUCCESSFUL = 0.9  # eta_2 of Cartis, Gould & Toint (2011), section 7
RELAX = 0.25  # measured; theirs is min(sigma, |g|), which depends on the unit of f
TINY = 1e-30  # the size of a step from g = 0 for `_adapt`: zero would read as no step


class CubicNewtonInfo(NamedTuple):
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
    sigma: Array  # (), the next sigma, in the unit of H over that of params
    lowest_curvature: Array  # (), w_1 at the kept point


def _solve(model: Spectrum, grad: Params, size: Array, context: Context) -> Step:
    del grad
    w, c = model.eigenvalues, model.coefficients
    best = cubic_step(w, c, size)
    length, force = tree.norm(best.step), tree.norm(c)
    step = spectral.to_step(
        model,
        best.step,
        context.params,
        on_boundary=best.shift * length > force / 2,
        penalty=size * length**3 / 3,
    )
    stiffness = force / jnp.where(length > 0, length, 1)
    norm = stiffness / jnp.where(length > 0, length, 1)
    return step._replace(norm=jnp.where(length > 0, jnp.maximum(norm, TINY), 0))


def _adapt(size: Array, norm: Array, on_boundary: Array, trial: Trial) -> Array:
    """Rule (2); with norm = |g| / |s|^2, sigma |s| + |g| / |s| (1 / part - 1) shortens s to it."""
    del on_boundary
    part = acceptance.interpolated_shrink(trial, low=0.25)
    stiffer = (size + norm * (1 / part - 1)) / part
    least = jnp.finfo(size.dtype).eps * norm
    kept = jnp.where(trial.ratio >= VERY_SUCCESSFUL, jnp.maximum(RELAX * size, least), size)
    return jnp.where(trial.accepted, kept, stiffer)


def _rule(sigma: Any, chunk_size: int | None) -> Rule:
    errors.check_number(sigma, name="sigma", open_low=True, schedule=True)
    errors.check_count(chunk_size, name="chunk_size")
    return Rule(
        info=CubicNewtonInfo,
        empty=spectral.empty,
        build=functools.partial(spectral.build, chunk_size=chunk_size),
        solve=_solve,
        adapt=_adapt,
        first_size=lambda model, grad, context: jnp.ones_like(context.size),
        describe=lambda model, size: {
            "sigma": size,
            "lowest_curvature": jnp.min(model.eigenvalues, initial=jnp.inf),
        },
        size=sigma,
    )


@_build.memoize
def cubic_newton(
    learning_rate: Any = None,
    *,
    sigma: Any = None,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> Transformation:
    r"""Adaptive cubic regularization: the exact minimizer of the quadratic model plus a cubic term.

    s = argmin g.s + s.Hs/2 + sigma |s|^3 / 3. One trial per update; a rejected one is a zero
    update, and f never increases. Its bound on evaluations, O(eps^(-3/2)) to |g| <= eps, is the
    best that a second-order method can have. It leaves saddles and maxima, and converges
    quadratically. On a quadratic the steps stop short by the cubic term and take a few updates.

    Args:
      learning_rate: None for steps that the method accepts or rejects itself. A number or schedule
        multiplies the step, and sigma stays what it was at first.
      sigma: the first weight of the cubic term, in the unit of H over that of params; a schedule
        of the count sets it anew at each point. None means 1 (Cartis, Gould & Toint 2011,
        section 7). As a constant it is at best half the Lipschitz constant of H.
      chunk_size: Hessian columns found at once; None: by memory.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation`. Its `update` needs `value_fn`.

    Raises:
      ValueError: `sigma` is not positive.
      TypeError: a number was expected.

    For mini-batches: no in the accepting form (it compares values); with `learning_rate` and a
    large `sigma`, yes.

    Cost of an update in gradients: 2n for the Hessian, and 2; a rejected one 1.5 with `value`
    passed on. Memory n^2.

    Example:
      >>> import jax.numpy as jnp
      >>> import hesskit
      >>> saddles = lambda x: jnp.sum(x**4 - 2 * x**2) + 1.0
      >>> result = hesskit.minimize(saddles, jnp.zeros(2), hesskit.cubic_newton())
      >>> print(jnp.abs(result.params).round(3), result.success)
      [1. 1.] True

    References:
      Cartis, Gould & Toint (2011), Adaptive cubic regularization methods for unconstrained
      optimization. Part I, Mathematical Programming 127, 245-295.
      Nesterov & Polyak (2006), Mathematical Programming 108, 177-205.
    """
    return _build.build(
        _rule(sigma, chunk_size), name="cubic_newton", learning_rate=learning_rate, has_aux=has_aux
    )


@_build.memoize
def scale_by_cubic_newton(
    *, sigma: Any = None, chunk_size: int | None = None, has_aux: bool = False
) -> Transformation:
    r"""The cubic-regularized Newton step with its sign changed, for chains.

    `cubic_newton(learning_rate=lr)` is
    `optax.chain(scale_by_cubic_newton(), scale_by_learning_rate(lr))`.

    Args:
      sigma: as in `cubic_newton`; it stays what it was at first.
      chunk_size: Hessian columns found at once; None: by memory.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation` whose updates point uphill; its `update` needs `value_fn`.

    For mini-batches: yes, with a large `sigma`. Cost of an update in gradients: 2n + 1.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> import hesskit
      >>> f = lambda x: -jnp.sum(x)  # H = 0: the step has length sqrt(|g| / sigma)
      >>> scaled = hesskit.scale_by_cubic_newton(sigma=4.0)
      >>> x = jnp.zeros(1)
      >>> updates, _ = scaled.update(jax.grad(f)(x), scaled.init(x), x, value_fn=f)
      >>> print(updates)
      [-0.5]

    References:
      Nesterov & Polyak (2006), Mathematical Programming 108, 177-205.
    """
    return _build.build(
        _rule(sigma, chunk_size),
        name="scale_by_cubic_newton",
        learning_rate=1.0,
        has_aux=has_aux,
        sign=-1.0,
    )
