r"""The mean of an objective over micro-batches, in the memory of one.

    F(p; x)  =  1/k  sum_i f(p; x_i),   x split into k equal parts          (1)

For an f that is itself a mean over examples, F = f. Values, gradients and Hessian products of F
are those of a scan over the parts whose body is evaluated anew in the backward pass
(`jax.checkpoint`), so that no part is kept while another is at work.

Where f has a structure, so has F (core/batched.py).

Source: Griewank & Walther (2008), Evaluating Derivatives, chapter 12 (checkpointing).
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import batched, errors, objective, signature
from hesskit.core.structured import Outer, Structured
from hesskit.core.terms import ByParts, Sum, Term
from hesskit.core.types import Array, Params


class _Parts(NamedTuple):
    """Data taken apart: arrays with the axis of parts first, and `fill(part) -> (args, data)`."""

    arrays: list[Array]
    fill: Callable[[list[Array]], tuple[tuple[Any, ...], dict[str, Any]]]


@dataclasses.dataclass(frozen=True, eq=False)
class _MicroBatched(ByParts, Term):
    """The function (1); equal to another of the same parts, so that compiled programs are found."""

    value_fn: Callable[..., Any]
    num: int
    axis: int | None  # None: each array is split already, with the axis of parts first

    def __post_init__(self) -> None:
        """Takes the signature of the function."""
        signature.adopt(self, signature.of(self.value_fn))

    @property
    def is_squares(self) -> bool:
        """Whether the parts are sums of squared residuals."""
        return objective.is_squares(self.value_fn)

    def __call__(self, params: Params, *args: Any, **data: Any) -> Any:
        """The mean at `params`, or (mean, aux)."""
        parts = self._apart(args, data)

        def one(params: Params, part: list[Array]) -> Any:
            args, data = parts.fill(part)
            out = self.value_fn(params, *args, **data)
            if isinstance(out, tuple) and len(out) == 2:
                return errors.check_value(out[0]), out[1]
            return errors.check_value(out)

        return batched.mean(one, params, parts.arrays)

    def _apart(self, args: tuple[Any, ...], data: Mapping[str, Any]) -> _Parts:
        """The data, checked, each array split."""
        leaves, structure = jax.tree_util.tree_flatten_with_path((args, dict(data)))
        whole = [leaf for _, leaf in leaves]
        split = [i for i, leaf in enumerate(whole) if getattr(leaf, "shape", ())]
        self._check({self._name(leaves[i][0]): jnp.shape(whole[i]) for i in split})
        take = (lambda leaf: leaf) if self.axis is None else self._split

        def fill(part: list[Array]) -> Any:
            full = list(whole)
            for i, array in zip(split, part, strict=True):
                full[i] = array
            return jax.tree.unflatten(structure, full)

        return _Parts([take(jnp.asarray(whole[i])) for i in split], fill)

    def _split(self, leaf: Array) -> Array:
        """Part i holds the entries i, i + num, ... along `axis`: a sharded axis stays spread."""
        assert self.axis is not None
        axis = self.axis % leaf.ndim
        shape = (
            *leaf.shape[:axis],
            leaf.shape[axis] // self.num,
            self.num,
            *leaf.shape[axis + 1 :],
        )
        return jnp.moveaxis(leaf.reshape(shape), axis + 1, 0)

    def _name(self, path: tuple[Any, ...]) -> str:
        """The name of the data at `path` of (args, data), as the function calls it."""
        which, key, *below = path
        parameters = list(getattr(self, "__signature__", inspect.Signature()).parameters)[1:]
        if which.idx == 1:
            name = str(key.key)
        else:
            name = parameters[key.idx] if key.idx < len(parameters) else f"args[{key.idx}]"
        return name + jax.tree_util.keystr(tuple(below))

    def _check(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Raises unless there is data, of one size that `num` divides."""
        if not shapes:
            raise ValueError(
                "microbatched found no array to split: pass the data after params, by position "
                "or by name; what value_fn closes over stays whole"
            )
        if self.axis is None:
            return
        sizes = {}
        for name, shape in shapes.items():
            if not -len(shape) <= self.axis < len(shape):
                raise ValueError(f"{name} has shape {shape} and no axis {self.axis} to split")
            sizes[name] = shape[self.axis]
            if sizes[name] % self.num:
                raise ValueError(
                    f"{name} has {sizes[name]} entries along axis {self.axis}, which num="
                    f"{self.num} does not divide"
                )
        first, *others = sizes
        for name in others:
            if sizes[name] != sizes[first]:
                raise ValueError(
                    f"{first} has {sizes[first]} entries along axis {self.axis}, {name} has "
                    f"{sizes[name]}; fill in what is no batch with functools.partial"
                )


