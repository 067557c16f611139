r"""Functions of one example, mapped over a batch with its structure kept.

    r_i(p)  =  fn(p, x_i),     row_i  =  d r_i / d p                        (1)

The rows of the Jacobian of a batch cost one reverse pass each over the batch unless it is known
that row i depends on example i alone: then all rows together cost one mapped reverse pass. A
`PerExample` says so. Wherever it is called, it tells the innermost `tap` (none outside of one) what
it returned and from what, and so does whoever else knows rows of its own (core/microbatch.py,
core/penalty.py); `rows` matches these with the outputs of a whole objective.
"""

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import errors, signature, tree
from hesskit.core.terms import ByParts
from hesskit.core.types import Array, Params


class Call(NamedTuple):
    """One call of a function of params and data that knows the rows of its Jacobian.

    Attributes:
      rows: `(params, data) -> ` for each leaf of `out`, params with an axis of its entries first.
      params: where it was called.
      data: what it was called with besides.
      out: what it returned.
    """

    rows: Callable[[Params, Any], list[Params]]
    params: Params
    data: Any
    out: Any


class _Taps(threading.local):
    """The open taps of a thread, the innermost last."""

    def __init__(self) -> None:
        self.open: list[list[Call]] = []


_taps = _Taps()


@contextlib.contextmanager
def tap() -> Iterator[list[Call]]:
    """Collects the calls made inside, while tracing."""
    calls: list[Call] = []
    _taps.open.append(calls)
    try:
        yield calls
    finally:
        _taps.open.pop()


def is_tapped() -> bool:
    """Whether anybody wants to know of calls."""
    return bool(_taps.open)


def tell(call: Call) -> None:
    """Tells the innermost tap, if there is one, of a call."""
    if _taps.open:
        _taps.open[-1].append(call)


@dataclasses.dataclass(frozen=True, eq=False)
class PerExample(ByParts):
    """`fn` mapped over examples: `(params, *batch) -> outputs` with the batch axis first.

    Attributes:
      fn: `fn(params, *example)`.
      in_axes: the axis of examples: an int, or one entry (or prefix) for each data argument.
    """

    fn: Callable[..., Any]
    in_axes: Any = 0

    def __post_init__(self) -> None:
        """Takes the signature of `fn`, so that data finds its place by name."""
        signature.adopt(self, signature.of(self.fn))

    def __call__(self, params: Params, /, *batch: Any, **named: Any) -> Any:
        """The outputs of all examples; what is optional and given by name is shared by all."""
        required = signature.positional(self.fn, optional=False) or ()
        for name in required[len(batch) :]:
            if name in named:
                batch = (*batch, named.pop(name))
        one = functools.partial(self.fn, **named) if named else self.fn
        axes = self.in_axes if isinstance(self.in_axes, tuple) else (self.in_axes,) * len(batch)
        out = jax.vmap(one, in_axes=(None, *axes))(params, *batch)
        tell(Call(functools.partial(_mapped_rows, self.fn, axes), params, (batch, named), out))
        return out


def _mapped_rows(fn: Any, axes: tuple[Any, ...], params: Params, data: Any) -> list[Params]:
    """The rows of each output, from one reverse pass mapped over examples."""
    batch, named = data
    one = functools.partial(fn, **named) if named else fn

    def jacobian(params: Params, *example: Any) -> Any:
        out, back = jax.vjp(lambda p: one(p, *example), params)
        leaves = jax.tree.leaves(out)
        if len(leaves) == 1 and leaves[0].size == 1 and jnp.isrealobj(leaves[0]):
            # Not one row of a Jacobian: an axis of one makes XLA four times slower on a network.
            return back(jax.tree.map(jnp.ones_like, out))[0]
        return jax.jacrev(one)(params, *example)

    found = jax.vmap(jacobian, in_axes=(None, *axes))(params, *batch)
    return stack_rows(found, params)


def stack_rows(jacobian: Any, params: Params) -> list[Params]:
    """What `jax.jacrev` gives, output by output: params with an axis of its entries first."""
    inside = jax.tree.structure(params)
    blocks = jax.tree.leaves(jacobian)
    found = []
    for start in range(0, len(blocks), inside.num_leaves):
        block = jax.tree.unflatten(inside, blocks[start : start + inside.num_leaves])
        found.append(jax.tree.map(lambda a, p: a.reshape(-1, *jnp.shape(p)), block, params))
    return found


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
        return [call.data for call in calls]

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
    return [
        jax.vmap(lambda v: tree.ravel(pull(v)[0]))(block)
        for block in call.rows(call.params, call.data)
    ]


def per_example(fn: Callable[..., Any], in_axes: Any = 0) -> PerExample:
    r"""`fn` of one example, mapped over a batch: residuals whose Jacobian has cheap rows.

    Use it inside a residual function or as one. Least-squares methods then find all rows of the
    Jacobian in one mapped reverse pass, where a residual function that maps by `jax.vmap` itself
    costs one pass over the batch for each row: of a physics-informed network, a hundred times more.

    Args:
      fn: `fn(params, *example)`, returning a residual, a loss, or any pytree of arrays.
      in_axes: the axis of examples in each data argument, as in `jax.vmap`; params, and what is
        optional and given by name, are shared.

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
