"""Operators beside dense matrices, and a preconditioner that fulfills what its doc asks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from hesskit.core import pseudo_random, tree
from hesskit.curvature.hessian import hessian_operator
from hesskit.linalg.operator import Preconditioner
from hesskit.linalg.steihaug import steihaug

MATRIX = np.diag([1.0, 10.0, 100.0, 1000.0]).astype("float32")
PARAMS = {"a": jnp.ones(2), "b": jnp.ones(2)}


def product(v):
    return tree.unravel(jnp.asarray(MATRIX) @ tree.ravel(v), v)


def diagonal() -> Preconditioner:
    """The exact diagonal, from one product with the vector of ones (MATRIX is diagonal)."""
    return Preconditioner(
        init=lambda params: tree.zeros_like(params),
        update=lambda state, product, params: product(jax.tree.map(jnp.ones_like, params)),
        apply=lambda state, vector, damping: jax.tree.map(
            lambda m, v: v / (m + damping), state, vector
        ),
    )


def test_state_has_the_shapes_of_init_and_apply_is_symmetric_positive_definite():
    made = diagonal()
    state = made.update(made.init(PARAMS), product, PARAMS)
    assert jax.tree.structure(state) == jax.tree.structure(made.init(PARAMS))
    columns = [
        tree.ravel(made.apply(state, tree.unravel(e, PARAMS), jnp.float32(1.0))) for e in jnp.eye(4)
    ]
    inverse = np.stack(columns)
    np.testing.assert_allclose(inverse, np.linalg.inv(MATRIX + np.eye(4)), rtol=1e-6)


def test_the_exact_inverse_solves_in_one_product():
    made = diagonal()
    state = made.update(made.init(PARAMS), product, PARAMS)
    found = steihaug(
        product,
        PARAMS,
        jnp.float32(1e6),
        tol=jnp.float32(1e-6),
        max_products=10,
        precondition=lambda v: made.apply(state, v, jnp.zeros(())),
    )
    assert found.num_products == 1
    np.testing.assert_allclose(
        tree.ravel(found.step), -np.linalg.solve(MATRIX, np.ones(4)), rtol=1e-5
    )


def loss(p, x, scale=1.0):
    return scale * jnp.sum(jnp.tanh(x @ p["w"] + p["b"][None, :]) ** 2) + jnp.sum(p["w"] ** 4)


POINT = {"b": jnp.array([0.3, -0.2]), "w": jnp.array([[0.5, -1.0], [1.5, 0.25], [0.1, 0.7]])}
DATA = (jnp.array([[1.0, 0.5, -1.0], [0.2, -0.4, 0.9]]),)


def reference(p, args=DATA):
    flat, unravel = ravel_pytree(p)
    return np.asarray(jax.hessian(lambda x: loss(unravel(x), *args))(flat))


def vector(seed=1):
    return pseudo_random.like(POINT, seed)


@pytest.mark.slow
def test_product_matrix_sum_multiple_and_shift_are_those_of_the_dense_matrix():
    op, other = hessian_operator(loss, POINT, args=DATA), tree.scale(0.5, POINT)
    both = 2.0 * op + hessian_operator(loss, other, args=DATA).shift(0.5) * -1.0
    h, both_h = reference(POINT), 2 * reference(POINT) - reference(other) - 0.5 * np.eye(8)
    v = tree.ravel(vector())
    np.testing.assert_allclose(op.dense(), h, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(both.dense(chunk_size=3), both_h, rtol=1e-5, atol=1e-5)
    for one, matrix in ((op, h), (both, both_h)):
        np.testing.assert_allclose(tree.ravel(one @ vector()), matrix @ v, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(tree.ravel(one(vector())), tree.ravel(one @ vector()))
    assert op.shape == (8, 8)


def test_a_block_is_that_of_the_dense_matrix():
    op = 2.0 * hessian_operator(loss, POINT, args=DATA).shift(1.0)
    block = op.block("w")
    expected = 2 * (reference(POINT) + np.eye(8))[2:, 2:]
    np.testing.assert_allclose(block.dense(), expected, rtol=1e-5, atol=1e-5)
    v = {"b": None, "w": vector()["w"]}
    found = block @ v
    assert found["b"] is None
    np.testing.assert_allclose(tree.ravel(found), expected @ tree.ravel(v), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="block='c' matches no leaf; the paths are b, w"):
        op.block("c")


def test_solve_is_the_inverse_and_nan_where_the_matrix_is_indefinite():
    op = hessian_operator(loss, POINT, args=DATA)
    lowest = float(np.linalg.eigvalsh(reference(POINT))[0])
    damping = 1.0 - min(lowest, 0.0)
    x = op.solve(vector(), damping, tol=1e-6)
    expected = np.linalg.solve(reference(POINT) + damping * np.eye(8), tree.ravel(vector()))
    np.testing.assert_allclose(tree.ravel(x), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        tree.ravel(op.shift(damping).solve(vector(), tol=1e-6)), tree.ravel(x)
    )
    assert np.isnan(tree.ravel(op.solve(vector(), -1e3))).all()
    zero = op.solve(tree.zeros_like(POINT), damping)
    np.testing.assert_array_equal(tree.ravel(zero), np.zeros(8))


def test_one_program_serves_all_points_data_and_numbers():
    traces = []

    def counted(p, x):
        traces.append(1)
        return loss(p, x)

    for factor in (1.0, 0.5, 2.0):
        op = hessian_operator(counted, tree.scale(factor, POINT), args=(factor * DATA[0],))
        op = factor * op.shift(10 * factor)
        op @ vector()
        op.dense()
        op.solve(vector(), factor)
        if factor == 1.0:
            first = len(traces)
    assert len(traces) == first


def test_an_operator_is_a_pytree_through_jit_and_vmap():
    op = hessian_operator(loss, POINT, args=DATA)
    leaves, structure = jax.tree.flatten(op)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    again = jax.tree.unflatten(structure, leaves)
    inside = jax.jit(lambda op, v: op @ v)(again, vector())
    np.testing.assert_allclose(tree.ravel(inside), tree.ravel(op @ vector()), rtol=1e-6)
    points = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), POINT)
    many = jax.vmap(lambda p: hessian_operator(loss, p, args=DATA).dense())(points)
    np.testing.assert_allclose(many[1], reference(tree.scale(2.0, POINT)), rtol=1e-4, atol=1e-4)


def test_data_by_name():
    op = hessian_operator(loss, POINT, args={"x": DATA[0], "scale": jnp.array(3.0)})
    np.testing.assert_allclose(op.dense(), reference(POINT, (*DATA, 3.0)), rtol=1e-5, atol=1e-5)


def test_complex_params_have_products_and_no_matrix():
    z = jnp.array([1.0 + 2.0j, -0.5j])
    op = hessian_operator(lambda z: jnp.sum(z.real**2 + z.imag**2), z)
    np.testing.assert_allclose(op @ z, 2 * z)
    np.testing.assert_allclose(op.shift(2.0).solve(z), z / 4, rtol=1e-6)
    with pytest.raises(TypeError, match="real params"):
        op.dense()


def test_misuse_is_named():
    op = hessian_operator(loss, POINT, args=DATA)
    with pytest.raises(ValueError, match="v must have the structure of params"):
        op(jnp.ones(8))
    with pytest.raises(ValueError, match=r"v\['b'\] has shape"):
        op({**POINT, "b": jnp.ones(3)})
    with pytest.raises(ValueError, match="other operator's params"):
        op + hessian_operator(lambda x: jnp.sum(x**2), jnp.ones(2))
    with pytest.raises(TypeError, match="unsupported operand"):
        op + 1.0
    with pytest.raises(TypeError, match="unsupported operand"):
        op * jnp.ones(2)
    with pytest.raises(ValueError, match="max_products"):
        op.solve(vector(), max_products=0)
    with pytest.raises(TypeError, match="value_fn must be a function"):
        hessian_operator(3.0, POINT)