class _WithStructure(_MicroBatched):
    """(1) of an objective with a structure, which keeps it."""

    def structure(self, args: tuple[Any, ...], data: Mapping[str, Any], caller: str) -> Any:
        """The objective with its data filled in: structured if that of a part is."""
        parts = self._apart(args, data)
        fill = objective.structure_of(self.value_fn)
        assert fill is not None

        def of_part(part: list[Array]) -> Any:
            return fill(*parts.fill(part), caller)

        def outer_of(part: list[Array]) -> Outer:
            return of_part(part).outer

        def whole(params: Params) -> tuple[Array, Any]:
            return batched.mean(lambda p, part: of_part(part)(p), params, parts.arrays)

        first = of_part([a[0] for a in parts.arrays])
        if not isinstance(first, Structured):
            return whole
        outer = batched.loss(outer_of, parts.arrays, self.num)
        if first.outer.scored is not None:
            outer = outer._replace(scored=batched.scored(outer_of, parts.arrays, self.num))
        return batched.Batched(batched.outputs(of_part, parts.arrays), outer, whole=whole)


def over_parts(value_fn: Callable[..., Any], num: int) -> Callable[..., Any]:
    """The mean of `value_fn` over data that comes as `num` parts, stacked along a first axis.

    Args:
      value_fn: `value_fn(params, ...) -> ()`.
      num: how many.

    Returns:
      A function with the signature of `value_fn`; of a sum, the term that takes data is the mean.
    """
    return _over(value_fn, num, None)


def _over(value_fn: Callable[..., Any], num: int, axis: int | None) -> Callable[..., Any]:
    if isinstance(value_fn, Sum):
        return value_fn.map_takers(lambda term: _over(term, num, axis))
    kind = _MicroBatched if objective.structure_of(value_fn) is None else _WithStructure
    return kind(value_fn, int(num), axis)


def microbatched(value_fn: Callable[..., Any], num: int, *, axis: int = 0) -> Callable[..., Any]:
    r"""The mean of `value_fn` over `num` micro-batches, in the memory of one.

    Each array after params is split along `axis` into `num` equal parts; micro-batch i holds the
    entries i, i + num, ... Scalars and () keys go to every part as they are. An old-style key (two
    uint32) is an array like any other: pass `jax.random.key`. `optax.MultiSteps`, by contrast,
    runs the optimizer on each micro-batch.

    A structured objective (`hesskit.least_squares_loss`, `hesskit.composite`, sums of such) stays
    one: Gauss-Newton products scan over the parts and keep the outputs of all and the inner
    values of one; dense methods stack the rows of the parts, m x n in all. In a sum the term that
    takes the data is split, the others are evaluated once.

    It is the mean: of an objective that sums over examples (`reduction="sum"`) it is 1/num of it,
    `num * microbatched(...)` all of it. Where examples are dropped (`sigma=inf`, `where`), it is
    the mean over the batch only if all parts keep as many.

    Args:
      value_fn: `value_fn(params, ...) -> ()`, a mean over examples, or `-> ((), aux)`.
      num: the number of micro-batches.
      axis: the axis of examples, the same in every array.

    Returns:
      A function with the signature of `value_fn`, which adds and scales. An aux comes stacked
      along a new first axis.

    Raises:
      ValueError: `num` is no positive integer. When called: there is no array to split, or one
        has no such axis, a size that `num` does not divide, or another size than the others.
      TypeError: `value_fn` cannot be called, or `num` is no number.

    Cost: that of `value_fn` on the whole batch, one evaluation more for its gradient.

    Example:
      >>> import jax, jax.numpy as jnp, hesskit
      >>> loss = lambda w, x: jnp.mean((x * w - 1.0) ** 2)
      >>> parts = hesskit.microbatched(loss, 4)
      >>> x = jnp.arange(8.0)
      >>> print(loss(0.5, x), parts(0.5, x), jax.grad(parts)(0.5, x=x))
      1.875 1.875 10.5
    """
    errors.check_callable(value_fn, name="value_fn")
    errors.check_count(num, name="num")
    return _over(value_fn, int(num), axis)
