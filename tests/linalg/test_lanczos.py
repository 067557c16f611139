"""Lanczos by its identities, and its lowest pair against dense eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg.lanczos import escape, lanczos, tridiagonal
from tests.linalg.reference import (
    N,
    as_product,
    as_tree,
    as_vector,
    check_lanes,
    counting,
    finite,
    num_places,
    poisoned,
    problem,
    stacked,
    with_spectrum,
)


def as_matrix(basis):
    """Q, (9, num_steps)."""
    rows = [np.asarray(basis[k], np.float64).reshape(len(basis["b"]), -1) for k in ("w", "b", "c")]
    return np.concatenate(rows, axis=1).T


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


@pytest.mark.parametrize("seed", range(3))
def test_identities(seed, dtype):
    h, b = problem(seed, indefinite=True)
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
    h, b = problem(1, indefinite=True)
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
    h, b = problem(2, indefinite=True)
    matrix = jnp.asarray(h, jnp.float32)
    with jax.disable_jit():
        result = lanczos(poisoned(matrix, at, bad), as_tree(b), 6)
    expected = factorize(matrix, as_tree(b))
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
    h, _ = problem(seed, indefinite=seed != 2)
    result = lowest(jnp.asarray(h, dtype), as_tree(np.zeros(N), dtype))
    d = as_vector(result.direction)
    rtol = 1e-9 if dtype == jnp.float64 else 1e-4
    np.testing.assert_allclose(result.curvature, np.linalg.eigvalsh(h)[0], rtol=rtol, atol=rtol)
    np.testing.assert_allclose(np.linalg.norm(d), 1, rtol=rtol)
    np.testing.assert_allclose(d @ h @ d, result.curvature, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(as_vector(result.product_direction), h @ d, atol=10 * rtol)
    assert result.num_products <= N


def test_escape_is_a_curvature_before_it_is_an_eigenvalue(float64):
    h, _ = problem(3, indefinite=True)
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
    h, g = problem(0, indefinite=True)
    matrix = jnp.asarray(h, jnp.float32)
    idle = lowest(matrix, as_tree(g), needed=False)
    assert idle.num_products == 0
    assert idle.curvature == 0
    assert np.all(as_vector(idle.direction) == 0)
    assert factorize(matrix, as_tree(g), needed=False).num_products == 0
    calls = []
    run = jax.jit(lambda needed: lanczos(counting(calls, matrix), as_tree(g), 3, needed=needed))
    jax.block_until_ready(run(False))
    jax.effects_barrier()
    assert calls == []
    jax.block_until_ready(run(True))
    jax.effects_barrier()
    assert len(calls) == 3


def test_product_is_called_at_one_place():
    assert num_places(lambda product, x: lanczos(product, x, 4), jnp.ones(3)) == 1
    assert num_places(lambda product, x: escape(product, x, num_steps=4), jnp.ones(3)) == 1


@pytest.mark.parametrize("other", [jnp.float32, jnp.bfloat16])
def test_bfloat16_leaves(other):
    h, g = problem(4, indefinite=True)
    gradient = as_tree(g, jnp.bfloat16, other)
    found = lowest(jnp.asarray(h, jnp.float32), gradient)
    dtypes = jax.tree.map(jnp.result_type, gradient)
    assert jax.tree.map(jnp.result_type, found.direction) == dtypes
    np.testing.assert_allclose(found.curvature, np.linalg.eigvalsh(h)[0], rtol=0.05)


def test_lanes_equal_one_by_one(float64):
    problems = [problem(seed, indefinite=seed != 1) for seed in range(4)]
    problems[3] = (np.eye(N), problems[3][1])  # breaks down at once
    h, g = stacked(problems)
    needed = jnp.array([True, True, False, True])

    def run(h, g, needed):
        found = lowest(h, g, needed=needed)
        return found.curvature, found.num_products

    _, num_products = check_lanes(run, h, g, needed, rtol=1e-8, atol=1e-10)
    np.testing.assert_array_equal(num_products, [N, N, 0, 1])


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
