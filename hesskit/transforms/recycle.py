r"""What a state already knows: the value and gradient at the new point, and what the step did.

A transform that accepts its own steps has evaluated the point it moved to. Passing that value and
gradient to the next update saves one gradient a step. Everything is found by type, never by the
name of a field: parameter trees may use any name.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import errors, found, tree
from hesskit.core.types import Array, Params


def _only(all_nodes: list[Any], state: Any) -> Any:
    """The one element; ValueError if there is none, or several."""
    if not all_nodes:
        raise ValueError(f"no state of a hesskit transform in {type(state).__name__}")
    if len(all_nodes) > 1:
        raise ValueError(
            f"{len(all_nodes)} states of hesskit transforms in {type(state).__name__}; pass the "
            "part that holds the one you mean"
        )
    return all_nodes[0]


def value_and_grad_from_state(
    value_fn: Callable[..., Any], has_aux: bool = False
) -> Callable[..., tuple[Array, Params]]:
    r"""`jax.value_and_grad(value_fn)` that first looks into the state of a hesskit transform.

    After a kept step of `newton_cg()`, `lbfgs()`, ... the state holds value and gradient at the
    new params, and nothing is evaluated; at the start, or where the step was not judged, they
    are. The state does not hold params: use this only where params are as the transform left
    them and value_fn with its data is the same. With mini-batches, or with a transform after
    ours that changes the step, call `jax.value_and_grad`. Inside `masked`, `freeze` and
    `partition`, where the state knows some leaves only, it always evaluates.

    Args:
      value_fn: `value_fn(params, ...) -> ()`, or `-> ((), aux)` with `has_aux`; aux is dropped,
        since a state has none.
      has_aux: whether `value_fn` returns a pair.

    Returns:
      `(params, *args, state, **data) -> (value, grad)`, in the dtypes of `jax.value_and_grad`.

    Raises:
      ValueError: when called: the state holds no state of ours, or more than one.

    Example:
      >>> import jax, jax.numpy as jnp, optax, hesskit
      >>> fn = lambda x: jnp.sum((x - 1.0) ** 4)
      >>> opt, value_and_grad = hesskit.newton(), hesskit.value_and_grad_from_state(fn)
      >>> @jax.jit
      ... def step(x, state):
      ...     value, grad = value_and_grad(x, state=state)
      ...     updates, state = opt.update(grad, state, x, value=value, grad=grad, value_fn=fn)
      ...     return optax.apply_updates(x, updates), state
      >>> x = jnp.zeros(3)
      >>> state = opt.init(x)
      >>> for _ in range(20):
      ...     x, state = step(x, state)
      >>> print(x.round(2))
      [1. 1. 1.]
    """
    errors.check_callable(value_fn, name="value_fn")

    def call(params: Params, *args: Any, state: Any, **data: Any) -> tuple[Array, Params]:
        kept = _only(found.nodes(state, found.is_state), state)

        def value(params: Params) -> Array:
            with errors.calling("value_fn", params, "value_and_grad_from_state"):
                out = value_fn(params, *args, **data)
            return errors.check_value(out[0] if has_aux else out)

        def evaluate() -> tuple[Array, Params]:
            return jax.value_and_grad(value)(params)

        known, structure = jax.tree.leaves((kept.value, kept.grad)), jax.tree.structure(params)
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
        if [leaf.shape for leaf in known[1:]] != shapes:
            return evaluate()
        stored = known[0], jax.tree.unflatten(structure, known[1:])
        stored = tree.cast_like(stored, jax.eval_shape(evaluate))
        return tree.while_once(~jnp.isfinite(stored[0]), evaluate, stored)

    return call


def last_info(state: Any) -> Any:
    r"""What the last update did: the Info of the hesskit transform inside any optax state.

    It is found by type inside `chain`, `hesskit.masked`, `MultiSteps`, `apply_if_finite`,
    `inject_hyperparams` and flax's `nnx.Optimizer.opt_state`.

    Args:
      state: any state that holds one of ours.

    Returns:
      The Info: `status`, `accepted`, `step_norm`, `ratio`, `grad_norm`, the counts, and the
      method's own fields.

    Raises:
      ValueError: there is none, or more than one.

    Example:
      >>> import jax.numpy as jnp, optax, hesskit
      >>> opt = optax.chain(optax.clip_by_global_norm(1.0), hesskit.newton())
      >>> state = opt.init(jnp.ones(2))
      >>> print(hesskit.last_info(state).accepted)
      False
    """
    infos = found.nodes(state, found.is_info)
    judges = found.nodes(state, found.is_state)
    # A direction before a line search of ours has an Info as well; the judge's tells the step.
    info = judges[0].info if len(judges) == 1 else _only(infos, state)
    return jax.tree.map(_unwrapped, info, is_leaf=_is_wrapped)


def _is_wrapped(leaf: Any) -> bool:
    """Whether `leaf` is a flax Variable, which holds its array."""
    return hasattr(leaf, "get_value")


def _unwrapped(leaf: Any) -> Any:
    return leaf.get_value() if _is_wrapped(leaf) else leaf
