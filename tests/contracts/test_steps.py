"""What a step does to params, value and state: accepting, rejecting, meeting NaN."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hesskit.core.line_search import MAX_TRIALS
from hesskit.core.status import Status
from tests.contracts.registry import (
    DEFAULTS,
    GLOBALIZED,
    SEARCHES,
    STEPPING,
    TRIALS,
    UNJUDGED,
    few,
)
from tests.contracts.support import (
    Moved,
    advance,
    all_finite,
    assert_same,
    bowl,
    data,
    minimum,
    start,
    stepper,
    world,
)

each = pytest.mark.parametrize("case", STEPPING)
each_globalized = pytest.mark.parametrize("case", GLOBALIZED)
each_default = pytest.mark.parametrize("case", DEFAULTS)
each_trial = pytest.mark.parametrize("case", TRIALS)
each_search = pytest.mark.parametrize("case", SEARCHES)

ULP = float(jnp.finfo(jnp.float32).eps)


def run(case, abouts, params=None) -> list[Moved]:
    """One step for each of `abouts`."""
    opt, step = stepper(case)
    params = start() if params is None else params
    state, moves = opt.init(params), []
    for about in abouts:
        moves.append(step(params, state, about))
        params, state = moves[-1].params, moves[-1].state
    return moves


def assert_zero(updates):
    assert all(bool(jnp.all(leaf == 0)) for leaf in jax.tree.leaves(updates))


def sound(state, **unknown) -> bool:
    """Whether nothing that the next update reads is poisoned; a region may have no bound."""
    if getattr(state, "size", None) is not None:
        state = state._replace(size=jnp.where(state.size == jnp.inf, 0, state.size))
    return all_finite(state._replace(info=None, **unknown))


@each_globalized
def test_never_an_increase_and_it_converges(case):
    moves = run(case, [data()] * 40)
    values = np.array([float(move.value) for move in moves])
    floor = 10 * ULP * np.maximum(values[:-1], values[1:])
    assert np.all(values[1:] <= values[:-1] + floor)
    assert values[-1] < 1e-8
    assert all(sound(move.state) for move in moves)


@each_trial
def test_a_rejected_step_is_exact_zeros_and_the_curvature_is_kept(case):
    wall = data(wall=1e-6, bump=1e6)
    first, second, third = run(case, [wall, wall, wall])
    for move in (first, second, third):
        assert not move.state.info.accepted
        assert move.state.info.step_norm == 0
        assert_zero(move.updates)
        assert_same(move.params, start())
    assert first.state.info.num_products > 0
    assert second.state.info.num_products == third.state.info.num_products == 0
    assert second.state.info.num_values == second.state.info.num_grads == 1
    assert first.state.info.num_values == first.state.info.num_grads == 2
    assert_same(second.state.grad, first.state.grad)


@each_search
def test_a_search_that_finds_nothing_is_exact_zeros(case):
    """Every point but the start is a million higher; then the wall is gone."""
    wall = data(wall=0.0, bump=1e6)
    first, second, *_, last = run(case, [wall, wall, *[data()] * 40])
    for move in (first, second):
        assert not move.state.info.accepted
        assert move.state.info.status == Status.LINE_SEARCH_FAILED
        assert move.state.info.step_norm == 0
        assert move.state.info.num_values <= MAX_TRIALS
        assert_zero(move.updates)
        assert_same(move.params, start())
    assert last.value < 1e-8


@each_trial
def test_a_new_batch_after_a_rejection_is_evaluated_anew(case):
    wall, other = data(wall=1e-6, bump=1e6), data(shift=0.1)
    _, second = run(case, [wall, other])
    assert second.state.info.num_products > 0
    assert second.state.info.num_values == 2
    assert second.state.info.value_mismatch == 0
    assert second.state.level < second.value


@each_globalized
def test_state_holds_value_and_gradient_of_the_new_params(case):
    gradient = jax.jit(jax.value_and_grad(world))
    for move in run(case, [data()] * 5):
        value, grad = gradient(move.params, data())
        np.testing.assert_allclose(optax.tree.get(move.state, "value"), value, rtol=1e-5)
        for a, b in zip(
            jax.tree.leaves(optax.tree.get(move.state, "grad")), jax.tree.leaves(grad), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@each
@pytest.mark.parametrize("bump", [np.nan, np.inf, -np.inf], ids=str)
def test_a_start_that_is_not_finite_poisons_nothing(case, bump):
    """A batch of NaN, then good ones: the run is that of the good ones alone."""
    bad, good = data(wall=-1.0, bump=bump), data()
    hit, *rest = run(case, [bad, good, good])
    assert_zero(hit.updates)
    assert_same(hit.params, start())
    assert hit.state.info.status == Status.NONFINITE_START
    assert not hit.state.info.accepted
    plain = run(case, [good, good])
    for after, alone in zip(rest, plain, strict=True):
        assert_same(after.params, alone.params)
        assert after.state.info.status == alone.state.info.status


@each
def test_a_bad_batch_amid_a_run_changes_nothing(case):
    bad, good = data(wall=-1.0, bump=np.nan), data()
    *_, last, hit, after = run(case, [good, good, bad, good])
    assert_zero(hit.updates)
    assert_same(hit.params, last.params)
    alone = run(case, [good, good, good])[-1]
    for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@each_search
def test_a_wall_of_nan_shortens_the_search(case):
    """NaN beyond 0.01 of the start: the first search ends before it."""
    wall = data(wall=0.01, bump=np.nan)
    moves = run(case, [wall] * 4 + [data()] * 40)
    assert moves[0].state.info.accepted
    assert moves[0].state.info.step_norm > 1e-3
    assert all(sound(move.state) for move in moves)
    assert moves[-1].value < 1e-8


@each_trial
def test_trials_that_are_not_finite_are_rejected_until_one_is(case):
    """NaN beyond 0.01 of the start; then the wall falls and the run converges."""
    wall = data(wall=0.01, bump=np.nan)
    moves = run(case, [wall] * 12 + [data()] * 40)
    first = moves[0]
    assert not first.state.info.accepted
    assert_zero(first.updates)
    assert any(bool(move.state.info.accepted) for move in moves[1:12])
    assert all(sound(move.state) for move in moves)
    assert moves[-1].value < 1e-8


@each
def test_a_zero_gradient_gives_a_zero_update(case):
    moves = run(case, [data()] * 3, minimum())
    # Where nothing is judged the value of the new point is not known, and inf.
    unknown = {"value": None} if hasattr(moves[0].state, "value") else {}
    for move in moves:
        assert_zero(move.updates)
        assert_same(move.params, minimum())
        assert sound(move.state, **unknown)
    assert moves[0].state.info.status == Status.GRADIENT_TOL


@each_globalized
def test_a_run_goes_on_from_a_zero_gradient_with_other_data(case):
    """Steps of zero length leave the region as it was."""
    moves = run(case, [data()] * 3 + [data(shift=0.25)] * 12, minimum())
    assert moves[-1].value < 0.5 * moves[3].value


@pytest.mark.parametrize("case", UNJUDGED)
def test_without_judgment_the_value_is_unknown_after_a_step(case):
    (move,) = run(case, [data()])
    assert move.state.value == jnp.inf
    assert move.state.info.num_values == 1
    assert sound(move.state, value=None)


@pytest.mark.parametrize("case", few(DEFAULTS))
def test_the_trial_is_bitwise_at_apply_updates(case):
    """The value of `reveal` is its parameter, so the state says where the trial was."""

    def reveal(x):
        model = (x - 3.0) ** 2 / 2 + jnp.cos(x)
        return x + (model - jax.lax.stop_gradient(model))

    opt = case.make()

    @jax.jit
    @jax.vmap
    def step(x):
        grad = jax.grad(reveal)(x)
        updates, state = opt.update(grad, opt.init(x), x, value_fn=case.of(reveal))
        return optax.apply_updates(x, updates), state.value, state.info.accepted

    new, value, accepted = step(jnp.linspace(6.0, 20.0, 64))
    assert accepted.sum() > 20
    np.testing.assert_array_equal(new[accepted], value[accepted])


@pytest.mark.parametrize("case", few(GLOBALIZED))
def test_value_and_grad_are_recycled(case):
    """The documented loop: optax hands back what the state holds."""
    opt, fn = case.make(), case.of(bowl)
    value_and_grad = optax.value_and_grad_from_state(fn)

    def step(carry):
        params, state = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = opt.update(grad, state, params, value=value, grad=grad, value_fn=fn)
        return optax.apply_updates(params, updates), state

    def going(carry):
        _, state = carry
        count, grad = optax.tree.get(state, "count"), optax.tree.get(state, "grad")
        return (count == 0) | ((count < 100) & (optax.tree.norm(grad) > 1e-3))

    run = jax.jit(lambda carry: jax.lax.while_loop(going, step, carry))
    params, state = run((start(), opt.init(start())))
    assert optax.tree.get(state, "count") < 60
    assert bowl(params) < 1e-6
    value, grad = jax.jit(functools.partial(value_and_grad, state=state))(params)
    assert_same(value, state.value)
    assert_same(grad, state.grad)


_UPSTREAM = {}


def upstream_run(case):
    """`run(factor)`: values of 40 steps whose `updates` are `factor` times the gradient."""
    opt, fn = case.make(), case.of(bowl)

    def body(factor, carry, _):
        params, state = carry
        value, grad = jax.value_and_grad(fn)(params)
        updates = optax.tree.scale(factor, grad)
        updates, state = opt.update(updates, state, params, value=value, grad=grad, value_fn=fn)
        return (optax.apply_updates(params, updates), state), value

    def run(factor):
        step = functools.partial(body, factor)
        return jax.lax.scan(step, (start(), opt.init(start())), length=40)[1]

    if case.name not in _UPSTREAM:
        _UPSTREAM[case.name] = jax.jit(run)
    return _UPSTREAM[case.name]


@pytest.mark.parametrize("case", few(DEFAULTS))
@pytest.mark.parametrize("factor", [1e-3, -1.0, 0.0, np.nan, 1e3], ids=str)
def test_what_comes_from_upstream_never_leads_uphill(case, factor):
    values = upstream_run(case)(jnp.full((), factor, jnp.float32))
    assert jnp.all(values[1:] <= values[:-1] * (1 + 10 * ULP))
    if 0 < factor < 2 or factor != max(
        factor, 0
    ):  # what does not descend gives way to the gradient
        assert values[-1] < 0.98 * values[0]


@pytest.mark.parametrize("case", few(DEFAULTS))
def test_clipping_upstream_keeps_descent(case):
    opt = optax.chain(optax.clip_by_global_norm(0.1), case.make())
    params, state, values = start(), opt.init(start()), []
    step = jax.jit(functools.partial(advance, opt, case.of(world)))
    for _ in range(30):
        params, state, _, value = step(params, state, data())
        values.append(float(value))
    assert all(new <= old * (1 + 10 * ULP) for old, new in itertools.pairwise(values))
    assert values[-1] < 0.98 * values[0]
