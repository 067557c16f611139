"""Arguments before a trace: hashes, limits, the warning, the trim."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.solvers import inputs
from hesskit.solvers.result import History


class Unhashable:
    __hash__ = None

    def __eq__(self, other):
        return isinstance(other, Unhashable)

    def __call__(self, params, data=1.0):
        return params + data


def test_a_function_without_a_hash_is_equal_to_itself_alone():
    a, b = Unhashable(), Unhashable()
    made = inputs.hashable(a)
    assert made == inputs.hashable(a)
    assert hash(made) == hash(inputs.hashable(a))
    assert made != inputs.hashable(b)
    assert made(1.0, data=2.0) == 3.0
    assert list(inspect.signature(made).parameters) == ["params", "data"]
    assert inputs.hashable(len) is len


def test_limits_and_rows():
    assert inputs.limit_of(7) == 7
    assert inputs.limit_of(10**15) == inputs.MOST_STEPS < 2**31 - 1
    assert inputs.rows(7.0) == 8
    with pytest.raises(TypeError, match="history needs a concrete max_steps"):
        jax.jit(inputs.rows)(3)


@pytest.mark.parametrize(
    ("data", "warned"),
    [
        (np.ones(2), True),
        ({"x": (np.ones(2, "complex128"),)}, True),
        (np.float64(1.0), True),
        (np.ones(2, "float32"), False),
        (1.0, False),
        (jnp.ones(2), False),
        (np.arange(3), False),
    ],
)
def test_float64_is_noticed(data, warned: bool, recwarn):
    inputs._warn_once.cache_clear()
    if warned:
        with pytest.warns(UserWarning, match="float64 data is converted to float32"):
            inputs.warn_float64(data)
    inputs.warn_float64(data)  # at most once
    assert len(recwarn) == 0


def test_float64_is_no_news_with_x64(float64):
    inputs._warn_once.cache_clear()
    inputs.warn_float64(np.ones(2))


def test_trimmed():
    column = jnp.arange(5.0)
    history = History(
        column, column, column, column > 2, jnp.arange(5), {"w": jnp.ones((5, 3))}, jnp.array(2)
    )
    short = inputs.trimmed(history)
    assert short.value.shape == (2,)
    assert short.params["w"].shape == (2, 3)
    assert short.length == 2
    padded = jax.jit(lambda h: inputs.trimmed(h).value)(history)
    assert padded.shape == (5,)
