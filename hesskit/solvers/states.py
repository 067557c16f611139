"""What the state of an optax transformation says: evaluations spent, why a machine inside stopped.

Everything is found by type, never by the name of a field: parameter trees may use any name.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from hesskit.core import found
from hesskit.core.method import State
from hesskit.core.status import Status
from hesskit.core.types import Array


def with_tolerance(inner: Any, tolerance: Array) -> Any:
    """The optax state `inner`, its machine states told when the gradient counts as zero."""

    def tell(node: Any) -> Any:
        if not isinstance(node, State):
            return node
        return node._replace(tolerance=tolerance.astype(node.tolerance.dtype))

    return jax.tree.map(tell, inner, is_leaf=lambda node: isinstance(node, State))


def word(inner: Any, at_rest: Array, fresh: Array) -> Array:
    """Why an update stops the run, or 0.

    A machine inside says so itself: at rest it may still leave along negative curvature. Any other
    transformation stops where the gradient is zero.

    Args:
      inner: the optax state after the update.
      at_rest: whether the gradient is zero at the best point, () bool.
      fresh: whether there was no update yet, () bool.

    Returns:
      A `Status`, () int32.
    """
    machines = found.nodes(inner, found.is_state)
    if not machines:
        return jnp.where(at_rest, Status.GRADIENT_TOL, Status.RUNNING).astype(jnp.int32)
    codes = jnp.stack([state.info.status for state in machines])
    code = codes[jnp.argmax(codes != Status.RUNNING)]
    wrong = fresh | ((code == Status.GRADIENT_TOL) & ~at_rest) | (code == Status.NONFINITE_START)
    return jnp.where(wrong, Status.RUNNING, code).astype(jnp.int32)


def counts(state: Any) -> tuple[Array, Array, Array]:
    """Evaluations reported inside an optax state: by our Infos and optax's line searches.

    Args:
      state: any optax state.

    Returns:
      Values, gradients and products spent by its last update, each () int32.
    """
    zero = jnp.zeros((), jnp.int32)
    values, grads, products = zero, zero, zero
    for info in found.nodes(state, found.is_info):
        values, grads = values + info.num_values, grads + info.num_grads
        products = products + info.num_products
    for search in found.nodes(state, _is_search):
        steps = jnp.asarray(search.info.num_linesearch_steps, jnp.int32)
        values, grads = values + steps, grads + steps
    return values, grads, products


def _is_search(node: Any) -> bool:
    kinds = (optax.ScaleByZoomLinesearchState, optax.ScaleByBacktrackingLinesearchState)
    return isinstance(node, kinds)
