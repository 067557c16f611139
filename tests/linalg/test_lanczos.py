"""Lanczos by its identities, its lowest pair and its trust region against dense eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import tree
from hesskit.linalg.gltr import gltr, krylov_absolute_step, krylov_step
from hesskit.linalg.lanczos import escape, lanczos, tridiagonal
from hesskit.linalg.steihaug import steihaug

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


def as_matrix(basis):
    """Q, (9, num_steps)."""
    rows = [np.asarray(basis[k], np.float64).reshape(len(basis["b"]), -1) for k in ("w", "b", "c")]
    return np.concatenate(rows, axis=1).T


def as_product(matrix):
    """v -> H v on the pytrees of `as_tree`."""

    def product(v):
        flat = jnp.concatenate([v["w"].reshape(-1), v["b"][None], v["c"]], dtype=matrix.dtype)
        return tree.cast_like(as_tree(matrix @ flat, matrix.dtype), v)

    return product


@jax.jit
def factorize(matrix, start, *, needed=True):
    """Six steps."""
    return lanczos(as_product(matrix), start, 6, needed=needed)


@jax.jit
def factorize_fully(matrix, start):
    """More steps than dimensions."""
    return lanczos(as_product(matrix), start, 12)


@jax.jit
def lowest(matrix, like, *, needed=True):
    """As many products as dimensions."""
    return escape(as_product(matrix), like, num_steps=N, needed=needed)


@jax.jit
def continued(matrix, gradient, radius, tol, *, scale=None, needed=True):
    """As many products as dimensions."""
    return gltr(
        as_product(matrix), gradient, radius, tol=tol, num_steps=N, scale=scale, needed=needed
    )


step_of = jax.jit(krylov_step)
absolute_step_of = jax.jit(krylov_absolute_step)


def problem(seed, *, definite=False):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(N, N))
    h = a @ a.T / 3 + np.eye(N) if definite else (a + a.T) / 2
    return h, rng.normal(size=N)


def with_spectrum(seed, eigenvalues):
    """A dense matrix and its eigenvectors."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(N, N)))
    return q * np.asarray(eigenvalues) @ q.T, q


def exact_step(h, g, radius):
    """The trust-region step from the eigenvalues of H, by bisection; not the hard case."""
    w, q = np.linalg.eigh(h)
    c = q.T @ g
    if w[0] > 0 and np.linalg.norm(c / w) <= radius:
        return -q @ (c / w), 0.0
    low, high = max(0, -w[0]), max(0, -w[0]) + np.linalg.norm(g) / radius
    for _ in range(200):
        middle = (low + high) / 2
        longer = np.linalg.norm(c / (w + middle)) > radius
        low, high = (middle, high) if longer else (low, middle)
    return -q @ (c / (w + high)), high


def model(h, g, s):
    return g @ s + s @ h @ s / 2


def finite(result):
    return all(bool(tree.all_finite(leaf)) for leaf in jax.tree.leaves(result))


@pytest.mark.parametrize("seed", range(3))
def test_identities(seed, dtype):
    h, b = problem(seed)
    result = factorize(jnp.asarray(h, dtype), as_tree(b, dtype))
    q, r = as_matrix(result.basis), as_vector(result.residual)
    t = np.asarray(tridiagonal(result.alpha, result.beta), np.float64)
    atol = 50 * float(jnp.finfo(dtype).eps)
    last = np.eye(6)[-1]
    np.testing.assert_allclose(h @ q, q @ t + np.outer(r, last), atol=atol)
    np.testing.assert_allclose(q.T @ q, np.eye(6), atol=atol)
    np.testing.assert_allclose(q.T @ r, np.zeros(6), atol=atol)
    np.testing.assert_allclose(q[:, 0], b / np.linalg.norm(b), atol=atol)
    np.testing.assert_allclose(result.residual_norm, np.linalg.norm(r), rtol=1e-5)
    assert result.num_valid == result.num_products == 6
    assert result.alpha.dtype == dtype
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(result.basis))


def test_orthogonal_where_plain_lanczos_is_not():
    # One far eigenvalue: without reorthogonalization float32 loses Q'Q = I within ten steps.
    diagonal = jnp.concatenate([jnp.array([1e4]), jnp.linspace(0.1, 1.0, 199)])
    result = jax.jit(lambda d: lanczos(lambda v: d * v, jnp.ones(200), 40))(diagonal)
    q = np.asarray(result.basis, np.float64)
    np.testing.assert_allclose(q @ q.T, np.eye(40), atol=2e-6)


