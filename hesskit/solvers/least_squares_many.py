r"""Many least-squares fits in one call, each with the errors of its parameters.

    minimize  1/2 sum_k scale^2 rho((r_k(p_i) / (sigma_ik scale))^2)  over p_i,   i = 1 ... N  (1)

The answers are those of `minimize_many`; the covariance of each comes from its whitened Jacobian,
by the same function as that of one fit, mapped over lanes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hesskit.core import errors
from hesskit.core.bounds import Bounds, parse
from hesskit.core.composite import Composite
from hesskit.core.residuals import least_squares_loss
from hesskit.core.types import Array, Params, Scalar
from hesskit.solvers import inputs
from hesskit.solvers import lanes as queue
from hesskit.solvers.batch import Batch, batched
from hesskit.solvers.call import MAX_STEPS, arrays, held_leaves
from hesskit.solvers.devices import Place, on_each, place_of
from hesskit.solvers.least_squares import check_fit, with_errors
from hesskit.solvers.many_result import ManyFits, ManyResult
from hesskit.solvers.result import Result
from hesskit.solvers.solve_many import call_many, lanes_of, problem


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5))
def _with_errors(
    loss: Composite,
    held: tuple[bool, ...],
    absolute_sigma: bool,
    covariance: str,
    count: int,
    place: Place | None,
    batch: Batch,
    many: ManyResult,
    box: Bounds | None,
) -> ManyFits:
    """The answers with the covariances of their parameters."""

    def fits(batch: Batch, many: ManyResult, box: Bounds | None, start: Any) -> ManyFits:
        del start

        def one(known: tuple[Any, Result]) -> Any:
            _, args, data = batch.whole(known[0])
            return with_errors(known[1], loss, args, data, held, box, absolute_sigma, covariance)

        def of(index: Array) -> tuple[Any, Result]:
            rows = jax.tree.map(lambda a: a[index], many)
            fields = {field.name: getattr(rows, field.name) for field in dataclasses.fields(Result)}
            return batch.at(index), Result(**fields)

        fit = queue.mapped(one, of, num=batch.num(), lanes=count)
        return ManyFits(
            **{field.name: getattr(fit, field.name) for field in dataclasses.fields(fit)}
        )

    return on_each(place, fits, batch, many, box)


def fit_many(
    residual_fn: Callable[..., Any],
    batch: Batch,
    optimizer: optax.GradientTransformation | None,
    *,
    lanes: Any,
    has_aux: bool,
    fixed: Any,
    bounds: Any,
    loss: str | Callable[[Array], Array],
    scale: Scalar,
    absolute_sigma: bool,
    covariance: str,
    **options: Any,
) -> ManyFits:
    """The checked fits; arguments as in `least_squares_many`.

    Args:
      residual_fn: the residuals.
      batch: params, args and `residual_sigma` by name.
      optimizer: any optax transformation, or None.
      lanes: problems in work at a time, or None.
      has_aux: whether `residual_fn` returns a pair.
      fixed: leaves to hold.
      bounds: the box.
      loss: the robust loss.
      scale: where an outlier begins.
      absolute_sigma: whether sigma is known.
      covariance: which.
      **options: as in `call.checked`.

    Returns:
      A `ManyFits`.
    """
    objective_fn = least_squares_loss(
        inputs.hashable(residual_fn), loss=loss, scale=scale, has_aux=has_aux
    )
    many = call_many(
        objective_fn,
        batch,
        optimizer,
        lanes=lanes,
        has_aux=has_aux,
        fixed=fixed,
        bounds=bounds,
        **options,
    )
    first = problem(batch, 0)[0]
    held, box = held_leaves(optimizer, fixed, first), parse(bounds, first)
    count, place = lanes_of(lanes, batch), place_of(batch)
    return _with_errors(
        objective_fn, held, absolute_sigma, covariance, count, place, batch, many, box
    )


def least_squares_many(
    residual_fn: Callable[..., Any],
    params: Params,
    optimizer: optax.GradientTransformation | None = None,
    *,
    args: Any = (),
    in_axes: Any = 0,
    lanes: int | None = None,
    has_aux: bool = False,
    fixed: Any = None,
    bounds: Any = None,
    loss: str | Callable[[Array], Array] = "linear",
    scale: Scalar = 1.0,
    sigma: Any = None,
    absolute_sigma: bool = False,
    covariance: str = "gauss_newton",
    gtol: Any = None,
    ftol: Any = None,
    xtol: Any = None,
    max_steps: Any = MAX_STEPS,
    check: str = "second_order",
) -> ManyFits:
    r"""Many least-squares fits of one form, each as `hesskit.least_squares` finds it alone.

    A fixed number of fits is in work at a time, and the next begins where one has ended
    (`hesskit.minimize_many`).

    Args:
      residual_fn: `residual_fn(params, ...) -> residuals` of one fit, or `-> (residuals, aux)`.
      params: the starts, a pytree of real float arrays.
      optimizer: any optax transformation; None chooses `hesskit.levenberg_marquardt()`.
      args: data for `residual_fn`: a tuple, positional after params, or a dict, by name.
      in_axes: what it means in `jax.vmap(solve, in_axes)(params, args)`, with a third entry for
        sigma if it is a tuple: 0, `(None, (None, 0))`, `(None, (None, 0), 0)`; without the third,
        all share sigma.
      lanes: fits in work at a time; None means 128 to 256, as in `hesskit.minimize_many`.
      has_aux: whether `residual_fn` returns a pair.
      fixed: leaves to hold, of one fit.
      bounds: as in `hesskit.minimize`, of one fit; all share them.
      loss: "linear", or for outliers "huber", "soft_l1", "cauchy", "arctan", or rho itself.
      scale: the size of r / sigma at which an outlier begins.
      sigma: standard deviations of the residuals, a prefix tree of arrays; inf drops a residual:
        so data sets of unequal length are padded. A number is for all.
      absolute_sigma: whether `sigma` is known; else covariances are scaled by chi2 / dof.
      covariance: "gauss_newton" or "sandwich", as in `hesskit.least_squares`.
      gtol: for the gradient and the relative offset; None means eps^(2/3).
      ftol: for the relative change of the value; None means off.
      xtol: for the relative length of a step; None means off.
      max_steps: trials at most, of each fit.
      check: "second_order" asks for no negative curvature at the answers.

    Returns:
      A `ManyFits`: the fields of `hesskit.FitResult` with a leading axis; `result[i]` is one.

    Raises:
      TypeError: as in `hesskit.least_squares`, or an axis is no int.
      ValueError: as in `hesskit.least_squares`; nothing is batched, or numbers of fits differ.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> t, rates = jnp.arange(6.0), jnp.array([0.3, 0.6])
      >>> ys = 2.0 * jnp.exp(-rates[:, None] * t) + 0.01 * jnp.cos(9 * t)
      >>> decay = lambda p, y: p["a"] * jnp.exp(-p["k"] * t) - y
      >>> start = {"a": jnp.array(1.0), "k": jnp.array(1.0)}
      >>> fits = hesskit.least_squares_many(decay, start, args=(ys,), in_axes=(None, 0))
      >>> print([f"{k:.2f}" for k in fits.params["k"]], fits.standard_errors["k"].shape)
      ['0.30', '0.60'] (2,)
    """
    errors.check_callable(residual_fn, name="residual_fn")
    inputs.warn_float64((params, args))
    check_fit(params, sigma, covariance, caller="least_squares_many")
    args = arrays(args)
    errors.check_data(args)
    trees = {
        "params": errors.check_params(params),
        "args": jax.tree.map(jnp.asarray, args),
        "sigma": {} if sigma is None else {"residual_sigma": arrays(sigma)},
    }
    if isinstance(in_axes, (tuple, list)) and len(in_axes) == 2:
        in_axes = (*in_axes, None)
    return fit_many(
        residual_fn,
        batched(trees, _named(in_axes, sigma)),
        optimizer,
        lanes=lanes,
        caller="least_squares_many",
        has_aux=has_aux,
        fixed=fixed,
        bounds=bounds,
        loss=loss,
        scale=scale,
        absolute_sigma=absolute_sigma,
        covariance=covariance,
        gtol=gtol,
        ftol=ftol,
        xtol=xtol,
        max_steps=max_steps,
        check=check,
    )


def _named(in_axes: Any, sigma: Any) -> Any:
    """`in_axes` with a tree of axes for sigma under the name it has as data."""
    if not isinstance(in_axes, (tuple, list)) or len(in_axes) != 3:
        return in_axes
    if isinstance(in_axes[2], (int, type(None))):
        return in_axes
    return (*in_axes[:2], {} if sigma is None else {"residual_sigma": in_axes[2]})
