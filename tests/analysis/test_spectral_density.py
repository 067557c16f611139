"""The density of a net's Hessian against its dense eigenvalues."""

import jax.numpy as jnp
import numpy as np
import pytest

import hesskit


def problem(n=300):
    rng = np.random.default_rng(0)
    w = np.concatenate([rng.normal(size=n - 3) * 0.1, [5.0, 7.0, 9.0]])
    q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    return np.sort(w), jnp.asarray((q * w) @ q.T, "float32")


def test_two_standard_errors_hold_nineteen_of_twenty_moments():
    w, matrix = problem(100)
    exact = [np.mean(w**k) for k in (1, 2, 3)]
    values, spread = [], []
    for key in range(40):
        found = hesskit.spectral_density(matrix, num_probes=12, num_steps=10, key=key)
        moments = [found.moment(k) for k in (1, 2, 3)]
        values.append([float(m.value) for m in moments])
        spread.append([float(m.standard_error) for m in moments])
    off = np.array(values) - exact
    assert np.mean(np.abs(off) < 2 * np.array(spread)) > 0.85  # Student's, of 11: 0.93
    assert np.all(np.abs(np.mean(off, axis=0)) < 3 * np.std(values, axis=0) / 40**0.5)  # no bias
    np.testing.assert_allclose(np.mean(spread, axis=0), np.std(values, axis=0), rtol=0.3)


@pytest.mark.slow
def test_masses_and_the_density():
    w, matrix = problem()
    found = hesskit.spectral_density(matrix, num_probes=12, num_steps=40, key=3)
    np.testing.assert_allclose(np.sum(found.weights, axis=1), 1, rtol=1e-5)
    assert int(found.num_products) == 480
    low, high = found.ends
    np.testing.assert_allclose([low, high], [w[0], w[-1]], atol=1e-3)
    assert abs(found.negative_mass.value - np.mean(w < 0)) < 0.05
    assert abs(found.outliers.value - 3) < 3 * found.outliers.standard_error + 0.3
    grid, density = found.density(width=0.2)
    step = grid[1] - grid[0]
    np.testing.assert_allclose(np.sum(density.value) * step, 1, rtol=1e-3)
    bumps = np.exp(-(((np.asarray(grid)[:, None] - w[None, :]) / 0.2) ** 2) / 2)
    truth = bumps.mean(axis=1) / (0.2 * np.sqrt(2 * np.pi))
    assert np.sum(np.abs(density.value - truth)) * step < 0.05
    text = str(found).splitlines()
    assert text[0].startswith("spectral density of 300 eigenvalues")
    assert text[-1] == "12 probes of 40 products"


def test_few_rows_are_seen_exactly_and_wrong_numbers_named():
    found = hesskit.spectral_density(jnp.diag(jnp.array([1.0, 2.0])), num_probes=3)
    assert found.nodes.shape == (3, 2)
    np.testing.assert_allclose(found.nodes, [[1, 2]] * 3, rtol=1e-5)
    with pytest.raises(ValueError, match="num_probes must be an integer of at least 1"):
        hesskit.spectral_density(jnp.eye(2), num_probes=0)


@pytest.mark.slow
def test_a_list_of_batches_is_visited_probe_by_probe():
    fn = lambda p, x: jnp.mean((x @ p) ** 2)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), "float32")
    given = {"num_probes": 3, "num_steps": 2, "block_size": 2}
    whole = hesskit.spectral_density(fn, jnp.ones(3), args=(x,), **given)
    visited = hesskit.spectral_density(fn, jnp.ones(3), batches=[(x[:2],), (x[2:],)], **given)
    np.testing.assert_allclose(visited.nodes, whole.nodes, rtol=1e-5)


def test_one_eigenvalue_is_a_narrow_bump():
    found = hesskit.spectral_density(2 * jnp.eye(5), num_probes=1)
    grid, density = found.density()
    np.testing.assert_allclose(jnp.trapezoid(density.value, grid), 1, rtol=1e-2)
    np.testing.assert_allclose(grid[jnp.argmax(density.value)], 2, rtol=1e-4)