@pytest.mark.parametrize("rank", [1, 3])
def test_breakdown_in_an_invariant_subspace(rank, dtype):
    # Diagonal, as rounding leaks from a rotated subspace by up to (|H| / beta)^rank.
    h, b = np.diag(np.arange(N, 0.0, -1)), np.zeros(N)
    b[:rank] = np.arange(1.0, rank + 1)
    result = factorize(jnp.asarray(h, dtype), as_tree(b, dtype))
    assert result.num_valid == result.num_products == rank
    t = tridiagonal(result.alpha, result.beta)
    w, vectors = np.linalg.eigh(np.asarray(t, np.float64))
    tolerance = 100 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(w[:rank], np.arange(N + 1.0 - rank, N + 1), atol=tolerance)
    assert np.all(w[rank:] >= 2 * N * (1 - tolerance))
    np.testing.assert_allclose(vectors[0, rank:], 0, atol=tolerance)
    assert np.all(as_matrix(result.basis)[:, rank:] == 0)


def test_no_more_steps_than_dimensions(float64):
    h, b = problem(1)
    result = factorize_fully(jnp.asarray(h), as_tree(b, jnp.float64))
    assert result.num_valid == N
    w = np.linalg.eigvalsh(np.asarray(tridiagonal(result.alpha, result.beta)))
    np.testing.assert_allclose(w[:N], np.linalg.eigvalsh(h), atol=1e-12)


def test_zero_matrix_and_zero_start():
    zero = jnp.zeros((N, N))
    result = factorize(zero, as_tree(np.ones(N)))
    assert result.num_valid == 1
    np.testing.assert_array_equal(result.alpha, [0, 1, 1, 1, 1, 1])
    result = factorize(zero, as_tree(np.zeros(N)))
    assert result.num_products == 0
    np.testing.assert_array_equal(result.alpha, np.ones(6))
    assert factorize(zero, as_tree(np.full(N, np.nan))).num_products == 0
    assert finite(factorize(zero, as_tree(np.full(N, np.nan))))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 2])
