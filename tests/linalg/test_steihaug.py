"""Steihaug's method against a plain float64 reference, and the plane against brute force."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import tree
from hesskit.linalg.steihaug import steihaug
from hesskit.linalg.subspace import subspace_step

N = 9
MARKER = "bessel_i1e"


def as_tree(x, dtype=jnp.float32, other=None):
    """A vector of R^9 as a pytree with a () leaf; `other` is the dtype of one leaf."""
    x = jnp.asarray(x)
    leaves = {"w": x[:6].reshape(3, 2), "b": x[6], "c": x[7:]}
    dtypes = {"w": dtype, "b": dtype, "c": other or dtype}
    return {name: leaf.astype(dtypes[name]) for name, leaf in leaves.items()}


def as_vector(x):
    """The pytree as numpy float64."""
    return np.concatenate([np.ravel(np.asarray(x[k], np.float64)) for k in ("w", "b", "c")])


def as_product(matrix, like=None):
    """v -> H v on the pytrees of `as_tree`."""

    def product(v):
        flat = jnp.concatenate([v["w"].reshape(-1), v["b"][None], v["c"]], dtype=matrix.dtype)
        return tree.cast_like(as_tree(matrix @ flat, matrix.dtype), v if like is None else like)

    return product


@jax.jit
def solve(matrix, gradient, radius, tol, max_products, *, inverse=None, scale=None, needed=True):
    """One compiled program for every case of one dtype."""
    return steihaug(
        as_product(matrix),
        gradient,
        radius,
        tol=tol,
        max_products=max_products,
        precondition=None if inverse is None else as_product(inverse),
        scale=scale,
        needed=needed,
    )


plane = jax.jit(subspace_step)


def problem(seed, *, indefinite=False):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(N, N))
    h = (a + a.T) / 2 if indefinite else a @ a.T / 3 + np.eye(N)
    return h, rng.normal(size=N)


def spd(seed):
    b = np.random.default_rng(100 + seed).normal(size=(N, N))
    return b @ b.T / 3 + np.eye(N)


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


def model(h, g, s):
    return g @ s + s @ h @ s / 2


CASES = [
    pytest.param(seed, indefinite, radius, preconditioned, id=f"{seed}-{radius}")
    for seed, (indefinite, radius, preconditioned) in enumerate(
        [
            (False, 0.3, False),
            (False, 1.0, True),
            (False, 50.0, False),
            (False, 50.0, True),
            (True, 0.3, False),
            (True, 2.0, False),
            (True, 2.0, True),
            (True, 50.0, True),
        ]
    )
]


@pytest.mark.parametrize(("seed", "indefinite", "radius", "preconditioned"), CASES)
def test_equals_the_reference(seed, indefinite, radius, preconditioned, dtype):
    h, g = problem(seed, indefinite=indefinite)
    inverse = spd(seed) if preconditioned else None
    expected, num_products = reference(h, g, radius, tol=1e-3, max_products=30, inverse=inverse)
    result = solve(
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
    results = [solve(matrix, gradient, 2.0, 0.0, k) for k in range(N + 1)]
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
    z = solve(jnp.asarray(h_z), as_tree(g_z, jnp.float64), *arguments, inverse=inverse)
    s = solve(
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
    np.testing.assert_allclose(s.metric, z.metric, rtol=1e-10)
    direction = as_vector(s.direction)
    np.testing.assert_allclose(s.curvature, direction @ h @ direction, rtol=1e-10)


def test_infinite_radius_returns_the_newton_step(dtype):
    h, g = problem(0)
    result = solve(jnp.asarray(h, dtype), as_tree(g, dtype), jnp.inf, 1e-5, 30)
    np.testing.assert_allclose(as_vector(result.step), -np.linalg.solve(h, g), rtol=1e-3)
    assert not result.on_boundary
    assert not result.negative_curvature


def test_infinite_radius_and_negative_curvature():
    h = -np.eye(N)
    g = np.arange(1.0, N + 1)
    first = solve(jnp.asarray(h, jnp.float32), as_tree(g), jnp.inf, 0.0, 5)
    assert first.negative_curvature
    assert not first.on_boundary
    np.testing.assert_array_equal(as_vector(first.step), -g)
    np.testing.assert_array_equal(as_vector(first.hessian_step), g)
    np.testing.assert_allclose(first.curvature, -1, rtol=1e-6)

    h, g = np.diag([1.0, -0.1] + [0.0] * 7), np.array([1.0, 0.1] + [0.0] * 7)
    arguments = (jnp.asarray(h, jnp.float32), as_tree(g), jnp.inf, 0.0)
    one, later = solve(*arguments, 1), solve(*arguments, 5)
    assert not one.negative_curvature
    assert later.negative_curvature
    assert later.num_products == 2
    np.testing.assert_array_equal(as_vector(later.step), as_vector(one.step))


def test_stops_at_the_tolerance_and_at_max_products():
    h, g = problem(3)
    run = functools.partial(solve, jnp.asarray(h, jnp.float32), as_tree(g), 100.0)
    loose, tight = run(0.3, 30), run(1e-3, 30)
    assert loose.num_products < tight.num_products
    assert loose.residual_norm <= 0.3
    residual = g + h @ as_vector(loose.step)
    np.testing.assert_allclose(loose.residual_norm, np.linalg.norm(residual), rtol=1e-4)
    assert run(0.0, 4).num_products == 4
    solved = run(1e9, 30)
    assert solved.num_products == 0
    assert np.all(as_vector(solved.step) == 0)


def counting(calls, matrix):
    """A product that counts how often it runs."""

    def product(v):
        jax.debug.callback(lambda: calls.append(1))
        return as_product(matrix)(v)

    return product


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
    assert all(bool(tree.all_finite(leaf)) for leaf in jax.tree.leaves(idle))
    busy = jax.block_until_ready(run(True))
    jax.effects_barrier()
    assert len(calls) == busy.num_products == 3


def test_product_is_called_at_one_place():
    def product(v):
        return jax.tree.map(jax.lax.bessel_i1e, v)

    jaxpr = jax.make_jaxpr(
        lambda g: steihaug(product, g, 1.0, tol=0.0, max_products=9, precondition=lambda v: v)
    )(jnp.ones(3))
    assert str(jaxpr).count(MARKER) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 2])
def test_a_product_that_is_not_finite_ends_at_the_last_finite_iterate(at, bad):
    h, g = problem(2)

    def run(poisoned):
        count = iter(range(100))

        def product(v):
            hv = as_product(jnp.asarray(h, jnp.float32))(v)
            return tree.scale(bad, hv) if poisoned and next(count) == at else hv

        with jax.disable_jit():
            return steihaug(product, as_tree(g), 50.0, tol=0.0, max_products=9 if poisoned else at)

    result, expected = run(True), run(False)
    assert result.num_products == at + 1
    np.testing.assert_array_equal(as_vector(result.step), as_vector(expected.step))
    assert all(bool(tree.all_finite(leaf)) for leaf in jax.tree.leaves(result))
    assert not result.negative_curvature
    assert not result.on_boundary


def test_bad_input_gives_a_zero_step():
    h, g = problem(2)

    def run(gradient, radius):
        return solve(jnp.asarray(h, jnp.float32), gradient, radius, 0.0, 9)

    poisoned = g.copy()
    poisoned[3] = np.nan
    for result in (run(as_tree(poisoned), 1.0), run(as_tree(g), jnp.nan), run(as_tree(0 * g), 1.0)):
        assert np.all(as_vector(result.step) == 0)
        assert all(bool(tree.all_finite(leaf)) for leaf in jax.tree.leaves(result.hessian_step))
        assert result.predicted == 0
    nothing = run(as_tree(g), 0.0)
    assert np.all(as_vector(nothing.step) == 0)


def test_lanes_equal_one_by_one(float64):
    problems = [problem(seed, indefinite=seed % 2 == 1) for seed in range(6)]
    h = jnp.asarray(np.stack([h for h, _ in problems]))
    g = jax.vmap(lambda x: as_tree(x, jnp.float64))(jnp.asarray(np.stack([g for _, g in problems])))
    radius = jnp.array([0.1, 1.0, 3.0, 10.0, 30.0, 100.0])
    needed = jnp.array([True, True, True, False, True, True])

    def run(h, g, radius, needed):
        return solve(h, g, radius, 1e-6, 20, needed=needed)

    together = jax.vmap(run)(h, g, radius, needed)
    for i in range(6):
        alone = run(h[i], jax.tree.map(lambda a, i=i: a[i], g), radius[i], needed[i])
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-7, atol=1e-11)
    assert len(set(np.asarray(together.num_products).tolist())) > 2


@pytest.mark.parametrize(
    ("force", "length"), [(1e-20, 1e-8), (1e-25, 1e8), (1e20, 1e-5), (1e-12, 1e-15)]
)
def test_units_do_not_matter_in_float32(force, length):
    h, g = problem(1)

    def run(force, length):
        matrix = jnp.asarray(h * (force / length), jnp.float32)
        return solve(matrix, as_tree(g * force), 0.6 * length, 1e-4 * force, 9)

    plain, scaled = run(1.0, 1.0), run(force, length)
    assert plain.num_products == scaled.num_products > 1
    assert plain.on_boundary
    assert scaled.on_boundary
    np.testing.assert_allclose(as_vector(scaled.step) / length, as_vector(plain.step), rtol=1e-3)
    np.testing.assert_allclose(scaled.predicted / force / length, plain.predicted, rtol=1e-4)

    def shorter(result, force, length):
        u, v = result.step, result.first_direction
        pairs = ((u, result.hessian_step), (v, result.first_product))
        return plane(as_tree(g * force), 0.3 * length, pairs, metric=result.metric)

    plain, scaled = shorter(plain, 1.0, 1.0), shorter(scaled, force, length)
    np.testing.assert_allclose(as_vector(scaled.step) / length, as_vector(plain.step), rtol=1e-3)
    np.testing.assert_allclose(scaled.step_norm / length, plain.step_norm, rtol=1e-5)


@pytest.mark.parametrize("other", [jnp.float32, jnp.bfloat16])
def test_bfloat16_leaves(other):
    h, g = problem(4)
    gradient = as_tree(g, jnp.bfloat16, other)
    result = solve(jnp.asarray(h, jnp.float32), gradient, 1.0, 1e-3, 20)
    assert jax.tree.map(jnp.result_type, result.step) == jax.tree.map(jnp.result_type, gradient)
    assert result.step_norm.dtype == jnp.float32
    expected, _ = reference(h, as_vector(gradient), 1.0, tol=1e-3, max_products=20)
    s = as_vector(result.step)
    np.testing.assert_allclose(s, expected, atol=0.03)
    np.testing.assert_allclose(result.predicted, -model(h, g, s), rtol=0.03)
    (u, hu), (v, hv) = (
        (result.step, result.hessian_step),
        (result.first_direction, result.first_product),
    )
    sub = plane(gradient, 0.5, ((u, hu), (v, hv)), metric=result.metric)
    assert jax.tree.map(jnp.result_type, sub.step) == jax.tree.map(jnp.result_type, gradient)
    assert sub.predicted > 0


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


# The plane.


def brute_force(h, g, radius, u, v, metric):
    """The least model value over a fine grid of the disk in span{u, v}."""
    root = np.linalg.cholesky(metric)
    q, _ = np.linalg.qr(root.T @ np.stack([u, v], axis=1))
    basis = np.linalg.solve(root.T, q)
    angle, length = np.meshgrid(np.linspace(0, 2 * np.pi, 721), np.linspace(0, radius, 101))
    y = np.stack([length * np.cos(angle), length * np.sin(angle)]).reshape(2, -1)
    s = basis @ y
    return np.min(g @ s + np.sum(s * (h @ s), axis=0) / 2)


@pytest.mark.parametrize(("seed", "indefinite", "radius", "preconditioned"), CASES)
def test_shorter_radius_costs_no_products(seed, indefinite, radius, preconditioned, float64):
    h, g = problem(seed, indefinite=indefinite)
    inverse = spd(seed) if preconditioned else np.eye(N)
    gradient = as_tree(g, jnp.float64)
    run = functools.partial(solve, jnp.asarray(h), gradient, inverse=jnp.asarray(inverse))
    full = run(radius, 1e-8, 30)
    metric = np.linalg.inv(inverse)
    pairs = ((full.step, full.hessian_step), (full.first_direction, full.first_product))
    u, v = as_vector(full.step), as_vector(full.first_direction)
    parallel = abs(full.metric.cosine) > 1 - 1e-8
    for shorter in (0.5 * radius, 0.05 * radius):
        answer = plane(gradient, shorter, pairs, metric=full.metric)
        s = as_vector(answer.step)
        np.testing.assert_allclose(answer.step_norm, np.sqrt(s @ metric @ s), rtol=1e-8)
        assert answer.step_norm <= shorter * (1 + 1e-12)
        np.testing.assert_allclose(as_vector(answer.hessian_step), h @ s, atol=1e-10)
        np.testing.assert_allclose(answer.predicted, -model(h, g, s), rtol=1e-9)
        cauchy = run(shorter, 0.0, 1)
        assert answer.predicted >= cauchy.predicted * (1 - 1e-12)
        if not parallel:
            least = brute_force(h, g, shorter, u, v, metric)
            assert -answer.predicted <= least + 1e-12
            assert -answer.predicted >= least - 1e-3 * abs(least)


def test_plane_measures_in_scale():
    h, g = problem(5, indefinite=True)
    d = np.linspace(0.5, 3, N)
    u, v = np.random.default_rng(5).normal(size=(2, N))
    pairs = tuple((as_tree(x), as_tree(h @ x)) for x in (u, v))
    answer = plane(as_tree(g), 0.7, pairs, scale=as_tree(d))
    s = as_vector(answer.step)
    np.testing.assert_allclose(np.linalg.norm(d * s), 0.7, rtol=1e-5)
    np.testing.assert_allclose(answer.step_norm, 0.7, rtol=1e-5)
    least = brute_force(h, g, 0.7, u, v, np.diag(d**2))
    np.testing.assert_allclose(-answer.predicted, least, rtol=1e-3)


def test_plane_in_the_hard_case(dtype):
    h = jnp.diag(jnp.array([-1.0, 2.0, 1.0], dtype))
    g = jnp.array([0.0, 1.0, 0.0], dtype)
    u, v = jnp.array([1.0, 1.0, 0.0], dtype), -g
    answer = plane(g, 2.0, ((u, h @ u), (v, h @ v)))
    # s_2 = -1 / (2 + 1), the rest along the first axis.
    expected = [np.sqrt(4 - 1 / 9), -1 / 3]
    np.testing.assert_allclose(np.abs(answer.step[:2]), np.abs(expected), rtol=1e-5)
    np.testing.assert_allclose(answer.predicted, 1 / 3 * 0.5 + 0.5 * 4, rtol=1e-5)
    assert answer.on_boundary


@pytest.mark.parametrize("factor", [0.0, 1.0, -3.0, 1 + 1e-7])
def test_plane_that_is_a_line(factor):
    h, g = problem(6)
    v = -g
    u = factor * v
    pairs = ((as_tree(u), as_tree(h @ u)), (as_tree(v), as_tree(h @ v)))
    for radius in (0.01, 100.0):
        for order in (pairs, pairs[::-1]):
            answer = plane(as_tree(g), radius, order)
            length = min((g @ g) / (g @ h @ g), radius / np.linalg.norm(g))
            np.testing.assert_allclose(as_vector(answer.step), -length * g, rtol=1e-4)


def test_plane_that_is_a_point():
    h, g = problem(6)
    zero = as_tree(np.zeros(N))
    answer = plane(as_tree(g), 1.0, ((zero, zero), (zero, zero)))
    assert np.all(as_vector(answer.step) == 0)
    assert answer.predicted == 0
    nan = as_tree(np.full(N, np.nan))
    answer = plane(as_tree(g), 1.0, ((nan, nan), (as_tree(g), as_tree(h @ g))))
    assert bool(tree.all_finite(answer.step))


def test_plane_lanes_equal_one_by_one(float64):
    problems = [problem(seed, indefinite=seed % 2 == 1) for seed in range(5)]
    rng = np.random.default_rng(0)
    g = np.stack([g for _, g in problems])
    u = rng.normal(size=(5, N))
    u[1], u[2] = 0, -2 * g[2]
    hu, hg = (np.stack([h @ x[i] for i, (h, _) in enumerate(problems)]) for x in (u, -g))

    def run(g, radius, u, hu, v, hv):
        return plane(g, radius, ((u, hu), (v, hv)))

    arguments = [jnp.asarray(x) for x in (g, np.array([0.1, 1, 1, 10, 100]), u, hu, -g, hg)]
    together = jax.vmap(run)(*arguments)
    for i in range(5):
        alone = run(*(x[i] for x in arguments))
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-9, atol=1e-12)
