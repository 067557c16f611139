r"""What gauss_newton and levenberg_marquardt share: the rule of a Gauss-Newton trust region.

    s  =  argmin  g.s + s.Gs / 2   subject to   |D s| <= radius             (1)

with G = A'A the Gauss-Newton matrix. Which linear algebra solves it depends on the shape of A, m
residuals by n parameters: singular values of A D^{-1} while min(m, n) is small ("dense"; "sample"
where m < n, whose model takes m n numbers), conjugate gradients on products beyond ("cg", D = 1
or the root of a preconditioner).
Until the objective is known, as in `init`, m counts as large.
"""

import enum
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import acceptance, errors, tree
from hesskit.core.derivatives import Evaluation
from hesskit.core.rule import Built, Context, Rule, Step
from hesskit.core.types import Array, Params
from hesskit.curvature import factored, geodesic, spectral, truncated
from hesskit.curvature.factored import Factored
from hesskit.curvature.geodesic import BentRows, Curve
from hesskit.linalg import whitened
from hesskit.linalg.more_sorensen import TrustRegionStep, trust_region_step
from hesskit.linalg.operator import Preconditioner, check_preconditioner
from hesskit.transforms import _build
from hesskit.transforms._build import Transformation

DENSE_LIMIT = 500
"""min(m, n) up to which singular values are found: a tenth of a second on a core."""

LINEAR_SOLVERS = ("auto", "dense", "sample", "cg")


class Solver(enum.IntEnum):
    """The linear algebra of a step."""

    DENSE = 0
    SAMPLE = 1
    CG = 2


class GaussNewtonInfo(NamedTuple):
    """What the last update did. For people; the next update never reads it."""

    status: Array  # (), int32, 0 while going on
    accepted: Array  # (), bool
    step_norm: Array  # (), |s| of an accepted step, 0 of a rejected one
    ratio: Array  # (), actual over predicted decrease
    grad_norm: Array  # (), at the kept point
    num_values: Array  # (), int32, evaluations of this update
    num_grads: Array  # (), int32
    num_products: Array  # (), int32: of CG, or the min(m, n) passes of a Jacobian (+ 2 if geodesic)
    value_mismatch: Array  # (), |value given - value found|
    radius: Array  # (), the next radius, in the unit of |D params|
    rank: Array  # (), int32, of A at the kept point; -1 where CG does not know it
    solver: Array  # (), int32, a `Solver`

    @property
    def linear_solver(self) -> str:
        """The name of the linear algebra: "dense", "sample" or "cg"."""
        return Solver(int(self.solver)).name.lower()


class Options(NamedTuple):
    """The arguments of a factory; see `levenberg_marquardt`."""

    name: str
    radius: Any
    first_radius: float | None  # None: by the size of params
    scaling: float
    linear_solver: str
    bounds: Any
    geodesic: bool = False
    preconditioner: Preconditioner | None = None


def build(options: Options, **more: Any) -> Transformation:
    """The transformation of these options; `more` goes to `_build.build`."""
    _check(options)
    return _build.build(
        rule(options),
        name=options.name,
        any_structure=options.bounds is None and options.preconditioner is None,
        special=lambda bounds, num_rows: rule(options, bounds=bounds, num_rows=num_rows),
        **more,
    )


def _check(options: Options) -> None:
    errors.check_number(options.radius, name="radius", open_low=True, schedule=True)
    errors.check_number(options.scaling, name="scaling", high=1.0, none=False)
    errors.check_choice(options.linear_solver, LINEAR_SOLVERS, name="linear_solver")
    errors.check_choice(options.geodesic, (False, True), name="geodesic")
    check_preconditioner(options.preconditioner)


def _by_cg(options: Options) -> bool:
    """Whether conjugate gradients are asked for, by name or by what only they have a use for."""
    asked = options.linear_solver
    return asked == "cg" or (asked == "auto" and options.preconditioner is not None)


def _choose(options: Options, params: Params, num_rows: int | None) -> Solver:
    """The linear algebra for these shapes."""
    if _by_cg(options):
        return Solver.CG
    if options.linear_solver != "auto":
        return Solver[options.linear_solver.upper()]
    n = tree.size(params)
    few = n if num_rows is None else min(n, num_rows)
    if few > DENSE_LIMIT and options.bounds is None and not options.geodesic:
        return Solver.CG
    return Solver.DENSE if num_rows is None or num_rows >= n else Solver.SAMPLE


