"""The answers of many problems: a `Result` whose leaves have a leading axis of problems."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core.types import Array
from hesskit.solvers.result import Result, count_statuses

MOST_LISTED = 8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ManyResult(Result):
    """The answers of `minimize_many`: every field of `Result` with a leading axis of problems.

    `print` counts by status; `result[i]` is the `Result` of problem i; `history` and `state` are
    None.
    """

    @property
    def num_success(self) -> Array:
        """How many problems ended at a stationary point, () int32."""
        return jnp.sum(self.success, dtype=jnp.int32)

    @property
    def failed(self) -> Array:
        """The indices of the others, ascending. Not under jit."""
        return jnp.flatnonzero(~self.success)

    def __len__(self) -> int:
        """The number of problems."""
        return self.status.shape[0]

    def __getitem__(self, index: Any) -> Result:
        """The answer of one problem."""
        one = jax.tree.map(lambda a: a[index], self)
        return Result(**{field.name: getattr(one, field.name) for field in dataclasses.fields(one)})

    def __str__(self) -> str:
        """Counts by status, and which failed."""
        if isinstance(self.status, Tracer):
            return f"{type(self).__name__} of {self.method}"
        lines = [f"{self.method}: {count_statuses(self)}"]
        failed = self.failed.tolist()
        if failed:
            listed = ", ".join(map(str, failed[:MOST_LISTED]))
            more = ", ..." if len(failed) > MOST_LISTED else ""
            lines.append(f"failed: {listed}{more} (result.failed; result[i] says why)")
        return "\n".join(lines)
