"""Rows of a pytree as a matrix, against the dense one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg import basis


def problem(dtype, num=4):
    rng = np.random.default_rng(0)
    make = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    rows = {"a": make(num, 2, 3), "b": make(num, 5)}
    flat = np.concatenate([np.asarray(v).reshape(num, -1) for v in rows.values()], axis=1)
    return rows, flat


def one(rows, i):
    return jax.tree.map(lambda a: a[i], rows)


def flatten(rows):
    return np.concatenate([np.asarray(v).reshape(v.shape[0], -1) for v in rows.values()], axis=1)


def test_the_three_products(dtype):
    rows, q = problem(dtype)
    rtol = 1e-5 if dtype == "float32" else 1e-13
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)
    x = one(rows, 2)
    close(basis.coefficients(rows, x), q @ q[2])
    c = jnp.asarray(np.arange(8.0).reshape(2, 4), dtype)
    close(flatten(basis.combinations(rows, c)), np.asarray(c) @ q)
    close(basis.gram(rows, rows), q @ q.T)
    assert basis.size(rows) == 4


def test_orthonormal_rows_span_the_same_and_drop_what_depends(float64):
    rows, q = problem("float64")
    rows = jax.tree.map(lambda a: a.at[2].set(a[0] - 2 * a[1]), rows)
    found = flatten(jax.jit(basis.orthonormal)(rows))
    np.testing.assert_allclose(found @ found.T, np.diag([1.0, 1, 0, 1]), atol=1e-14)
    inside = q[[0, 1, 3]]
    np.testing.assert_allclose(inside @ found.T @ found, inside, atol=1e-13)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_rows_on_an_explicit_mesh_keep_their_layout():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    rows = jnp.arange(24.0).reshape(3, 8)
    expected = rows @ rows[1], jnp.array([1.0, 0, 2]) @ rows
    with jax.set_mesh(mesh):
        laid = jax.device_put(rows, jax.sharding.NamedSharding(mesh, jax.P(None, "x")))
        found = basis.coefficients(laid, laid[1]), basis.combination(laid, jnp.array([1.0, 0, 2]))
    np.testing.assert_allclose(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1])
    assert found[1].sharding.spec == jax.P("x")
