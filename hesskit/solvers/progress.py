"""What a person sees of a run while it goes on: a callback, a progress bar.

Both are one host callback inside the compiled loop, present only if asked for. It is declared
pure, which alone JAX allows in a loop that `vmap` may batch; its stop flag is what the loop waits
for, so that it runs once a step and in order. Under `vmap` it is handed all lanes at once: the
callback sees each running lane by itself, the bar one line for all.
"""

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core.types import Array, Params

try:
    with warnings.catch_warnings():  # in a notebook without widgets it warns of its plain bar
        warnings.simplefilter("ignore")
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
    """A live bar with value, gradient norm and steps; one for each run, of one lane or many."""

    def __init__(self) -> None:
        """No bar until the first step."""
        self._bar: Any = None

    def __call__(self, progress: Progress, max_steps: Any, alive: Any, stopped: Any) -> None:
        """Shows one step of the lanes `alive`; opens the bar at step 0, closes it at the end."""
        step, last = int(progress.num_steps[alive].max()), int(max_steps.max())
        if self._bar is None or step == 0:
            self.close()
            self._bar = _require().tqdm(total=last, unit="step", leave=True)
        going = alive & (progress.status == 0) & ~stopped
        lanes = f", {int(going.sum())} of {going.size} run" if going.size > 1 else ""
        self._bar.n = step
        self._bar.set_postfix_str(
            f"value {float(progress.value[alive].min()):.6g}, "
            f"|grad| {float(progress.grad_norm[alive].max()):.1e}{lanes}"
        )
        if not going.any():
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
_RAISED: list[BaseException] = []
"""What a callback raised in the run of now."""


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Around a run: what its callback raises arrives as itself, not as an error of the runtime."""
    _RAISED.clear()
    try:
        yield
    except jax.errors.JaxRuntimeError:
        _BAR.close()
        if _RAISED:
            raise _RAISED.pop() from None
        raise


def _asked(callback: Callable[[Progress], Any], now: Progress) -> bool:
    try:
        return bool(callback(now))
    except BaseException as error:
        _RAISED.append(error)
        raise


def show(
    progress: Progress,
    max_steps: Array,
    callback: Callable[[Progress], Any] | None,
    *,
    bar: bool,
    running: Array,
) -> Array:
    """Calls the callback and the bar from compiled code.

    Args:
      progress: the step, of arrays.
      max_steps: the length of the bar, ().
      callback: `callback(Progress) -> stop or None`, or None.
      bar: whether to show the bar.
      running: whether the run was going on before this step, () bool; False in a lane that
        finished and waits for others.

    Returns:
      Whether the callback asked to stop, () bool.
    """
    if callback is None:
        progress = progress._replace(params=None)

    def host(now: Progress, limit: Any, alive: Any) -> Any:
        now, limit, alive = jax.device_get((now, limit, alive))
        stop = alive.copy()
        stop[...] = False
        for lane in itertools.product(*map(range, alive.shape)):
            if callback is not None and alive[lane]:
                stop[lane] = _asked(callback, jax.tree.map(lambda a, lane=lane: a[lane], now))
        if bar:
            _BAR(now, limit, alive, stop)
        return stop

    return jax.pure_callback(
        host,
        jax.ShapeDtypeStruct((), jnp.bool_),
        progress,
        max_steps,
        running,
        vmap_method="broadcast_all",
    )
