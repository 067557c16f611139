"""L-BFGS: finite termination, evaluations, float32 where optax stalls, reductions on devices."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from hesskit.core import tree
from hesskit.core.pair import between
from hesskit.core.status import Status
from hesskit.curvature import secant

CURVATURES = np.geomspace(1.0, 1e4, 50)


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def ellipse(x):
    return jnp.sum(jnp.asarray(CURVATURES, x.dtype) * (x - 1) ** 2) / 2


def run(opt, fn, x, steps):
    """Updates as a user writes them: values before each, the last params and state, the Infos."""

    def step(carry, _):
        x, state = carry
        value, grad = jax.value_and_grad(fn)(x)
        updates, state = opt.update(grad, state, x, value=value, grad=grad, value_fn=fn)
        info = hesskit.last_info(state) if "info" in dir(state) else None
        return (optax.apply_updates(x, updates), state), (value, info)

    @jax.jit
    def scan(x):
        return jax.lax.scan(step, (x, opt.init(x)), length=steps)

    (x, state), (values, infos) = scan(x)
    return x, state, np.asarray(values), infos


@pytest.mark.parametrize("distinct", [1, 2, 4])
def test_few_distinct_eigenvalues_end_a_quadratic(distinct, float64):
    """With exact lengths it would be distinct + 1 searches; a few more without."""
    weights = jnp.asarray(np.resize(np.geomspace(1.0, 10.0, distinct), 8))
    fn = lambda x: jnp.sum(weights * (x - 1) ** 2) / 2
    result = hesskit.minimize(fn, jnp.linspace(-1.0, 2.0, 8), hesskit.lbfgs(), gtol=1e-8)
    assert result.success
    np.testing.assert_allclose(result.params, 1, atol=1e-7)
    assert result.num_values <= {1: 5, 2: 14, 4: 22}[distinct]


def test_evaluations_per_update_on_a_quadratic(dtype):
    """n = 50, condition 1e4: hardly ever more than one."""
    steps = 65 if dtype == jnp.float32 else 100
    x = jnp.linspace(-1.0, 2.0, 50, dtype=dtype)
    _, _, values, info = run(hesskit.lbfgs(), ellipse, x, steps)
    searched = np.asarray(info.num_values) > 0
    assert searched[:60].all()
    # The first search has no scale, and its trials are counted apart.
    per_update = np.asarray(info.num_values)[1:60].sum() / 59
    assert per_update <= (1.0 if dtype == jnp.float32 else 1.051)  # 59 and 62 for 59
    assert np.asarray(info.num_values)[0] <= 6
    assert values[60] < 1e-3 * values[0]


def test_tiny_curvature_in_float32():
    """optax issue 1203: steps of 1e-20 make s.y = 1e-42 and 1 / s.y infinite."""
    fn = lambda x: jnp.sum(x**2) * 1e-20 + jnp.sum((x - 1e-12) ** 4)
    x, _, values, _ = run(hesskit.lbfgs(), fn, jnp.full(3, 1e-3), 30)
    assert np.all(np.isfinite(x))
    assert np.all(np.isfinite(values))
    assert np.all(np.diff(values) <= 0)


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1e-10, 1e-6, 1e6])
def test_any_unit_of_x_in_float32(unit):
    """Atoms in meters: a curvature of 1e20 is a float32, and so must be all that is made of it."""
    valley = lambda x: rosenbrock(x / unit)
    x, _, _, info = run(hesskit.lbfgs(), valley, unit * jnp.array([-1.2, 1.0]), 60)
    np.testing.assert_allclose(x / unit, 1, rtol=1e-2)
    assert np.max(info.num_pairs) > 2


def test_scaled_pairs_below_the_smallest_float32():
    """The same without a search: u = H g after steps of 1e-25 is as after steps of 1."""
    weights = jnp.array([1.0, 2.0, 4.0])
    found = []
    for unit in (1.0, 1e-25, 1e25):
        opt = hesskit.scale_by_lbfgs()
        x, update = unit * jnp.array([1.0, 1.0, 1.0]), jax.jit(opt.update)
        state = opt.init(x)
        for point in (x, 0.5 * x, jnp.array([0.1, 0.3, 0.2]) * unit):
            updates, state = update(weights * point, state, point)
        assert state.info.num_pairs == 2
        found.append(np.asarray(updates) / unit)
    assert np.all(np.isfinite(found))
    np.testing.assert_allclose(found[1:], np.stack([found[0]] * 2), rtol=1e-4)


@pytest.mark.slow
def test_a_clipped_gradient_before_it_does_not_raise_the_loss():
    """optax issue 1201: `value` and `grad` are those of the loss, the clipped ones a direction."""
    opt = optax.chain(optax.clip_by_global_norm(1.0), hesskit.lbfgs())
    fn = lambda x: rosenbrock(x) * 10

    def step(carry, _):
        x, state = carry
        value, grad = jax.value_and_grad(fn)(x)
        updates, state = opt.update(grad, state, x, value=value, grad=grad, value_fn=fn)
        return (optax.apply_updates(x, updates), state), value

    scan = jax.jit(lambda x: jax.lax.scan(step, (x, opt.init(x)), length=80))
    (x, _), values = scan(jnp.array([-1.2, 1.0, -1.2, 1.0]))
    values = np.asarray(values)
    assert np.all(np.diff(values) <= 1e-5 * values[:-1])
    np.testing.assert_allclose(x, 1, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("of", [optax, hesskit])
def test_value_and_grad_from_state(of):
    """No evaluation outside `update` after the first; `count`, `value` and `grad` in the state."""
    opt = hesskit.lbfgs()
    value_and_grad = of.value_and_grad_from_state(rosenbrock)

    @jax.jit
    def step(x, state):
        value, grad = value_and_grad(x, state=state)
        updates, state = opt.update(grad, state, x, value=value, grad=grad, value_fn=rosenbrock)
        return optax.apply_updates(x, updates), state

    x = jnp.array([-1.2, 1.0, 0.5])
    state = opt.init(x)
    for k in range(50):
        x, state = step(x, state)
        assert optax.tree.get(state, "count") == k + 1
    np.testing.assert_allclose(x, 1, atol=1e-3)
    value, grad = jax.value_and_grad(rosenbrock)(x)
    np.testing.assert_allclose(optax.tree.get(state, "value"), value, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(optax.tree.get(state, "grad"), grad, atol=1e-4)


@pytest.mark.slow
@pytest.mark.standard_promotion("the searches of optax promote")
@pytest.mark.parametrize(
    "options",
    [
        {"linesearch": None, "learning_rate": 0.5},
        {"linesearch": None},
        {"learning_rate": 0.5},
        {"learning_rate": lambda count: 0.9 / (1 + count) ** 0.1},
        {"linesearch": optax.scale_by_zoom_linesearch(20)},
        {"linesearch": optax.scale_by_backtracking_linesearch(20)},
        {"memory_size": 2, "scale_init_precond": False},
        {},
    ],
    ids=["rate", "none", "float", "schedule", "zoom", "backtracking", "small", "default"],
)
def test_every_line_search(options):
    fn = lambda x: jnp.sum(jnp.array([1.0, 3.0, 10.0]) * (x - 1) ** 2) / 2
    x, _, values, _ = run(hesskit.lbfgs(**options), fn, jnp.array([3.0, -1.0, 0.0]), 40)
    np.testing.assert_allclose(x, 1, atol=1e-2)
    if "learning_rate" not in options and options.get("linesearch", 1) is not None:
        assert np.all(np.diff(values) <= 1e-6)


@pytest.mark.slow
def test_a_number_for_the_length_evaluates_nothing(float64):
    """x - 0.5 H g with H the dense matrix of the pairs: two updates by hand."""
    weights = np.array([1.0, 3.0])
    opt, x0 = hesskit.lbfgs(0.5), np.array([0.3, 0.2])
    state = opt.init(jnp.asarray(x0))
    updates, state = opt.update(jnp.asarray(weights * x0), state, jnp.asarray(x0))
    np.testing.assert_allclose(updates, -0.5 * weights * x0, rtol=1e-12)  # |g| < 1
    x1 = x0 + np.asarray(updates)
    updates, state = opt.update(jnp.asarray(weights * x1), state, jnp.asarray(x1))
    s, y = x1 - x0, weights * (x1 - x0)
    left = np.eye(2) - np.outer(s, y) / (s @ y)
    h = left @ left.T * (s @ y) / (y @ y) + np.outer(s, s) / (s @ y)
    np.testing.assert_allclose(updates, -0.5 * h @ (weights * x1), rtol=1e-10)
    assert (state.info.num_values, state.info.num_pairs, state.count) == (0, 1, 2)


def test_bad_arguments():
    for bad in (0, -1, 2.5):
        with pytest.raises((ValueError, TypeError), match="memory_size"):
            hesskit.lbfgs(memory_size=bad)
    with pytest.raises(ValueError, match="linesearch"):
        hesskit.lbfgs(linesearch="zoom")
    traced = optax.inject_hyperparams(hesskit.lbfgs)(memory_size=3)
    with pytest.raises((ValueError, TypeError), match="static_args"):
        jax.jit(traced.init)(jnp.ones(2))
    named = optax.inject_hyperparams(hesskit.lbfgs, static_args=("memory_size",))(memory_size=3)
    assert optax.tree.get(named.init(jnp.ones(2)), "cross").shape == (3, 3)


def test_a_failed_run_says_so():
    @jax.custom_vjp
    def misled(x):
        return jnp.sum(x**2)

    misled.defvjp(lambda x: (misled(x), x), lambda x, v: (-2 * v * x,))
    result = hesskit.minimize(misled, jnp.ones(3), hesskit.lbfgs())
    assert result.status == Status.LINE_SEARCH_FAILED
    assert not result.success
    np.testing.assert_array_equal(result.params, 1)


# Devices: how many times all of them must wait for one another.


@functools.cache
def on_devices():
    """Params of two leaves over eight devices, and a loss that has to sum over both."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.P("x"))
    params = {"a": jnp.linspace(0.0, 1.0, 64), "b": jnp.ones((16, 3)) / 2}
    return jax.tree.map(lambda leaf: jax.device_put(leaf, rows), params)


