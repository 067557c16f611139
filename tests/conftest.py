"""What every test shares: the environment of JAX, the strictest mode, and the two precisions.

- Every test under tests/ runs in `tests.strict.strict()`, unless it is marked
  `@pytest.mark.standard_promotion("why")` because it runs code that is not ours.
- x64 is off by default. The fixture `x64` runs a test in both precisions (its value is the bool),
  `dtype` likewise (its value is the float dtype), and `float64` once, with x64 on.
- There are eight CPU devices, for the tests of sharding.
"""

import os
from pathlib import Path

# Read when jax is imported or first used, so set before. The cache of compiled programs is kept
# between runs in a folder that git ignores; subprocesses inherit all of it.
DEVICE_FLAG = "--xla_force_host_platform_device_count"
if DEVICE_FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICE_FLAG}=8".strip()
CACHE = Path(__file__).resolve().parents[1] / ".cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each worker has one core

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest

from tests.strict import strict

MANY_MAPS = 25_000  # Linux allows a process 65,530; each compiled program takes a few


def pytest_collection_finish() -> None:
    """No module may change the precision of the others' tests when it is imported."""
    if jax.config.jax_enable_x64:
        raise pytest.UsageError("a collected module turns x64 on when imported: do it in its main")


@pytest.fixture(autouse=True, scope="module")
def few_programs() -> Iterator[None]:
    """Drop compiled programs between modules before the process may map no more memory."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MANY_MAPS:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def strict_mode(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run the test in the strictest mode, unless it is marked with a reason not to."""
    marker = request.node.get_closest_marker("standard_promotion")
    if marker is None:
        with strict():
            yield
    elif marker.args and isinstance(marker.args[0], str):
        yield
    else:
        pytest.fail('write the reason: @pytest.mark.standard_promotion("why")')


@pytest.fixture(params=["float32", "float64"])
def x64(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Run the test in both precisions; whether x64 is on."""
    wide = request.param == "float64"
    with jax.enable_x64(wide):
        yield wide


@pytest.fixture
def dtype(x64: bool) -> jnp.dtype:
    """Run the test in both precisions; the default float dtype."""
    return jnp.dtype("float64" if x64 else "float32")


@pytest.fixture
def float64() -> Iterator[None]:
    """Run the test once, with x64 on."""
    with jax.enable_x64(True):
        yield
