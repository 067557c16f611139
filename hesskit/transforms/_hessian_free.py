r"""What hessian_free and scale_by_hessian_free share: the rule of a path of conjugate gradients.

A kept point has iterates of CG on (G + lambda) s = -g (linalg/cg_path.py). The longest is tried
first; each rejection raises lambda by FACTOR and turns back by one, until what is left is -g, ever
shorter. So lambda beside that of the path says how often it was turned back.

Source: Martens (2010), "Deep learning via Hessian-free optimization"; Martens & Sutskever (2012).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import errors, objective, signature, tree
from hesskit.core.acceptance import Trial
from hesskit.core.derivatives import Evaluation
from hesskit.core.rule import Built, Context, Rule, Step
from hesskit.core.structured import Structured
from hesskit.core.terms import ByParts
from hesskit.core.types import Array, Params
from hesskit.linalg import cg_path, whitened
from hesskit.linalg.cg_path import Path
from hesskit.linalg.operator import Preconditioner
from hesskit.transforms import _build
from hesskit.transforms._build import Transformation

MAX_PRODUCTS = 50
DECAY = 0.95
"""Of the solution before, where CG begins (Martens & Sutskever, section 10)."""
FACTOR = 1.5
FIRST = 0.1
"""The first lambda beside the curvature along the gradient."""


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


class _Model(NamedTuple):
    """What CG left at a kept point."""

    path: Path
    right: Params  # -g
    along: Params  # the minimizer along -g
    along_product: Params  # G times that
    damping: Array  # (), lambda of the path
    preconditioner: Any


def _empty(params: Params, *, max_products: int, preconditioner: Preconditioner | None) -> _Model:
    state = None if preconditioner is None else preconditioner.init(params)
    damping = jnp.zeros((), tree.result_dtype(params))
    return _Model(
        path=cg_path.empty(params, max_products),
        right=tree.zeros_like(params),
        along=tree.zeros_like(params),
        along_product=tree.zeros_like(params),
        damping=damping,
        preconditioner=state,
    )


def _ratio(x: Array, y: Array) -> Array:
    return jnp.where(y > 0, x / jnp.where(y > 0, y, 1), 0)


def _build_model(
    evaluation: Evaluation,
    rhs: Params,
    model: _Model,
    context: Context,
    *,
    max_products: int,
    warm_start: Any,
    preconditioner: Preconditioner | None,
) -> Built:
    """The path at the kept point, from max_products + 2 products at most."""
    product = evaluation.product
    assert product is not None
    b = tree.negative(rhs)
    image = product(b)
    square, curvature = tree.vdot(b, b), tree.vdot(b, image)
    first = FIRST * _ratio(curvature, square)
    first = jnp.where(first > 0, first, 1)
    damping = jnp.where(context.size > 0, context.size, first)
    length = _ratio(square, curvature + damping * square)
    state, precondition = None, None
    if preconditioner is not None:
        state = preconditioner.update(model.preconditioner, product, context.params)
        precondition = functools.partial(_apply, preconditioner, state, damping)

    def damped(v: Params) -> Params:
        return tree.axpy(damping, v, product(v))

    last = cg_path.row(model.path.iterates, model.path.num - 1)
    decay = jnp.asarray(DECAY if warm_start is None else warm_start, damping.dtype)
    path = cg_path.cg_path(
        damped,
        b,
        tree.scale(decay, last),
        max_products=max_products,
        precondition=precondition,
        needed=~context.at_rest,
    )
    along, along_product = tree.scale(length, b), tree.scale(length, image)
    found = _Model(path, b, along, along_product, damping, state)
    return Built(found, jnp.array(False), path.num_products + 1)


def _apply(preconditioner: Preconditioner, state: Any, damping: Array, v: Params) -> Params:
    return preconditioner.apply(state, v, damping)


def _solve(model: _Model, grad: Params, size: Array, context: Context) -> Step:
    """The iterate as many marks before the last as lambda grew since, or a step along -g."""
    del grad, context
    grown = jnp.log(jnp.maximum(_ratio(size, model.damping), 1)) / jnp.log(FACTOR)
    back = jnp.round(grown).astype(jnp.int32)
    index = model.path.num - 1 - back
    x = cg_path.row(model.path.iterates, jnp.maximum(index, 0))
    r = cg_path.row(model.path.residuals, jnp.maximum(index, 0))
    image = tree.axpy(-model.damping, x, tree.sub(model.right, r))
    # CG from a start other than zero may have no descent to offer; nor has one that failed.
    promised = tree.vdot(model.right, x) - tree.vdot(x, image) / 2
    shorter = (index < 0) | ~(promised > 0)
    quarterings = jnp.where(index < 0, -1 - index, back).astype(promised.dtype)
    factor = 0.25**quarterings
    x = tree.where(shorter, tree.scale(factor, model.along), x)
    image = tree.where(shorter, tree.scale(factor, model.along_product), image)
    return Step(x, image, tree.norm(x), on_boundary=jnp.array(True))


def _adapt(size: Array, step_norm: Array, on_boundary: Array, trial: Trial) -> Array:
    """The rule of Levenberg and Marquardt; a rejection always raises lambda."""
    del step_norm, on_boundary
    good = trial.accepted & (trial.ratio >= 0.25)
    lower = jnp.where(trial.ratio > 0.75, 1 / FACTOR, 1.0)
    info = jnp.finfo(size.dtype)
    return jnp.clip(
        size * jnp.where(good, lower, FACTOR), info.tiny / info.eps, info.max * info.eps
    )


@dataclasses.dataclass(frozen=True)
class _Apart(Structured):
    """A structured objective whose curvature is that of another."""

    other: Any = None

    def precomposed(self, first: Callable[[Params], Params]) -> "_Apart":
        """`params -> self(first(params))`."""
        inner = objective.precompose(self.inner, first)
        return dataclasses.replace(self, inner=inner, other=self.other.precomposed(first))


@dataclasses.dataclass(frozen=True, eq=False)
class _WithCurvature(ByParts):
    """`value_fn` with the data of its curvature."""

    value_fn: Callable[..., Any]
    args: Any

    def __post_init__(self) -> None:
        """Takes the signature of the function."""
        signature.adopt(self, signature.of(self.value_fn))

    def __call__(self, params: Params, *args: Any, **data: Any) -> Any:
        """The value."""
        return self.value_fn(params, *args, **data)

    def structure(self, args: tuple[Any, ...], data: Mapping[str, Any], caller: str) -> Any:
        """The objective with both data filled in."""
        fill = objective.structure_of(self.value_fn)
        whole = self.value_fn if fill is None else fill(args, data, caller)
        if not isinstance(whole, Structured) or fill is None:
            raise TypeError(whitened.plain(caller))
        named = self.args if isinstance(self.args, dict) else {}
        other = fill(() if named else tuple(self.args), named, caller)
        return _Apart(whole.inner, whole.outer, other=other.without_aux())


def _evaluate(fn: Any, params: Params, *, caller: str, **more: Any) -> Evaluation:
    found = whitened.evaluate(fn, params, caller=caller, **more)
    if not isinstance(fn, _Apart):
        return found
    other = whitened.evaluate(fn.other, params, caller=caller)
    return found._replace(product=other.product)


def build(
    name: str,
    damping: Any,
    max_products: int | None,
    warm_start: Any,
    preconditioner: Preconditioner | None,
    **more: Any,
) -> Transformation:
    errors.check_number(damping, name="damping", open_low=True, schedule=True)
    errors.check_count(max_products, name="max_products")
    errors.check_number(warm_start, name="warm_start", high=1.0)
    limit = MAX_PRODUCTS if max_products is None else int(max_products)
    model = functools.partial(
        _build_model, max_products=limit, warm_start=warm_start, preconditioner=preconditioner
    )
    rule = Rule(
        info=HessianFreeInfo,
        empty=functools.partial(_empty, max_products=limit, preconditioner=preconditioner),
        build=model,
        solve=_solve,
        adapt=_adapt,
        first_size=lambda model, grad, context: model.damping,
        describe=lambda model, size: {"damping": size},
        size=damping,
        evaluate=functools.partial(_evaluate, caller=name),
        leaves_saddles=False,
    )
    made = _build.build(rule, name=name, any_structure=preconditioner is None, **more)

    def update(*given: Any, value_fn: Any = None, curvature_args: Any = None, **extra: Any) -> Any:
        if value_fn is None:
            return made.update(*given, **extra)
        if curvature_args is not None:
            value_fn = _WithCurvature(value_fn, curvature_args)
        return made.update(*given, value_fn=value_fn, **extra)

    return Transformation(
        made.init,
        functools.wraps(made.update)(update),
        method=made.method,
        name=name,
        has_aux=made.has_aux,
        judges=made.judges,
    )