def test_a_product_that_is_not_finite_leaves_the_steps_before_it(at, bad):
    h, b = problem(2)
    count = iter(range(100))

    def product(v):
        hv = as_product(jnp.asarray(h, jnp.float32))(v)
        return tree.scale(bad, hv) if next(count) == at else hv

    with jax.disable_jit():
        result = lanczos(product, as_tree(b), 6)
    expected = factorize(jnp.asarray(h, jnp.float32), as_tree(b))
    assert result.num_valid == at
    assert result.num_products == at + 1
    assert finite(result)
    q = as_matrix(result.basis)
    np.testing.assert_allclose(q[:, :at], as_matrix(expected.basis)[:, :at], atol=1e-6)
    assert np.all(q[:, at:] == 0)
    t = np.asarray(tridiagonal(result.alpha, result.beta), np.float64)[:at, :at]
    remainder = h @ q[:, :at] - q[:, :at] @ t
    if at:
        np.testing.assert_allclose(remainder[:, -1], as_vector(result.residual), atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_escape_finds_the_lowest_eigenpair(seed, dtype):
    h, _ = problem(seed, definite=seed == 2)
    result = lowest(jnp.asarray(h, dtype), as_tree(np.zeros(N), dtype))
    d = as_vector(result.direction)
    rtol = 1e-9 if dtype == jnp.float64 else 1e-4
    np.testing.assert_allclose(result.curvature, np.linalg.eigvalsh(h)[0], rtol=rtol, atol=rtol)
    np.testing.assert_allclose(np.linalg.norm(d), 1, rtol=rtol)
    np.testing.assert_allclose(d @ h @ d, result.curvature, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(as_vector(result.product_direction), h @ d, atol=10 * rtol)
    assert result.num_products <= N


def test_escape_is_a_curvature_before_it_is_an_eigenvalue(float64):
    h, _ = problem(3)
    short = jax.jit(lambda m: escape(as_product(m), as_tree(np.zeros(N), jnp.float64), num_steps=4))
    result = short(jnp.asarray(h))
    d, hd = as_vector(result.direction), as_vector(result.product_direction)
    np.testing.assert_allclose(hd, h @ d, atol=1e-13)
    np.testing.assert_allclose(result.curvature, d @ h @ d, rtol=1e-12)
    residual = np.linalg.norm(h @ d - result.curvature * d)
    np.testing.assert_allclose(result.residual_norm, residual, rtol=1e-10)
    assert np.min(np.abs(np.linalg.eigvalsh(h) - result.curvature)) <= residual
    assert result.num_products == 4


def test_escape_from_a_saddle_with_a_zero_gradient_is_fixed():
    h, _ = with_spectrum(4, [-0.1, *range(1, N)])
    first, second = (lowest(jnp.asarray(h, jnp.float32), as_tree(np.zeros(N))) for _ in range(2))
    np.testing.assert_allclose(first.curvature, -0.1, atol=1e-5)
    np.testing.assert_array_equal(as_vector(first.direction), as_vector(second.direction))


def test_not_needed_costs_no_products():
    h, g = problem(0)
    matrix = jnp.asarray(h, jnp.float32)
    idle = lowest(matrix, as_tree(g), needed=False)
    assert idle.num_products == 0
    assert idle.curvature == 0
    assert np.all(as_vector(idle.direction) == 0)
    idle = continued(matrix, as_tree(g), 1.0, 0.0, needed=False)
    assert idle.num_products == 0
    assert np.all(as_vector(krylov_step(idle, 1.0).step) == 0)
    assert np.all(as_vector(krylov_absolute_step(idle, 0.1, 1.0).step) == 0)
    assert factorize(matrix, as_tree(g), needed=False).num_products == 0
    calls = []

    def product(v):
        jax.debug.callback(lambda: calls.append(1))
        return as_product(matrix)(v)

    run = jax.jit(lambda needed: lanczos(product, as_tree(g), 3, needed=needed))
    jax.block_until_ready(run(False))
    jax.effects_barrier()
    assert calls == []
    jax.block_until_ready(run(True))
    jax.effects_barrier()
    assert len(calls) == 3


@pytest.mark.parametrize("algorithm", ["lanczos", "escape", "gltr"])
def test_product_is_called_at_one_place(algorithm):
    def product(v):
        return jax.tree.map(jax.lax.bessel_i1e, v)

    run = {
        "lanczos": lambda x: lanczos(product, x, 4),
        "escape": lambda x: escape(product, x, num_steps=4),
        "gltr": lambda x: krylov_step(gltr(product, x, 1.0, tol=0.0, num_steps=4), 0.5),
    }[algorithm]
    assert str(jax.make_jaxpr(run)(jnp.ones(3))).count(MARKER) == 1


@pytest.mark.parametrize("definite", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_gltr_solves_the_trust_region_problem(seed, definite, float64):
    h, g = problem(seed, definite=definite)
    for radius in (0.1, 1.0, 100.0):
        krylov = continued(jnp.asarray(h), as_tree(g, jnp.float64), radius, 1e-9)
        result = step_of(krylov, radius)
        expected, shift = exact_step(h, g, radius)
        s = as_vector(result.step)
        np.testing.assert_allclose(s, expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(result.shift, shift, rtol=1e-7, atol=1e-8)
        residual = (h + result.shift * np.eye(N)) @ s + g
        np.testing.assert_allclose(residual, 0, atol=1e-8)
        assert np.linalg.eigvalsh(h + result.shift * np.eye(N))[0] >= -1e-8
        np.testing.assert_allclose(as_vector(result.hessian_step), h @ s, atol=1e-10)
        np.testing.assert_allclose(result.predicted, -model(h, g, s), rtol=1e-9)
        np.testing.assert_allclose(result.step_norm, np.linalg.norm(s), rtol=1e-12)
        assert result.on_boundary == (np.linalg.norm(expected) > radius * (1 - 1e-9))
        steihaugs = steihaug(
            as_product(jnp.asarray(h)), as_tree(g, jnp.float64), radius, tol=1e-9, max_products=N
        )
        assert result.predicted >= steihaugs.predicted * (1 - 1e-12)


def test_gltr_ends_early_where_the_residual_is_small():
    h, g = problem(1, definite=True)
    matrix = jnp.asarray(h, jnp.float32)
    for radius in (0.1, 100.0):
        loose = continued(matrix, as_tree(g), radius, 0.3)
        tight = continued(matrix, as_tree(g), radius, 1e-4)
        assert 0 < loose.num_products < tight.num_products <= N
        answer = step_of(loose, radius)
        residual = (h + answer.shift * np.eye(N)) @ as_vector(answer.step) + g
        assert np.linalg.norm(residual) <= 0.3
        np.testing.assert_allclose(answer.residual_norm, np.linalg.norm(residual), rtol=1e-4)


@pytest.mark.parametrize("definite", [True, False])
def test_any_radius_without_products(definite, dtype):
    h, g = problem(5, definite=definite)
    krylov = continued(jnp.asarray(h, dtype), as_tree(g, dtype), 1.0, 0.0)
    tolerance = 1e-7 if dtype == jnp.float64 else 2e-3
    last = 0.0
    for radius in (1e-3, 0.1, 0.7, 3.0, 50.0):
        result = step_of(krylov, radius)
        expected, _ = exact_step(h, g, radius)
        np.testing.assert_allclose(as_vector(result.step), expected, atol=tolerance * radius)
        assert result.predicted >= last
        last = result.predicted


def test_gltr_with_scale(float64):
    h, g = problem(6)
    d = np.exp(np.random.default_rng(6).normal(size=N))
    krylov = continued(
        jnp.asarray(h), as_tree(g, jnp.float64), 0.8, 1e-10, scale=as_tree(d, jnp.float64)
    )
    for radius in (0.8, 0.2):
        result = step_of(krylov, radius)
        s = as_vector(result.step)
        expected, _ = exact_step(h / d[:, None] / d[None, :], g / d, radius)
        np.testing.assert_allclose(d * s, expected, atol=1e-8)
        np.testing.assert_allclose(result.step_norm, radius, rtol=1e-12)
        np.testing.assert_allclose(as_vector(result.hessian_step), h @ s, atol=1e-9)
        np.testing.assert_allclose(result.predicted, -model(h, g, s), rtol=1e-9)


def test_singular_matrix_and_gradient_in_its_range(dtype):
    h, q = with_spectrum(7, [0, 0, 0, *range(1, 7)])
    g = q[:, 3:] @ np.ones(6)
    krylov = continued(jnp.asarray(h, dtype), as_tree(g, dtype), 10.0, 0.0)
    result = krylov_step(krylov, 10.0)
    tolerance = 1e-9 if dtype == jnp.float64 else 1e-3
    np.testing.assert_allclose(
        as_vector(result.step), -np.linalg.pinv(h, rcond=1e-9) @ g, atol=tolerance
    )
    assert not result.on_boundary


def test_nearly_hard_case(float64):
    h, q = with_spectrum(8, [-1, *range(1, N)])
    c = np.ones(N)
    c[0] = 1e-7
    g = q @ c
    krylov = continued(jnp.asarray(h), as_tree(g, jnp.float64), 3.0, 0.0)
    result = krylov_step(krylov, 3.0)
    w = np.array([-1, *range(1, N)])
    np.testing.assert_allclose(result.shift, 1, atol=1e-6)
    np.testing.assert_allclose(result.step_norm, 3.0, rtol=1e-10)
    rest = c[1:] / (w[1:] + 1)
    along = np.sqrt(9 - rest @ rest)
    best = rest @ c[1:] - 0.5 * rest @ (w[1:] * rest) + 0.5 * along**2 + 1e-7 * along
    np.testing.assert_allclose(result.predicted, best, rtol=1e-6)


def test_hard_case_of_the_krylov_space_is_that_of_the_gradient(float64):
    # g has no part along the lowest eigenvector: no Krylov space of g sees it (escape does).
    h, q = with_spectrum(8, [-1, *range(1, N)])
    g = q[:, 1:] @ np.ones(N - 1)
    krylov = continued(jnp.asarray(h), as_tree(g, jnp.float64), 3.0, 1e-10)
    s = as_vector(krylov_step(krylov, 3.0).step)
    np.testing.assert_allclose(q[:, 1:].T @ s, -1 / np.arange(1.0, N), atol=1e-6)
    found = lowest(jnp.asarray(h), as_tree(g, jnp.float64))
    np.testing.assert_allclose(found.curvature, -1, rtol=1e-9)


def test_absolute_step(float64):
    h, g = problem(9)
    w, q = np.linalg.eigh(h)
    krylov = continued(jnp.asarray(h), as_tree(g, jnp.float64), 1.0, 0.0)
    for damping in (0.0, 0.5):
        full = absolute_step_of(krylov, damping)
        expected = -q @ ((q.T @ g) / (np.abs(w) + damping))
        s = as_vector(full.step)
        np.testing.assert_allclose(s, expected, atol=1e-8)
        assert not full.on_boundary
        np.testing.assert_allclose(full.predicted, -model(h, g, s), rtol=1e-8)
        np.testing.assert_allclose(as_vector(full.hessian_step), h @ s, atol=1e-9)
        assert full.predicted > 0
    short = absolute_step_of(krylov, 0.5, 0.3)
    expected = -q @ ((q.T @ g) / (np.abs(w) + 0.5 + short.shift))
    np.testing.assert_allclose(as_vector(short.step), expected, atol=1e-9)
    np.testing.assert_allclose(short.step_norm, 0.3, rtol=1e-9)


def test_bad_gradient_gives_a_zero_step():
    h, g = problem(2)
    g[3] = np.nan
    krylov = continued(jnp.asarray(h, jnp.float32), as_tree(g), 1.0, 0.0)
    assert krylov.num_products == 0
    for result in (krylov_step(krylov, 1.0), krylov_absolute_step(krylov, 0.0, 1.0)):
        assert finite(result)
        assert np.all(as_vector(result.step) == 0)
    krylov = continued(jnp.asarray(h, jnp.float32), as_tree(np.ones(N)), 1.0, 0.0)
    assert finite(step_of(krylov, jnp.inf))
    assert finite(step_of(krylov, jnp.nan))


@pytest.mark.parametrize("other", [jnp.float32, jnp.bfloat16])
def test_bfloat16_leaves(other):
    h, g = problem(4)
    gradient = as_tree(g, jnp.bfloat16, other)
    dtypes = jax.tree.map(jnp.result_type, gradient)
    krylov = continued(jnp.asarray(h, jnp.float32), gradient, 1.0, 1e-2)
    result = step_of(krylov, 1.0)
    assert jax.tree.map(jnp.result_type, result.step) == dtypes
    assert result.predicted.dtype == jnp.float32
    expected, _ = exact_step(h, g, 1.0)
    np.testing.assert_allclose(as_vector(result.step), expected, atol=0.05)
    found = lowest(jnp.asarray(h, jnp.float32), gradient)
    assert jax.tree.map(jnp.result_type, found.direction) == dtypes
    np.testing.assert_allclose(found.curvature, np.linalg.eigvalsh(h)[0], rtol=0.05)


def test_lanes_equal_one_by_one(float64):
    problems = [problem(seed, definite=seed == 1) for seed in range(4)]
    problems[3] = (np.eye(N), problems[3][1])  # breaks down at once
    h = jnp.asarray(np.stack([h for h, _ in problems]))
    g = jax.vmap(lambda x: as_tree(x, jnp.float64))(jnp.asarray(np.stack([g for _, g in problems])))
    radius = jnp.array([0.1, 100.0, 10.0, 1.0])
    needed = jnp.array([True, True, False, True])

    def run(h, g, radius, needed):
        krylov = continued(h, g, radius, 0.5, needed=needed)
        found = lowest(h, g, needed=needed)
        return step_of(krylov, radius), krylov.num_products, found.curvature, found.num_products

    together = jax.vmap(run)(h, g, radius, needed)
    for i in range(4):
        alone = run(h[i], jax.tree.map(lambda a, i=i: a[i], g), radius[i], needed[i])
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-8, atol=1e-10)
    assert together[1][2] == 0
    assert together[1][3] == 1
    assert len(set(np.asarray(together[1]).tolist())) > 2


@pytest.mark.parametrize("unit", [1e-25, 1e25])
def test_units_do_not_matter_in_float32(unit):
    h, g = problem(1)
    plain = continued(jnp.asarray(h, jnp.float32), as_tree(g), 1.0, 1e-3)
    scaled = continued(
        jnp.asarray(h * unit, jnp.float32), as_tree(g * unit), 1.0, jnp.float32(1e-3 * unit)
    )
    assert plain.num_products == scaled.num_products
    one, other = step_of(plain, 0.5), step_of(scaled, 0.5)
    np.testing.assert_allclose(as_vector(one.step), as_vector(other.step), atol=1e-4)
    np.testing.assert_allclose(one.predicted, float(other.predicted) / unit, rtol=1e-4)


def test_sharded_leaves_stay_sharded():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    columns = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "x"))
    diagonal = jax.device_put(jnp.linspace(1.0, 2.0, 64), rows)
    b = jax.device_put(jnp.ones(64), rows)
    run = jax.jit(lambda d, b: lanczos(lambda v: d * v, b, 4))
    compiled = run.lower(diagonal, b).compile()
    assert "all-gather" not in compiled.as_text()
    assert compiled(diagonal, b).basis.sharding.is_equivalent_to(columns, 2)
