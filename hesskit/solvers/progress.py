"""What a person sees of a run while it goes on: a callback, a progress bar.

Both are host callbacks inside the compiled loop, present only if asked for. A callback that
returns True stops the run; the stop flag it returns also orders the calls.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import io_callback

from hesskit.core.types import Array, Params

try:
    import tqdm.auto as _tqdm
except ImportError:
    _tqdm = None


class Progress(NamedTuple):
    """What a callback is given each step: the current point; the start is step 0."""

    num_steps: Any
    value: Any
    grad_norm: Any
    step_norm: Any
    accepted: Any
    status: Any
    params: Params


class Bar:
    """A live bar with value, gradient norm and steps; one for each run."""

    def __init__(self) -> None:
        """No bar until the first step."""
        self._bar: Any = None

    def __call__(self, progress: Progress, max_steps: Any) -> None:
        """Shows one step; opens the bar at step 0 and closes it at the end."""
        step = int(progress.num_steps)
        if self._bar is None or step == 0:
            self.close()
            self._bar = _require().tqdm(total=int(max_steps), unit="step", leave=True)
        self._bar.n = step
        self._bar.set_postfix_str(
            f"value {float(progress.value):.6g}, |grad| {float(progress.grad_norm):.1e}"
        )
        if int(progress.status) != 0 or step >= int(max_steps):
            self.close()

    def close(self) -> None:
        """Closes the bar if it is open."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def _require() -> Any:
    if _tqdm is None:
        raise ImportError("progress=True needs tqdm: pip install 'hesskit[progress]'")
    return _tqdm


def check(progress: bool) -> None:
    """Raises ImportError if a bar is asked for and tqdm is missing."""
    if progress:
        _require()


_BAR = Bar()


def show(
    progress: Progress, max_steps: Array, callback: Callable[[Progress], Any] | None, *, bar: bool
) -> Array:
    """Calls the callback and the bar from compiled code.

    Args:
      progress: the step, of arrays.
      max_steps: the length of the bar, ().
      callback: `callback(Progress) -> stop or None`, or None.
      bar: whether to show the bar.

    Returns:
      Whether the callback asked to stop, () bool.
    """
    if bar:
        jax.debug.callback(_BAR, progress._replace(params=None), max_steps)
    if callback is None:
        return jnp.array(False)

    def stop(now: Progress) -> Any:
        return jnp.asarray(bool(callback(now)))

    return io_callback(stop, jax.ShapeDtypeStruct((), jnp.bool_), progress)
