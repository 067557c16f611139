"""The test environment is what it claims to be: each promise of conftest.py, tried."""

import jax
import jax.numpy as jnp
import pytest

from tests.strict import strict


def test_rank_promotion_raises():
    with pytest.raises(ValueError, match="rank"):
        jnp.ones((2, 2)) + jnp.ones(2)


def test_dtype_promotion_raises():
    with pytest.raises(ValueError, match="promotion"):
        jnp.ones(2, "float16") + jnp.ones(2, "float32")


@pytest.mark.standard_promotion("shows that the marker works")
def test_marker_gives_standard_promotion():
    assert (jnp.ones((2, 2)) + jnp.ones(2)).shape == (2, 2)
    with strict(), pytest.raises(ValueError, match="rank"):
        jnp.ones((2, 2)) + jnp.ones(2)


def test_x64_is_off_by_default():
    assert jnp.ones(()).dtype == "float32"


def test_both_precisions(x64: bool, dtype: jnp.dtype):
    assert jnp.ones(()).dtype == dtype == ("float64" if x64 else "float32")


def test_float64(float64):
    assert jnp.ones(()).dtype == "float64"


def test_warnings_are_errors():
    with pytest.raises(UserWarning, match="float64"):
        jnp.ones((), "float64")


def test_eight_devices():
    if jax.default_backend() != "cpu":
        pytest.skip("only the CPU can be split")
    assert jax.device_count() == 8
