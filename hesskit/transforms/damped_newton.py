r"""Newton's method with Levenberg damping of the Hessian, led by the gain ratio.

At parameters x, with gradient g, dense Hessian H and lowest eigenvalue w_1, each update takes

    (H + (lambda + 2 max(0, -w_1)) I) s  =  -g                              (1)

where the second shift turns the lowest curvature into its modulus. The step is kept if f falls by
at least eta of -(g.s + s.Hs/2). A kept step multiplies lambda by

    min(max(1/3, 1 - (2r - 1)^3), 6 |r - 1|)                                (2)

with r the ratio of the two decreases: Nielsen's rule, and its slope at r = 1 where his floor of 1/3
would leave a linear rate. A rejected step makes lambda what shortens s by the minimizer of the
parabola, in place of his growing factor nu. At a saddle, where g = 0, the step follows the lowest
eigenvector, by a length that falls as lambda grows.

Source: Nielsen (1999), "Damping parameter in Marquardt's method"; Madsen, Nielsen & Tingleff
(2004), "Methods for non-linear least squares problems", section 2.2, with the Hessian for J'J.
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import acceptance, errors, tree
from hesskit.core.rule import Context, Rule, Step
from hesskit.core.types import Array, Params
from hesskit.curvature import spectral
from hesskit.curvature.spectral import Spectrum
from hesskit.linalg.more_sorensen import damped_step
from hesskit.transforms import _build
from hesskit.transforms._build import Transformation

TAU = 1e-3  # first lambda over max|w|: Madsen, Nielsen & Tingleff (2004), between 1e-6 and 1


class DampedNewtonInfo(NamedTuple):
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
    damping: Array  # (), the next lambda, in the unit of H
    lowest_curvature: Array  # (), w_1 at the kept point


def _solve(model: Spectrum, grad: Params, size: Array, context: Context) -> Step:
    del grad
    w, c = model.eigenvalues, spectral.roused(model, context)
    best = damped_step(w, c, size + 2 * jnp.maximum(-w[0], 0))
    length, force = tree.norm(best.step), tree.norm(c)
    step = spectral.to_step(
        model, best.step, context.params, on_boundary=best.shift * length > force / 2
    )
    return step._replace(norm=force / jnp.where(length > 0, length, 1))


def _first_damping(model: Spectrum, grad: Params, context: Context) -> Array:
    del grad, context
    largest = jnp.max(jnp.abs(model.eigenvalues))
    return TAU * jnp.where(largest > 0, largest, 1)


def _rule(damping: Any, chunk_size: int | None) -> Rule:
    errors.check_number(damping, name="damping", schedule=True)
    errors.check_count(chunk_size, name="chunk_size")
    return Rule(
        info=DampedNewtonInfo,
        empty=spectral.empty,
        build=functools.partial(spectral.build, chunk_size=chunk_size),
        solve=_solve,
        adapt=acceptance.next_damping,
        first_size=_first_damping,
        describe=lambda model, size: {
            "damping": size,
            "lowest_curvature": jnp.min(model.eigenvalues, initial=jnp.inf),
        },
        size=damping,
    )


@_build.memoize
def damped_newton(
    learning_rate: Any = None,
    *,
    damping: Any = None,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> Transformation:
    r"""Newton's method with the damping of Levenberg and Marquardt, adapted by the gain ratio.

    (H + (lambda + 2 max(0, -w_1)) I) s = -g, with w_1 the lowest eigenvalue of H. One trial per
    update; a rejected one is a zero update, and f never increases. Quadratic convergence: lambda
    falls like |s| near a minimum. On a quadratic the first steps stop short by lambda / w; three
    reach the minimum.

    Args:
      learning_rate: None for steps that the method accepts or rejects itself. A number or schedule
        multiplies the step, and lambda stays what it was at first.
      damping: the first lambda, in the unit of H; a schedule of the count sets it anew at each
        point. None means 1e-3 of the largest |eigenvalue| of the first H (Madsen, Nielsen &
        Tingleff 2004, equation 2.14).
      chunk_size: Hessian columns found at once; None: by memory.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation`. Its `update` needs `value_fn`.

    Raises:
      ValueError: `damping` is negative or NaN.
      TypeError: a number was expected.

    For mini-batches: no in the accepting form (it compares values); with `learning_rate` and a
    `damping` above the noise of the Hessian, yes.

    Cost of an update in gradients: 2n for the Hessian, and 2; a rejected one 1.5 with `value`
    passed on. Memory n^2.

    Example:
      >>> import jax.numpy as jnp
      >>> import hesskit
      >>> rosenbrock = lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
      >>> start = jnp.array([-1.2, 1.0])
      >>> result = hesskit.minimize(rosenbrock, start, hesskit.damped_newton())
      >>> print(result.params.round(3), result.success)
      [1. 1.] True

    References:
      Nielsen (1999), Damping parameter in Marquardt's method, IMM-REP-1999-05.
      Madsen, Nielsen & Tingleff (2004), Methods for non-linear least squares problems.
    """
    return _build.build(
        _rule(damping, chunk_size),
        name="damped_newton",
        learning_rate=learning_rate,
        has_aux=has_aux,
    )


@_build.memoize
def scale_by_damped_newton(
    *, damping: Any = None, chunk_size: int | None = None, has_aux: bool = False
) -> Transformation:
    r"""The gradient preconditioned by the damped Hessian, for chains.

    `damped_newton(learning_rate=lr)` is
    `optax.chain(scale_by_damped_newton(), scale_by_learning_rate(lr))`.

    Args:
      damping: lambda, as in `damped_newton`; it stays what it was at first.
      chunk_size: Hessian columns found at once; None: by memory.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation` whose updates point uphill; its `update` needs `value_fn`.

    For mini-batches: yes, with `damping` above the noise. Cost of an update in gradients: 2n + 1.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> import hesskit
      >>> f = lambda x: jnp.sum((x - 3.0) ** 2)
      >>> scaled = hesskit.scale_by_damped_newton(damping=2.0)
      >>> x = jnp.array([1.0, 2.0])
      >>> updates, _ = scaled.update(jax.grad(f)(x), scaled.init(x), x, value_fn=f)
      >>> print(updates)
      [-1.  -0.5]

    References:
      Madsen, Nielsen & Tingleff (2004), Methods for non-linear least squares problems.
    """
    return _build.build(
        _rule(damping, chunk_size),
        name="scale_by_damped_newton",
        learning_rate=1.0,
        has_aux=has_aux,
        sign=-1.0,
    )
