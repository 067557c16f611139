"""Slots of layers: each is what it would be alone."""

import jax
import jax.numpy as jnp
import numpy as np

from hesskit.core.blocks import Block, shape_of
from hesskit.linalg import kronecker, kronecker_basis
from hesskit.linalg.slots import apart, empty_slots, from_trees, in_trees, together

RNG = np.random.default_rng(0)
ALONE = Block("", shape_of((3, 2), 2), "kronecker", ())
LAYERS = ALONE._replace(shape=ALONE.shape._replace(layers=4))


def test_slots_go_through_a_state():
    params = {"b": jnp.ones(2), "w": jnp.ones((3, 2))}
    slots = empty_slots(params, (shape_of((2,), 9), shape_of((3, 2), 9)))
    slots = jax.tree.map(lambda a: a + RNG.normal(), slots)
    trees = in_trees(slots, jax.tree.structure(params))
    assert all(jax.tree.structure(each) == jax.tree.structure(params) for each in trees)
    found = from_trees(trees, jax.tree.structure(params))
    assert jax.tree.structure(found) == jax.tree.structure(slots)
    for a, b in zip(*map(jax.tree.leaves, (found, slots)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_shapes_of_slots():
    (slot,) = empty_slots([jnp.ones((4, 3, 2))], (LAYERS.shape,))
    assert [a.shape for a in slot] == [(4, 4), (4, 3, 3), (4,)]  # a diagonal, a matrix, a multiple
    (slot,) = empty_slots([jnp.ones((4, 5))], (shape_of((5,), 9)._replace(layers=4),))
    assert slot.shape == (4, 5)


def test_matrices_together_come_apart():
    parts = [jnp.full((2, 2), 1.0), jnp.arange(12.0).reshape(3, 2, 2)]
    for one, found in zip(parts, apart(together(parts), parts), strict=True):
        np.testing.assert_array_equal(one, found)


def test_inverses_and_eigenvectors_are_those_of_each_layer_alone(float64):
    half = RNG.normal(size=(4, 2, 5))
    columns = np.pad(half @ half.transpose(0, 2, 1), [(0, 0), (0, 1), (0, 1)])
    rows = np.pad(RNG.uniform(1, 2, size=(4, 3)), [(0, 0), (0, 1)])
    slot = tuple(jnp.asarray(a) for a in (rows, columns, RNG.uniform(size=4)))
    v, damping = jnp.asarray(RNG.normal(size=(4, 3, 2))), jnp.asarray(0.3)

    def of(block, slot, v):
        inverses = kronecker.inverses((slot,), (block,), damping)
        basis = kronecker_basis.turned((slot,), (block,))
        # in the same basis, and of no weight: nothing moves
        basis = kronecker_basis.corrected(basis, basis, (0 * basis[0].values,), jnp.zeros(()))
        return (
            kronecker.apply(inverses, (block,), [v])[0],
            kronecker_basis.solve(basis, (block,), [v], damping)[0],
            kronecker.trace((slot,), (block,)),
        )

    @jax.jit
    def both(slot, v):
        return of(LAYERS, slot, v), of(ALONE, *jax.tree.map(lambda a: a[1], (slot, v)))

    ours, alone = both(slot, v)
    np.testing.assert_allclose(ours[0][1], alone[0], rtol=1e-12)
    np.testing.assert_allclose(ours[1][1], alone[1], rtol=1e-12)
    dense = np.kron(np.diag(rows[1, :3]), columns[1, :2, :2]) + (slot[2][1] + 0.3) * np.eye(6)
    np.testing.assert_allclose(alone[1].ravel(), np.linalg.solve(dense, v[1].ravel()), rtol=1e-9)
    traces = rows.sum(1) * np.trace(columns, axis1=1, axis2=2) + 6 * slot[2]
    np.testing.assert_allclose(ours[2], np.sum(traces), rtol=1e-12)
