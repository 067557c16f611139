r"""A transform for some leaves only; the others pass through, or stay where they are.

With the leaves of the parameters split into u (chosen) and v (not chosen), the inner transform
sees u and

    phi(u) = f(u, v)   with v as it is,                                     (1)

so that its model, its products and its trials are those of the chosen leaves alone. Leaves that
are not chosen are None for it. `masked` passes their updates through, as `optax.masked` does;
`freeze` gives zeros. Where no leaf is chosen the inner transform is not called.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from hesskit.core import select, tree
from hesskit.core.restrict import Inputs, inputs
from hesskit.core.types import Params
from hesskit.transforms._optax import Transformation, check_inner, keep_positional


class MaskedState(NamedTuple):
    """What the next update needs: the state of the inner transform, None at the other leaves."""

    inner_state: Any


def _wrap(
    inner: optax.GradientTransformation,
    choose: Callable[[Params], tuple[bool, ...]],
    others: Callable[[Params], Params],
    *,
    name: str,
    held: Callable[[Params], tuple[bool, ...]] | None = None,
) -> Transformation:
    """`inner` on the leaves that `choose` names; `others` makes the updates of the rest."""
    check_inner(inner, name)
    extended = optax.with_extra_args_support(inner)

    def init(params: Params) -> MaskedState:
        return MaskedState(inner.init(select.split(params, choose(params))[1]))

    @keep_positional
    def update(
        updates: Params, state: MaskedState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, MaskedState]:
        chosen = choose(updates if params is None else params)
        if not any(chosen):
            return others(updates), state
        mine = inputs(Inputs(updates, params, extra), chosen, name=name)
        new, inner_state = extended.update(
            mine.updates, state.inner_state, mine.params, **mine.extra
        )
        rest, _ = select.split(updates, chosen)
        return select.merge(others(rest), new), MaskedState(inner_state)

    has_aux = getattr(inner, "has_aux", False)
    judges = getattr(inner, "judges", None)
    return Transformation(
        init,
        update,
        method=None,
        name=name,
        has_aux=has_aux,
        judges=judges,
        held=None if held is None else (inner, held),
    )


def _chosen(mask: Any, params: Params) -> tuple[bool, ...]:
    """The flags of `mask`; a tree without leaves (of `optax.tree.map_params`) has none."""
    return select.select(mask, params, name="mask") if jax.tree.leaves(params) else ()


def masked(inner: optax.GradientTransformation, mask: Any) -> Transformation:
    r"""Applies `inner` to the leaves that `mask` names; the other updates pass through.

    Like `optax.masked`, for transforms that call the objective: `inner` gets it as a function of
    its own leaves, the others held at their current values. Other leaves are None for `inner`,
    and their updates come back unchanged: a gradient, unless another transform in the chain uses
    it. To hold them still, use `freeze`; to move them by another transform, `partition`.

    Args:
      inner: any transform, of hesskit or optax.
      mask: the leaves to transform: a prefix tree of bools, a path ("bg/b", "peak/*") or a list
        of paths, or `f(path, leaf) -> bool`. Bools may all be False: then nothing is transformed.

    Returns:
      A `Transformation`. Its `update` needs what that of `inner` needs.

    Raises:
      ValueError: a path or function fits no leaf (the message lists the paths), or bools are no
        prefix of params.
      TypeError: `mask` is no selector, or `inner` no transform.

    For mini-batches: as `inner`. Cost of an update in gradients: that of `inner`.

    Example:
      >>> import jax, jax.numpy as jnp, optax, hesskit
      >>> fn = lambda p: jnp.sum((p["a"] - p["b"]) ** 2)
      >>> params = {"a": jnp.array([1.0]), "b": jnp.array([1.5])}
      >>> grad = jax.grad(fn)(params)
      >>> opt = hesskit.masked(hesskit.newton(), "a")
      >>> updates, _ = opt.update(grad, opt.init(params), params, value_fn=fn)
      >>> print(updates["a"], updates["b"])
      [0.5] [1.]
    """
    return _wrap(inner, lambda params: _chosen(mask, params), lambda rest: rest, name="masked")


def freeze(inner: optax.GradientTransformation, mask: Any) -> Transformation:
    r"""Applies `inner` to all leaves but those that `mask` names, which stay where they are.

    Their updates are exact zeros, and `inner` gets the objective as a function of the leaves that
    move. It is `optax.selective_transform` for transforms that call the objective. In
    `hesskit.minimize` it is `inner` with `fixed=mask`: the gradient of held leaves does not count.

    Args:
      inner: any transform, of hesskit or optax.
      mask: the leaves to hold: a prefix tree of bools, a path ("bg/b", "peak/*") or a list of
        paths, or `f(path, leaf) -> bool`.

    Returns:
      A `Transformation`. Its `update` needs what that of `inner` needs.

    Raises:
      ValueError: a path or function fits no leaf (the message lists the paths), or bools are no
        prefix of params.
      TypeError: `mask` is no selector, or `inner` no transform.

    For mini-batches: as `inner`. Cost of an update in gradients: that of `inner`.

    Example:
      >>> import jax, jax.numpy as jnp, hesskit
      >>> fn = lambda p: jnp.sum((p["a"] - p["b"]) ** 2)
      >>> params = {"a": jnp.array([1.0]), "b": jnp.array([1.5])}
      >>> grad = jax.grad(fn)(params)
      >>> opt = hesskit.freeze(hesskit.newton(), "b")
      >>> updates, _ = opt.update(grad, opt.init(params), params, value_fn=fn)
      >>> print(updates["a"], updates["b"])
      [0.5] [0.]
    """

    def held(params: Params) -> tuple[bool, ...]:
        return _chosen(mask, params)

    def moving(params: Params) -> tuple[bool, ...]:
        return tuple(not flag for flag in held(params))

    return _wrap(inner, moving, tree.zeros_like, name="freeze", held=held)
