r"""What hessian_free and scale_by_hessian_free share: the rule of a path of conjugate gradients.

A kept point has iterates of CG on (G + lambda) s = -g (linalg/warm_cg.py). The last is tried first;
a rejection multiplies lambda by 2 to 4, by the parabola through what was found, and the next trial
is the iterate on the way of at most that part of the last one's length, or the last one shortened.

Source: Martens (2010), "Deep learning via Hessian-free optimization"; Martens & Sutskever (2012).
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import acceptance, errors, pseudo_random, tree
from hesskit.core.acceptance import Trial
from hesskit.core.derivatives import Evaluation
from hesskit.core.rule import Built, Context, Rule, Step
from hesskit.core.types import Array, Params
from hesskit.curvature.leafwise import leafwise_preconditioner
from hesskit.curvature.other_data import Apart, takes_curvature_args
from hesskit.linalg import warm_cg, whitened
from hesskit.linalg.operator import Preconditioner
from hesskit.transforms import _build
from hesskit.transforms._build import Transformation

MAX_PRODUCTS = 250
"""Martens (2010), section 4.4; CG ends by its own profit long before."""
OVERHEAD = 3
"""Of an update beside CG, in products: trial, gradient, one product and the preconditioner."""


class HessianFreeInfo(NamedTuple):
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
    damping: Array  # (), the next lambda, in the unit of G
    cg_products: Array  # (), int32, of CG at the kept point
    cg_residual: Array  # (), |g + (G + lambda) s| beside |g|, in the norm of M^{-1}


class _Model(NamedTuple):
    """What CG left at a kept point."""

    step: Params
    bend: Array  # s.Gs
    damping: Array  # lambda of the system
    num_products: Array
    residual: Array
    way: warm_cg.Way
    preconditioner: Any


def _empty(params: Params, *, preconditioner: Preconditioner | None) -> _Model:
    zero = jnp.zeros((), tree.result_dtype(params))
    state = None if preconditioner is None else preconditioner.init(params)
    fresh = (zero, jnp.copy(zero), jnp.zeros((), jnp.int32), jnp.copy(zero))
    return _Model(tree.zeros_like(params), *fresh, warm_cg.empty(params), state)


def _mean_curvature(product: Any, like: Params) -> Array:
    """tr(G) / n, estimated by one product; 1 where that is nothing."""
    w = pseudo_random.like(like, -1)
    mean = tree.vdot(w, product(w)) / tree.vdot(w, w)
    return jnp.where((mean > 0) & jnp.isfinite(mean), mean, 1)


class _Counted:
    """A product that counts how often it is called."""

    def __init__(self, product: Any) -> None:
        self.product, self.num = product, 0
        self.objective = getattr(product, "objective", None)

    def __call__(self, v: Params) -> Params:
        self.num += 1
        return self.product(v)


def _apply(preconditioner: Preconditioner, state: Any, damping: Array, v: Params) -> Params:
    return preconditioner.apply(state, v, damping)


def _build_model(
    evaluation: Evaluation,
    rhs: Params,
    model: _Model,
    context: Context,
    *,
    damping: Any,
    max_products: Any,
    warm_start: Any,
    preconditioner: Preconditioner | None,
) -> Built:
    """What CG leaves at the kept point."""
    product = evaluation.product
    assert product is not None
    size, spent = context.size, 0
    if damping is None:
        new = size <= 0
        size = tree.while_once(new, lambda: _mean_curvature(product, rhs), size)
        spent = new.astype(jnp.int32)
    state, precondition = None, None
    if preconditioner is not None:
        counted = _Counted(product)
        state = preconditioner.update(model.preconditioner, counted, context.params)
        precondition = functools.partial(_apply, preconditioner, state, size)
        spent += counted.num
    limit = jnp.minimum(2 * tree.size(rhs), MAX_PRODUCTS)
    found = warm_cg.warm_cg(
        lambda v: tree.axpy(size, v, product(v)),
        tree.negative(rhs),
        overhead=OVERHEAD,
        max_products=limit if max_products is None else max_products,
        tol=tree.coarsest_eps(rhs) ** 0.5,  # as `Operator.solve`
        first=tree.scale(1 if warm_start is None else warm_start, model.step),
        precondition=precondition,
        needed=~context.at_rest,
    )
    # Where no direction had positive curvature, or none was a number, the gradient's line is left.
    lost, length = ~found.sound & ~context.at_rest, acceptance.first_radius(context.params)
    norm = tree.norm(rhs)
    line = tree.scale(-length / jnp.where(norm > 0, norm, 1), rhs)
    made = _Model(
        step=tree.where(lost, line, found.x),
        bend=jnp.where(lost, 0, found.bend - size * tree.vdot(found.x, found.x)),
        damping=size,
        num_products=found.num_products,
        residual=found.residual,
        way=found.way,
        preconditioner=state,
    )
    return Built(made, jnp.array(False), found.num_products + spent)


def _solve(model: _Model, grad: Params, size: Array, context: Context) -> Step:
    """The last iterate, or after a rejection one before it, or the last one shortened."""
    del context
    s, way = model.step, model.way
    length = tree.norm(s)
    part = jnp.minimum(model.damping / jnp.where(size > 0, size, 1), 1)
    cut = part < 1 - 1e-6
    lengths = warm_cg.lengths(way)
    fits = jnp.where(lengths <= part * length, way.marks, 0)
    index = jnp.argmax(fits)
    turned = cut & (fits[index] > 0)
    bend = way.bends[index] - model.damping * lengths[index] ** 2
    bend = jnp.where(turned, bend, part**2 * model.bend)
    norm = jnp.where(turned, lengths[index], part * length)
    step = tree.where(turned, warm_cg.iterate(way, index), tree.scale(part, s))
    return Step(
        step=step,
        product=tree.zeros_like(step),
        norm=jnp.where(norm > 0, tree.norm(grad) / jnp.where(norm > 0, norm, 1), 0),
        on_boundary=cut,
        penalty=jnp.maximum(bend, 0) / 2,
    )


def _adapt(size: Array, stiffness: Array, on_boundary: Array, trial: Trial) -> Array:
    """The next lambda, of a step that met `stiffness` = |g| / |s|."""
    # Nielsen (1999): 3/2 and 2/3 made continuous. What turned back keeps what rejections made.
    gain = jnp.clip(1 - (2 * trial.ratio - 1) ** 3, 1 / 3, 2)
    gain = jnp.where(on_boundary, jnp.maximum(gain, 1), gain)
    info = jnp.finfo(size.dtype)
    kept = jnp.maximum(size * gain, info.eps * stiffness)
    new = jnp.where(trial.accepted, kept, size / acceptance.interpolated_shrink(trial, low=0.25))
    return jnp.clip(new, info.tiny / info.eps, info.max * info.eps)


def _evaluate(fn: Any, params: Params, *, caller: str, **more: Any) -> Evaluation:
    found = whitened.evaluate(fn, params, caller=caller, **more)
    if not isinstance(fn, Apart):
        return found
    other = whitened.evaluate(fn.other, params, caller=caller)
    return found._replace(product=other.product)


def build(
    name: str,
    damping: Any,
    max_products: Any,
    warm_start: Any,
    preconditioner: Any,
    **more: Any,
) -> Transformation:
    """The transformation of these arguments; see `hessian_free`."""
    errors.check_number(damping, name="damping", open_low=True, schedule=True)
    errors.check_count(max_products, name="max_products")
    errors.check_number(warm_start, name="warm_start", high=1.0)
    chosen = preconditioner
    if not (chosen is None or isinstance(chosen, Preconditioner)):
        errors.check_choice(chosen, ("leafwise",), name="preconditioner")
        chosen = leafwise_preconditioner()
    rule = Rule(
        info=HessianFreeInfo,
        empty=functools.partial(_empty, preconditioner=chosen),
        build=functools.partial(
            _build_model,
            damping=damping,
            max_products=max_products,
            warm_start=warm_start,
            preconditioner=chosen,
        ),
        solve=_solve,
        adapt=_adapt,
        first_size=lambda model, grad, context: model.damping,
        describe=lambda model, size: {
            "damping": size,
            "cg_products": model.num_products,
            "cg_residual": model.residual,
        },
        size=damping,
        evaluate=functools.partial(_evaluate, caller=name),
        leaves_saddles=False,
    )
    made = _build.build(rule, name=name, any_structure=chosen is None, **more)
    return Transformation(
        made.init,
        takes_curvature_args(made.update),
        method=made.method,
        name=name,
        has_aux=made.has_aux,
        judges=made.judges,
    )
