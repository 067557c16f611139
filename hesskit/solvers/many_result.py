"""The answers of many problems: a `Result` whose leaves have a leading axis of problems."""

import dataclasses
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core.types import Array
from hesskit.solvers.fit_result import FitResult
from hesskit.solvers.result import Result, count_statuses

MOST_LISTED = 8


class Many:
    """What the answers of many problems say of themselves, whatever one answer is."""

    _answer: type[Result] = Result

    @property
    def num_success(self: Any) -> Array:
        """How many problems ended at a stationary point, () int32."""
        return jnp.sum(self.success, dtype=jnp.int32)

    @property
    def failed(self: Any) -> Array:
        """The indices of the others, ascending. Not under jit."""
        return jnp.flatnonzero(~self.success)

    def __len__(self: Any) -> int:
        """The number of problems."""
        return self.status.shape[0]

    def __getitem__(self: Any, index: Any) -> Any:
        """The answer of one problem; IndexError for a number that no problem has."""
        if isinstance(index, Integral) and not -len(self) <= int(index) < len(self):
            raise IndexError(f"problem {index} of {len(self)}")
        one = jax.tree.map(lambda a: a[index], self)
        fields = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
        return self._answer(**fields)

    def __str__(self: Any) -> str:
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ManyResult(Many, Result):
    """The answers of `minimize_many`: every field of `Result` with a leading axis of problems.

    `print` counts by status; `result[i]` is the `Result` of problem i; `history` and `state` are
    None.
    """


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ManyFits(Many, FitResult):
    """The answers of `least_squares_many` and `curve_fit_many`: every field of `FitResult`.

    All have a leading axis of problems, and so have `standard_errors`, `covariance`, `band(x)`...
    `print` counts by status; `result[i]` is the `FitResult` of problem i.
    """

    _answer = FitResult
