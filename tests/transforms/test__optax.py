"""What optax asks of every transform of ours: the 2-tuple, its checks, its state between calls."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hesskit.core import method, trial
from hesskit.transforms import _optax
from hesskit.transforms._optax import Transformation, memoize
from hesskit.transforms.trust_region import trust_region
from tests.core.rules import STEEPEST

NAN = float("nan")


def test_memoize_tells_types_apart_and_lets_arrays_pass():
    made = memoize(lambda size=None: Transformation(len, len, method=None, name=str(size)))
    assert made(1.0) is made(1.0)
    assert made(1) is not made(1.0)
    assert made(jnp.ones(())) is not made(jnp.ones(()))


def test_method_and_name():
    assert trust_region().method is not None
    assert trust_region(0.5).method is None
    assert trust_region().name == "trust_region"
    assert trust_region(has_aux=True).has_aux


def test_a_transformation_is_the_2_tuple_of_optax():
    opt = Transformation(len, max, method=None, name="x")
    init, update = opt
    assert (init, update, len(opt)) == (len, max, 2)
    assert isinstance(opt, optax.GradientTransformationExtraArgs)


def test_own_buffers_copies_only_what_comes_twice():
    zero, one = jnp.zeros(3), jnp.ones(2)
    own = _optax.own_buffers({"a": zero, "b": zero, "c": one})
    assert own["a"] is zero
    assert own["c"] is one
    assert own["b"] is not zero
    np.testing.assert_array_equal(own["b"], zero)
    where = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(own)}
    assert len(where) == 3


def test_data_under_the_name_of_a_positional_argument():
    update = _optax.keep_positional(lambda updates, state, params=None, **data: (updates, data))
    assert update(1, 2, 3, x=4) == (1, {"x": 4})
    assert update(1, 2, params=3) == (1, {})
    with pytest.raises(TypeError, match="updates"):
        update(1, 2, 3, updates=4)


def choose(updates, given, grad):
    rhs = _optax.right_hand_side(updates, given)
    return np.asarray(jax.jit(rhs)(grad))


def test_the_right_hand_side_is_heeded_if_it_descends():
    grad, fresh = jnp.array([1.0, 2.0]), jnp.array([1.5, 2.5])
    # Nothing came in between: the gradient at the kept point, not the one of the call.
    np.testing.assert_array_equal(choose(grad, grad, fresh), fresh)
    np.testing.assert_array_equal(choose(grad, jnp.copy(grad), fresh), fresh)
    clipped = 0.1 * grad
    np.testing.assert_array_equal(choose(clipped, grad, fresh), clipped)
    np.testing.assert_array_equal(choose(clipped, None, fresh), clipped)
    for bad in (-grad, jnp.array([2.0, -1.2]), jnp.array([NAN, 1.0]), jnp.array([jnp.inf, 1.0])):
        np.testing.assert_array_equal(choose(bad, grad, fresh), fresh)
    narrow = choose(clipped.astype(jnp.bfloat16), grad.astype(jnp.bfloat16), fresh)
    assert narrow.dtype == jnp.float32


def test_hide_and_show_are_inverse():
    """Complex parameters too: the state holds the gradient of `jax.grad`, unconjugated."""
    params = {"z": jnp.array([1 + 2j, 3 - 1j], jnp.complex64), "x": jnp.ones(2, jnp.bfloat16)}
    point = _optax.objective.split(params)
    state = method.start(STEEPEST, point)
    state = state._replace(
        grad=jax.tree.map(lambda a: a + jnp.ones_like(a), state.params), fresh=jnp.array(False)
    )
    hidden = _optax.hide(state, params)
    assert hidden.params is None
    assert hidden.step is None
    assert jax.tree.map(jnp.result_type, hidden.grad) == jax.tree.map(jnp.result_type, params)
    shown = _optax.show(hidden, params, point)
    for a, b in zip(jax.tree.leaves(shown.grad), jax.tree.leaves(state.grad), strict=True):
        np.testing.assert_array_equal(a.astype(jnp.float32), b.astype(jnp.float32))
    assert shown.params is point
    assert not shown.fresh


def arrive(params, **changes):
    state = _optax.hide(trial.machine(STEEPEST).start(jnp.ones(2)), jnp.ones(2))
    given = {"updates": params, "state": state, "value_fn": jnp.sum, **changes}
    positional = [given.pop(key) for key in ("updates", "state")]
    return _optax.arrive("opt", False, *positional, params, **given)


def test_arrive_checks_the_call():
    ones = jnp.ones(2)
    call = arrive(ones, value=jnp.float32(2.0), grad=2 * ones)
    assert call.value == 2
    assert call.fn(ones) == 2
    np.testing.assert_array_equal(call.grad, [2, 2])
    with pytest.raises(ValueError, match="params"):
        arrive(None, updates=ones)
    with pytest.raises(ValueError, match=r"value must be a real scalar, got float32\[2\]"):
        arrive(ones, value=ones)
    with pytest.raises(TypeError, match="value must be a real scalar, got int32"):
        arrive(ones, value=3)
    with pytest.raises(ValueError, match="grad"):
        arrive(ones, grad=jnp.ones(3))
    with pytest.raises(ValueError, match="updates"):
        arrive(ones, updates={"a": ones})
    with pytest.raises(ValueError, match=r"it holds float32\[2\], params is float32\[3\]"):
        arrive(jnp.ones(3))


def test_initializer_and_updater_keep_the_dtypes_that_came():
    params = jnp.ones(2, jnp.bfloat16)
    machine = trial.machine(STEEPEST)
    init = _optax.initializer(lambda point, params: _optax.hide(machine.start(point), params))

    def advance(state, call):
        return jnp.full(2, 1 / 3), _optax.show(state, call.params, call.point)

    state = init(params)
    step, after = _optax.updater("opt", False, advance)(params, state, params, value_fn=jnp.sum)
    assert step.dtype == jnp.bfloat16
    np.testing.assert_array_equal(step, jnp.full(2, 1 / 3, jnp.bfloat16))
    assert after.grad.dtype == jnp.bfloat16
    assert after.params is None
