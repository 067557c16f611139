"""The state: stable in type, readable by optax, its own in memory, portable."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hesskit.core.method import INFO_FIELDS
from tests.contracts.registry import ALL, DEFAULTS, EVALUATING, GLOBALIZED, STEPPING, few
from tests.contracts.support import (
    advance,
    assert_same,
    bowl,
    data,
    squares,
    start,
    stepper,
    types,
)

each = pytest.mark.parametrize("case", ALL)
each_globalized = pytest.mark.parametrize("case", GLOBALIZED)
each_default = pytest.mark.parametrize("case", DEFAULTS)


def rarely(name):
    """A dtype that others stand for in the quick run."""
    return pytest.param(name, marks=pytest.mark.slow)


def in_dtype(name):
    """`start` in one dtype; "mixed" has two."""
    if name == "mixed":
        tree = start()
        return {"a": tree["a"].astype("bfloat16"), "b": tree["b"]}
    return jax.tree.map(lambda a: a.astype(name), start())


@squares
def loss(params):
    """The residuals of `bowl` of the moduli, in float32 at least."""
    real = jax.tree.map(lambda a: jnp.abs(a - 3) ** 2, params)
    wide = jax.tree.map(lambda a: a.astype("float32") if a.dtype.itemsize < 4 else a, real)
    return bowl.residuals(wide)


def assert_stable(opt, fn, params, **given):
    """Traces one update and compares the types of what goes in and out."""

    def update(params, state):
        return opt.update(params, state, params, value_fn=fn, **given)

    state = opt.init(params)
    updates, after = jax.eval_shape(update, params, state)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert abstract(after) == abstract(state)
    assert abstract(updates) == abstract(params)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((updates, after)))


def abstract(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path): (leaf.shape, leaf.dtype, leaf.weak_type)
        for path, leaf in leaves
    }


@each
@pytest.mark.parametrize("name", [rarely("float16"), "bfloat16", "float32", "complex64", "mixed"])
def test_types_are_kept(case, name):
    assert_stable(case.make(), case.of(loss), in_dtype(name))


@each
@pytest.mark.parametrize("name", ["float64", rarely("complex128"), "float32", rarely("float16")])
def test_types_are_kept_with_x64(case, name, float64):
    """float32 params stay float32, and nothing that they cause is float64."""
    params = in_dtype(name)
    assert_stable(case.make(), case.of(loss), params)
    if name in ("float32", "float16"):
        assert all(leaf.dtype != "float64" for leaf in jax.tree.leaves(case.make().init(params)))


@each_default
@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
def test_value_in_another_dtype(case, name, float64):
    wide = lambda params: loss(params).astype(name)
    value = jnp.ones((), name)
    assert_stable(
        case.make(), case.of(loss), in_dtype("float32"), value=value, grad=in_dtype("float16")
    )
    assert_stable(case.make(), case.of(wide), in_dtype("float32"), value=value)


@each
def test_a_second_call_compiles_nothing(case):
    opt, step = stepper(case)
    params, state = start(), opt.init(start())
    before = types(state)
    for shift in (0.0, 0.1, 0.2):
        params, state, _, _ = step(params, state, data(shift=shift))
        assert types(state) == before
    assert step._cache_size() == 1


@each
def test_carries_of_scan_while_and_fori(case):
    opt = case.make()

    def body(carry, _=None):
        params, state = carry
        moved = advance(opt, case.of(bowl), params, state)
        return (moved.params, moved.state), moved.value

    def loops(params):
        carry = params, opt.init(params)
        carry, _ = jax.lax.scan(body, carry, length=2)
        carry = jax.lax.fori_loop(0, 2, lambda _, c: body(c)[0], carry)
        return jax.lax.while_loop(lambda c: bowl(c[0]) > 0, lambda c: body(c)[0], carry)

    _, state = jax.eval_shape(loops, start())
    assert abstract(state) == abstract(opt.init(start()))


@pytest.mark.parametrize("case", EVALUATING)
def test_value_grad_and_count_are_found_once(case):
    state = case.make().init(start())
    assert optax.tree.get(state, "value") == jnp.inf
    assert_same(optax.tree.get(state, "grad"), jax.tree.map(jnp.zeros_like, start()))
    assert optax.tree.get(state, "count") == 0
    for name in ("value", "grad", "count"):
        assert len(optax.tree.get_all_with_path(state, name)) == 1


@pytest.mark.parametrize("case", STEPPING)
def test_leaves_are_arrays_and_info_begins_alike(case):
    state = case.make().init(start())
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert isinstance(state, tuple)
    assert type(state.info)._fields[: len(INFO_FIELDS)] == INFO_FIELDS
    assert all(leaf.shape == () for leaf in jax.tree.leaves(state.info))
    assert state.info.status.dtype == jnp.int32


@each
def test_no_two_leaves_share_a_buffer(case):
    params = start()
    state = case.make().init(params)
    leaves = jax.tree.leaves((params, state))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


@pytest.mark.parametrize("case", few(DEFAULTS))
def test_a_fresh_state_and_params_can_be_donated(case):
    opt, kept = stepper(case)
    step = jax.jit(lambda p, s, d: kept(p, s, d)[:2], donate_argnums=(0, 1))
    params, state, about = start(), opt.init(start()), data()
    for _ in range(2):
        old = state
        params, state = step(params, state, about)
        # a leaf that the program does not read is not donated
        assert any(leaf.is_deleted() for leaf in jax.tree.leaves(old.model))
    expected = kept(*kept(start(), opt.init(start()), about)[:2], about)
    assert_same(params, expected.params)


@each
def test_init_from_shapes_alone(case):
    opt, params = case.make(), start()
    struct = jax.eval_shape(lambda: params)
    assert_same(opt.init(struct), opt.init(params))
    assert abstract(jax.eval_shape(opt.init, struct)) == abstract(opt.init(params))
    assert abstract(jax.jit(opt.init)(params)) == abstract(opt.init(params))


@each
def test_leaves_that_are_no_arrays(case):
    """Python floats, NumPy scalars, () arrays and None."""
    opt = case.make()
    params = {"a": 0.5, "b": None, "c": np.float32(0.2), "d": (np.ones(2, np.float32), ())}
    fn = squares(lambda p: (p["a"] - 1, p["d"][0] * p["c"]))
    state = opt.init(params)
    updates, after = jax.eval_shape(
        lambda p, s: opt.update(p, s, p, value_fn=case.of(fn)), params, state
    )
    assert abstract(after) == abstract(state)
    assert updates["b"] is None
    assert updates["a"].dtype == jnp.float32


@each
def test_leaves_without_entries(case):
    """They hold no number, and stand in nobody's way beside others."""
    opt = case.make()
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones((0,)), "c": jnp.ones((3, 0))}
    fn = squares(lambda p: (p["a"] - 1, p["b"], p["a"] @ p["c"]))
    state = opt.init(params)
    updates, after = jax.eval_shape(
        lambda p, s: opt.update(p, s, p, value_fn=case.of(fn)), params, state
    )
    assert abstract(after) == abstract(state)
    assert abstract(updates) == abstract(params)


