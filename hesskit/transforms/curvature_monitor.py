r"""The sharpness of a training run: the largest eigenvalue of the Hessian, every k steps.

Updates pass through unchanged. Every k-th of them spends m products on Lanczos (linalg/lanczos.py)
from the last top eigenvector, which moves little between, and a tenth of a random vector, which
sees another that has come to the top. The Ritz value w is a lower bound of the largest eigenvalue,
and an eigenvalue lies within |H v - w v| of it. Gradient descent of step a is unstable beyond
2 / a, where many runs settle.

Source: Cohen, Kaur, Li, Kolter & Talwalkar (2021), "Gradient descent on neural networks typically
occurs at the edge of stability", ICLR.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import errors, objective, pseudo_random, tree
from hesskit.core.derivatives import linearized
from hesskit.core.types import Array, Params
from hesskit.linalg.basis import combination
from hesskit.linalg.lanczos import decompose, lanczos, last_entry
from hesskit.transforms import _optax
from hesskit.transforms._optax import Transformation, memoize

EVERY, PRODUCTS = 10, 5
"""At 5 products every 10 steps a run costs about twice its own gradients."""
FRESH = 0.1
"""The random part of a start: from an eigenvector alone Lanczos ends there, whatever lies above."""


class CurvatureMonitorState(NamedTuple):
    """What was last found, and where to go on from.

    Attributes:
      count: updates so far, (), int32.
      sharpness: the largest eigenvalue as last found, (); NaN before.
      residual_norm: |H v - w v|, (): an eigenvalue is that near.
      step: the update at which it was found, (), int32; -1 before.
      vector: v, like params as real arrays, of norm 1.
    """

    count: Array
    sharpness: Array
    residual_norm: Array
    step: Array
    vector: Params


@memoize
def curvature_monitor(
    *, every: Any = EVERY, num_products: Any = None, has_aux: bool = False
) -> Transformation:
    r"""A transform that leaves updates as they are and records the sharpness every few steps.

    For mini-batches: yes, the sharpness is that of the batch. Cost: `num_products` Hessian products
    and a gradient every `every` steps, else none.

    Args:
      every: steps from one record to the next; the first is at the first update.
      num_products: Lanczos steps of a record, warm-started: the first records are lower bounds.
        None means 5. Under `optax.inject_hyperparams` list it in `static_args`.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation`, to `chain` with any other; `update` needs `params` and `value_fn=`, and
      the data of `value_fn` by name or as `args=`. Its state has `sharpness` and `residual_norm`,
      in at least float32.

    Raises:
      TypeError: an argument is no number; in `update`, `value_fn` is missing.
      ValueError: an argument is no positive integer; in `update`, `params` is missing.

    Example:
      >>> import jax, jax.numpy as jnp, optax, hesskit
      >>> fn = lambda p: 3 * p[0] ** 2 + p[1] ** 2
      >>> opt = optax.chain(hesskit.curvature_monitor(), optax.sgd(0.1))
      >>> x = jnp.ones(2)
      >>> _, state = opt.update(jax.grad(fn)(x), opt.init(x), x, value_fn=fn)
      >>> print(state[0].sharpness.round(4))
      6.0

    References:
      Cohen et al. (2021), Gradient descent on neural networks typically occurs at the edge of
      stability.
    """
    errors.check_count(every, name="every")
    num_products = PRODUCTS if num_products is None else num_products
    errors.check_count(num_products, name="num_products")
    name = "curvature_monitor"

    def begin(point: Params, params: Params) -> CurvatureMonitorState:
        del params
        unknown = jnp.full((), jnp.nan, tree.result_dtype(point))
        return CurvatureMonitorState(
            count=jnp.zeros((), jnp.int32),
            sharpness=unknown,
            residual_norm=jnp.full_like(unknown, jnp.inf),
            step=jnp.full((), -1, jnp.int32),
            vector=pseudo_random.like(tree.widen(point)),
        )

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        value_fn: Any = None,
        args: Any = (),
        **data: Any,
    ) -> tuple[Params, CurvatureMonitorState]:
        value_fn = objective.required(value_fn, data, caller=f"{name}.update")
        if params is None:
            raise ValueError(errors.NO_PARAMS.format(name=name))
        fn, point = objective.real(
            value_fn, params, args=args, data=data, has_aux=has_aux, caller=f"{name}.update"
        )

        def look() -> CurvatureMonitorState:
            return _recorded(fn, point, state, num_products)

        found = tree.while_once(state.count % every == 0, look, state)
        found = CurvatureMonitorState(*found)
        return updates, found._replace(count=state.count + 1)

    update.__qualname__ = f"{name}.update"  # for Python's own sentences
    return Transformation(
        _optax.initializer(begin),
        _optax.keep_positional(update),
        method=None,
        name=name,
        has_aux=has_aux,
        judges=False,
    )


def _recorded(
    fn: Callable[[Params], Array], point: Params, state: CurvatureMonitorState, num_products: int
) -> CurvatureMonitorState:
    """The top Ritz pair of a few Lanczos steps from the last one."""
    product = linearized(fn, point).product
    assert product is not None
    fresh = pseudo_random.like(state.vector, state.count)
    last, fresh = (tree.scale(1 / tree.norm(v), v) for v in (state.vector, fresh))
    start = tree.cast_like(tree.axpy(FRESH, fresh, last), point)
    result = lanczos(product, start, num_products)
    w, vectors = decompose(result)
    top = jnp.maximum(result.num_valid - 1, 0)
    y = vectors[:, top]
    known = result.num_valid > 0
    vector = tree.cast_like(combination(result.basis, y), state.vector)
    residual = jnp.abs(last_entry(y, result.num_valid)) * result.residual_norm
    return state._replace(
        sharpness=jnp.where(known, w[top], jnp.nan).astype(state.sharpness.dtype),
        residual_norm=jnp.where(known, residual, jnp.inf).astype(state.sharpness.dtype),
        step=jnp.copy(state.count),
        vector=tree.where(known, vector, state.vector),
    )
