r"""The mean of an objective over micro-batches, in the memory of one.

    F(p; x)  =  1/k  sum_i f(p; x_i),   x split into k equal parts          (1)

For an f that is itself a mean over examples, F = f. Values, gradients and Hessian products of F
are those of a scan over the parts whose body is evaluated anew in the backward pass
(`jax.checkpoint`), so that no part is kept while another is at work.

Source: Griewank & Walther (2008), Evaluating Derivatives, chapter 12 (checkpointing).
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import errors
from hesskit.core.types import Array, Params


@dataclasses.dataclass(frozen=True)
class _MicroBatched:
    """The function (1); equal to another of the same parts, so that compiled programs are found."""

    value_fn: Callable[..., Any]
    num: int
    axis: int

    def __post_init__(self) -> None:
        with contextlib.suppress(TypeError, ValueError):  # some callables have no signature
            object.__setattr__(self, "__signature__", inspect.signature(self.value_fn))

    def __call__(self, params: Params, *args: Any, **data: Any) -> Any:
        leaves, structure = jax.tree_util.tree_flatten_with_path((args, data))
        whole = [leaf for _, leaf in leaves]
        split = [i for i, leaf in enumerate(whole) if _is_batch(leaf)]
        self._check({self._name(leaves[i][0]): jnp.shape(whole[i]) for i in split})

        @jax.checkpoint
        def one(params: Params, parts: list[Array]) -> Any:
            full = list(whole)
            for i, part in zip(split, parts, strict=True):
                full[i] = part
            args, data = jax.tree.unflatten(structure, full)
            out = self.value_fn(params, *args, **data)
            if isinstance(out, tuple) and len(out) == 2:
                return errors.check_value(out[0]), out[1]
            return errors.check_value(out)

        parts = [_parts(whole[i], self.num, self.axis) for i in split]
        _, out = jax.lax.scan(lambda _, part: (None, one(params, part)), None, parts)
        return (jnp.mean(out[0]), out[1]) if isinstance(out, tuple) else jnp.mean(out)

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


def _is_batch(leaf: Any) -> bool:
    return len(getattr(leaf, "shape", ())) > 0


def _parts(leaf: Array, num: int, axis: int) -> Array:
    """Part i holds the entries i, i + num, ... along `axis`: a sharded axis stays spread."""
    leaf = jnp.asarray(leaf)
    axis %= leaf.ndim
    shape = (*leaf.shape[:axis], leaf.shape[axis] // num, num, *leaf.shape[axis + 1 :])
    return jnp.moveaxis(leaf.reshape(shape), axis + 1, 0)


def microbatched(value_fn: Callable[..., Any], num: int, *, axis: int = 0) -> Callable[..., Any]:
    r"""The mean of `value_fn` over `num` micro-batches, in the memory of one.

    Each array after params is split along `axis` into `num` equal parts; micro-batch i holds the
    entries i, i + num, ... Scalars and () keys go to every part as they are. An old-style key (two
    uint32) is an array like any other: pass `jax.random.key`. `optax.MultiSteps`, by contrast,
    runs the optimizer on each micro-batch.

    Args:
      value_fn: `value_fn(params, ...) -> ()`, a mean over examples, or `-> ((), aux)`.
      num: the number of micro-batches.
      axis: the axis of examples, the same in every array.

    Returns:
      A function with the signature of `value_fn`. An aux comes stacked along a new first axis.

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
    return _MicroBatched(value_fn, int(num), axis)
