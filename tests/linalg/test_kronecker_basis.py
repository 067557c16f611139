"""Eigenvectors of Kronecker factors against dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core.blocks import plan
from hesskit.linalg import kronecker_basis
from hesskit.linalg.dense import dense

RNG = np.random.default_rng(0)
USER = pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")


def _world():
    params = {"b": jnp.ones(2), "w": jnp.ones((3, 2))}
    model = lambda p: jnp.ones((4, 3)) @ p["w"] + p["b"]
    return params, plan(model, params, max_dim=9, shared="sum", fixed=True).blocks


def _slots(blocks):
    """Random factors of w with b as its last row; of b nothing."""
    rows, columns = (RNG.normal(size=(n, 6)) for n in blocks[1].lengths)
    pair = [jnp.pad(jnp.asarray(a @ a.T), (0, k - len(a))) for a, k in ((rows, 4), (columns, 3))]
    return jnp.zeros(2), (*pair, jnp.asarray(0.2))


def _matrix(product, params):
    """In the order of w, then b."""
    return np.roll(dense(product, params), -2, (0, 1))


@USER
def test_products_inverse_and_trace_are_those_of_the_dense_matrix(float64):
    params, blocks = _world()
    slots = _slots(blocks)
    turned = jax.jit(lambda s: kronecker_basis.turned(s, blocks))(slots)
    wanted = np.kron(slots[1][0][:4, :4], slots[1][1][:2, :2]) + 0.2 * np.eye(8)
    np.testing.assert_allclose(
        _matrix(lambda v: kronecker_basis.apply(turned, blocks, v), params), wanted, atol=1e-12
    )
    trace = kronecker_basis.trace(turned, blocks, jnp.float64)
    np.testing.assert_allclose(trace, np.trace(wanted), rtol=1e-12)
    damping = jnp.asarray(0.3)
    inverse = _matrix(lambda v: kronecker_basis.solve(turned, blocks, v, damping), params)
    np.testing.assert_allclose(inverse @ (wanted + 0.3 * np.eye(8)), np.eye(8), atol=1e-11)


@USER
def test_means_go_along_when_the_basis_moves(float64):
    """What was a matrix diagonal in the old basis keeps its diagonal in the new one."""
    params, blocks = _world()
    old, new = (kronecker_basis.turned(_slots(blocks), blocks) for _ in range(2))
    fresh = (jnp.zeros(2), jnp.asarray(RNG.uniform(size=(4, 3))))
    made = kronecker_basis.corrected(old, new, fresh, jnp.asarray(0.25))
    basis = np.kron(new[1].rows[:4, :4], new[1].columns[:2, :2])
    was = _matrix(lambda v: kronecker_basis.apply(old, blocks, v), params)
    carried = np.diag(basis.T @ was @ basis).reshape(4, 2)
    wanted = 0.75 * carried + 0.25 * fresh[1][:, :2]
    np.testing.assert_allclose(made[1].values[:, :2], wanted, rtol=1e-12)