def loss(params):
    return jnp.sum((params["a"] - 1) ** 2) + jnp.sum(params["b"] ** 4)


def all_reduces(fn, *args):
    """How often the compiled program says all-reduce."""
    text = jax.jit(fn).lower(*args).compile().as_text()
    assert "all-gather" not in text
    return len(re.findall(r"all-reduce(?:-start)?\(", text))


def reductions():
    """The counts, by what is compiled."""
    params = on_devices()
    opt = hesskit.lbfgs()
    state = jax.jit(opt.init)(params)
    history, table = jax.jit(functools.partial(secant.empty, num=5))(params)

    def push(history, table, step):
        pair = between(tree.zeros_like(step), step, step, length=jnp.ones(()))
        return secant.push(history, table, pair, jnp.array(True))

    def update(params, state):
        value, grad = jax.value_and_grad(loss)(params)
        return opt.update(grad, state, params, value=value, grad=grad, value_fn=loss)

    def alone(params, state):
        return opt.update(jax.grad(loss)(params), state, params, value_fn=loss)

    return {
        "value and gradient": all_reduces(jax.value_and_grad(loss), params),
        "multiply": all_reduces(secant.multiply, history, table, params),
        "push": all_reduces(push, history, table, params),
        "update with value and gradient": all_reduces(update, params, state),
        "update": all_reduces(alone, params, state),
    }


REDUCTIONS = {
    "value and gradient": 1,
    "multiply": 1,
    "push": 2,
    "update with value and gradient": 3,
    "update": 4,
}


@pytest.mark.slow
@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_the_ledger_of_reductions():
    assert reductions() == REDUCTIONS


def test_reverse_mode_through_unrolled_steps(float64):
    """As in meta-learning, of more entries than norms write out; against central differences."""
    weights, start = jnp.linspace(1.0, 2.0, 12), jnp.linspace(-1.0, 1.0, 12)

    @jax.jit
    def after(shift):
        def fn(p):
            return 0.5 * jnp.sum(weights * (p - shift) ** 2) + 0.01 * jnp.sum(p**4)

        opt = hesskit.lbfgs(0.1)
        params, state = start, opt.init(start)
        for _ in range(2):
            updates, state = opt.update(jax.grad(fn)(params), state, params, value_fn=fn)
            params = optax.apply_updates(params, updates)
        return jnp.sum(params**2)

    expected = (after(1.3 + 1e-5) - after(1.3 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(after)(1.3), expected, rtol=1e-6)
