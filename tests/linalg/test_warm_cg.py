"""Warm conjugate gradients against full orthogonalization, and every way in which they end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg import warm_cg as module
from hesskit.linalg.warm_cg import NUM_KEPT, warm_cg
from tests.linalg.reference import N, as_product, as_tree, as_vector, spd

RNG = np.random.default_rng(0)
NEVER = 1e12  # an overhead beside which every product earns its place


@jax.jit
def solve(matrix, b, first, inverse, overhead, max_products, tol, needed):
    """One compiled program for every case of one dtype."""
    found = warm_cg(
        as_product(matrix),
        b,
        overhead=overhead,
        max_products=max_products,
        tol=tol,
        first=first,
        precondition=as_product(inverse),
        needed=needed,
    )
    return found, module.lengths(found.way)


def run(a, b, first=None, inverse=None, *, dtype="float64", scale=1.0, **options):
    given = {"overhead": NEVER, "max_products": 40, "tol": 1e-13, "needed": True} | options
    first = np.zeros(N) if first is None else first
    return solve(
        jnp.asarray(a, dtype),
        as_tree(scale * b, dtype),
        as_tree(first, dtype),
        jnp.asarray(np.eye(N) if inverse is None else inverse, dtype),
        **given,
    )


def plain(a, b, first, inverse, num):
    """Iterates; each direction made conjugate to all before it."""
    x, directions, found = np.zeros(N), [], []
    for _ in range(num):
        z = first if first is not None and not directions else inverse @ (b - a @ x)
        for d in directions:
            z = z - (z @ a @ d) / (d @ a @ d) * d
        directions.append(z)
        x = x + (z @ (b - a @ x)) / (z @ a @ z) * z
        found.append(x)
    return found


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_iterates_are_those_of_full_orthogonalization(float64, warm, preconditioned):
    a, b = spd(0), RNG.normal(size=N)
    first = RNG.normal(size=N) if warm else None
    inverse = spd(1) if preconditioned else np.eye(N)
    found, lengths = run(a, b, first, inverse, max_products=8)
    iterates = plain(a, b, first, inverse, 8)
    marks = [1, 2, 3, 4, 6, 8]
    np.testing.assert_array_equal(found.way.marks, marks + [0] * (NUM_KEPT - len(marks)))
    for i, mark in enumerate(marks):
        x = iterates[mark - 1]
        np.testing.assert_allclose(as_vector(module.iterate(found.way, i)), x, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found.way.bends[i], x @ a @ x, rtol=1e-8)
        np.testing.assert_allclose(lengths[i], np.linalg.norm(x), rtol=1e-8)
    np.testing.assert_allclose(as_vector(found.x), iterates[-1], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.bend, iterates[-1] @ a @ iterates[-1], rtol=1e-8)
    r = b - a @ iterates[-1]
    relative = np.sqrt((r @ inverse @ r) / (b @ inverse @ b))
    np.testing.assert_allclose(found.residual, relative, rtol=1e-5)
    assert found.sound


def test_it_solves_at_every_scale(dtype):
    """The solution as first direction, of any length, takes one product."""
    small, tol = (1e-150, 1e-12) if dtype == jnp.float64 else (1e-18, 1e-5)
    a, b = spd(0), RNG.normal(size=N)
    truth = np.linalg.solve(a, b)
    for scale in (1.0, small, 1 / small):
        cold, _ = run(a, b, scale=scale, dtype=dtype, tol=tol)
        np.testing.assert_allclose(as_vector(cold.x) / scale, truth, rtol=100 * tol, atol=10 * tol)
        for length in (1.0, 1e10):
            warm, _ = run(a, b, length * truth, scale=scale, dtype=dtype, tol=10 * tol)
            assert warm.num_products == 1 < cold.num_products
            np.testing.assert_allclose(as_vector(warm.x) / scale, truth, rtol=1e3 * tol)


def test_it_ends_where_a_product_earns_less_than_the_average(float64):
    """The rule of the docstring, from the gains of the plain iterates."""
    a = np.diag(np.geomspace(1e-6, 1, N))
    b = np.diag(a) ** 0.6
    gains = [0.0] + [x @ b - x @ a @ x / 2 for x in plain(a, b, None, np.eye(N), N)]
    counts = set()
    for overhead in (0.0, 1.0, 3.0, 30.0):
        w = module.WINDOW
        ends = [
            i
            for i in range(w + 1, N + 1)
            if gains[i] - gains[i - w] < w * gains[i] / (i + overhead)
        ]
        found, _ = run(a, b, overhead=overhead)
        assert found.num_products == min([*ends, N])
        counts.add(int(found.num_products))
    assert len(counts) >= 2


def test_curvature_that_is_no_number_or_negative_ends_it_before_the_step(float64):
    b, first = RNG.normal(size=N), RNG.normal(size=N)
    for a in (-np.eye(N), np.full((N, N), np.nan)):
        for start, spent in ((None, 1), (first, 2)):
            found, _ = run(a, b, start)
            assert found.num_products == spent
            assert not found.sound
            np.testing.assert_array_equal(as_vector(found.x), 0)
            np.testing.assert_array_equal(found.way.marks, 0)


def test_a_first_direction_of_no_use_is_passed_over(float64):
    a, b = np.diag([-1.0] + [2.0] * (N - 1)), np.ones(N)
    b[0] = 0
    for first in (np.eye(N)[0], np.full(N, np.nan)):
        found, _ = run(a, b, first, tol=1e-10)
        np.testing.assert_allclose(as_vector(found.x), b / 2, rtol=1e-12)
        assert found.num_products <= 2


def test_nothing_needed_and_nothing_asked_spend_nothing(float64):
    for options in ({"needed": False}, {"b": np.zeros(N)}):
        found, _ = run(spd(0), **{"b": np.ones(N)} | options)
        assert found.num_products == 0
        assert not found.sound
        np.testing.assert_array_equal(as_vector(found.x), 0)


@pytest.mark.slow
def test_the_last_iterates_are_kept_when_there_are_more(float64):
    """30 products on 40 numbers: eight marks, each a third further, the oldest overwritten."""
    w = jnp.asarray(np.geomspace(1e-3, 1, 40))
    found = warm_cg(
        lambda v: w * v, jnp.ones(40), overhead=NEVER, max_products=30, tol=0.0, first=None
    )
    assert sorted(found.way.marks.tolist()) == [3, 4, 6, 8, 11, 15, 20, 26]
    newest = jnp.argmax(found.way.marks)
    again = warm_cg(lambda v: w * v, jnp.ones(40), overhead=NEVER, max_products=26, tol=0.0)
    np.testing.assert_array_equal(module.iterate(found.way, newest), again.x)
