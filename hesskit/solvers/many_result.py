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

    def _rows(self: Any, index: Any) -> Any:
        return jax.tree.map(lambda a: a[index], self)

    def __getitem__(self: Any, index: Any) -> Any:
        """The answer of one problem, or those of a slice; IndexError if there is none."""
        if isinstance(index, Integral) and not -len(self) <= int(index) < len(self):
            raise IndexError(f"problem {index} of {len(self)}")
        one = self._rows(index)
        if one.status.ndim > 0:
            return one
        names = [field.name for field in dataclasses.fields(self._answer)]
        return self._answer(**{name: getattr(one, name) for name in names})

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
    but for those leaves of `data.x` that all fits share. `print` counts by status; `result[i]` is
    the `FitResult` of problem i.

    Attributes:
      shared: which leaves of `data` have no axis of problems; () means none.
    """

    _answer = FitResult
    shared: tuple[bool, ...] = dataclasses.field(default=(), metadata={"static": True})

    def _data_axes(self) -> Any:
        leaves, structure = jax.tree.flatten(self.data)
        flags = self.shared or (False,) * len(leaves)
        return jax.tree.unflatten(structure, [None if flag else 0 for flag in flags])

    def _rows(self, index: Any) -> Any:
        if self._num_axes() > 1:  # those of a vmap, which all leaves have
            return super()._rows(index)
        rows = jax.tree.map(lambda a: a[index], dataclasses.replace(self, data=None))
        data = jax.tree.map(
            lambda axis, a: a if axis is None else a[index],
            self._data_axes(),
            self.data,
            is_leaf=lambda axis: axis is None,
        )
        return dataclasses.replace(rows, data=data)
