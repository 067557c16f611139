"""What both Gauss-Newton methods owe: rates, paths chosen by shape, and what a step costs.

Solves share one objective where they can, since each new pair of method and objective costs a
compilation.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from hesskit.core.status import Status
from hesskit.curvature.factored import Factored
from hesskit.curvature.truncated import Path
from hesskit.transforms._gauss_newton import DENSE_LIMIT
from tests.solvers.test_minimize import compilations
from tests.transforms.runs import update_once

METHODS = {"gauss_newton": hesskit.gauss_newton, "levenberg_marquardt": hesskit.levenberg_marquardt}
SCALE_BY = {
    "gauss_newton": hesskit.scale_by_gauss_newton,
    "levenberg_marquardt": hesskit.scale_by_levenberg_marquardt,
}
each = pytest.mark.parametrize("name", METHODS)


# Where it ends.

TIMES = np.linspace(0.0, 3.0, 8)


def decays(p, gain, offset):
    """Residuals of two decays, zero at (2, 0.5, 1, 2); with gain 0 they depend on nothing."""
    t = jnp.asarray(TIMES, p.dtype)
    curve = lambda a, k, b, m: a * jnp.exp(-k * t) + b * jnp.exp(-m * t)
    return gain * (curve(*p) - curve(2.0, 0.5, 1.0, 2.0)) + offset


DECAYS = hesskit.least_squares_loss(decays)
TRUTH = np.array([2.0, 0.5, 1.0, 2.0])


def fit(name, start, gain=1.0, offset=0.0, **more):
    dtype = jnp.result_type(float)
    args = jnp.asarray(gain, dtype), jnp.asarray(offset, dtype)
    start = jnp.asarray(start, dtype)
    return hesskit.minimize(DECAYS, start, METHODS[name](), args=args, history="params", **more)


@pytest.mark.slow
@each
def test_quadratic_where_residuals_vanish(name, float64):
    """Errors e fall like e^2 to the last digits."""
    result = fit(name, TRUTH * [1.3, 0.8, 0.7, 1.2], max_steps=60)
    assert result.value < 1e-25
    points = np.asarray(result.history.params)[np.asarray(result.history.accepted)]
    errors = np.linalg.norm(points - TRUTH, axis=1)
    before, after = errors[:-1], errors[1:]
    pairs = (before < 0.2) & (before > 1e-7)
    assert np.sum(pairs) >= 2
    assert np.all(after[pairs] <= 10 * before[pairs] ** 2 + 1e-13), errors


@each
def test_starts_at_which_there_is_nothing_to_do(name, float64):
    """No residual, no Jacobian, no number."""
    there = fit(name, TRUTH, max_steps=60)
    still = fit(name, np.ones(4), gain=0.0, offset=3.0, max_steps=60)
    for result in (there, still):
        assert result.status == Status.GRADIENT_TOL
        assert result.success
        assert result.num_steps == 0
    assert there.value < 1e-31
    assert still.value == 0.5 * 8 * 9
    assert still.state.state.info.rank == 0
    np.testing.assert_array_equal(still.params, 1.0)
    lost = fit(name, [np.nan, 1.0, 1.0, 1.0], max_steps=60)
    assert lost.status == Status.NONFINITE_START


@each
@pytest.mark.parametrize("noise", [pytest.param(0.0, marks=pytest.mark.slow), 0.05])
def test_the_unit_of_residuals_changes_no_step(name, noise, x64):
    """Times a power of two, which rounds nothing: the path is the same, and where it ends."""
    far, start = 2.0**40 if x64 else 2.0**20, TRUTH * [1.3, 0.8, 0.7, 1.2]
    offset = noise * np.random.default_rng(0).normal(size=8)
    one, *others = [fit(name, start, unit, unit * offset) for unit in (1.0, far, 1 / far)]
    assert one.success
    assert one.num_steps > 3
    for other in others:
        assert other.status == one.status
        assert other.success
        assert other.num_steps == one.num_steps
        np.testing.assert_array_equal(other.history.accepted, one.history.accepted)
        np.testing.assert_allclose(other.params, one.params, rtol=1e-6 if x64 else 1e-3)


@pytest.mark.slow
def test_a_tiny_unit_ends_no_run_early(float64):
    """The values of f are 1e-51: nothing that is small beside 1 says anything."""
    result = fit("levenberg_marquardt", TRUTH * [1.3, 0.8, 0.7, 1.2], gain=1e-25)
    np.testing.assert_allclose(result.params, TRUTH, rtol=1e-9)
    assert result.success


@pytest.mark.slow
def test_a_solution_at_zero_is_approached_to_the_end(float64):
    """r = x^2 at a double root has no scale but its own: x halves until f is no number."""
    loss = hesskit.least_squares_loss(lambda x: x**2)
    result = hesskit.minimize(loss, jnp.array(1.0), hesskit.levenberg_marquardt())
    assert result.success
    assert result.value == 0
    assert result.num_steps < 400


def test_float32_runs_to_its_noise_and_says_so():
    """A fit with residuals that stay, asked for more than float32 has."""
    noise = 0.05 * np.random.default_rng(0).normal(size=8)
    result = fit("levenberg_marquardt", np.ones(4) + [0, 0, 0, 1], offset=noise, gtol=0)
    assert result.status in (Status.ROUNDOFF_LIMITED, Status.GRADIENT_TOL)
    assert result.success
    assert result.grad_norm < 1e-5


# The linear algebra is chosen by shape.


@functools.cache
def bent(m, n):
    """m residuals of n parameters: k = min(m, n) that bend and are zero at 1, then zeros."""
    k = min(m, n)
    rows = np.linspace(0.5, 2.0, k)

    def residual(p):
        q = p[:k] - 1
        bend = jnp.asarray(rows, p.dtype) * (q + 0.1 * q**2)
        return jnp.concatenate([bend, jnp.zeros(m - k, p.dtype)])

    return hesskit.least_squares_loss(residual)


def sizes(node):
    """The size of every array in a program, those of inner programs included."""
    for equation in node.eqns:
        yield from (int(np.prod(v.aval.shape)) for v in equation.outvars)
        for item in equation.params.values():
            for inner in item if isinstance(item, (tuple, list)) else (item,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from sizes(getattr(inner, "jaxpr", inner))


SHAPES = {
    "dense": ("gauss_newton", 9, 4),
    "sample": ("levenberg_marquardt", 3, 600),
    "cg": ("levenberg_marquardt", DENSE_LIMIT + 100, DENSE_LIMIT + 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("path", SHAPES)
def test_the_path_follows_the_shape(path):
    """Its name in Info, its model in the state, and its memory."""
    name, m, n = SHAPES[path]
    k, optimizer, loss = min(m, n), METHODS[name](), bent(m, n)
    run = jax.jit(lambda p: hesskit.minimize(loss, p, optimizer, check="first_order"))
    result = run(jnp.zeros(n))
    assert result.success
    np.testing.assert_allclose(result.params[:k], 1.0, rtol=1e-4)
    np.testing.assert_array_equal(result.params[k:], 0.0)
    state = result.state.state
    assert state.info.linear_solver == path
    assert isinstance(state.model, Path if path == "cg" else Factored)
    assert state.info.rank == {"dense": 4, "sample": 3, "cg": -1}[path]
    kept = max(leaf.size for leaf in jax.tree.leaves(result.state))
    assert kept == {"dense": n * n, "sample": m * n, "cg": n}[path]
    met = max(sizes(jax.make_jaxpr(run)(jnp.zeros(n)).jaxpr))
    assert met <= {"dense": m * (n + 1), "sample": m * n, "cg": 2 * m}[path]


@pytest.mark.slow
def test_a_loop_of_updates_goes_by_the_parameters():
    """There m is not known when the state is made."""
    for n, path in ((4, "dense"), (DENSE_LIMIT + 1, "cg")):
        _, info = update_once(hesskit.levenberg_marquardt(), bent(3, n), jnp.zeros(n))
        assert info.linear_solver == path
        assert info.num_products > 0


@pytest.mark.slow
@each
def test_room_for_more_residuals_changes_no_step(name, float64):
    """Dense in room n x n, as in a loop of updates; sample in room m x n, as in a solver."""
    result = hesskit.minimize(
        bent(3, 7), jnp.zeros(7), METHODS[name](), max_steps=1, check="first_order"
    )
    updates, info = update_once(METHODS[name](), bent(3, 7), jnp.zeros(7))
    assert result.state.state.info.linear_solver == "sample"
    assert info.linear_solver == "dense"
    assert info.accepted
    np.testing.assert_allclose(result.params, updates, rtol=1e-12, atol=1e-15)


def test_bad_options():
    with pytest.raises(ValueError, match="linear_solver must be one of 'auto', 'dense', 'sample'"):
        hesskit.gauss_newton(linear_solver="qr")
    by_cg = hesskit.levenberg_marquardt(linear_solver="cg")
    for call in (
        lambda: hesskit.levenberg_marquardt(linear_solver="cg", bounds=(0.0, None)),
        lambda: hesskit.minimize(bent(3, 3), jnp.zeros(3), by_cg, bounds=(0.0, None)),
    ):
        with pytest.raises(ValueError, match='"cg" does not take bounds; use "dense"'):
            call()


@pytest.mark.slow
@each
def test_learning_rate_form_is_a_chain_of_the_scaled_one(name, float64):
    whole = METHODS[name](learning_rate=0.5)
    chain = optax.chain(SCALE_BY[name](), optax.scale_by_learning_rate(0.5))
    loss, start = bent(4, 3), jnp.array([0.3, -0.2, 0.1])

    def two(opt, x):
        state = opt.init(x)
        for _ in range(2):
            updates, state = opt.update(jax.grad(loss)(x), state, x, value_fn=loss)
            x = x + updates
        return x

    a, b = jax.jit(lambda x: (two(whole, x), two(chain, x)))(start)
    np.testing.assert_array_equal(a, b)
    assert np.all(a != start)


@each
def test_what_comes_from_upstream_is_the_right_hand_side(name, float64):
    """G s = -u, in a region that holds nothing back; half the gradient is half the step."""
    loss, x = bent(5, 3), jnp.array([0.3, -0.2, 0.1])
    optimizer = METHODS[name](1.0, radius=1e3)
    grad = jax.grad(loss)(x)

    @jax.jit
    def step(updates):
        return optimizer.update(updates, optimizer.init(x), x, grad=grad, value_fn=loss)[0]

    np.testing.assert_allclose(step(0.5 * grad), 0.5 * step(grad), rtol=1e-12)
    gram = np.asarray(hesskit.gauss_newton_operator(loss, x).dense())
    tilted = grad * jnp.array([1.0, 2.0, 0.5])
    np.testing.assert_allclose(gram @ step(tilted), -tilted, rtol=1e-10)


# What a step costs.


@jax.custom_jvp
def telltale(x, slope):
    """x, with the derivative `slope`."""
    del slope
    return x


telltale.defjvp(lambda at, moved: (at[0], moved[0] * at[1]))


@pytest.mark.slow
@each
def test_after_a_rejection_no_jacobian_is_computed(name):
    """Derivatives are NaN in the second update: what is kept must not have met them."""

    def residual(p, slope):
        return telltale(jnp.where(jnp.all(p == 0), p - jnp.array([1.0, 3.0]), 1e6), slope)

    loss, optimizer, x = hesskit.least_squares_loss(residual), METHODS[name](), jnp.zeros(2)

    @jax.jit
    def step(state, slope):
        value, grad = loss(x, slope), jnp.array([-1.0, -3.0])
        return optimizer.update(grad, state, x, value=value, grad=grad, value_fn=loss, slope=slope)

    step_1, first = step(optimizer.init(x), jnp.ones(()))
    step_2, second = step(first, jnp.full((), np.nan))
    for moved, state in ((step_1, first), (step_2, second)):
        np.testing.assert_array_equal(moved, 0.0)
        assert not state.info.accepted
    jax.tree.map(np.testing.assert_array_equal, second.model, first.model)
    assert (first.info.num_products, second.info.num_products) == (2, 0)
    assert second.size < first.size


def test_one_copy_of_a_function_of_many_parameters():
    """Rows by example are looked for in a trace of their own, which leaves no code behind."""
    loss = hesskit.least_squares_loss(lambda p: jax.lax.lgamma(p + 2.0))
    optimizer = hesskit.levenberg_marquardt()
    run = lambda p: hesskit.minimize(loss, p, optimizer, check="first_order").params
    assert jax.jit(run).lower(jnp.ones(10)).as_text().count("chlo.lgamma") == 1


# The words for an objective without residuals, and data by call.


@each
def test_a_plain_loss_is_told_what_is_missing(name):
    plain = lambda p: jnp.sum((p - 1) ** 2)
    said = (
        "needs the residuals, not only their sum of squares: "
        r"loss = hesskit.least_squares_loss\(residual\)"
    )
    x = jnp.zeros(2)
    with pytest.raises(TypeError, match=f"^{name} {said}"):
        hesskit.minimize(plain, x, METHODS[name]())
    for given, optimizer in ((name, METHODS[name]()), (f"scale_by_{name}", SCALE_BY[name]())):
        with pytest.raises(TypeError, match=f"^{given} {said}"):
            optimizer.update(x, optimizer.init(x), x, value_fn=plain)


@pytest.mark.slow
def test_weights_by_call_compile_nothing_anew():
    """The weighted mean of three data."""
    data = jnp.array([1.0, 2.0, 6.0])
    loss = hesskit.least_squares_loss(lambda p: {"a": p - data[:2], "b": p - data[2:]})
    cases = [({"a": jnp.full((), w), "b": jnp.ones(())}, m) for w, m in ((1, 3), (4, 2), (0, 6))]
    optimizer, counted = hesskit.gauss_newton(), None
    for weights, mean in cases:
        args = {"residual_weights": weights}
        result = hesskit.minimize(loss, jnp.zeros(()), optimizer, args=args)
        np.testing.assert_allclose(result.params, mean, rtol=1e-6)
        counted = compilations() if counted is None else counted
    assert counted == []

    @jax.jit
    def step(x, weights):
        grad = jax.grad(loss)(x, residual_weights=weights)
        given = {"value_fn": loss, "residual_weights": weights}
        return x + optimizer.update(grad, optimizer.init(x), x, **given)[0]

    for weights, mean in cases:
        np.testing.assert_allclose(step(jnp.zeros(()), weights), mean, rtol=1e-6)
    assert step._cache_size() == 1
