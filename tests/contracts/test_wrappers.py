"""Inside optax's wrappers, and under JAX's transformations."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from tests.contracts.registry import ALL, DEFAULTS, few
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
from tests.marks import slow_but

each = pytest.mark.parametrize("case", ALL)
each_default = pytest.mark.parametrize("case", few(DEFAULTS))


def conditional(inner):
    return optax.conditionally_mask(inner, lambda step, **_: step < 3, forward_extra_args=True)


WRAPPERS = {
    "chain": lambda inner: optax.chain(optax.clip_by_global_norm(1e6), inner),
    "named_chain": lambda inner: optax.named_chain(("one", optax.identity()), ("two", inner)),
    "nested": lambda inner: optax.chain(optax.chain(inner), optax.identity()),
    "apply_if_finite": lambda inner: optax.apply_if_finite(inner, max_consecutive_errors=3),
    "conditionally_mask": conditional,
}


@each_default
@pytest.mark.parametrize("name", slow_but(WRAPPERS, "chain", "conditionally_mask"))
def test_a_wrapped_transform_takes_the_same_steps(case, name):
    opt = WRAPPERS[name](case.make())
    step = jax.jit(functools.partial(advance, opt, case.of(bowl)))
    params, state = start(), opt.init(start())
    before = types(state)
    for _ in range(2):
        params, state, _, _ = step(params, state)
        assert types(state) == before
    inner, plain = stepper(case)
    same, state = start(), inner.init(start())
    for _ in range(2):
        same, state, _, _ = plain(same, state, data())
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(same), strict=True):
        # data is a constant of one program and an argument of the other, so that rounding differs
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.max(np.abs(b)))


@each
def test_inject_hyperparams_without_static_args(case):
    """All that is a number becomes an array of the state; the rest stays."""
    lengths = tuple({"num_krylov", "memory_size"} & set(case.kwargs))
    opt = optax.inject_hyperparams(case.factory, static_args=lengths)(**case.kwargs)
    params, state = start(), opt.init(start())

    def update(params, state):
        return opt.update(params, state, params, value_fn=case.of(bowl))

    _, after = jax.eval_shape(update, params, state)
    shape = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype), tree)
    assert shape(after) == shape(state)
    defaults = {key: p.default for key, p in inspect.signature(case.factory).parameters.items()}
    given = {key: item for key, item in (defaults | case.kwargs).items() if key not in lengths}
    numbers = {key for key, item in given.items() if type(item) in (int, float)}
    assert set(state.hyperparams) == numbers


@each_default
def test_an_injected_learning_rate_can_be_set(case):
    opt = optax.inject_hyperparams(case.factory)(learning_rate=1.0)
    params, state = start(), opt.init(start())
    update = jax.jit(lambda s: opt.update(params, s, params, value_fn=case.of(bowl))[0])
    whole = update(state)
    state.hyperparams["learning_rate"] = jnp.full_like(state.hyperparams["learning_rate"], 0.5)
    half = update(state)
    assert_same(half, jax.tree.map(lambda a: 0.5 * a, whole))


def test_a_length_under_inject_hyperparams_names_static_args():
    case = next(c.values[0] for c in ALL if "num_krylov" in c.values[0].kwargs)
    opt = optax.inject_hyperparams(case.factory)(**case.kwargs)
    with pytest.raises(TypeError, match=r"static_args=.'num_krylov'"):
        jax.eval_shape(opt.init, start())


@each_default
@pytest.mark.standard_promotion("MultiSteps and schedule_free are optax's")
@pytest.mark.parametrize("name", ["MultiSteps", "schedule_free"])
def test_wrappers_that_change_params_or_time(case, name):
    if name == "MultiSteps":
        opt = optax.MultiSteps(case.make(), every_k_schedule=2).gradient_transformation()
    else:
        opt = optax.contrib.schedule_free(case.make(learning_rate=0.5), learning_rate=0.5)
    params, state = start(), opt.init(start())
    shape = jax.eval_shape(functools.partial(advance, opt, case.of(bowl)), params, state)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), shape.state) == jax.tree.map(
        lambda a: (a.shape, a.dtype), state
    )
    if name == "MultiSteps":
        step = jax.jit(functools.partial(advance, opt, case.of(bowl)))
        first = step(params, state)
        assert all(bool(jnp.all(leaf == 0)) for leaf in jax.tree.leaves(first.updates))
        second = step(first.params, first.state)
        assert bowl(second.params) < bowl(params) or not second.state.inner_opt_state.info.accepted


@each_default
def test_a_chain_of_two_shares_extra_arguments(case):
    """A sibling's keyword is ignored by ours, and ours by the sibling."""

    def sibling(updates, state, params=None, *, obj_fn, **_):
        assert callable(obj_fn)
        return updates, state

    other = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), sibling)
    opt = optax.chain(other, case.make())
    params = start()
    state = opt.init(params)
    update = lambda p, s: opt.update(p, s, p, value_fn=case.of(bowl), obj_fn=bowl)
    assert jax.eval_shape(update, params, state)


