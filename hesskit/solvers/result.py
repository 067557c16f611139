"""The answer of a solver: the best point, why it stopped, what it cost."""

import dataclasses
from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core.answer import unknown
from hesskit.core.method import State
from hesskit.core.status import TOLERANCES, Status, sentence
from hesskit.core.types import Array, Params


class History(NamedTuple):
    """One row a step, the start first; rows from `length` on are NaN inside jit, absent outside.

    `value`, `grad_norm`, `step_norm` are (rows,) floats, `accepted` (rows,) bool, `num_values`
    (rows,) int32, cumulative; `params` is like params with a leading axis of rows, or None.
    """

    value: Array
    grad_norm: Array
    step_norm: Array
    accepted: Array
    num_values: Array
    params: Params | None
    length: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Result:
    """The answer of `minimize`.

    Attributes:
      params: the best point found, like the start; always finite if the start was.
      value: the objective there, ().
      grad_norm: the Euclidean norm of the gradient with respect to the free leaves, ().
      status: why the run stopped, (), int32, a `Status`.
      stationary: whether the gradient is zero to the tolerance or to the rounding of the dtype
        and scale, and no negative curvature is known, () bool.
      num_steps: trials judged (updates of an optax optimizer).
      num_values: evaluations of the objective.
      num_grads: evaluations of its gradient.
      num_products: Hessian-vector products; a dense Hessian counts n.
      aux: what `value_fn` returned beside its value at `params`, or None.
      history: a `History`, or None.
      state: pass it as `state=` to continue.
      method: the name of the method that ran.
    """

    params: Params
    value: Array
    grad_norm: Array
    status: Array
    stationary: Array
    num_steps: Array
    num_values: Array
    num_grads: Array
    num_products: Array
    aux: Any
    history: History | None
    state: Any
    method: str = dataclasses.field(metadata={"static": True})

    @property
    def success(self) -> Array:
        """Whether the run ended at a stationary point by a tolerance or the rounding floor."""
        by_tolerance = jnp.isin(self.status, jnp.array(TOLERANCES, jnp.int32))
        return by_tolerance & self.stationary

    @property
    def usable(self) -> Array:
        """Whether `params` and `value` are finite and no worse than the start."""
        return jnp.isfinite(self.value) & (self.status != Status.NONFINITE_START)

    @property
    def message(self) -> str:
        """One sentence: why it stopped, and what to try. Not under jit."""
        if jnp.ndim(self.status) > 0:
            return count_statuses(self)
        dtype = jnp.result_type(*[jnp.finfo(a.dtype).dtype for a in jax.tree.leaves(self.params)])
        text = sentence(
            Status(int(self.status)),
            value=float(self.value),
            grad_norm=float(self.grad_norm),
            num_steps=int(self.num_steps),
            dtype=str(dtype),
            relative=self._relative(),
        )
        return f"{Status(int(self.status)).name}: {text}"

    def _relative(self) -> bool:
        """Whether a machine judged rest by other tests than the norm of the gradient."""
        state = getattr(self.state, "state", None)
        if not isinstance(state, State):
            return False
        return bool(state.at_rest & (self.grad_norm > state.tolerance))

    def __str__(self) -> str:
        """Three lines for people."""
        if unknown(self.value) or jnp.ndim(self.status) > 0:
            return f"Result of {self.method}"
        word = "success" if bool(self.success) else "no success"
        return (
            f"{self.method}: {word}, value {float(self.value):.10g}, gradient norm "
            f"{float(self.grad_norm):.2e}\n"
            f"{int(self.num_steps)} steps, {int(self.num_values)} values, "
            f"{int(self.num_grads)} gradients, {int(self.num_products)} Hessian products\n"
            f"{self.message}"
        )


def count_statuses(result: Result) -> str:
    """How many problems of a batch ended with which status."""
    codes = Counter(Status(int(code)).name for code in jnp.ravel(result.status))
    total, good = sum(codes.values()), int(jnp.sum(result.success))
    parts = ", ".join(f"{count} {name}" for name, count in codes.most_common())
    return f"{good} of {total} succeeded: {parts}"
