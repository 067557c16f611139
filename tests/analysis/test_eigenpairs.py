"""Eigenpairs of Hessians against dense `eigh`: nets, blocks, batches, sharded params."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit


def net(p, x, y):
    hidden = jnp.tanh(x @ p["first"]["w"] + p["first"]["b"][None])
    return jnp.mean((hidden @ p["last"] - y) ** 2)


def problem(width=40, num=60):
    rng = np.random.default_rng(0)
    make = lambda *shape: jnp.asarray(rng.normal(size=shape), "float32")
    params = {"first": {"w": make(20, width) / 4, "b": make(width)}, "last": make(width, 2) / 6}
    return params, (make(num, 20), make(num, 2))


def ravel(p):
    return np.asarray(jax.flatten_util.ravel_pytree(p)[0])


@pytest.mark.slow
def test_both_ends_of_a_net(float64):
    params, data = problem()
    params, data = jax.tree.map(lambda a: a.astype("float64"), (params, data))
    matrix = np.asarray(hesskit.hessian(net, params, args=data))
    w = np.linalg.eigvalsh(matrix)
    found = hesskit.eigenpairs(net, params, 5, args=data, which="both")
    expected = np.concatenate([w[:5], w[-5:]])
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-8)
    assert bool(found.converged.all())
    for i in (0, 9):
        v = ravel(jax.tree.map(lambda a, i=i: a[i], found.eigenvectors))
        residual = np.linalg.norm(matrix @ v - float(found.eigenvalues[i]) * v)
        assert residual <= 2 * float(found.residual_norms[i])
    assert int(found.num_products) < 120


@pytest.mark.slow
def test_float32_in_one_cycle_and_on_a_mesh():
    params, data = problem()
    matrix = np.asarray(hesskit.hessian(net, params, args=data), np.float64)
    w = np.linalg.eigvalsh(matrix)[-5:]
    settings = {"args": data, "max_products": 60, "num_rows": 60, "tol": 0.0}
    found = hesskit.eigenpairs(net, params, 5, **settings)
    np.testing.assert_allclose(found.eigenvalues, w, rtol=1e-5)
    assert int(found.num_products) == 60
    if jax.device_count() < 8:
        return
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    whole, split = (jax.sharding.NamedSharding(mesh, s) for s in (jax.P(), jax.P(None, "x")))
    laid = jax.device_put(params, {"first": {"w": split, "b": whole}, "last": whole})
    with jax.set_mesh(mesh):
        spread = hesskit.eigenpairs(net, laid, 5, **settings)
    np.testing.assert_allclose(spread.eigenvalues, w, rtol=1e-5)


@pytest.mark.slow
def test_a_block_and_batches():
    params, data = problem(width=8)
    halves = jax.tree.map(lambda a: a.reshape(2, 30, -1), data)
    whole = hesskit.hessian_operator(net, params, args=data)
    visited = hesskit.hessian_operator(
        net, params, batches=[jax.tree.map(lambda a, i=i: a[i], halves) for i in range(2)]
    )
    matrix = np.asarray(whole.block("first/*").dense())
    assert matrix.shape == (168, 168)
    w = np.linalg.eigvalsh(matrix)[-2:]
    for op in (whole, visited):
        found = hesskit.eigenpairs(op.block("first/*"), num=2, max_products=40)
        np.testing.assert_allclose(found.eigenvalues, w, rtol=1e-4)
        assert found.eigenvectors["last"] is None
        assert found.eigenvectors["first"]["w"].shape == (2, 20, 8)


def test_the_text_and_wrong_arguments():
    matrix = jnp.diag(jnp.arange(1.0, 9.0))
    lines = str(hesskit.eigenpairs(matrix, num=2, which="smallest")).splitlines()
    assert lines[0] == "2 eigenvalues 1, 2"
    assert lines[2].startswith("2 of 2 within")
    for given, said in (
        ({"which": "LM"}, "which must be one of"),
        ({"num": 0}, "num must be an integer of at least 1"),
        ({"num": 5, "which": "both"}, "more than the 8 eigenvalues"),
        ({"num": 2, "num_rows": 2}, "num_rows must be more than"),
    ):
        with pytest.raises(ValueError, match=said):
            hesskit.eigenpairs(matrix, **given)
