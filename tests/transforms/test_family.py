"""What every method of the Newton family owes, whatever its step."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from hesskit.core.acceptance import rounding_floor
from hesskit.core.status import Status
from tests.marks import slow_but
from tests.transforms.runs import FUNCTIONS, METHODS, NUM_STEPS, trace

LEAVING = [name for name in METHODS if name != "newton plain"]
STARTS = {
    "rosenbrock": [[-1.2, 1.0, 1.0, 0.5], [0.5, -3.0, 0.0, 2.0], [0.0, 1.0, 0.0, 0.0]],
    "beale": [[1.0, 1.0, 1.0, -1.0], [0.0, 2.0, 0.0, 0.0], [-2.0, -1.0, 0.1, 0.1]],
    "wood": [[-3.0, -1.0, -3.0, -1.0], [0.0, 0.0, 0.0, 0.0]],
}
SCALED = {
    "newton": (hesskit.newton, hesskit.scale_by_newton, {}),
    "newton cholesky": (
        hesskit.newton,
        hesskit.scale_by_newton,
        {"modification": "cholesky"},
    ),
    "damped_newton": (hesskit.damped_newton, hesskit.scale_by_damped_newton, {}),
    "saddle_free_newton": (hesskit.saddle_free_newton, hesskit.scale_by_saddle_free_newton, {}),
    "saddle_free_newton krylov": (
        hesskit.saddle_free_newton,
        hesskit.scale_by_saddle_free_newton,
        {"num_krylov": 2},
    ),
    "cubic_newton": (hesskit.cubic_newton, hesskit.scale_by_cubic_newton, {}),
    "trust_region": (hesskit.trust_region, hesskit.scale_by_trust_region, {"radius": 0.5}),
    "newton_cg": (hesskit.newton_cg, hesskit.scale_by_newton_cg, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_never_an_increase_and_a_rejected_step_is_exactly_nothing(method, dtype):
    eps = float(jnp.finfo(dtype).eps)
    num_rejected = 0
    for problem, starts in STARTS.items():
        for start in starts:
            rows = trace(method, problem, start, dtype)
            value, best = rows.value, np.minimum.accumulate(rows.value)
            floor = rounding_floor(best[:-1], best[:-1], eps)
            assert np.all(value[1:] <= best[:-1] + floor), (problem, start)
            rejected = ~rows.info.accepted
            num_rejected += np.sum(rejected)
            assert np.all(rows.updates[rejected] == 0)
            same = rejected[:-1]
            assert np.all(rows.x[1:][same] == rows.x[:-1][same])
            assert np.all(rows.info.step_norm[rejected] == 0)
            assert value[-1] < value[0]
    assert num_rejected > 0  # the path under test was taken


@pytest.mark.parametrize("method", slow_but(METHODS, "newton", "trust_region", "newton_cg"))
def test_a_rejected_update_spends_no_products(method, float64):
    rows = trace(method, "rosenbrock", STARTS["rosenbrock"][0], "float64")
    after = np.flatnonzero(~rows.info.accepted & (rows.info.status == 0)) + 1
    after = after[after < NUM_STEPS]
    assert after.size > 0
    assert np.all(rows.info.num_products[after] == 0)
    assert np.all(rows.info.num_values[after] == 1)
    assert rows.info.num_products[0] > 0


@pytest.mark.parametrize("method", LEAVING)
@pytest.mark.parametrize(
    "start",
    [
        [0.0] * 4,
        [0.0, 1.0, 1.0, 1.0],
        pytest.param([0.0, 1.0, 0.3, 1.0], marks=pytest.mark.slow),
        pytest.param([1e-6, 1.0, 1.0, 1.0], marks=pytest.mark.slow),
    ],
    ids=["maximum", "saddle", "valley into a saddle", "beside a saddle"],
)
def test_leaves_saddles_and_maxima(method, start, dtype):
    rows = trace(method, "wells", start, dtype)
    np.testing.assert_allclose(
        np.abs(rows.x[-1]), 1.0, atol=20 * float(jnp.finfo(dtype).eps) ** 0.5
    )
    assert np.any(rows.info.status == Status.GRADIENT_TOL)
    assert not np.any(rows.info.status == Status.SADDLE)


@pytest.mark.slow
def test_minimize_leaves_the_saddles_of_the_wells(float64):
    """The docstring examples of the others start at the maximum."""
    fn = lambda p: p[0] ** 4 + p[1] ** 4 - 2 * p[0] ** 2 - 2 * p[1] ** 2 + 1
    for start in ([0.0, 0.0], [0.0, 1.0]):
        result = hesskit.minimize(fn, jnp.array(start), hesskit.newton_cg())
        assert result.status == Status.GRADIENT_TOL
        np.testing.assert_allclose(result.value, -1.0)


@pytest.mark.parametrize("method", METHODS)
def test_converges_fast(method, float64):
    """Errors e fall like e^2; like e^1.5 where products are truncated (Eisenstat & Walker)."""
    truncated = method in ("newton_cg", "saddle_free_newton krylov")
    order = 1.5 if truncated else 2.0
    runs = {"convex": [1.0, -1.0, 2.0, 0.5], "wood": [1.2, 0.9, 1.1, 0.8]}
    for problem, start in list(runs.items())[: 1 if truncated else 2]:
        rows = trace(method, problem, start, "float64")
        kept = np.concatenate([[True], rows.info.accepted[:-1]])
        errors = np.linalg.norm(rows.x[kept] - rows.x[-1], axis=1)
        before, after = errors[:-1], errors[1:]
        pairs = (before < 0.1) & (after > 1e-14)
        assert np.sum(pairs) >= 2
        assert np.all(after[pairs] <= 30 * before[pairs] ** order), errors


@pytest.mark.parametrize("method", METHODS)
def test_minimizes_a_quadratic_in_few_steps(method, float64):
    """One where the first size does not hold the step back; the rest within the stated number."""
    few = {"damped_newton": 3, "saddle_free_newton": 3, "saddle_free_newton krylov": 6}
    few |= {"cubic_newton": 9, "newton_cg": 4, "trust_region": 3}
    rows = trace(method, "quadratic", [40.0, -30.0, 7.0, 200.0], "float64")
    steps = few.get(method, 1)
    np.testing.assert_allclose(rows.x[steps], 1.0, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_a_region_of_nan_is_only_a_rejection(method, dtype):
    rows = trace(method, "barrier", [0.0, 0.5, -0.5, 0.9], dtype)
    assert np.all(np.isfinite(rows.value))
    assert np.all(np.isfinite(rows.updates))
    assert not rows.info.accepted[0]
    assert rows.value[-1] < 0.5 * rows.value[0]
    if method != "newton_cg":  # on its way: after each rejection it rides the wall
        assert np.linalg.norm(rows.grad[-1]) <= 1e-2
        assert np.any(rows.info.status != 0)  # it says that it is done


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_any_pytree_keeps_its_dtypes(method):
    params = {"a": jnp.asarray(2.0, jnp.float32), "b": [jnp.ones((2, 2), jnp.bfloat16)], "c": None}

    def fn(p):
        b = p["b"][0].astype(jnp.float32)
        return (p["a"] ** 2 - 1) ** 2 + jnp.sum((b - 3) ** 2) + p["a"] * jnp.sum(b) / 8

    optimizer = METHODS[method]()

    @jax.jit
    def step(params, state):
        value, grad = jax.value_and_grad(fn)(params)
        updates, state = optimizer.update(grad, state, params, value=value, value_fn=fn)
        return optax.apply_updates(params, updates), state, value

    state, values = optimizer.init(params), []
    new = params
    for _ in range(15):
        new, after, value = step(new, state)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        state = after
        values.append(float(value))
    assert jax.tree.map(lambda x: x.dtype, new) == jax.tree.map(lambda x: x.dtype, params)
    floors = [float(rounding_floor(a, a, 1.2e-7)) for a in values]
    assert all(b <= a + f for (a, b), f in zip(itertools.pairwise(values), floors, strict=False))
    assert values[-1] < 0.2 * values[0]
    assert step._cache_size() == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SCALED)
def test_learning_rate_form_is_a_chain_of_the_scaled_one(name, float64):
    factory, scale_by, options = SCALED[name]
    fn = lambda x: jnp.sum(x**4) + jnp.prod(x) - x[0]
    whole = factory(learning_rate=0.5, **options)
    chain = optax.chain(scale_by(**options), optax.scale_by_learning_rate(0.5))

    @jax.jit
    def run(x):
        a = b = x
        of_a, of_b = whole.init(x), chain.init(x)
        for _ in range(2):
            updates, of_a = whole.update(jax.grad(fn)(a), of_a, a, value_fn=fn)
            a = a + updates
            updates, of_b = chain.update(jax.grad(fn)(b), of_b, b, value_fn=fn)
            b = b + updates
        return a, b

    a, b = run(jnp.array([1.0, 0.3]))
    np.testing.assert_array_equal(a, b)
    assert np.all(a != jnp.array([1.0, 0.3]))


@pytest.mark.slow
@pytest.mark.parametrize("option", ["damping", "sigma", "radius"])
def test_sizes_are_floats_arrays_schedules_or_injected(option):
    factory = {
        "damping": hesskit.damped_newton,
        "sigma": hesskit.cubic_newton,
        "radius": hesskit.trust_region,
    }[option]
    fn = lambda x: jnp.sum((x - 3.0) ** 2) / 2 + jnp.sum(jnp.cos(x))
    x = jnp.array([1.0, 2.0])

    def first(optimizer, **more):
        state = optimizer.init(x)
        return jax.jit(
            lambda x, state: optimizer.update(jax.grad(fn)(x), state, x, value_fn=fn, **more)[0]
        )(x, state)

    with jax.numpy_dtype_promotion("standard"):  # inject_hyperparams is optax's code
        injected = optax.inject_hyperparams(factory)(learning_rate=1.0, **{option: 0.7})
        expected = first(injected)
    for size in (0.7, jnp.float32(0.7), lambda count: 0.7 + 0 * count.astype(jnp.float32)):
        np.testing.assert_allclose(first(factory(1.0, **{option: size})), expected, rtol=1e-6)
    for bad, error in ((-1.0, ValueError), (jnp.nan, ValueError), ("big", TypeError)):
        with pytest.raises(error, match=option):
            factory(**{option: bad})


def test_the_problems_are_what_they_are_said_to_be():
    assert FUNCTIONS["wells"](jnp.zeros(4)) == 1.0
    assert jnp.isnan(FUNCTIONS["barrier"](jnp.full(4, 2.0)))
