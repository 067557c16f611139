"""Kronecker factors against the dense matrices that they stand for."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core.blocks import plan
from hesskit.linalg import kronecker
from hesskit.linalg.dense import dense
from hesskit.linalg.slots import empty_slots

RNG = np.random.default_rng(0)
X = jnp.ones((4, 3))


def _psd(k, n):
    """(k, k), or (k,), of which n rows are in use."""
    a = RNG.normal(size=(n, 9))
    return jnp.pad(jnp.asarray(a @ a.T), (0, k - n))


def _model(p):
    return X @ p["w"] + p["b"], X @ p["t"].T, X * p["s"]


@pytest.mark.parametrize("max_dim", [10, 2])
@pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")
def test_products_and_inverses_are_those_of_the_dense_blocks(float64, max_dim):
    shapes = {"b": (2,), "s": (3,), "t": (2, 3), "w": (3, 2)}
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    found = plan(_model, params, max_dim=max_dim, shared="sum")
    slots = empty_slots(params, kronecker.shapes(params, max_dim))

    def fill(side, n):
        return _psd(len(side), n) if side.ndim == 2 else jnp.pad(RNG.uniform(1, 2, n), (0, 1))

    made = [slots[0], jnp.asarray(RNG.uniform(1, 2, 3))]
    for slot, block in zip(slots[2:], found.blocks[2:], strict=True):
        made.append((*map(fill, slot[:2], block.lengths), jnp.zeros(())))
    slots = tuple(made)
    given = dense(lambda v: kronecker.apply(slots, found.blocks, v), params)

    def full(side, k):
        return np.diag(side)[:k, :k] if side.ndim == 1 else np.asarray(side)[:k, :k]

    rows, columns = full(slots[3][0], 4), full(slots[3][1], 2)  # w with b as its last row
    joined = np.kron(rows, columns)
    order = [0, 1, *range(11, 17)]  # b, then w
    np.testing.assert_allclose(given[np.ix_(order, order)], np.roll(joined, 2, (0, 1)), rtol=1e-12)
    t = np.kron(full(slots[2][0], 2), full(slots[2][1], 3))
    np.testing.assert_allclose(given[5:11, 5:11], t, rtol=1e-12)
    np.testing.assert_allclose(given[2:5, 2:5], np.diag(slots[1]), rtol=1e-12)

    damping = 0.3
    inverses = kronecker.inverses(slots, found.blocks, jnp.asarray(damping))
    inverse = dense(lambda v: kronecker.apply(inverses, found.blocks, v), params)
    assert np.linalg.eigvalsh(inverse)[0] > 0
    rows, columns = full(slots[3][0], 4), slots[3][1]
    traces = np.trace(rows) / 4, (np.trace(columns) if columns.ndim == 2 else columns.sum()) / 2
    pi = (traces[0] / traces[1]) ** 0.5
    damped = rows + pi * damping**0.5 * np.eye(4), full(columns, 3) + damping**0.5 / pi * np.eye(3)
    wanted = np.kron(np.linalg.inv(damped[0]), np.linalg.inv(damped[1])[:2, :2])
    np.testing.assert_allclose(inverse[np.ix_(order, order)], np.roll(wanted, 2, (0, 1)), rtol=1e-9)
    np.testing.assert_allclose(inverse[2:5, 2:5], np.diag(1 / (slots[1] + damping)), rtol=1e-12)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere batches are welcome")
def test_on_a_cpu_no_batch_of_matrices_is_factored_at_once():
    """Two such calls of jaxlib at once on two cores wait for each other for ever."""
    params = {"u": jnp.ones((3, 3)), "v": jnp.ones((3, 5)), "w": jnp.ones((5, 3))}
    found = plan(lambda p: (X @ p["u"], X @ p["v"] @ p["w"]), params, max_dim=9, shared="sum")
    slots = empty_slots(params, kronecker.shapes(params, 9))
    invert = jax.jit(lambda s, d: kronecker.inverses(s, found.blocks, d))
    text = invert.lower(slots, jnp.asarray(0.1)).compile().as_text()
    calls = [line for line in text.splitlines() if "potrf" in line]
    assert len(calls) == 2  # one of each length
    assert not any(re.search(r"f32\[\d+,\d+,\d+\]", line.split("custom-call")[0]) for line in calls)


@pytest.mark.skipif(jax.device_count() < 3, reason="needs three devices")
@pytest.mark.standard_promotion("data of the model are of float32")
@pytest.mark.parametrize("explicit", [True, False])
def test_inverses_spread_over_devices_are_those_of_one(explicit, float64):
    params = {"u": jnp.ones((3, 3)), "v": jnp.ones((3, 5)), "w": jnp.ones((5, 3))}
    found = plan(lambda p: (X @ p["u"], X @ p["v"] @ p["w"]), params, max_dim=9, shared="sum")
    slots = tuple(
        (*(_psd(len(side), n) for side, n in zip(slot[:2], block.lengths, strict=True)), slot[2])
        for slot, block in zip(
            empty_slots(params, kronecker.shapes(params, 9)), found.blocks, strict=True
        )
    )
    one = kronecker.inverses(slots, found.blocks, jnp.asarray(0.1))
    kind = jax.sharding.AxisType.Explicit if explicit else jax.sharding.AxisType.Auto
    mesh = jax.make_mesh((3,), ("data",), axis_types=(kind,), devices=jax.devices()[:3])
    with jax.set_mesh(mesh):
        spread = jax.jit(
            lambda s: kronecker.inverses(s, found.blocks, jnp.asarray(0.1), place="distributed")
        )
        placed = jax.device_put(slots, jax.NamedSharding(mesh, jax.P()))
        text = spread.lower(placed).compile().as_text()
        many = spread(placed)
    assert text.count("all-gather(") + text.count("all-gather-start(") == 2  # one of each length
    assert "all-reduce" not in text
    for a, b in zip(*map(jax.tree.leaves, (many, one)), strict=True):
        assert a.sharding.is_fully_replicated
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)
