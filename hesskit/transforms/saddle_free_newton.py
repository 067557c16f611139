r"""Saddle-free Newton: the step of Newton with the modulus of every curvature.

At parameters x, with gradient g and Hessian H = Q diag(w) Q', each update takes

    s  =  -(|H| + lambda I)^{-1} g,     |H| = Q |diag(w)| Q'                (1)

which descends where Newton's step climbs, so that saddles repel it. The step is kept if f falls by
at least eta of -(g.s + s.Hs/2), the promise of H itself; lambda follows the ratio of the two. At a
saddle or a maximum, where g = 0, the step follows the lowest eigenvector, by a length that falls as
lambda grows.

With `num_krylov` = k, (1) is taken in the Krylov space of g: k Lanczos steps give Q'HQ = T, and
s = -Q (|T| + lambda)^{-1} Q'g; nothing n x n exists. After a rejection the same T serves, and no
product is spent. Where T is positive definite Lanczos stops at |g + Hs| <= eta |g|, with the
forcing term eta = 0.9 (|g| / |g_previous|)^2, at most 0.5 (Eisenstat & Walker 1996, choice 2).

Source: Dauphin et al. (2014), "Identifying and attacking the saddle point problem in
high-dimensional non-convex optimization"; lambda as in damped_newton.py.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import acceptance, errors, tree
from hesskit.core.derivatives import Evaluation
from hesskit.core.rule import Built, Context, Rule, Step
from hesskit.core.types import Array, Params, Product
from hesskit.curvature import spectral
from hesskit.curvature.spectral import Spectrum
from hesskit.linalg.gltr import KrylovModel, gltr, krylov_absolute_step
from hesskit.linalg.lanczos import Escape, escape
from hesskit.linalg.positive import modified_eigenvalues
from hesskit.transforms import _build
from hesskit.transforms._build import Transformation

TAU = 1e-3  # first lambda over the curvature: Madsen, Nielsen & Tingleff (2004)
GAMMA, ETA_MAX = 0.9, 0.5  # Eisenstat & Walker (1996), choice 2
MAX_ESCAPE_PRODUCTS = 20  # as in newton_cg


class SaddleFreeNewtonInfo(NamedTuple):
    """What the last update did. For people; the next update never reads it."""

    status: Array  # (), int32, 0 while going on
    accepted: Array  # (), bool
    step_norm: Array  # (), |s| of an accepted step, 0 of a rejected one
    ratio: Array  # (), actual over predicted decrease
    grad_norm: Array  # (), at the kept point
    num_values: Array  # (), int32, evaluations of this update
    num_grads: Array  # (), int32
    num_products: Array  # (), int32
    value_mismatch: Array  # (), |value given - value found|
    damping: Array  # (), the next lambda, in the unit of H
    lowest_curvature: Array  # (), the lowest eigenvalue known, of H or of T


class Krylov(NamedTuple):
    """What any lambda needs at the kept point, without products."""

    space: KrylovModel
    down: Escape  # looked for where g is zero, or its step short; else zero
    leaves: Array  # (), bool: g leads nowhere, and `down` is negative curvature


def _stiffness(force: Array, length: Array) -> Array:
    return force / jnp.where(length > 0, length, 1)


def _solve_dense(model: Spectrum, grad: Params, size: Array, context: Context) -> Step:
    del grad
    w, c = model.eigenvalues, spectral.roused(model, context)
    lifted = modified_eigenvalues(w, w.shape[0] * float(jnp.finfo(w.dtype).eps))
    t = -c / (lifted + size)
    length, force = tree.norm(t), tree.norm(c)
    step = spectral.to_step(model, t, context.params, on_boundary=size * length > force / 2)
    return step._replace(norm=_stiffness(force, length))


def _solve_krylov(model: Krylov, grad: Params, size: Array, context: Context) -> Step:
    w = model.space.eigenvalues
    noise = w.shape[0] * float(jnp.finfo(w.dtype).eps) * jnp.max(jnp.abs(w))
    inside = krylov_absolute_step(model.space, jnp.maximum(size, noise))
    stiffness = jnp.abs(model.down.curvature) + size
    length = acceptance.first_radius(context.params) * jnp.abs(model.down.curvature)
    length = length / jnp.where(stiffness > 0, stiffness, 1)
    length = jnp.where(tree.vdot(model.down.direction, grad) > 0, -length, length)
    out = Step(
        step=tree.scale(length, model.down.direction),
        product=tree.scale(length, model.down.product_direction),
        norm=stiffness,
        on_boundary=jnp.array(True),
    )
    along = Step(
        step=inside.step,
        product=inside.hessian_step,
        norm=_stiffness(model.space.gradient_norm, inside.step_norm),
        on_boundary=size * inside.step_norm > model.space.gradient_norm / 2,
    )
    return tree.where(model.leaves, out, along)


def _empty_krylov(params: Params, *, num_krylov: Any) -> Krylov:
    """Shapes of the model; the number of steps lives in them, so that `update` needs no number."""
    steps = max(min(errors.length_of(num_krylov, name="num_krylov"), tree.size(params)), 1)

    def explore(g: Params) -> Krylov:
        zero = jnp.zeros((), tree.result_dtype(g))
        return _explore(lambda v: v, g, steps, zero, Context(g, zero, zero > 0, zero))

    shapes = jax.eval_shape(explore, tree.zeros_like(params))
    return jax.tree.map(tree.zeros_of, shapes)


def _explore(product: Product, rhs: Params, num_steps: int, tol: Any, context: Context) -> Krylov:
    """The Krylov space of the gradient; where that leads nowhere, the lowest curvature about."""
    space = gltr(product, rhs, jnp.inf, tol=tol, num_steps=num_steps)
    w, c = space.eigenvalues, space.gradient_norm * space.eigenvectors[0]
    eps, length = tree.coarsest_eps(context.params), acceptance.first_radius(context.params)
    short = tree.norm(c / modified_eigenvalues(w, eps)) <= eps**0.25 * length
    needed = context.at_rest | (short & spectral.is_indefinite(w, context.params))
    down = escape(product, rhs, num_steps=MAX_ESCAPE_PRODUCTS, needed=needed)
    lost = context.at_rest & ~down.finite  # nothing tells a minimum from a saddle: a step of NaN
    unknown = down._replace(curvature=jnp.full_like(down.curvature, jnp.nan))
    return Krylov(space, tree.where(lost, unknown, down), down.negative | lost)


def _build_krylov(evaluation: Evaluation, rhs: Params, model: Krylov, context: Context) -> Built:
    assert evaluation.product is not None
    norm, before = tree.norm(rhs), model.space.gradient_norm
    eta = GAMMA * (norm / jnp.where(before > 0, before, 1)) ** 2
    eta = jnp.where(before > 0, jnp.minimum(eta, ETA_MAX), ETA_MAX)
    num_steps = model.space.eigenvalues.shape[0]
    new = _explore(evaluation.product, rhs, num_steps, eta * norm, context)
    indefinite = spectral.is_indefinite(new.space.eigenvalues, rhs)
    indefinite |= new.down.negative
    return Built(new, indefinite, new.space.num_products + new.down.num_products)


def _lowest(model: Spectrum | Krylov) -> Array:
    if isinstance(model, Spectrum):
        return jnp.min(model.eigenvalues, initial=jnp.inf)
    return jnp.minimum(model.space.eigenvalues[0], model.down.curvature)


def _first_dense(model: Spectrum, grad: Params, context: Context) -> Array:
    del grad, context
    largest = jnp.max(jnp.abs(model.eigenvalues))
    return TAU * jnp.where(largest > 0, largest, 1)


def _first_krylov(model: Krylov, grad: Params, context: Context) -> Array:
    """A part of |Hg| / |g|, or of the curvature found where g is zero."""
    del grad, context
    space = model.space
    along = tree.norm(space.eigenvalues * space.eigenvectors[0])
    largest = jnp.maximum(along, jnp.abs(model.down.curvature))
    return TAU * jnp.where(largest > 0, largest, 1)


def _rule(damping: Any, num_krylov: Any, chunk_size: int | None) -> Rule:
    errors.check_number(damping, name="damping", schedule=True)
    errors.check_count(num_krylov, name="num_krylov")
    errors.check_count(chunk_size, name="chunk_size")
    dense = num_krylov is None
    return Rule(
        info=SaddleFreeNewtonInfo,
        empty=spectral.empty if dense else functools.partial(_empty_krylov, num_krylov=num_krylov),
        build=functools.partial(spectral.build, chunk_size=chunk_size) if dense else _build_krylov,
        solve=_solve_dense if dense else _solve_krylov,
        adapt=acceptance.next_damping,
        first_size=_first_dense if dense else _first_krylov,
        describe=lambda model, size: {"damping": size, "lowest_curvature": _lowest(model)},
        size=damping,
        looks_at_rest=not dense,
    )


@_build.memoize
def saddle_free_newton(
    learning_rate: Any = None,
    *,
    damping: Any = None,
    num_krylov: int | None = None,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> Transformation:
    r"""Newton's method with the modulus of each curvature, so that saddles repel it.

    s = -(|H| + lambda I)^{-1} g, lambda adapted by the gain ratio. One trial per update; a
    rejected one is a zero update, and f never increases. Quadratic convergence at a minimum. On a
    quadratic the first steps stop short by lambda / w; three reach the minimum.

    Args:
      learning_rate: None for steps that the method accepts or rejects itself. A number or schedule
        multiplies the step, and lambda stays what it was at first.
      damping: the first lambda, in the unit of H; a schedule of the count sets it anew at each
        point. None means 1e-3 of the largest |eigenvalue| of the first H (Madsen, Nielsen &
        Tingleff 2004, equation 2.14), or of |Hg| / |g| in the Krylov form.
      num_krylov: None for the dense form. A number k for the Krylov form with at most k products
        per point, and k + O(1) vectors of memory; Dauphin et al. (2014) use up to 500, 10 to 50 is
        usual. Under `optax.inject_hyperparams` list it in `static_args`.
      chunk_size: Hessian columns found at once in the dense form; None: by memory.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation`. Its `update` needs `value_fn`. The Krylov form spends at most 20 more
      products where the gradient is zero, to look for negative curvature.

    Raises:
      ValueError: `damping` is negative or NaN, `num_krylov` no positive integer.
      TypeError: a number was expected.

    For mini-batches: no in the accepting form (it compares values); with `learning_rate` and a
    `damping` above the noise of the Hessian, yes.

    Cost of an update in gradients: 2n for the Hessian (2k in the Krylov form), and 2; a rejected
    one 1.5 with `value` passed on. Memory n^2, or k n.

    Example:
      >>> import jax.numpy as jnp
      >>> import hesskit
      >>> saddles = lambda x: jnp.sum(x**4 - 2 * x**2) + 1.0
      >>> for optimizer in (hesskit.saddle_free_newton(), hesskit.saddle_free_newton(num_krylov=2)):
      ...     result = hesskit.minimize(saddles, jnp.zeros(2), optimizer)
      ...     print(jnp.abs(result.params).round(3), result.success)
      [1. 1.] True
      [1. 1.] True

    References:
      Dauphin, Pascanu, Gulcehre, Cho, Ganguli & Bengio (2014), Identifying and attacking the
      saddle point problem in high-dimensional non-convex optimization, NeurIPS 27.
    """
    return _build.build(
        _rule(damping, num_krylov, chunk_size),
        name="saddle_free_newton",
        learning_rate=learning_rate,
        has_aux=has_aux,
    )


@_build.memoize
def scale_by_saddle_free_newton(
    *,
    damping: Any = None,
    num_krylov: int | None = None,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> Transformation:
    r"""The gradient preconditioned by the modulus of the Hessian, for chains.

    `saddle_free_newton(learning_rate=lr)` is
    `optax.chain(scale_by_saddle_free_newton(), scale_by_learning_rate(lr))`.

    Args:
      damping: lambda, as in `saddle_free_newton`; it stays what it was at first.
      num_krylov: None for the dense form, a number of Lanczos steps for the Krylov form.
      chunk_size: Hessian columns found at once in the dense form; None: by memory.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation` whose updates point uphill; its `update` needs `value_fn`.

    For mini-batches: yes, with `damping` above the noise. Cost of an update in gradients: 2n + 1,
    or 2 num_krylov + 1.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> import hesskit
      >>> f = lambda x: x[0] ** 2 - x[1] ** 2
      >>> scaled = hesskit.scale_by_saddle_free_newton(damping=0.0)
      >>> x = jnp.array([3.0, 1.0])
      >>> updates, _ = scaled.update(jax.grad(f)(x), scaled.init(x), x, value_fn=f)
      >>> print(updates)
      [ 3. -1.]

    References:
      Dauphin et al. (2014), NeurIPS 27.
    """
    return _build.build(
        _rule(damping, num_krylov, chunk_size),
        name="scale_by_saddle_free_newton",
        learning_rate=1.0,
        has_aux=has_aux,
        sign=-1.0,
    )
