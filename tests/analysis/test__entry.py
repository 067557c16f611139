"""What a question of a matrix takes, and the words where it is something else."""

import jax.numpy as jnp
import numpy as np
import pytest

import hesskit


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ((lambda p: p[0] ** 2,), TypeError, r"needs the point: definiteness\(f, x\)"),
        ((jnp.eye(2), jnp.ones(2)), TypeError, "of a matrix takes no params"),
        ((jnp.ones((2, 3)),), ValueError, "square matrix, got shape"),
        ((jnp.array([[1.0, 2.0], [0.0, 1.0]]),), ValueError, "symmetric matrix"),
        (
            (jnp.array([[1, 1j], [-1j, 1]]),),
            TypeError,
            r"real matrix.*pass \[\[Re, -Im\], \[Im, Re\]\]",
        ),
        (("text",), TypeError, "a function and a point, an operator or a matrix"),
        ((lambda p: p[0] ** 2, jnp.array([0, 1])), TypeError, "Derivatives need floats"),
    ],
)
def test_wrong_subjects(given, error, said):
    with pytest.raises(error, match=said):
        hesskit.definiteness(*given)


def test_an_operator_knows_its_point():
    op = hesskit.hessian_operator(lambda p: jnp.sum(p**2), jnp.ones(2))
    with pytest.raises(TypeError, match="of an operator takes no params"):
        hesskit.definiteness(op, jnp.ones(2))


def test_integers_are_a_matrix_too():
    assert hesskit.definiteness([[2, 0], [0, 3]]).kind == hesskit.DefiniteKind.POSITIVE_DEFINITE


def test_complex_and_mixed_params_and_functions_without_a_hash():
    class Loss:
        __hash__ = None

        def __call__(self, p):
            z, w = p["z"], p["w"].astype("float32")
            return jnp.sum(jnp.real(z) ** 2 + 3 * jnp.imag(z) ** 2) + 5 * jnp.sum(w**2)

    point = {"z": jnp.ones(2, "complex64"), "w": jnp.ones(2, "bfloat16")}
    small = hesskit.definiteness(Loss(), point)
    np.testing.assert_allclose(small.eigenvalues, [2, 2, 6, 6, 10, 10], rtol=1e-2)
    large = hesskit.definiteness(Loss(), point, dense=False)
    np.testing.assert_allclose(large.eigenvalues, [2, 10], rtol=1e-2)