def rule(options: Options, *, bounds: Any = None, num_rows: int | None = None) -> Rule:
    """The rule (1).

    Args:
      options: of the factory, checked.
      bounds: those of a solver, in place of the factory's.
      num_rows: m, where it is known.

    Returns:
      A `Rule`.

    Raises:
      ValueError: options that exclude one another.
    """
    options = options if bounds is None else options._replace(bounds=bounds)
    _check_together(options)

    def empty(params: Params) -> Factored | truncated.Path:
        if _choose(options, params, num_rows) is Solver.CG:
            return truncated.empty(params, preconditioner=options.preconditioner)
        model = factored.empty(params, num_rows)
        if not options.geodesic:
            return model
        curve = geodesic.empty(model.coefficients.shape[0], model.scale.dtype)
        return model._replace(curve=curve)

    def build(evaluation: Evaluation, rhs: Params, model: Any, context: Context) -> Built:
        if isinstance(model, truncated.Path):
            first = _first_radius(model, rhs, context, largest=options.first_radius)
            region = jnp.where(context.size > 0, context.size, first)
            built = truncated.build(
                evaluation,
                rhs,
                model,
                context._replace(size=region),
                preconditioner=options.preconditioner,
            )
            return built._replace(indefinite=jnp.array(False), at_rest=context.at_rest)
        bend = functools.partial(_curve, rhs, context) if options.geodesic else None
        built = factored.build(evaluation, rhs, model, context, power=options.scaling, bend=bend)
        return built._replace(num_products=built.num_products + (2 if options.geodesic else 0))

    def describe(model: Any, size: Array) -> dict[str, Array]:
        if isinstance(model, truncated.Path):
            rank, solver = jnp.full((), -1, jnp.int32), Solver.CG
        else:
            rank = jnp.sum(model.eigenvalues > 0).astype(jnp.int32)
            n, k = model.vectors.shape
            solver = Solver.SAMPLE if k < n else Solver.DENSE
        return {"radius": size, "rank": rank, "solver": jnp.full((), int(solver), jnp.int32)}

    return Rule(
        info=GaussNewtonInfo,
        empty=empty,
        build=build,
        solve=_solve,
        adapt=acceptance.next_radius,
        first_size=functools.partial(_first_radius, largest=options.first_radius),
        describe=describe,
        size=options.radius,
        evaluate=functools.partial(
            _evaluate_bent if options.geodesic else whitened.evaluate, caller=options.name
        ),
        evaluate_many=None
        if options.geodesic or _by_cg(options)
        else functools.partial(whitened.evaluate_rows, caller=options.name),
        leaves_saddles=False,
        noise=_noise,
        judges_rest=True,
        bounds=options.bounds,
    )


def _check_together(options: Options) -> None:
    """Raises ValueError for options that exclude one another."""
    by_cg = _by_cg(options)
    if options.bounds is not None and by_cg:
        raise ValueError('linear_solver="cg" does not take bounds; use "dense"')
    if options.geodesic and by_cg:
        raise ValueError('linear_solver="cg" does not take geodesic=True; use "dense" or "sample"')
    if options.geodesic and options.bounds is not None:
        raise ValueError("geodesic=True does not take bounds; use geodesic=False")


def _evaluate_bent(fn: Any, params: Params, **more: Any) -> Evaluation:
    """The evaluation of `whitened.evaluate`, whose rows know how they bend."""
    evaluation = whitened.evaluate(fn, params, **more)

    def rows() -> BentRows:
        straight = evaluation.rows()
        bend = functools.partial(geodesic.second_derivative, fn, params)
        return BentRows(straight.matrix, straight.residual, bend)

    return evaluation._replace(rows=rows)


def _curve(
    rhs: Params, context: Context, model: Factored, rows: BentRows, project: Callable[..., Array]
) -> Curve:
    """The curve of the model along its first step, in the region that will bound it."""
    first = _first_radius(model, rhs, context, largest=None)
    best = _inside(model, jnp.where(context.size > 0, context.size, first))
    v = spectral.to_step(model, best.step, context.params, on_boundary=best.on_boundary).step
    return Curve(best.step, project(rows.bend(v)))


def _inside(model: Factored, size: Array) -> TrustRegionStep:
    return trust_region_step(model.eigenvalues, model.coefficients, size, exact=True)


def _noise(model: Any) -> Array:
    return jnp.zeros_like(model.forcing) if isinstance(model, truncated.Path) else model.noise


def _solve(model: Any, grad: Params, size: Array, context: Context) -> Step:
    if isinstance(model, truncated.Path):
        return truncated.solve(model, grad, size, context)
    if context.bounds is not None:
        return factored.bounded_step(model, grad, size, context)
    best = _inside(model, size)
    straight = spectral.to_step(model, best.step, context.params, on_boundary=best.on_boundary)
    if model.curve is None:
        return straight
    half, penalty = geodesic.half_acceleration(
        model.eigenvalues, best.shift, best.step, model.curve
    )
    bent = spectral.to_step(
        model, best.step + half, context.params, on_boundary=best.on_boundary, penalty=penalty
    )
    return bent._replace(norm=straight.norm)  # what the radius bounds


def _first_radius(model: Any, grad: Params, context: Context, *, largest: float | None) -> Array:
    del grad
    if largest is not None:
        return jnp.asarray(largest, context.size.dtype)
    if isinstance(model, truncated.Path):
        return acceptance.first_radius(context.params)
    return acceptance.first_radius(model.scale * tree.ravel(context.params), jnp.min(model.scale))
