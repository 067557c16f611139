r"""Functions of one example, mapped over a batch with its structure kept.

    r_i(p)  =  fn(p, x_i),     row_i  =  d r_i / d p                        (1)

The rows of the Jacobian of a batch cost one reverse pass each over the batch unless it is known
that row i depends on example i alone: then all rows together cost one mapped reverse pass. A
`PerExample` says so. Wherever it is called, it tells the innermost `tap` (none outside of one) what
it returned and from what; `rows` matches these with the outputs of a whole objective.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import errors, tree
from hesskit.core.terms import ByParts
from hesskit.core.types import Array, Params


class Call(NamedTuple):
    """One call of a `PerExample`."""

    one: Callable[..., Any]  # `one(params, *example)`, for one example
    axes: tuple[Any, ...]  # of the data
    params: Params
    data: tuple[Any, ...]
    out: Any  # with the axis of examples first


_taps: list[list[Call]] = []


@contextlib.contextmanager
def tap() -> Iterator[list[Call]]:
    """Collects the calls made inside, while tracing."""
    calls: list[Call] = []
    _taps.append(calls)
    try:
        yield calls
    finally:
        _taps.remove(calls)


@dataclasses.dataclass(frozen=True, eq=False)
class PerExample(ByParts):
    """`fn` mapped over examples: `(params, *batch) -> outputs` with the batch axis first.

    Attributes:
      fn: `fn(params, *example)`.
      in_axes: the axis of examples: an int, or one entry (or prefix) for each data argument.
    """

    fn: Callable[..., Any]
    in_axes: Any = 0

    def __call__(self, params: Params, /, *batch: Any, **named: Any) -> Any:
        """The outputs of all examples; data by name is shared by all."""
        one = functools.partial(self.fn, **named) if named else self.fn
        axes = self.in_axes if isinstance(self.in_axes, tuple) else (self.in_axes,) * len(batch)
        out = jax.vmap(one, in_axes=(None, *axes))(params, *batch)
        if _taps:
            _taps[-1].append(Call(one, axes, params, batch, out))
        return out


def rows(inner: Callable[[Params], tuple[Any, Any]], params: Params) -> Array | None:
    """The Jacobian of `inner` by (1), or None where its outputs are not those of examples.

    Args:
      inner: `params -> (outputs, aux)`.
      params: the point.

    Returns:
      An (m, n) array, rows in the order of the raveled outputs. None unless each output is exactly
      what a `PerExample` returned, and no example depends on params.
    """
    places: list[tuple[int, int] | None] = []

    def probe(point: Params) -> None:
        with tap() as calls:
            outputs, _ = inner(point)
        places.extend(_place(leaf, calls) for leaf in jax.tree.leaves(outputs))

    jax.eval_shape(probe, params)  # no copy of an ordinary objective is left in the program
    if any(place is None for place in places) or _depends(inner, params):
        return None
    with tap() as calls:
        inner(params)
    blocks = [_block(inner, params, calls, i) for i in range(len(calls))]
    return jnp.concatenate([blocks[i][j] for i, j in (p for p in places if p is not None)])


def _place(leaf: Any, calls: list[Call]) -> tuple[int, int] | None:
    """Which output of which call a leaf is."""
    for i, call in enumerate(calls):
        for j, out in enumerate(jax.tree.leaves(call.out)):
            if out is leaf:
                return i, j
    return None


def _depends(inner: Callable[[Params], Any], params: Params) -> bool:
    """Whether any data of the calls is computed from params."""

    def data(point: Params) -> Any:
        with tap() as calls:
            inner(point)
        return [(call.data, getattr(call.one, "keywords", None)) for call in calls]

    jaxpr = jax.make_jaxpr(data)(params).jaxpr
    reached = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        if any(v in reached for v in equation.invars if not hasattr(v, "val")):
            reached.update(equation.outvars)
    return any(v in reached for v in jaxpr.outvars if not hasattr(v, "val"))


def _block(
    inner: Callable[[Params], Any], params: Params, calls: list[Call], i: int
) -> list[Array]:
    """The rows of each output of call i with respect to `params`."""
    call = calls[i]

    def own(point: Params) -> Params:
        with tap() as again:
            inner(point)
        return again[i].params

    # Objectives are composed with a change of variables: rows go back through it.
    _, pull = jax.vjp(own, params)
    jacobian = jax.vmap(jax.jacrev(call.one), in_axes=(None, *call.axes))(call.params, *call.data)
    found = []
    structure = jax.tree.structure(call.out)
    for out, rows_ in zip(
        jax.tree.leaves(call.out), structure.flatten_up_to(jacobian), strict=True
    ):
        flat = jax.tree.map(lambda a, p: a.reshape(-1, *p.shape), rows_, call.params)
        found.append(jax.vmap(lambda v: tree.ravel(pull(v)[0]))(flat))
        assert found[-1].shape[0] == out.size
    return found


def per_example(fn: Callable[..., Any], in_axes: Any = 0) -> PerExample:
    r"""`fn` of one example, mapped over a batch: residuals whose Jacobian has cheap rows.

    Use it inside a residual function or as one. Least-squares methods then find all rows of the
    Jacobian in one mapped reverse pass, where a residual function that maps by `jax.vmap` itself
    costs one pass over the batch for each row: of a physics-informed network, a hundred times more.

    Args:
      fn: `fn(params, *example)`, returning a residual, a loss, or any pytree of arrays.
      in_axes: the axis of examples in each data argument, as in `jax.vmap`; params and data by
        name are shared.

    Returns:
      A function `(params, *batch) -> outputs` with the axis of examples first.

    Raises:
      TypeError: `fn` is no function.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> one = lambda p, x: p["a"] * jnp.tanh(p["b"] * x) - x
      >>> loss = hesskit.least_squares_loss(hesskit.per_example(one))
      >>> print(loss({"a": 1.0, "b": 1.0}, jnp.linspace(0.0, 1.0, 5)).round(4))
      0.0357
    """
    errors.check_callable(fn, name="fn")
    return PerExample(fn, in_axes)
