"""Steihaug's method against a plain float64 reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg.steihaug import steihaug
from tests.linalg.reference import (
    REGIONS,
    N,
    as_product,
    as_tree,
    as_vector,
    check_lanes,
    counting,
    finite,
    model,
    num_places,
    poisoned,
    problem,
    spd,
    stacked,
    steihaug_of,
)


def reference(h, g, radius, *, tol, max_products, inverse=None):
    """Nocedal & Wright, Algorithm 7.2, in the norm of M, as written."""
    inverse = np.eye(N) if inverse is None else inverse
    m = np.linalg.inv(inverse)
    s, r = np.zeros(N), g.copy()
    d = -inverse @ r
    for num_products in range(1, max_products + 1):
        curvature, rz = d @ h @ d, r @ inverse @ r
        ahead = s + rz / curvature * d
        if curvature <= 0 or ahead @ m @ ahead >= radius**2:
            a, b, c = d @ m @ d, 2 * s @ m @ d, s @ m @ s - radius**2
            return s + (-b + np.sqrt(b * b - 4 * a * c)) / (2 * a) * d, num_products
        s, r = ahead, r + rz / curvature * h @ d
        if np.sqrt(r @ inverse @ r) <= tol:
            break
        d = -inverse @ r + (r @ inverse @ r) / rz * d
    return s, num_products


@pytest.mark.parametrize(("seed", "indefinite", "radius", "preconditioned"), REGIONS)
def test_equals_the_reference(seed, indefinite, radius, preconditioned, dtype):
    h, g = problem(seed, indefinite=indefinite)
    inverse = spd(seed) if preconditioned else None
    expected, num_products = reference(h, g, radius, tol=1e-3, max_products=30, inverse=inverse)
    result = steihaug_of(
        jnp.asarray(h, dtype),
        as_tree(g, dtype),
        radius,
        1e-3,
        30,
        inverse=jnp.asarray(inverse, dtype) if preconditioned else None,
    )
    s = as_vector(result.step)
    rtol = 1e-9 if dtype == jnp.float64 else 2e-4
    np.testing.assert_allclose(s, expected, rtol=rtol, atol=rtol * np.abs(expected).max())
    # Rounding delays CG: by no product in float64, by a few in float32.
    assert 0 <= result.num_products - num_products <= (0 if dtype == jnp.float64 else 3)
    metric = np.linalg.inv(inverse) if preconditioned else np.eye(N)
    np.testing.assert_allclose(result.step_norm, np.sqrt(s @ metric @ s), rtol=rtol)
    np.testing.assert_allclose(as_vector(result.hessian_step), h @ s, rtol=rtol, atol=10 * rtol)
    np.testing.assert_allclose(result.predicted, -model(h, g, s), rtol=10 * rtol)
    d = as_vector(result.direction)
    np.testing.assert_allclose(d @ metric @ d, 1, rtol=rtol)
    np.testing.assert_allclose(result.curvature, d @ h @ d, rtol=rtol, atol=rtol)
    assert result.negative_curvature == (d @ h @ d <= 0)
    assert g @ d < 0 or dtype == jnp.float32
    first = as_vector(result.first_direction)
    cauchy = -(inverse @ g if preconditioned else g)
    cauchy /= np.sqrt(cauchy @ metric @ cauchy)
    np.testing.assert_allclose(first, cauchy, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(as_vector(result.first_product), h @ first, rtol=rtol, atol=rtol)
    if result.on_boundary:
        np.testing.assert_allclose(result.step_norm, radius, rtol=rtol)
    else:
        assert result.residual_norm <= 1e-3
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(result.step))
    assert result.predicted.dtype == dtype


@pytest.mark.parametrize("seed", range(4))
def test_model_falls_and_step_grows_with_products(seed, float64):
    h, g = problem(seed, indefinite=seed % 2 == 1)
    matrix, gradient = jnp.asarray(h), as_tree(g, jnp.float64)
    results = [steihaug_of(matrix, gradient, 2.0, 0.0, k) for k in range(N + 1)]
    assert [int(r.num_products) for r in results[:2]] == [0, 1]
    values = np.array([float(r.predicted) for r in results])
    norms = np.array([float(r.step_norm) for r in results])
    assert np.all(np.diff(values) >= -1e-12)
    assert np.all(np.diff(norms) >= -1e-12)
    assert np.all(norms <= 2.0 * (1 + 1e-14))
    curvature = g @ h @ g
    fits = curvature > 0 and (g @ g) ** 1.5 / curvature < 2.0
    cauchy = -((g @ g) / curvature if fits else 2.0 / np.linalg.norm(g)) * g
    np.testing.assert_allclose(values[1], -model(h, g, cauchy), rtol=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_scale_is_a_change_of_variables(seed, float64):
    h, g = problem(seed, indefinite=seed == 1)
    d = np.exp(np.random.default_rng(seed).normal(size=N))
    inverse = jnp.asarray(spd(seed))
    h_z, g_z = h / d[:, None] / d[None, :], g / d
    arguments = (1.5, 1e-8, 20)
    z = steihaug_of(jnp.asarray(h_z), as_tree(g_z, jnp.float64), *arguments, inverse=inverse)
    s = steihaug_of(
        jnp.asarray(h),
        as_tree(g, jnp.float64),
        *arguments,
        inverse=inverse,
        scale=as_tree(d, jnp.float64),
    )
    np.testing.assert_allclose(as_vector(s.step) * d, as_vector(z.step), rtol=1e-10)
    np.testing.assert_allclose(as_vector(s.hessian_step), h @ as_vector(s.step), atol=1e-12)
    np.testing.assert_allclose(as_vector(s.first_product), h @ as_vector(s.first_direction))
    for field in ("predicted", "step_norm", "residual_norm", "curvature"):
        np.testing.assert_allclose(getattr(s, field), getattr(z, field), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(s.cosine, z.cosine, rtol=1e-10)
    direction = as_vector(s.direction)
    np.testing.assert_allclose(s.curvature, direction @ h @ direction, rtol=1e-10)


def test_infinite_radius_returns_the_newton_step(dtype):
    h, g = problem(0)
    result = steihaug_of(jnp.asarray(h, dtype), as_tree(g, dtype), jnp.inf, 1e-5, 30)
    np.testing.assert_allclose(as_vector(result.step), -np.linalg.solve(h, g), rtol=1e-3)
    assert not result.on_boundary
    assert not result.negative_curvature


def test_infinite_radius_and_negative_curvature():
    h = -np.eye(N)
    g = np.arange(1.0, N + 1)
    first = steihaug_of(jnp.asarray(h, jnp.float32), as_tree(g), jnp.inf, 0.0, 5)
    assert first.negative_curvature
    assert not first.on_boundary
    np.testing.assert_array_equal(as_vector(first.step), -g)
    np.testing.assert_array_equal(as_vector(first.hessian_step), g)
    np.testing.assert_allclose(first.curvature, -1, rtol=1e-6)

    h, g = np.diag([1.0, -0.1] + [0.0] * 7), np.array([1.0, 0.1] + [0.0] * 7)
    arguments = (jnp.asarray(h, jnp.float32), as_tree(g), jnp.inf, 0.0)
    one, later = steihaug_of(*arguments, 1), steihaug_of(*arguments, 5)
    assert not one.negative_curvature
    assert later.negative_curvature
    assert later.num_products == 2
    np.testing.assert_array_equal(as_vector(later.step), as_vector(one.step))


def test_stops_at_the_tolerance_and_at_max_products():
    h, g = problem(3)
    run = functools.partial(steihaug_of, jnp.asarray(h, jnp.float32), as_tree(g), 100.0)
    loose, tight = run(0.3, 30), run(1e-3, 30)
    assert loose.num_products < tight.num_products
    assert loose.residual_norm <= 0.3
    residual = g + h @ as_vector(loose.step)
    np.testing.assert_allclose(loose.residual_norm, np.linalg.norm(residual), rtol=1e-4)
    assert run(0.0, 4).num_products == 4
    solved = run(1e9, 30)
    assert solved.num_products == 0
    assert np.all(as_vector(solved.step) == 0)


def test_not_needed_costs_no_products():
    h, g = problem(0)
    calls = []
    run = jax.jit(
        lambda needed: steihaug(
            counting(calls, jnp.asarray(h, jnp.float32)),
            as_tree(g),
            100.0,
            tol=0.0,
            max_products=3,
            needed=needed,
        )
    )
    idle = jax.block_until_ready(run(False))
    jax.effects_barrier()
    assert calls == []
    assert idle.num_products == 0
    assert all(np.all(as_vector(x) == 0) for x in (idle.step, idle.hessian_step))
    assert finite(idle)
    busy = jax.block_until_ready(run(True))
    jax.effects_barrier()
    assert len(calls) == busy.num_products == 3


def test_product_is_called_at_one_place():
    def run(product, g):
        return steihaug(product, g, 1.0, tol=0.0, max_products=9, precondition=lambda v: v)

    assert num_places(run, jnp.ones(3)) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 2])
def test_a_product_that_is_not_finite_ends_at_the_last_finite_iterate(at, bad):
    h, g = problem(2)
    matrix = jnp.asarray(h, jnp.float32)

    def run(product, max_products):
        with jax.disable_jit():
            return steihaug(product, as_tree(g), 50.0, tol=0.0, max_products=max_products)

    result, expected = run(poisoned(matrix, at, bad), 9), run(as_product(matrix), at)
    assert result.num_products == at + 1
    np.testing.assert_array_equal(as_vector(result.step), as_vector(expected.step))
    assert finite(result)
    assert not result.negative_curvature
    assert not result.on_boundary


def test_bad_input_gives_a_zero_step():
    h, g = problem(2)

    def run(gradient, radius):
        return steihaug_of(jnp.asarray(h, jnp.float32), gradient, radius, 0.0, 9)

    nan = g.copy()
    nan[3] = np.nan
    for result in (run(as_tree(nan), 1.0), run(as_tree(g), jnp.nan), run(as_tree(0 * g), 1.0)):
        assert np.all(as_vector(result.step) == 0)
        assert finite(result.hessian_step)
        assert result.predicted == 0
    nothing = run(as_tree(g), 0.0)
    assert np.all(as_vector(nothing.step) == 0)


@pytest.mark.slow
def test_lanes_equal_one_by_one(float64):
    problems = [problem(seed, indefinite=seed % 2 == 1) for seed in range(6)]
    h, g = stacked(problems)
    radius = jnp.array([0.1, 1.0, 3.0, 10.0, 30.0, 100.0])
    needed = jnp.array([True, True, True, False, True, True])

    def run(h, g, radius, needed):
        return steihaug_of(h, g, radius, 1e-6, 20, needed=needed)

    together = check_lanes(run, h, g, radius, needed, rtol=1e-7, atol=1e-11)
    assert len(set(np.asarray(together.num_products).tolist())) > 2


@pytest.mark.parametrize(
    ("force", "length"), [(1e-20, 1e-8), (1e-25, 1e8), (1e20, 1e-5), (1e-12, 1e-15)]
)
def test_units_do_not_matter_in_float32(force, length):
    h, g = problem(1)

    def run(force, length):
        matrix = jnp.asarray(h * (force / length), jnp.float32)
        return steihaug_of(matrix, as_tree(g * force), 0.6 * length, 1e-4 * force, 9)

    plain, scaled = run(1.0, 1.0), run(force, length)
    assert plain.num_products == scaled.num_products > 1
    assert plain.on_boundary
    assert scaled.on_boundary
    np.testing.assert_allclose(as_vector(scaled.step) / length, as_vector(plain.step), rtol=1e-3)
    np.testing.assert_allclose(scaled.predicted / force / length, plain.predicted, rtol=1e-4)


@pytest.mark.parametrize("other", [jnp.float32, jnp.bfloat16])
def test_bfloat16_leaves(other):
    h, g = problem(4)
    gradient = as_tree(g, jnp.bfloat16, other)
    result = steihaug_of(jnp.asarray(h, jnp.float32), gradient, 1.0, 1e-3, 20)
    assert jax.tree.map(jnp.result_type, result.step) == jax.tree.map(jnp.result_type, gradient)
    assert result.step_norm.dtype == jnp.float32
    expected, _ = reference(h, as_vector(gradient), 1.0, tol=1e-3, max_products=20)
    s = as_vector(result.step)
    np.testing.assert_allclose(s, expected, atol=0.03)
    np.testing.assert_allclose(result.predicted, -model(h, g, s), rtol=0.03)


def test_sharded_leaves_stay_sharded():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    diagonal = jax.device_put(jnp.linspace(1.0, 2.0, 64), rows)
    g = jax.device_put(jnp.ones(64), rows)
    run = jax.jit(lambda d, g: steihaug(lambda v: d * v, g, 0.5, tol=0.0, max_products=5)).lower(
        diagonal, g
    )
    compiled = run.compile()
    assert "all-gather" not in compiled.as_text()
    assert compiled(diagonal, g).step.sharding.is_equivalent_to(rows, 1)
