"""The norm of a least-squares region: never smaller, positive, and fair to units."""

import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg.column_scale import column_scale, largest_columns, scaled_factor
from hesskit.linalg.row_svd import reduce_rows


def norms(matrix):
    return largest_columns(matrix, jnp.zeros(matrix.shape[1], matrix.dtype))


def test_the_scale_never_falls_and_is_positive(dtype):
    matrix = jnp.array([[3.0, 0.0, 1.0], [4.0, 0.0, 0.0]], dtype)
    previous = jnp.array([1.0, 0.0, 2.0], dtype)
    eps = float(jnp.finfo(dtype).eps)
    largest = largest_columns(matrix, previous)
    np.testing.assert_allclose(largest, [5, 0, 2], rtol=1e-6)
    np.testing.assert_allclose(column_scale(largest, 1.0), [5, 5 * eps**0.5, 2], rtol=1e-6)
    new = largest_columns(matrix, 0 * previous)
    np.testing.assert_allclose(column_scale(new, 0.5), [5**0.5, (5 * eps) ** 0.5, 1], rtol=1e-6)
    np.testing.assert_array_equal(column_scale(new, 0.0), 1)
    np.testing.assert_array_equal(column_scale(0 * new, 1.0), 1)
    huge = float(jnp.finfo(dtype).max) / 8
    new = largest_columns(matrix * huge / 5, 0 * previous)
    np.testing.assert_allclose(column_scale(new, 1.0)[0], huge, rtol=1e-6)


def test_a_full_rank_is_found_whatever_the_units(dtype):
    """The second singular value is below rounding as the columns come, and 1e-3 in one unit."""
    far = float(1 / jnp.finfo(dtype).eps) ** 0.75
    a = np.stack([np.ones(7), far * (1 + 1e-3 * np.linspace(-1, 1, 7))], axis=1)
    rows, b = jnp.asarray(a, dtype), jnp.linspace(-1, 1, 7, dtype=dtype)
    triangle, b, _ = reduce_rows(rows, b)
    scale, s, vt, _ = scaled_factor(triangle, b, jnp.ones(2, dtype), norms(rows), num_rows=7)
    assert (s > 0).all()
    np.testing.assert_allclose(
        (scale / np.linalg.norm(a, axis=0))[0], scale[1] / (7**0.5 * far), rtol=1e-3
    )
    expected = np.linalg.svd(np.asarray(rows, float) / np.asarray(scale, float))[1]
    np.testing.assert_allclose(s, expected, rtol=1e-3)
    np.testing.assert_allclose(vt @ vt.T, np.eye(2), atol=1e-5)


@pytest.mark.parametrize("power", [0.25, 1.0])
def test_a_column_far_below_rounding_is_of_another_unit(dtype, power):
    """Of 1, t^2 and t, the last in a unit far below eps."""
    t = np.linspace(-1, 2, 7)
    units = np.array([1.0, 3.0, float(jnp.finfo(dtype).tiny) ** 0.4])
    rows = jnp.asarray(np.stack([t**0, t**2, t], axis=1) * units, dtype)
    triangle, _, _ = reduce_rows(rows, jnp.asarray(t**3, dtype))
    b = jnp.array([0.0, 0.0, 1.0], dtype)  # in the short column alone
    scale = column_scale(norms(rows), power)
    scale, s, vt, c = scaled_factor(triangle, b, scale, norms(rows), num_rows=7)
    step = (vt.T @ (c / s)) / scale * units
    expected = np.linalg.solve(np.asarray(triangle, float) / units, np.asarray(b, float))
    np.testing.assert_allclose(step, expected, rtol=1e-4, atol=1e-5)


def test_a_column_of_zeros_is_no_unit(dtype):
    a = jnp.array([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0]], dtype)
    scale, s, _, _ = scaled_factor(a, jnp.ones(3, dtype), jnp.array([2.0, 1.0], dtype), norms(a))
    np.testing.assert_array_equal(scale, [2, 1])
    np.testing.assert_allclose(s, [1.5**0.5, 0], rtol=1e-6)


def test_the_norm_that_was_asked_for_stays_where_no_other_finds_more(dtype):
    """Two columns are multiples of one another."""
    triangle = jnp.array([[2.0, 4.0, 55.0], [0.0, 0.0, 30.0], [0.0, 0.0, 0.0]], dtype)
    b = jnp.array([0.0, 0.0, 1.0], dtype)
    scale, s, _, _ = scaled_factor(triangle, b, jnp.ones(3, dtype), norms(triangle), num_rows=4)
    np.testing.assert_array_equal(scale, 1)
    assert int((s > 0).sum()) == 2


def test_fewer_rows_than_columns_keep_the_norm_that_was_asked_for(dtype):
    """They lack rank in any unit; here D proportional to the columns would find a rank of 2."""
    tiny = 2.5 * float(jnp.finfo(dtype).eps)
    a = jnp.array([[1.0, 0.0, 0.0], [0.0, tiny, 0.0]], dtype)
    b = jnp.array([0.0, 1.0], dtype)
    scale, s, _, _ = scaled_factor(a, b, jnp.ones(3, dtype), norms(a))
    np.testing.assert_array_equal(scale, 1)
    assert int((s > 0).sum()) == 1


def test_a_direction_that_holds_little_of_the_residual_may_wait(dtype):
    """As the columns come there is a step to take, of half the decrease at least."""
    far = float(1 / jnp.finfo(dtype).eps) ** 0.75
    triangle = jnp.array([[1.0, far], [0.0, 1e-4 * far]], dtype)
    for b, rank in (([1.0, 0.5], 1), ([0.5, 1.0], 2)):
        found = scaled_factor(
            triangle, jnp.array(b, dtype), jnp.ones(2, dtype), norms(triangle), num_rows=7
        )
        assert int((found[1] > 0).sum()) == rank


def test_a_column_that_became_small_keeps_its_unit(dtype):
    """Equal when they were largest: the step is the shortest, none goes far along the small one."""
    tiny = float(jnp.finfo(dtype).eps)
    a, b = jnp.array([[1.0, 0.0], [0.0, tiny / 2]], dtype), jnp.array([0.0, 1.0], dtype)
    scale, s, _, _ = scaled_factor(a, b, jnp.ones(2, dtype), jnp.ones(2, dtype))
    np.testing.assert_array_equal(scale, 1)
    assert int((s > 0).sum()) == 1
