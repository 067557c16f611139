"""F F' is the inverse of J'J, and N its null space, whatever the units and the rank."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg.gram_inverse import gram_inverse, row_norms

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(20, 4))


def inverse_of(rows, active=None):
    active = jnp.ones(rows.shape[1], bool) if active is None else jnp.asarray(active)
    found = gram_inverse(jnp.asarray(rows), active)
    return np.asarray(found.factor @ found.factor.T, float), np.asarray(found.null, float)


def test_the_inverse(dtype):
    matrix, null = inverse_of(ROWS.astype(dtype))
    np.testing.assert_allclose(matrix, np.linalg.inv(ROWS.T @ ROWS), rtol=1e-4, atol=1e-6)
    assert not null.any()


@pytest.mark.parametrize("m", [4, 5, 40])
def test_units_do_not_matter(m: int, dtype):
    units = np.array([1e-8, 1e8, 1.0, 1e4])
    rows = RNG.normal(size=(m, 4))
    wanted = np.linalg.inv(rows.T @ rows) / np.outer(units, units)
    matrix, null = inverse_of((rows * units).astype(dtype))
    np.testing.assert_allclose(matrix, wanted, rtol=2e-3 if dtype == "float32" else 1e-9)
    assert not null.any()


def test_lengths_that_float32_cannot_square():
    matrix, _ = inverse_of((ROWS * 1e-15).astype("float32"))
    np.testing.assert_allclose(matrix * 1e-30, np.linalg.inv(ROWS.T @ ROWS), rtol=1e-3, atol=1e-5)


def test_columns_that_do_not_count():
    # Whatever stands there, the rest is inverted alone.
    for junk in (0.0, 1e20, np.nan):
        rows = ROWS.copy()
        rows[:, 1] = junk
        matrix, null = inverse_of(rows.astype("float32"), [True, False, True, True])
        kept = ROWS[:, [0, 2, 3]]
        wanted = np.linalg.inv(kept.T @ kept)
        np.testing.assert_allclose(matrix[np.ix_([0, 2, 3], [0, 2, 3])], wanted, rtol=1e-3)
        assert not matrix[1].any()
        assert not null.any()


def deficient(m: int, *, columns: int = 4):
    """The last two columns are multiples of one another."""
    rows = np.random.default_rng(m).normal(size=(m, columns))
    rows[:, -1] = 3 * rows[:, -2] * (1 + 1e-16)
    return rows


@pytest.mark.parametrize("m", [3, 4, 7, 50, 2000])
def test_a_null_space_touches_only_its_entries(m: int, dtype):
    rows = deficient(m)
    matrix, null = inverse_of(rows.astype(dtype))
    open_rows = null.any(axis=1)
    np.testing.assert_array_equal(open_rows, [False, False, True, True])
    direction = null[:, null.any(axis=0)]
    assert direction.shape[1] == 1
    np.testing.assert_allclose(direction[2] / direction[3], -3, rtol=1e-3)
    kept = rows[:, :3]  # the others are as if the two were one
    wanted = np.linalg.inv(kept.T @ kept)[:2, :2]
    np.testing.assert_allclose(matrix[:2, :2], wanted, rtol=1e-2 if dtype == "float32" else 1e-8)


def test_a_column_of_zeros_and_more_columns_than_rows(dtype):
    rows = ROWS.astype(dtype)
    rows[:, 2] = 0
    _, null = inverse_of(rows)
    np.testing.assert_array_equal(null.any(axis=1), [False, False, True, False])
    _, null = inverse_of(rows[:2])
    assert null.any(axis=1).all() or not null[2].any()
    assert np.linalg.matrix_rank(null) == 2
    np.testing.assert_allclose(rows[:2] @ null, 0, atol=1e-5)
    matrix, null = inverse_of(rows[:0])
    assert not matrix.any()
    assert np.linalg.matrix_rank(null) == 4


def test_what_is_nearly_dependent_still_has_errors(float64):
    rows = ROWS.copy()
    rows[:, 3] = rows[:, 2] + 1e-6 * rows[:, 3]
    matrix, null = inverse_of(rows)
    assert not null.any()
    # Of J'J, whose condition is 1e12, a factor of J has twice the digits.
    exact = np.linalg.pinv(rows)
    np.testing.assert_allclose(matrix, exact @ exact.T, rtol=1e-6)


def test_many_rows_are_no_reason_for_doubt():
    rows = RNG.normal(size=(100_000, 2))
    rows[:, 1] = rows[:, 0] + 0.01 * rows[:, 1]
    matrix, null = inverse_of(rows.astype("float32"))
    assert not null.any()
    np.testing.assert_allclose(matrix, np.linalg.inv(rows.T @ rows), rtol=1e-2)


def test_what_is_not_finite_is_nan():
    rows = ROWS.astype("float32").copy()
    rows[3, 1] = np.inf
    matrix, _ = inverse_of(rows)
    assert np.isnan(np.diagonal(matrix)).any()


@pytest.mark.parametrize("rows", [ROWS, np.linalg.qr(ROWS)[0]], ids=["any", "equal values"])
def test_the_derivative_is_that_of_the_inverse(rows, float64):
    active = jnp.ones(4, bool)

    def ours(rows):
        factor = gram_inverse(rows, active).factor
        return factor @ factor.T

    theirs = lambda rows: jnp.linalg.inv(rows.T @ rows)
    rows, tangent = jnp.asarray(rows), jnp.asarray(RNG.normal(size=rows.shape))
    push = lambda fn: jax.jvp(fn, (rows,), (tangent,))[1]
    np.testing.assert_allclose(push(ours), push(theirs), rtol=1e-8, atol=1e-12)
    twice = lambda fn: jax.jvp(lambda r: jax.jvp(fn, (r,), (tangent,))[1], (rows,), (tangent,))[1]
    np.testing.assert_allclose(twice(ours), twice(theirs), rtol=1e-7, atol=1e-10)
    grad = lambda fn: jax.grad(lambda r: jnp.sum(jnp.sin(fn(r))))(rows)
    np.testing.assert_allclose(grad(ours), grad(theirs), rtol=1e-8, atol=1e-12)


def test_under_vmap():
    batch = jnp.asarray(np.stack([ROWS, deficient(20)]), "float32")
    active = jnp.ones(4, bool)
    together = jax.vmap(lambda rows: gram_inverse(rows, active))(batch)
    for i, rows in enumerate(batch):
        alone = gram_inverse(rows, active)
        np.testing.assert_array_equal(together.null[i] != 0, alone.null != 0)
        np.testing.assert_allclose(together.factor[i][:2], alone.factor[:2], atol=1e-5)


def test_row_norms(dtype):
    matrix = jnp.asarray([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0], [3e30, 4e30]], dtype)
    np.testing.assert_allclose(row_norms(matrix), [5, 0, 1e-30, 5e30], rtol=1e-6)
    gradient = jax.grad(lambda a: jnp.sum(row_norms(a)[:2]))(matrix)
    np.testing.assert_allclose(gradient[:2], [[0.6, 0.8], [0, 0]], rtol=1e-6)
