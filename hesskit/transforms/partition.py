r"""One transform for each group of leaves: first-order ones step first, one that judges last.

With the leaves x = (u, v), u those of the transform that judges its steps and v all others, an
update is a block step of Gauss-Seidel type:

    v+  =  v + first-order updates, from the gradient at (u, v)             (1)
    u+  =  u + step on phi(u) = f(u, v+)                                    (2)

Two judges would each compare a trial at which the other has not moved, and together could climb;
so there is one at most, and f(u+, v+) <= f(u, v+) always.
"""

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from hesskit.core import errors, found, objective, prefix, select
from hesskit.core.method import State
from hesskit.core.restrict import Inputs, inputs, restrict
from hesskit.core.types import Params
from hesskit.transforms._optax import Transformation, check_inner, keep_positional

NOT_DATA = ("value", "grad", "value_fn", "obj_fn", "args")

_SEARCHES = (optax.ScaleByZoomLinesearchState, optax.ScaleByBacktrackingLinesearchState)


class PartitionState(NamedTuple):
    """What the next update needs: the state of each transform by its label."""

    inner_states: dict[Hashable, Any]


def _judges(transform: optax.GradientTransformation, state: Any) -> bool:
    """Whether the transform compares values of the objective before it steps."""
    known = getattr(transform, "judges", None)
    if known is not None:
        return known
    return bool(found.nodes(state, lambda node: isinstance(node, (State, *_SEARCHES))))


def _judge(transforms: Mapping[Hashable, Any], states: Mapping[Hashable, Any]) -> Hashable | None:
    """The label of the one transform that judges, or None; ValueError if there are two."""
    judges = [label for label, transform in transforms.items() if _judges(transform, states[label])]
    if len(judges) > 1:
        raise ValueError(
            f"partition takes one transform that accepts its own steps, got {len(judges)}: "
            f"{', '.join(repr(label) for label in judges)}. Give all their leaves one label, or "
            "set learning_rate= in all but one."
        )
    return judges[0] if judges else None


def _labels(param_labels: Any, params: Params, known: Mapping[Hashable, Any]) -> list[Hashable]:
    """The label of each leaf of params, in the order of `jax.tree.leaves`."""
    given = param_labels(params) if callable(param_labels) else param_labels
    labels = jax.tree.leaves(prefix.spread(given, params, name="param_labels", of="params"))
    unknown = [label for label in labels if label not in known]
    if unknown:
        raise ValueError(
            f"param_labels has {unknown[0]!r}; the transforms are for "
            f"{', '.join(repr(label) for label in known)}"
        )
    return labels


def _value_alone(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` without its aux, if it returns one."""

    @functools.wraps(fn, updated=())
    def call(*args: Any, **data: Any) -> Any:
        out = fn(*args, **data)
        return out[0] if isinstance(out, tuple) and len(out) == 2 else out

    return call


def _arrived(given: Inputs, mine: tuple[bool, ...]) -> Inputs:
    """What the judge of the leaves `mine` gets: all else moved, value and gradient from there."""
    caller = "partition.update"
    if given.params is None:
        raise ValueError(errors.NO_PARAMS.format(name="partition"))
    why = "for a transform in it judges its own steps"
    value_fn = objective.required(given.extra.get("value_fn"), given.extra, caller=caller, why=why)
    rest, _ = select.split(given.updates, mine)
    held, chosen = select.split(given.params, mine)
    held = optax.apply_updates(held, rest)
    fn = _value_alone(restrict(value_fn, held, caller=caller))
    args = given.extra.get("args", ())
    data = {key: item for key, item in given.extra.items() if key not in NOT_DATA}
    bound = objective.drop_aux(objective.bind(fn, args=args, data=data, caller=caller))
    value, grad = jax.value_and_grad(bound)(chosen)
    grad = select.merge(rest, objective.conjugate(grad))
    extra = {**given.extra, "value": value, "grad": grad}
    return Inputs(grad, select.merge(held, chosen), extra)


def partition(
    transforms: Mapping[Hashable, optax.GradientTransformation], param_labels: Any
) -> Transformation:
    r"""Applies to each leaf the transform of its label, like `optax.partition`.

    One of them may judge its own steps (`newton_cg()`, `lbfgs()`, optax's line searches). It goes
    last: the others step from the gradient they are given; then it gets the objective as a
    function of its own leaves with the others at their new values, so that it never raises the
    value that the others have reached. Its gradient is evaluated at that point; what a transform
    before the partition made of the gradient reaches the others only.

    Args:
      transforms: a transform for each label.
      param_labels: a prefix tree of labels, or a function that makes one of params.

    Returns:
      A `Transformation`. Its `update` needs `value_fn` if one of the transforms does.

    Raises:
      ValueError: a label has no transform, the labels are no prefix of params, or two transforms
        judge their own steps.
      TypeError: `transforms` is no dict, or holds what is no transform.

    For mini-batches: as the transforms are.

    Cost of an update in gradients: that of the transforms, and 1 where one judges its steps.

    Example:
      >>> import jax.numpy as jnp, optax, hesskit
      >>> fn = lambda p: jnp.sum((p["u"] - p["v"]) ** 2) + jnp.sum((p["v"] - 1.0) ** 2)
      >>> each = {"second": hesskit.newton(), "first": optax.sgd(0.2)}
      >>> opt = hesskit.partition(each, {"u": "second", "v": "first"})
      >>> start = {"u": jnp.zeros(3), "v": jnp.zeros(2)[:1]}
      >>> result = hesskit.minimize(fn, start, opt, max_steps=60)
      >>> print(result.params["u"].round(3), result.params["v"].round(3))
      [1. 1. 1.] [1.]
    """
    if not isinstance(transforms, Mapping):
        raise TypeError(f"transforms must be a dict by label, got {type(transforms).__name__}")
    for key, item in transforms.items():
        check_inner(item, f"partition, for {key!r},")
    every = {key: optax.with_extra_args_support(item) for key, item in transforms.items()}

    def init(params: Params) -> PartitionState:
        if not jax.tree.leaves(params):  # what optax.tree.map_params calls
            return PartitionState({key: item.init(params) for key, item in every.items()})
        labels = _labels(param_labels, params, every)
        states = {
            key: item.init(select.split(params, tuple(label == key for label in labels))[1])
            for key, item in every.items()
        }
        _judge(transforms, states)
        return PartitionState(states)

    @keep_positional
    def update(
        updates: Params, state: PartitionState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, PartitionState]:
        labels = _labels(param_labels, updates if params is None else params, every)
        states, judge = dict(state.inner_states), _judge(transforms, state.inner_states)
        used = [key for key in every if key in labels]
        for key in sorted(used, key=lambda label: label == judge):  # the judge is last
            mine = tuple(label == key for label in labels)
            given = Inputs(updates, params, extra)
            if key == judge:
                given = _arrived(given, mine)
            own = inputs(given, mine, name="partition")
            new, states[key] = every[key].update(own.updates, states[key], own.params, **own.extra)
            updates = select.merge(select.split(given.updates, mine)[0], new)
        return updates, PartitionState(states)

    has_aux = any(getattr(item, "has_aux", False) for item in transforms.values())
    return Transformation(init, update, method=None, name="partition", has_aux=has_aux)
