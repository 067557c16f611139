"""What the state of an optax transformation says: evaluations spent, why a machine inside stopped.

Everything is found by type, never by the name of a field: parameter trees may use any name.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from hesskit.core.method import INFO_FIELDS, State
from hesskit.core.status import Status
from hesskit.core.types import Array


def _states(inner: Any) -> list[State]:
    """The machine states inside an optax state."""
    nodes = jax.tree.leaves(inner, is_leaf=lambda node: isinstance(node, State))
    return [node for node in nodes if isinstance(node, State)]


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
    machines = _states(inner)
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
    for info in _infos(state):
        if _is_info(info):
            values, grads = values + info.num_values, grads + info.num_grads
            products = products + info.num_products
        else:
            steps = jnp.asarray(info.num_linesearch_steps, jnp.int32)
            values, grads = values + steps, grads + steps
    return values, grads, products


def _is_info(node: Any) -> bool:
    return (
        isinstance(node, tuple) and getattr(node, "_fields", ())[: len(INFO_FIELDS)] == INFO_FIELDS
    )


def _is_search(node: Any) -> bool:
    kinds = (optax.ScaleByZoomLinesearchState, optax.ScaleByBacktrackingLinesearchState)
    return isinstance(node, kinds)


def _infos(state: Any) -> list[Any]:
    found = jax.tree.leaves(state, is_leaf=lambda node: _is_info(node) or _is_search(node))
    ours = [node for node in found if _is_info(node)]
    return ours + [node.info for node in found if _is_search(node)]
