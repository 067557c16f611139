"""`minimize` by what it promises: answers, statuses, options, and the words of bad calls.

Solves share few objectives and shapes, since each new pair costs a compilation.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import hesskit
from hesskit.core.status import Status
from hesskit.solvers import inputs
from tests.core.test_derivatives import primitives, reverse_only

NAN = float("nan")
START = np.array([-1.2, 1.0], "float32")


def rosenbrock(p, scale=100.0):
    return (1 - p[0]) ** 2 + scale * (p[1] - p[0] ** 2) ** 2


def saddle(p):
    """A saddle at 0, minima of -1 at (0, +-sqrt 2)."""
    return p[0] ** 2 - p[1] ** 2 + 0.25 * p[1] ** 4


def solve(*args, fn=rosenbrock, start=START, **kwargs):
    return hesskit.minimize(fn, jnp.asarray(start), *args, **kwargs)


def status(result) -> Status:
    return Status(int(result.status))


# Answers.


@pytest.mark.parametrize("optimizer", [None, hesskit.newton_cg()], ids=["default", "newton_cg"])
def test_rosenbrock_in_both_precisions(optimizer, dtype):
    result = hesskit.minimize(rosenbrock, jnp.asarray(START, dtype), optimizer)
    np.testing.assert_allclose(result.params, 1.0, rtol=float(jnp.finfo(dtype).eps) ** 0.4)
    assert status(result) in (Status.GRADIENT_TOL, Status.ROUNDOFF_LIMITED)
    assert bool(result.success)
    assert result.params.dtype == result.value.dtype == dtype
    np.testing.assert_allclose(result.value, rosenbrock(result.params), atol=1e-12)
    # An end at the rounding floor evaluates its point again, to look for negative curvature.
    looks = int(status(result) == Status.ROUNDOFF_LIMITED and optimizer is not None)
    assert result.num_values == result.num_grads == result.num_steps + 1 + looks


@pytest.mark.slow
def test_a_data_problem_agrees_with_scipy(float64):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)), rng.integers(0, 2, 60).astype(float)

    def loss(w, x, y):
        return jnp.mean(jax.nn.softplus(x @ w) - y * (x @ w)) + 0.01 * jnp.sum(w**2)

    ours = hesskit.minimize(loss, jnp.zeros(4), args=(x, y))
    theirs = scipy.optimize.minimize(
        lambda w: float(loss(jnp.asarray(w), x, y)), np.zeros(4), tol=1e-10
    )
    np.testing.assert_allclose(ours.params, theirs.x, atol=1e-5)
    assert ours.value <= theirs.fun + 1e-14


@pytest.mark.parametrize("optimizer", [hesskit.trust_region(), hesskit.newton_cg()])
def test_a_saddle_and_a_maximum_are_left(optimizer):
    result = solve(optimizer, fn=saddle, start=[0.0, 0.0])
    np.testing.assert_allclose(result.value, -1.0, rtol=1e-6)
    assert result.success


@pytest.mark.slow
def test_a_loss_without_forward_rule():
    # The cubic bent upward: its minimum is where 3 x^2 + ... = 0 from the dense reference.
    fn = lambda x: reverse_only(x) + jnp.sum(x**4)
    result = hesskit.minimize(fn, jnp.ones(3), hesskit.newton_cg())
    assert result.success
    gradient = jax.grad(lambda x: jnp.sum(x**3 + x**4) + x[0] * x[1] * x[2])(result.params)
    np.testing.assert_allclose(gradient, 0, atol=1e-4)


# Statuses: one compiled solve for those of Rosenbrock's function.


@pytest.mark.parametrize(
    ("code", "success", "options"),
    [
        (Status.GRADIENT_TOL, True, {}),
        (Status.GRADIENT_TOL, True, {"gtol": 1e-3}),
        (Status.VALUE_TOL, False, {"ftol": 0.9}),
        (Status.STEP_TOL, False, {"xtol": 0.9}),
        (Status.MAX_STEPS, False, {"max_steps": 2}),
        (Status.NONFINITE_START, False, {"start": [NAN, 1.0]}),
        (Status.NONFINITE_START, False, {"start": [1e30, 1.0]}),
        (Status.UNBOUNDED, False, {"args": (-1.0,)}),
    ],
)
def test_statuses(code: Status, success: bool, options: dict):
    result = solve(**{"args": (100.0,), **options})
    assert status(result) == code
    assert bool(result.success) is success
    assert code.name in result.message
    assert bool(result.usable) is (code != Status.NONFINITE_START)
    assert jnp.all(jnp.isfinite(result.params)) or not np.all(np.isfinite(options["start"]))


def test_tolerances_are_independent():
    tight = {"args": (100.0,), "gtol": 0.0}
    assert status(solve(**tight, ftol=1e-30, max_steps=300)) != Status.VALUE_TOL
    by_value = solve(args=(100.0,), gtol=0, ftol=0.9)
    by_step = solve(args=(100.0,), gtol=0, xtol=0.9)
    assert (status(by_value), status(by_step)) == (Status.VALUE_TOL, Status.STEP_TOL)


def test_a_tolerance_met_near_the_minimum_is_a_success():
    fn = lambda x: (x - 1) ** 4  # Newton's steps fall only by 2/3
    result = hesskit.minimize(fn, jnp.array(2.0), gtol=0, xtol=1e-2)
    assert status(result) == Status.STEP_TOL
    assert result.success
    assert abs(result.params - 1) < 0.1


def test_a_large_value_excuses_no_gradient():
    fn = lambda x: jnp.sum((x - 3.0) ** 2) + 1e6
    result = hesskit.minimize(fn, jnp.zeros(5), ftol=1.0)
    assert status(result) == Status.VALUE_TOL
    assert result.grad_norm > 1
    assert not result.success


@pytest.mark.parametrize("check", ["second_order", "first_order"])
def test_a_start_that_is_not_finite_is_never_a_success(check: str):
    result = solve(args=(100.0,), start=[NAN, 1.0], check=check)
    assert status(result) == Status.NONFINITE_START
    assert not result.success
    assert jnp.isnan(result.value)
    assert jnp.isnan(result.grad_norm)


@pytest.mark.parametrize(
    ("fn", "start"),
    [
        (lambda x: x, 0.0),
        (lambda x: -(x**2), 0.0),
        (lambda x: -jnp.exp(x), 0.5),
    ],
    ids=["x", "-x^2 from its maximum", "-exp"],
)
def test_unbounded(fn, start: float):
    result = hesskit.minimize(fn, jnp.array(start))
    assert status(result) == Status.UNBOUNDED
    assert jnp.isfinite(result.params)
    assert jnp.isfinite(result.value)
    assert "minimize its negative" in result.message


def test_trials_that_are_never_finite():
    result = hesskit.minimize(lambda x: jnp.where(x == 1, x, NAN), jnp.array(1.0))
    assert status(result) == Status.NONFINITE_TRIALS
    assert result.params == 1.0
    assert result.value == 1.0
    assert result.usable


@jax.custom_vjp
def misled(x):
    return jnp.sum(x**2) + 1


misled.defvjp(lambda x: (misled(x), x), lambda x, v: (-2 * v * x,))


def test_a_wrong_gradient():
    result = hesskit.minimize(misled, jnp.ones(2))
    assert status(result) == Status.LINE_SEARCH_FAILED
    assert not result.success
    assert "gradient right" in result.message


def test_rounding_limits_an_honest_run():
    # Logistic regression in float32 with gtol=0: no tolerance can be met.
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(200, 3)), rng.integers(0, 2, 200)
    x, y = jnp.asarray(x, "float32"), jnp.asarray(y, "float32")

    def loss(w):
        return jnp.sum(jax.nn.softplus(x @ w) - y * (x @ w)) + 0.5 * jnp.sum(w**2)

    result = hesskit.minimize(loss, jnp.zeros(3), gtol=0)
    assert status(result) in (Status.ROUNDOFF_LIMITED, Status.GRADIENT_TOL)
    assert result.success
    assert result.num_steps < 30
    assert result.grad_norm < 1e-3


def test_the_callback_stops():
    seen = []

    def watch(progress):
        seen.append(progress)
        return progress.num_steps >= 3

    result = solve(args=(100.0,), callback=watch)
    assert status(result) == Status.USER_STOP
    assert not result.success
    assert [int(p.num_steps) for p in seen] == [0, 1, 2, 3]
    np.testing.assert_array_equal(seen[0].params, START)
    assert seen[-1].value == result.value
    np.testing.assert_array_equal(seen[-1].params, result.params)


# Options.


class Model(NamedTuple):
    weights: list
    extra: dict


def model_loss(p, t):
    parts = [jnp.sum((w - t) ** 4 + (w - t) ** 2) for w in p.weights]
    value = sum(parts, start=jnp.zeros(())) + (p.extra["b"] - p.weights[0][0]) ** 2
    return value, {"n": jnp.int32(3), "residual": p.weights[0] - t, "twice": 2 * value}


MODEL = Model([np.ones(2, "float32"), 0.5], {"b": 2.0, "none": None})


@pytest.mark.slow
def test_structures_aux_and_fixed_leaves():
    result = hesskit.minimize(
        model_loss, MODEL, args=(3.0,), has_aux=True, fixed="extra/*", history="params"
    )
    assert result.success
    assert jax.tree.structure(result.params) == jax.tree.structure(MODEL)
    assert result.params.extra["b"] == 2.0  # bitwise
    assert result.aux["n"] == 3
    np.testing.assert_array_equal(result.aux["residual"], result.params.weights[0] - 3.0)
    np.testing.assert_array_equal(result.aux["twice"], 2 * result.value)
    gradient = jax.grad(lambda p: model_loss(p, 3.0)[0])(result.params)
    np.testing.assert_allclose(gradient.weights[0], 0, atol=1e-4)
    assert abs(gradient.extra["b"]) > 0.1  # not stationary in what is held
    path = result.history.params
    assert path.weights[0].shape == (result.num_steps + 1, 2)
    np.testing.assert_array_equal(path.extra["b"], 2.0)
    np.testing.assert_array_equal(path.weights[0][-1], result.params.weights[0])


@pytest.mark.parametrize(
    "fixed",
    [
        ["1", "2"],
        lambda path, leaf: path != "0",
        (False, True, True),
    ],
    ids=["paths", "function", "prefix"],
)
def test_every_selector_holds_the_same_leaves(fixed):
    fn = lambda p: (p[0] - p[1]) ** 2 + (p[1] - p[2]["c"]) ** 4
    start = [jnp.array(5.0), jnp.array(0.1), {"c": jnp.array(-0.3)}]
    if isinstance(fixed, tuple):
        fixed = list(fixed)
    result = hesskit.minimize(fn, start, fixed=fixed)
    assert result.params[1:] == start[1:]
    np.testing.assert_allclose(result.params[0], 0.1, rtol=1e-5)


@pytest.mark.slow
def test_history_records_every_step():
    result = solve(args=(100.0,), history=True, max_steps=50)
    h = result.history
    assert int(h.length) == result.num_steps + 1 == len(h.value)
    assert h.params is None
    assert h.value[-1] == result.value
    assert h.grad_norm[-1] == result.grad_norm
    assert np.all(np.diff(h.value) <= 0)
    np.testing.assert_array_equal(h.num_values, np.arange(len(h.value)) + 1)
    np.testing.assert_array_equal(h.step_norm[1:] > 0, h.accepted[1:])


def test_history_is_padded_inside_jit():
    inner = lambda p: solve(start=p, args=(100.0,), history="params", max_steps=50)
    result = jax.jit(inner)(START)
    length = int(result.history.length)
    assert length == result.num_steps + 1
    assert result.history.value.shape == (51,)
    assert np.all(np.isnan(result.history.value[length:]))
    assert np.all(np.isnan(result.history.params[length:]))
    assert np.all(np.isfinite(result.history.params[:length]))
    assert not np.any(result.history.accepted[length:])


OPTIMIZERS = {
    "trust_region": (hesskit.trust_region(), 4),
    "newton_cg": (hesskit.newton_cg(), 4),
    "adam": (optax.adam(0.1), 15),
}


@pytest.mark.slow
@pytest.mark.standard_promotion("optax.adam promotes")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_runs_are_one_of_twice_the_steps(name: str):
    optimizer, n = OPTIMIZERS[name]
    first = solve(optimizer, args=(100.0,), max_steps=n)
    second = solve(optimizer, args=(100.0,), max_steps=n, start=first.params, state=first.state)
    whole = solve(optimizer, args=(100.0,), max_steps=2 * n)
    assert status(first) == Status.MAX_STEPS
    same = functools.partial(jax.tree.map, np.testing.assert_array_equal)
    same(second.params, whole.params)
    same(second.value, whole.value)
    same(second.state, whole.state)
    # With other data the value is evaluated anew.
    other = solve(optimizer, args=(1.0,), max_steps=1, start=first.params, state=first.state)
    assert other.value <= rosenbrock(first.params, 1.0)
    if name != "adam":
        size = solve(optimizer, args=(1.0,), max_steps=1, start=first.params).state.state.size
        assert other.state.state.size != size  # the radius was kept


@pytest.mark.standard_promotion("optax.adam promotes")
def test_resuming_keeps_the_best_point_so_far():
    # Large steps: the last point is rarely the best.
    optimizer = optax.sgd(0.9, momentum=0.9)
    fn = lambda x: jnp.sum(x**2 * jnp.array([1.0, 0.7]))
    first = hesskit.minimize(fn, jnp.ones(2), optimizer, max_steps=7)
    again = hesskit.minimize(fn, first.params, optimizer, max_steps=1, state=first.state)
    whole = hesskit.minimize(fn, jnp.ones(2), optimizer, max_steps=8)
    assert again.value == whole.value <= first.value
    np.testing.assert_array_equal(again.params, whole.params)
    assert first.value == fn(first.params)
    record = hesskit.minimize(fn, jnp.ones(2), optimizer, max_steps=8, history=True).history.value
    assert whole.value == record.min()


def test_a_state_of_another_run_is_refused():
    state = solve(args=(100.0,), max_steps=2).state
    for call in (
        lambda: solve(hesskit.newton_cg(), args=(100.0,), state=state),
        lambda: solve(start=jnp.ones(3), fn=lambda p: jnp.sum(p**2), state=state),
        lambda: solve(args=(100.0,), state=3.0),
    ):
        with pytest.raises(ValueError, match="state does not belong to this optimizer"):
            call()


# Under transformations.


@pytest.mark.slow
def test_vmap_is_one_by_one_with_unequal_lanes(float64):
    # In float64: at the rounding floor of float32 two compilations of the same arithmetic may
    # differ by a step.
    starts = jnp.array([START, [1.0, 1.0], [NAN, 0.0], [3.0, -2.0]], float)
    batch = jax.vmap(lambda p: solve(start=p, args=(100.0,), max_steps=60))(starts)
    for lane, start in enumerate(starts):
        alone = solve(start=start, args=(100.0,), max_steps=60)
        assert batch.status[lane] == alone.status
        assert batch.num_steps[lane] == alone.num_steps
        np.testing.assert_allclose(batch.params[lane], alone.params, rtol=1e-12)
        np.testing.assert_allclose(batch.value[lane], alone.value, atol=1e-20)
    assert list(batch.success) == [True, True, False, True]
    assert batch.message.startswith("3 of 4 succeeded")


@pytest.mark.slow
def test_the_callback_under_jit_and_vmap():
    seen = []

    def watch(progress):
        seen.append((float(progress.params[0]), int(progress.num_steps)))
        return progress.num_steps >= 2

    starts = jnp.array([START, [1.0, 1.0], [3.0, -2.0]])
    run = lambda p: solve(start=p, args=(100.0,), callback=watch).status
    assert list(jax.jit(jax.vmap(run))(starts)) == [
        Status.USER_STOP,
        Status.GRADIENT_TOL,
        Status.USER_STOP,
    ]
    steps = [step for _, step in seen]
    assert steps == [0, 0, 0, 1, 1, 2, 2]  # a finished lane is not heard again


@pytest.mark.slow
def test_closures_over_tracers():
    fn = lambda t: hesskit.minimize(lambda p: jnp.sum((p - t) ** 2), jnp.zeros(2)).params
    np.testing.assert_allclose(jax.vmap(fn)(jnp.arange(3.0)), [[0, 0], [1, 1], [2, 2]], atol=1e-6)


def compilations():
    """A counter of programs traced or compiled from now on."""
    events = []

    def listen(event: str, duration: float, **kwargs):
        if event.endswith(("jaxpr_trace_duration", "backend_compile_duration")):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return events


@pytest.mark.parametrize("make", [hesskit.trust_region, hesskit.newton_cg])
def test_the_second_call_compiles_nothing(make):
    first = solve(make(), args=(100.0,))
    solve(make(), args=(100.0,), start=START + 1, gtol=1e-2, ftol=1e-3, xtol=1e-3, max_steps=7)
    counted = compilations()
    again = solve(
        make(), args=(50.0,), start=START + 2, gtol=1e-4, ftol=1e-9, xtol=1e-9, max_steps=90
    )
    assert counted == []
    assert again.num_steps != first.num_steps
    jax.jit(lambda x: x + 1)(1.0)
    assert counted  # the counter counts


@pytest.mark.parametrize("make", [hesskit.trust_region, hesskit.newton_cg])
@pytest.mark.parametrize("has_aux", [False, True])
def test_the_program_holds_one_copy_of_the_function(make, has_aux: bool):
    value = lambda p: jnp.sum(jax.lax.lgamma(p))
    fn = (lambda p: (value(p), p)) if has_aux else value
    run = lambda p: hesskit.minimize(fn, p, make(), has_aux=has_aux, history=True, max_steps=9)
    assert primitives(jax.make_jaxpr(run)(jnp.ones(2)).jaxpr, "lgamma") == 1


@pytest.mark.slow
@pytest.mark.parametrize("make", [hesskit.trust_region, hesskit.newton_cg])
def test_both_engines_visit_the_same_points(make):
    method = solve(make(), args=(100.0,), history="params", max_steps=60)
    update = solve(optax.chain(make()), args=(100.0,), history="params", max_steps=60)
    assert method.method == make().name
    n = int(method.history.length)
    assert int(update.history.length) in (n, n + 1)  # an update says one step later that it is over
    np.testing.assert_allclose(
        update.history.params[:n], method.history.params, rtol=1e-4, atol=1e-5
    )
    assert status(update) == status(method)


@pytest.mark.parametrize("name", ["adam", "sgd", "lbfgs"])
@pytest.mark.standard_promotion("optax's optimizers promote")
def test_any_optax_optimizer(name: str):
    optimizer = {
        "adam": optax.adam(0.1),
        "sgd": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
        "lbfgs": optax.lbfgs(),
    }[name]
    fn = lambda p: jnp.sum((p["a"] - 1) ** 2) + (p["b"] - 2) ** 2 * jnp.array(0.5)
    result = hesskit.minimize(fn, {"a": jnp.zeros(2), "b": jnp.zeros(())}, optimizer)
    assert status(result) == Status.GRADIENT_TOL
    assert result.success
    np.testing.assert_allclose(result.params["a"], 1.0, atol=1e-4)
    assert result.method == "optax"


@pytest.mark.standard_promotion("optax.sgd promotes")
def test_a_first_order_method_on_a_saddle_says_so():
    sgd = optax.sgd(0.1)
    result = solve(sgd, fn=saddle, start=[0.0, 0.0])
    assert status(result) == Status.SADDLE
    assert not result.success
    assert "negative eigenvalue" in result.message
    assert 0 < result.num_products <= 20
    first_order = solve(sgd, fn=saddle, start=[0.0, 0.0], check="first_order")
    assert status(first_order) == Status.GRADIENT_TOL
    assert first_order.success
    assert first_order.num_products == 0


@pytest.mark.standard_promotion("optax.sgd promotes")
def test_a_small_gradient_by_a_saddle_is_looked_at_too():
    result = solve(optax.sgd(0.1), fn=saddle, start=[1e-3, 0.0], gtol=0, ftol=0.9)
    assert 0 < result.grad_norm < 4e-3
    assert status(result) == Status.SADDLE
    assert not result.success


@pytest.mark.slow
def test_the_plain_newton_step_on_a_saddle_says_so():
    newton = hesskit.newton(learning_rate=1.0)
    result = solve(newton, fn=saddle, start=[0.0, 0.0])
    assert status(result) == Status.SADDLE
    assert not result.success
    assert result.method == "newton"
    first_order = solve(newton, fn=saddle, start=[0.0, 0.0], check="first_order")
    assert status(first_order) == Status.GRADIENT_TOL


def test_an_update_that_can_leave_a_saddle_does():
    result = solve(optax.chain(hesskit.trust_region()), fn=saddle, start=[0.0, 0.0])
    np.testing.assert_allclose(result.value, -1.0, rtol=1e-6)
    assert result.success


def test_first_order_check_lets_a_method_rest_on_a_saddle():
    result = solve(fn=saddle, start=[0.0, 0.0], check="first_order")
    assert status(result) == Status.GRADIENT_TOL
    assert result.num_steps == 0


# Dtypes and functions of every make.


@pytest.mark.slow
def test_complex_params_are_r_2n():
    fn = lambda z: jnp.sum(jnp.abs(z - (1 - 2j)) ** 2) + jnp.sum(jnp.real(z) ** 4)
    seen = []
    result = hesskit.minimize(
        fn, jnp.array([1 + 1j, 2 - 1j]), history="params", callback=lambda p: seen.append(p.params)
    )
    assert result.success
    assert result.params.dtype == result.history.params.dtype == seen[0].dtype == "complex64"
    x = 0.589755  # 2 (x - 1) + 4 x^3 = 0
    np.testing.assert_allclose(result.params, x - 2j, rtol=1e-4)


def test_half_precision():
    fn = lambda p: jnp.sum((p["a"] - 1.5) ** 2) + (p["b"] - 1) ** 2
    result = hesskit.minimize(fn, {"a": jnp.zeros(3, "bfloat16"), "b": jnp.zeros((), "bfloat16")})
    assert result.params["a"].dtype == "bfloat16"
    np.testing.assert_allclose(result.params["a"].astype("float32"), 1.5, atol=0.05)
    assert result.success


def test_a_negative_loss_in_half_precision_is_not_unbounded():
    result = hesskit.minimize(lambda p: jnp.sum(p**2) - 30000, jnp.ones(2, "bfloat16"))
    assert status(result) != Status.UNBOUNDED


def test_float64_data_warns_once():
    inputs._warn_once.cache_clear()
    run = lambda: hesskit.minimize(rosenbrock, START.astype("float64"), args=(100.0,))
    with pytest.warns(UserWarning, match=r"jax.config.update\('jax_enable_x64', True\)") as caught:
        run()
    run()  # a second warning would be an error
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_float64_data_is_kept_where_it_can_be(float64):
    result = solve(start=START.astype("float64"), max_steps=2)
    assert result.params.dtype == "float64"


@pytest.mark.slow
def test_the_choice_by_size():
    fn = lambda p: jnp.sum(p["a"] ** 2) + jnp.sum(p["big"] ** 2)
    params = {"a": jnp.ones(2), "big": jnp.ones(300)}
    assert hesskit.minimize(fn, params).method == "newton_cg"
    assert hesskit.minimize(fn, params, fixed="big").method == "trust_region"


class Quadratic:
    """A callable without a hash, as equinox modules are."""

    __hash__ = None

    def __init__(self, fn):
        self.fn = fn

    def __call__(self, p, t=0.0):
        return jnp.sum((p - self.fn) ** 2) + 0.0 * t

    def __eq__(self, other):
        return True


@pytest.mark.slow
def test_callables_without_a_hash_are_told_apart():
    for target in (1.0, 2.0):
        result = hesskit.minimize(Quadratic(target), jnp.zeros(2), args=(0.0,))
        np.testing.assert_allclose(result.params, target, rtol=1e-6)


def test_data_by_name():
    result = solve(fn=rosenbrock, args={"scale": 10.0})
    np.testing.assert_allclose(result.params, 1.0, rtol=1e-3)


# Bad calls.

X = jnp.ones(2)


def bad(fn=rosenbrock, params=X, *args, **kwargs):
    return lambda: hesskit.minimize(fn, params, *args, **kwargs)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (bad(lambda p: p), ValueError, "value_fn returned shape (2,), expected ()"),
        (
            bad(lambda p: p[:1]),
            ValueError,
            "value_fn returned shape (1,), expected (); return f(x)[0] or jnp.sum(...)",
        ),
        (bad(lambda p: jnp.int32(3)), TypeError, "value_fn returned int32"),
        (bad(lambda p: p[0] > 0), TypeError, "value_fn returned bool"),
        (bad(lambda p: jax.lax.complex(p[0], p[1])), TypeError, "value_fn returned complex64"),
        (bad(lambda p: None), TypeError, "value_fn returned None, expected a real scalar"),
        (bad(lambda p: (p[0], p)), TypeError, "for (value, aux) pass has_aux=True"),
        (bad(lambda p: p[0], has_aux=True), TypeError, "must return (value, aux)"),
        (bad(params=[0, 0]), TypeError, "params[0] is int; write 0.0. Derivatives need floats."),
        (bad(params=np.zeros(2, int)), TypeError, "params is int64; write 0.0. Derivatives need"),
        (bad(params={"a": True}), TypeError, "params['a'] is bool"),
        (bad(params={"a": "x"}), TypeError, "params['a'] is str 'x'; expected an array"),
        (bad(params={}), ValueError, "params has no leaves"),
        (bad(params=X, gtol=-1e-6), ValueError, "gtol must lie in [0, inf), got -1e-06"),
        (bad(params=X, ftol=NAN), ValueError, "ftol must lie in [0, inf), got nan"),
        (bad(params=X, xtol="small"), TypeError, "xtol must be a number, got 'small'"),
        (bad(params=X, max_steps=0), ValueError, "max_steps must be an integer of at least 1"),
        (bad(params=X, max_steps=None), TypeError, "max_steps must be an integer, got None"),
        (bad(params=X, max_steps=2.5), ValueError, "max_steps must be an integer"),
        (bad(params=X, check="third"), ValueError, "check must be one of 'second_order', 'first"),
        (bad(params=X, history="all"), ValueError, "history must be one of False, True, 'params'"),
        (bad(params=X, maxiter=3), TypeError, "unexpected keyword argument 'maxiter'"),
        (bad(X, rosenbrock), TypeError, "value_fn must be a function of params, got ArrayImpl"),
        (bad(rosenbrock, X, "bfgs"), TypeError, "optimizer must be an optax transformation"),
        (bad(rosenbrock, X, hesskit.newton_cg), TypeError, "call it: newton_cg()"),
        (bad(rosenbrock, X, args=3.0), TypeError, "args must be a tuple or a dict of data"),
        (bad(rosenbrock, X, args=("a",)), TypeError, "args[0] is str 'a'; data must be arrays"),
        (bad(rosenbrock, X, args={"scal": 1.0}), TypeError, "Did you mean scale=?"),
        (
            bad(lambda x, y: x + y, X),
            TypeError,
            "value_fn takes all params as one argument; it requires x and y. Write "
            "lambda p: f(p[0], p[1]) with params jnp.array([0., 0.]).",
        ),
        (
            bad(lambda p, x, y: p[0], X, args={"X": 1.0, "y": 1.0}),
            TypeError,
            "needs `x`; minimize received `X`, `y`. Did you mean x=?",
        ),
        (bad(params=X, fixed="b"), ValueError, "fixed='b' matches no leaf; the paths are params"),
        (bad(params=X, fixed=True), ValueError, "fixed selects every leaf of params"),
        (bad(params=X, fixed=3), TypeError, "fixed must be a prefix tree of bools"),
        (bad(params=X, callback=3), TypeError, "callback must be a function of a step"),
    ],
)
def test_bad_calls(call, error: type, words: str):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


def test_history_needs_a_concrete_length():
    with pytest.raises(TypeError, match="history needs a concrete max_steps"):
        jax.jit(lambda n: solve(history=True, max_steps=n))(3)


def broken(p):
    return p["width"]


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_an_error_inside_keeps_its_type_and_gains_one_note(wrap):
    with pytest.raises(KeyError, match="width") as caught:
        wrap(lambda p: hesskit.minimize(broken, p).value)({"mu": jnp.ones(3)})
    ours = [note for note in caught.value.__notes__ if "hesskit" in note]
    assert ours == ["value_fn was called by hesskit.minimize with params {'mu': float32[3]}."]


def test_a_type_error_inside_is_the_users_own():
    with pytest.raises(TypeError, match=r"unsupported operand|not supported|str") as caught:
        hesskit.minimize(lambda p: p + "a", X)
    assert "custom_vjp" not in str(caught.value)
    assert len([note for note in caught.value.__notes__ if "hesskit" in note]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("make", [hesskit.trust_region, hesskit.newton_cg, hesskit.lbfgs])
def test_a_constant_and_a_large_slope(make):
    """Gradients that the compiler knows at compile time."""
    flat = hesskit.minimize(lambda x: 3.0 + 0 * jnp.sum(x), jnp.ones(3), make())
    assert status(flat) == Status.GRADIENT_TOL
    steep = hesskit.minimize(lambda x: 1e30 * jnp.sum(x), jnp.ones(3), make())
    assert status(steep) == Status.UNBOUNDED


@pytest.mark.slow
def test_beside_a_kink_a_short_step_is_no_floor():
    """Little to gain along the model's step, but a gradient as large as ever."""
    kink = lambda x: 1e4 + 30 * jnp.abs(x[0] - 3 * x[1]) + 0.1 * (x[0] + x[1]) ** 2
    result = hesskit.minimize(kink, jnp.array([3.0, 1.5]), hesskit.lbfgs())
    assert result.grad_norm > 10
    assert not result.success


def test_leaves_without_entries_beside_others():
    fn = lambda p: jnp.sum((p["a"] - 2) ** 2) + jnp.sum(p["b"])
    result = hesskit.minimize(fn, {"a": jnp.ones(2), "b": jnp.ones((0, 3))})
    np.testing.assert_allclose(result.params["a"], 2)
    assert result.params["b"].shape == (0, 3)
    with pytest.raises(ValueError, match=r"params\['b'\] has shape \(0,\), and no leaf"):
        hesskit.minimize(fn, {"b": jnp.ones((0,))})
