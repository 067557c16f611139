"""The operator of Kronecker factors: inverse and determinant against its own dense matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit

RNG = np.random.default_rng(0)


def _normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


@pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")
@pytest.mark.parametrize("max_factor_dim", [99, 2])
def test_inverse_and_determinant_are_those_of_the_dense_matrix(float64, max_factor_dim):
    shapes = {"b": (2,), "m": (2, 2), "s": (2,), "w": (3, 2)}
    params = {name: _normal(*shape) for name, shape in shapes.items()}

    def model(p, x):
        return jnp.tanh(x @ p["w"] + p["b"]) * p["s"] @ jnp.sin(p["m"])

    loss = hesskit.composite(hesskit.losses.softmax_cross_entropy(), model) + hesskit.l2(0.1)
    args = _normal(7, 3), jnp.arange(7) % 2
    op = hesskit.kronecker_operator(
        loss, params, args=args, num_samples=5, max_factor_dim=max_factor_dim
    )
    matrix = np.asarray(op.dense())
    assert np.linalg.eigvalsh(matrix)[0] > 0
    v = {name: _normal(*shape) for name, shape in shapes.items()}
    flat = jax.flatten_util.ravel_pytree
    wanted = np.linalg.solve(matrix + 0.3 * np.eye(len(matrix)), flat(v)[0])
    np.testing.assert_allclose(flat(op.solve(v, 0.3))[0], wanted, rtol=1e-9)
    np.testing.assert_allclose(flat(op.shift(0.3).solve(v))[0], wanted, rtol=1e-9)
    np.testing.assert_allclose(op.logdet(), np.linalg.slogdet(matrix)[1], rtol=1e-9)
    np.testing.assert_allclose((2 * op).dense(), 2 * matrix, rtol=1e-12)


def test_a_plain_function_has_no_factors():
    with pytest.raises(TypeError, match="kronecker_operator needs the residuals"):
        hesskit.kronecker_operator(lambda w: jnp.sum(w**2), jnp.ones(2))


def test_a_leaf_that_is_returned_in_another_shape_has_curvature():
    loss = hesskit.least_squares_loss(lambda p: p.reshape(3, 1))
    found = hesskit.kronecker_operator(loss, jnp.ones(3)).dense()
    np.testing.assert_allclose(found, np.eye(3), atol=1e-6)
