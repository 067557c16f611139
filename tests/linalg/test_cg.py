"""Conjugate gradients against dense solves, and every way in which they end."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg.cg import cg
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
    spd,
    stacked,
)


@jax.jit
def solve(matrix, b, tol, max_products, *, x0=None, inverse=None, needed=True):
    """One compiled program for every case of one dtype."""
    return cg(
        as_product(matrix),
        b,
        tol=tol,
        max_products=max_products,
        x0=x0,
        precondition=None if inverse is None else as_product(inverse),
        needed=needed,
    )


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_solves(preconditioned, warm, dtype):
    for seed in range(3):
        h, b = problem(seed)
        inverse = spd(seed) if preconditioned else np.eye(N)
        tol = 1e-10 if dtype == jnp.float64 else 1e-4
        result = solve(
            jnp.asarray(h, dtype),
            as_tree(b, dtype),
            tol,
            40,
            x0=as_tree(np.ones(N), dtype) if warm else None,
            inverse=jnp.asarray(inverse, dtype) if preconditioned else None,
        )
        x, r = as_vector(result.x), as_vector(result.residual)
        np.testing.assert_allclose(x, np.linalg.solve(h, b), rtol=10 * tol, atol=10 * tol)
        np.testing.assert_allclose(r, b - h @ x, atol=0.1 * tol + 1e-5 * (dtype == jnp.float32))
        np.testing.assert_allclose(result.residual_norm, np.sqrt(r @ inverse @ r), rtol=1e-3)
        assert result.converged
        assert result.residual_norm <= tol
        assert not result.negative_curvature
        assert not result.flat
        assert result.curvature > 0
        assert result.num_products <= N + warm + (1 if dtype == jnp.float64 else 5)
        assert jax.tree.map(jnp.result_type, result.x) == jax.tree.map(lambda _: dtype, result.x)


def test_products_are_as_many_as_distinct_eigenvalues(float64):
    h = np.diag([1.0, 1, 1, 4, 4, 4, 9, 9, 9])
    assert solve(jnp.asarray(h), as_tree(np.ones(N), jnp.float64), 1e-12, 40).num_products == 3
    # Preconditioned with the inverse, and started at the solution, it takes one product each.
    inverse, x = np.linalg.inv(h), 1 / np.diag(h)
    b = as_tree(np.ones(N), jnp.float64)
    exact = solve(jnp.asarray(h), b, 1e-12, 40, inverse=jnp.asarray(inverse))
    assert exact.num_products == 1
    started = solve(jnp.asarray(h), b, 1e-12, 40, x0=as_tree(x, jnp.float64))
    assert started.num_products == 1
    np.testing.assert_array_equal(as_vector(started.x), x)


def test_error_falls_in_the_norm_of_the_matrix(float64):
    h, b = problem(1)
    x = np.linalg.solve(h, b)
    errors = []
    for k in range(N + 1):
        result = solve(jnp.asarray(h), as_tree(b, jnp.float64), 0.0, k)
        assert result.num_products == k
        e = as_vector(result.x) - x
        errors.append(np.sqrt(e @ h @ e))
    assert np.all(np.diff(errors) < 0)
    assert errors[-1] < 1e-12
    w = np.linalg.eigvalsh(h)
    rate = (np.sqrt(w[-1] / w[0]) - 1) / (np.sqrt(w[-1] / w[0]) + 1)
    assert np.all(errors <= 2 * rate ** np.arange(N + 1) * errors[0] + 1e-12)


def test_negative_curvature_is_an_output(dtype):
    h = np.diag([4.0, 3, 2, 1, 1, 1, 1, 1, -1])
    b = np.array([1.0] * 8 + [0.5])
    run = functools.partial(solve, jnp.asarray(h, dtype), as_tree(b, dtype), 0.0)
    result = run(40)
    d = as_vector(result.direction)
    rtol = 1e-9 if dtype == jnp.float64 else 1e-3
    assert result.negative_curvature
    assert not result.converged
    assert d @ h @ d < 0
    np.testing.assert_allclose(np.linalg.norm(d), 1, rtol=rtol)
    np.testing.assert_allclose(result.curvature, d @ h @ d, rtol=rtol)
    assert b @ d > 0
    # x is the iterate before it.
    before = run(int(result.num_products) - 1)
    assert not before.negative_curvature
    np.testing.assert_array_equal(as_vector(result.x), as_vector(before.x))
    first = solve(jnp.asarray(-h, dtype), as_tree(b, dtype), 0.0, 40)
    assert first.negative_curvature
    assert first.num_products == 1
    assert np.all(as_vector(first.x) == 0)
    np.testing.assert_allclose(as_vector(first.direction), b / np.linalg.norm(b), rtol=1e-6)


def test_singular(dtype):
    h = np.diag([3.0, 2, 1, 1, 1, 1, 1, 1, 0])
    b = np.array([1.0] * 8 + [0.0])
    tol = 1e-5
    result = solve(jnp.asarray(h, dtype), as_tree(b, dtype), tol, 40)
    assert result.converged
    np.testing.assert_allclose(as_vector(result.x)[:8], b[:8] / np.diag(h)[:8], rtol=1e-4)
    # Out of the range there is no solution: d.Hd falls to rounding, and x stays finite.
    inconsistent = solve(jnp.asarray(h, dtype), as_tree(b + np.eye(N)[8], dtype), tol, 40)
    assert inconsistent.flat
    assert not inconsistent.converged
    assert finite(inconsistent)
    assert inconsistent.num_products < 20
    zero = solve(jnp.zeros((N, N), dtype), as_tree(b, dtype), tol, 40)
    assert zero.flat
    assert zero.negative_curvature
    assert np.all(as_vector(zero.x) == 0)


def test_ill_conditioned_is_not_flat():
    # d.Hd >= 2 |d| |Hd| / sqrt(cond): far above eps for any condition below 1 / eps^2.
    h, b = np.diag(np.geomspace(1e-7, 1, N)), np.ones(N)
    result = solve(jnp.asarray(h, jnp.float32), as_tree(b), 1e-3, 200)
    assert not result.flat
    assert result.num_products > N


def test_stops_at_max_products_and_where_not_needed():
    h, b = problem(3)
    matrix = jnp.asarray(h, jnp.float32)
    assert solve(matrix, as_tree(b), 0.0, 4).num_products == 4
    assert not solve(matrix, as_tree(b), 0.0, 4).converged
    idle = solve(matrix, as_tree(b), 0.0, 4, needed=False)
    assert idle.num_products == 0
    assert np.all(as_vector(idle.x) == 0)
    np.testing.assert_array_equal(as_vector(idle.residual), as_vector(as_tree(b)))
    idle = solve(matrix, as_tree(b), 0.0, 4, x0=as_tree(b), needed=False)
    np.testing.assert_array_equal(as_vector(idle.x), as_vector(as_tree(b)))
    solved = solve(matrix, as_tree(0 * b), 0.0, 4)
    assert solved.num_products == 0
    assert solved.converged

    calls = []

    run = jax.jit(
        lambda needed: cg(
            counting(calls, matrix), as_tree(b), tol=0.0, max_products=3, needed=needed
        )
    )
    jax.block_until_ready(run(False))
    jax.effects_barrier()
    assert calls == []
    jax.block_until_ready(run(True))
    jax.effects_barrier()
    assert len(calls) == 3


@pytest.mark.parametrize("warm", [False, True])
def test_product_is_called_at_one_place(warm):
    def run(product, b):
        return cg(product, b, tol=0.0, max_products=9, x0=b if warm else None)

    assert num_places(run, jnp.ones(3)) == 1


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 2])
def test_a_product_that_is_not_finite_ends_at_the_last_finite_iterate(at, bad, warm):
    h, b = problem(2)
    matrix = jnp.asarray(h, jnp.float32)
    x0 = as_tree(np.ones(N)) if warm else None
    with jax.disable_jit():
        result = cg(poisoned(matrix, at, bad), as_tree(b), tol=0.0, max_products=9, x0=x0)
    expected = solve(matrix, as_tree(b), 0.0, at, x0=x0)
    assert result.num_products == at + 1
    np.testing.assert_allclose(as_vector(result.x), as_vector(expected.x), rtol=1e-5)
    assert finite(result)
    assert not result.negative_curvature
    assert not result.converged


def test_bad_right_hand_side_costs_no_products():
    h, b = problem(2)
    b[1] = np.nan
    result = solve(jnp.asarray(h, jnp.float32), as_tree(b), 0.0, 9)
    assert result.num_products == 0
    assert not result.converged
    assert np.all(as_vector(result.x) == 0)


@pytest.mark.slow
def test_lanes_equal_one_by_one(float64):
    problems = [problem(seed) for seed in range(5)]
    problems[1] = (np.eye(N), problems[1][1])
    problems[4] = (problems[4][0] - 2 * np.eye(N), problems[4][1])
    h, b = stacked(problems)
    tol = jnp.array([1e-8, 1e-8, 1.0, 1e-8, 1e-8])
    needed = jnp.array([True, True, True, False, True])

    def run(h, b, tol, needed):
        return solve(h, b, tol, 30, needed=needed)

    together = check_lanes(run, h, b, tol, needed, rtol=1e-7, atol=1e-9)
    assert together.num_products[1] == 1
    assert together.negative_curvature[4]
    assert len(set(np.asarray(together.num_products).tolist())) > 2


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_units_do_not_matter_in_float32(unit):
    h, b = problem(1)
    matrix = jnp.asarray(h, jnp.float32)
    plain = solve(matrix, as_tree(b), 1e-3, 20)
    scaled = solve(matrix, as_tree(b * unit), 1e-3 * unit, 20)
    assert plain.num_products == scaled.num_products > 1
    np.testing.assert_allclose(as_vector(scaled.x) / unit, as_vector(plain.x), rtol=1e-3)


@pytest.mark.parametrize("other", [jnp.float32, jnp.bfloat16])
def test_bfloat16_leaves(other):
    h, b = problem(4)
    b = as_tree(b, jnp.bfloat16, other)
    result = solve(jnp.asarray(h, jnp.float32), b, 0.02, 40)
    assert jax.tree.map(jnp.result_type, result.x) == jax.tree.map(jnp.result_type, b)
    assert result.residual_norm.dtype == jnp.float32
    np.testing.assert_allclose(as_vector(result.x), np.linalg.solve(h, as_vector(b)), atol=0.03)


def test_sharded_leaves_stay_sharded():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    diagonal = jax.device_put(jnp.linspace(1.0, 2.0, 64), rows)
    b = jax.device_put(jnp.ones(64), rows)
    run = jax.jit(lambda d, b: cg(lambda v: d * v, b, tol=1e-3, max_products=5))
    compiled = run.lower(diagonal, b).compile()
    assert "all-gather" not in compiled.as_text()
    assert compiled(diagonal, b).x.sharding.is_equivalent_to(rows, 1)
