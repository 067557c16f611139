r"""The structure of a mean over parts of the data, F = 1/k sum_i l(r(p; x_i); x_i).

It is the outputs of the parts stacked, with

    H v  =  1/k  (H_i v_i),     F'v  =  k^(-1/2)  (F_i'v_i)                 (1)

part by part. What a Gauss-Newton product keeps of the other parts is their outputs alone.

Source: Griewank & Walther (2008), Evaluating Derivatives, chapter 12 (checkpointing).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import objective, per_example, tree
from hesskit.core.structured import Outer, Structured
from hesskit.core.types import Array, Params


@dataclasses.dataclass(frozen=True)
class Batched(Structured):
    """The structure (1); a call evaluates part by part and keeps the outputs of none.

    Attributes:
      whole: `params -> (value, aux)`.
    """

    whole: Any = None

    def __call__(self, params: Params) -> Any:
        """The value, or (value, aux)."""
        value, aux = self.whole(params)
        return (value, aux) if self.has_aux else value

    def precomposed(self, first: Callable[[Params], Params]) -> Structured:
        """`params -> self(first(params))`."""
        whole = objective.precompose(self.whole, first)
        return dataclasses.replace(self, inner=objective.precompose(self.inner, first), whole=whole)


def _scan(one: Callable[[Params, Any], Any], params: Params, arrays: Any) -> Any:
    """`one(params, part)` for each part, stacked; derivatives evaluate a part anew."""
    body = jax.checkpoint(one)
    return jax.lax.scan(lambda _, part: (None, body(params, part)), None, arrays)[1]


def mean(one: Callable[[Params, Any], Any], params: Params, arrays: Any) -> Any:
    """The mean of values, and an aux stacked."""
    out = _scan(one, params, arrays)
    return (jnp.mean(out[0]), out[1]) if isinstance(out, tuple) else jnp.mean(out)


def outputs(
    of_part: Callable[[Any], Structured], arrays: list[Array]
) -> Callable[[Params], tuple[Any, Any]]:
    """`params -> (outputs, aux)` of all parts, stacked."""

    def part_rows(params: Params, part: Any) -> Array | None:
        return per_example.rows(of_part(part).inner, params)

    def inner(params: Params) -> tuple[Any, Any]:
        with per_example.tap():  # what a part calls is no call of the whole
            out, aux = _scan(lambda p, part: of_part(part).inner(p), params, arrays)
        sizes = [leaf.size // leaf.shape[0] for leaf in jax.tree.leaves(out)]

        def rows(params: Params, arrays: Any) -> list[Params]:
            whole = jax.lax.map(lambda part: part_rows(params, part), arrays)
            ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
            pieces = jnp.split(whole, ends[:-1], axis=1)  # by output, (num, size, n) each
            flat = [piece.reshape(-1, piece.shape[-1]) for piece in pieces]
            return [jax.vmap(lambda row: tree.unravel(row, params))(piece) for piece in flat]

        if per_example.is_tapped() and not objective.is_complex(params):
            first = [a[0] for a in arrays]
            if jax.eval_shape(part_rows, params, first) is not None:
                per_example.tell(per_example.Call(rows, params, arrays, out))
        return out, aux

    return inner


def loss(of_part: Callable[[Any], Outer], arrays: Any, num: int) -> Outer:
    """(1), from the loss of a part."""

    def each(name: str) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            return jax.lax.map(lambda x: getattr(of_part(x[0]), name)(*x[1]), (arrays, given))

        return call

    root = num**-0.5
    return Outer(
        value=lambda r: jnp.mean(each("value")(r)),
        hessian_product=lambda r, v: tree.scale(1 / num, each("hessian_product")(r, v)),
        whiten=lambda r, v: tree.scale(root, each("whiten")(r, v)),
        residual=lambda r: tree.scale(root, each("residual")(r)),  # None stays None
        report=each("report"),
    )


def scored(of_part: Callable[[Any], Any], arrays: Any, num: int) -> Callable[..., Outer]:
    """(1) from scores: each part has a key of its own."""

    def by_key(key: Any, centered: bool) -> Outer:
        if centered:
            raise ValueError(
                "centered=True needs the scores of all examples at once, and microbatched has "
                "those of a part; use centered=False, or the objective without microbatched"
            )
        keys = None if key is None else jax.random.split(key, num)
        return loss(lambda part: of_part(part[0]).scored(part[1], False), (arrays, keys), num)

    return by_key