@pytest.mark.parametrize("case", EVALUATING)
def test_map_params(case):
    opt, params = case.make(), start()
    state = opt.init(params)
    doubled = optax.tree.map_params(opt, lambda leaf: leaf + 2, state)
    assert abstract(doubled) == abstract(state)
    assert_same(doubled.grad, jax.tree.map(lambda a: a + 2, state.grad))
    assert_same(doubled.count, state.count)
    assert_same(doubled.info, state.info)


@each_globalized
def test_pickle(case):
    opt, step = stepper(case)
    params, state, _, _ = step(start(), opt.init(start()), data())
    params, copy = pickle.loads(pickle.dumps((params, state)))
    assert_same(step(params, state, data()), step(params, copy, data()))


@pytest.mark.parametrize("case", few(DEFAULTS))
def test_orbax(case, tmp_path):
    orbax = pytest.importorskip("orbax.checkpoint")
    opt, step = stepper(case)
    params, state, _, _ = step(start(), opt.init(start()), data())
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        copy = checkpointer.restore(tmp_path / "state", opt.init(params))
    assert_same(step(params, state, data()), step(params, copy, data()))


@each_default
def test_where_and_cast_keep_the_state(case):
    """What MultiSteps and `apply_if_finite` do to an inner state."""
    opt = case.make()
    state = opt.init(start())
    chosen = jax.tree.map(functools.partial(jnp.where, True), state, state)
    assert_same(optax.tree.cast_like(chosen, state), state)