@squares
def by_shift(params, shift):
    """`world` without a wall."""
    return bowl.residuals(jax.tree.map(lambda a: a - shift, params))


@each_default
def test_vmap_of_a_scan_of_steps(case):
    """Every lane is the run alone, whatever the others meet."""
    opt, step = stepper(case)
    loss = case.of(by_shift)

    def run(params, shift):
        def body(carry, _):
            moved = advance(opt, loss, *carry, shift)
            return (moved.params, moved.state), moved.value

        return jax.lax.scan(body, (params, opt.init(params)), length=4)

    shifts = jnp.array([0.0, np.nan, 0.3], jnp.float32)
    params = jax.tree.map(lambda a: jnp.stack([a, a, a]), start())
    (many, states), _ = jax.jit(jax.vmap(run))(params, shifts)
    assert_same(jax.tree.map(lambda a: a[1], many), start())
    for lane in (0, 2):
        about = data()._replace(shift=shifts[lane])
        alone, state = start(), opt.init(start())
        for _ in range(4):
            alone, state, _, _ = step(alone, state, about)
        for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[lane], b, rtol=2e-3, atol=1e-4)
        assert states.info.accepted[lane] == state.info.accepted


@each_default
def test_forward_mode_through_a_step(case):
    """d(step)/d(shift) by JVP against a difference."""
    opt = case.make()
    loss = case.of(by_shift)

    def moved(shift):
        state = opt.init(start())
        return advance(opt, loss, start(), state, shift).params["b"]["c"]

    both = jax.jit(jax.vmap(lambda shift: jax.jvp(moved, (shift,), (jnp.ones_like(shift),))))
    shifts = jnp.array([0.04, 0.05, 0.06], jnp.float32)
    values, tangents = both(shifts)
    assert jnp.isfinite(tangents).all()
    np.testing.assert_allclose(tangents[1], (values[2] - values[0]) / 0.02, rtol=0.05, atol=2e-2)


def held(params):
    """`bowl` of `a` alone, the rest as in `params`."""
    return squares(lambda some: bowl.residuals({**some, "b": params["b"]}))


def alone(params):
    """`params` with None in place of what `held` holds."""
    return {**params, "b": {"c": None}}


@each_default
def test_frozen_leaves_stay_and_free_ones_move_as_if_alone(case):
    inner = case.make()
    opt = hesskit.freeze(inner, "b")

    @jax.jit
    def both(params, state, some, apart):
        moved = advance(opt, case.of(bowl), params, state)
        return moved, advance(inner, case.of(held(params)), some, apart)

    params, some = start(), alone(start())
    state, apart = opt.init(params), inner.init(some)
    before = types(state)
    for _ in range(2):
        moved, single = both(params, state, some, apart)
        params, state, some, apart = *moved[:2], *single[:2]
        assert types(state) == before
        np.testing.assert_allclose(params["a"], some["a"], rtol=1e-5)
        assert_same(params["b"], start()["b"])
    assert both._cache_size() == 1


@each_default
def test_masked_transforms_some_and_passes_the_rest(case):
    """The updates of the others are the gradient; the chosen ones are those of `freeze`."""
    opt, frozen = hesskit.masked(case.make(), "a"), hesskit.freeze(case.make(), "b")
    params, grad = start(), jax.grad(bowl)(start())
    give = lambda opt: opt.update(grad, opt.init(params), params, value_fn=case.of(bowl))[0]
    updates, expected = jax.jit(lambda: (give(opt), give(frozen)))()
    assert_same(updates["b"], grad["b"])
    np.testing.assert_allclose(updates["a"], expected["a"], rtol=1e-5)


@each_default
@pytest.mark.standard_promotion("adam is optax's")
def test_partition_with_adam(case):
    """Adam's leaves move first; the others then as if alone, from the new point."""
    inner, adam = case.make(), optax.adam(0.1)
    opt = hesskit.partition({"first": adam, "second": inner}, {"a": "second", "b": "first"})
    params, state = start(), opt.init(start())

    @jax.jit
    def both():
        updates = advance(opt, case.of(bowl), params, state).updates
        first, _ = adam.update(jax.grad(bowl)(params)["b"], adam.init(params["b"]))
        there = {**params, "b": optax.apply_updates(params["b"], first)}
        some = alone(params)
        single = advance(inner, case.of(held(there)), some, inner.init(some))
        return updates, {"a": single.updates["a"], "b": first}, single.value

    updates, expected, reached = both()
    for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert bowl(optax.apply_updates(params, updates)) <= reached + 1e-6


@each
def test_optax_masked_names_ours(case):
    opt = optax.masked(case.make(), {"a": True, "b": False})
    with pytest.raises(TypeError, match=r"masked by optax.masked; use hesskit.masked instead"):
        jax.eval_shape(lambda p: opt.update(p, opt.init(p), p, value_fn=case.of(bowl)), start())
