"""Symmetric systems: the dense answer, and a flag where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import tree
from hesskit.linalg.symmetric import DENSE, solve

FEW, MANY = 6, DENSE + 1


def matrix(n, eigenvalues):
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))
    return (q * np.asarray(eigenvalues)) @ q.T, q


@pytest.mark.parametrize(
    ("n", "low", "sound"),
    [
        (FEW, 1.0, True),
        (FEW, -1.0, True),
        (FEW, 0.0, False),
        (MANY, 1.0, True),
        (MANY, -1.0, False),
    ],
)
def test_against_numpy(n, low, sound, float64):
    """By conjugate gradients an indefinite matrix has no answer; no answer is no error."""
    h, q = matrix(n, [low, *np.linspace(2.0, 5.0, n - 1)])
    b = q @ np.ones(n)
    units = jnp.asarray(np.logspace(-3, 3, n) if n == FEW else np.ones(n))  # of the unknowns
    scaled = units[:, None] * jnp.asarray(h) * units[None, :]
    x, found = jax.jit(lambda b: solve(lambda v: scaled @ v, b))(units * b)
    assert bool(found) == sound
    if sound:
        np.testing.assert_allclose(units * x, np.linalg.solve(h, b), rtol=1e-6)


def test_a_matrix_of_nan_is_no_answer():
    _, sound = solve(lambda v: tree.scale(jnp.nan, v), {"a": jnp.ones(2), "b": jnp.ones(())})
    assert not sound
