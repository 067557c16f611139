"""Modified factorizations: the identity, the size of E, and plain Cholesky where it suffices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.linalg.positive import modified_cholesky, modified_eigenvalues, solve

factorize = jax.jit(modified_cholesky)


def with_spectrum(rng, w, dtype="float64"):
    """A symmetric matrix with eigenvalues w in random directions."""
    q, _ = np.linalg.qr(rng.standard_normal((len(w), len(w))))
    matrix = (q * w) @ q.T
    return ((matrix + matrix.T) / 2).astype(dtype)


def indefinite(rng, n, kind):
    """Spectra of three kinds, each with a negative eigenvalue."""
    low, high = {"few": (-1, 1e4), "half": (-1e4, 1e4), "one": (0, 1e4)}[kind]
    w = rng.uniform(low, high, n)
    w[0] = -rng.uniform(0.1, 1) * max(-low, 10)
    return w


def gill_murray_wright(matrix):
    """max E of GMW81 (N&W section 3.4), for comparison."""
    n, rest = len(matrix), matrix.copy()
    eps = np.finfo(float).eps
    gamma, xi = abs(np.diag(matrix)).max(), abs(matrix - np.diag(np.diag(matrix))).max()
    beta2 = max(gamma, xi / max(np.sqrt(n * n - 1), 1), eps)
    added, alive = np.zeros(n), np.ones(n, bool)
    for _ in range(n):
        q = np.argmax(np.where(alive, abs(np.diag(rest)), -1))
        alive[q] = False
        column = np.where(alive, rest[:, q], 0)
        d = max(abs(rest[q, q]), abs(column).max() ** 2 / beta2, eps * (gamma + xi))
        added[q] = d - rest[q, q]
        rest = rest - np.outer(column, column) / d
    return added.max()


def check_identity(matrix, answer, factor=20):
    """(1) of the module, with L lower triangular, E >= 0 and a permutation."""
    order, lower = np.asarray(answer.permutation), np.asarray(answer.factor, float)
    lifted = np.asarray(matrix, float) + np.diag(np.asarray(answer.added, float))
    tolerance = factor * float(jnp.finfo(answer.factor.dtype).eps) * abs(lifted).max()
    np.testing.assert_allclose(lower @ lower.T, lifted[np.ix_(order, order)], atol=tolerance)
    np.testing.assert_array_equal(np.triu(lower, 1), 0)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(order)))
    assert (np.diag(lower) > 0).all()
    assert (np.asarray(answer.added) >= 0).all()
    assert bool(answer.is_modified) == bool((answer.added > 0).any())


@pytest.mark.parametrize("kind", ["few", "half", "one"])
@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_identity_and_size(n, kind, dtype):
    rng = np.random.default_rng(n)
    for _ in range(10):
        w = indefinite(rng, n, kind)
        matrix = with_spectrum(rng, w, dtype)
        answer = factorize(matrix)
        check_identity(matrix, answer)
        assert answer.is_modified
        # E must at least cancel lambda_min; Gerschgorin's theorem bounds what it may be.
        radii = abs(matrix).sum(1) - abs(np.diag(matrix))
        floor = 0.03 * abs(matrix).max()
        assert -w.min() * 0.99 <= answer.added.max() + 1e-5 * abs(w).max()
        assert answer.added.max() <= (radii - np.diag(matrix)).max() + floor


@pytest.mark.parametrize("kind", ["few", "half", "one"])
@pytest.mark.parametrize("n", [2, 10, 30])
def test_adds_less_than_gill_murray_wright(n, kind, float64):
    rng = np.random.default_rng(n)
    ours, theirs = [], []
    for _ in range(15):
        w = indefinite(rng, n, kind)
        matrix = with_spectrum(rng, w)
        ours.append(float(factorize(matrix).added.max()) / -w.min())
        theirs.append(gill_murray_wright(matrix) / -w.min())
    assert np.median(ours) < np.median(theirs)
    assert np.median(ours) < 8


def test_positive_definite_is_plain_cholesky(dtype):
    rng = np.random.default_rng(0)
    for condition in (1, 10, 1e4):
        matrix = with_spectrum(rng, np.geomspace(1, condition, 6), dtype)
        answer = factorize(matrix)
        np.testing.assert_array_equal(answer.factor, jax.jit(jnp.linalg.cholesky)(matrix))
        np.testing.assert_array_equal(answer.added, np.zeros(6))
        np.testing.assert_array_equal(answer.permutation, np.arange(6))
        assert not answer.is_modified


@pytest.mark.parametrize(
    "matrix",
    [
        [[0.0]],
        [[-5.0]],
        [[0.0, 0.0], [0.0, 0.0]],
        [[0.0, 1.0], [1.0, 0.0]],
        [[1.0, 1.0], [1.0, 1.0]],
        [[1.0, 0.0], [0.0, -1e-20]],
        [[-1.0, 0.0, 0.0], [0.0, -2.0, 0.0], [0.0, 0.0, -3.0]],
        [[4.0, 2.0, 1.0], [2.0, 6.0, 3.0], [1.0, 3.0, -0.004]],  # N&W, example of section 3.4
    ],
)
def test_singular_and_indefinite_by_hand(matrix, dtype):
    matrix = np.array(matrix, dtype)
    answer = factorize(matrix)
    check_identity(matrix, answer)
    assert answer.is_modified
    assert np.linalg.eigvalsh(matrix + np.diag(answer.added))[0] > 0


def test_floor_is_the_least_pivot_added(float64):
    answer = factorize(np.diag([4.0, 1e-20]), 0.25)
    np.testing.assert_allclose(answer.added, [0, 1])


def test_units_do_not_matter(dtype):
    matrix = with_spectrum(np.random.default_rng(1), np.array([-1.0, -0.1, 1, 2]), dtype)
    plain = factorize(matrix)
    for exponent in (60, -60):
        scaled = factorize(matrix * dtype.type(2.0**exponent))
        np.testing.assert_array_equal(scaled.added * dtype.type(2.0**-exponent), plain.added)


def test_nan_shows(dtype):
    answer = factorize(np.array([[1.0, np.nan], [np.nan, 1.0]], dtype))
    assert jnp.isnan(answer.factor).any()


@pytest.mark.parametrize("w", [[1.0, 2.0, 3.0], [-1.0, 2.0, 3.0]])
def test_solve(w, dtype):
    rng = np.random.default_rng(2)
    matrix = with_spectrum(rng, np.array(w), dtype)
    answer = factorize(matrix)
    b = rng.standard_normal(3).astype(dtype)
    x = solve(answer, b)
    lifted = matrix + np.diag(answer.added)
    tolerance = 20 * float(jnp.finfo(dtype).eps) * abs(lifted).max() * abs(x).max()
    np.testing.assert_allclose(lifted @ np.asarray(x), b, atol=float(tolerance))
    assert x.dtype == dtype


def test_lanes_equal_one_by_one(dtype):
    rng = np.random.default_rng(3)
    spectra = [[1.0, 2.0, 3.0, 4.0], [-1.0, 2.0, 3.0, 4.0], [-4.0, -3.0, -2.0, -1.0]]
    matrices = np.stack([with_spectrum(rng, np.array(w), dtype) for w in spectra])
    lanes = jax.jit(jax.vmap(modified_cholesky))(matrices)
    for i, matrix in enumerate(matrices):
        alone = factorize(matrix)
        np.testing.assert_array_equal(lanes.permutation[i], alone.permutation)
        np.testing.assert_allclose(
            lanes.factor[i], alone.factor, atol=100 * float(jnp.finfo(dtype).eps)
        )
        assert lanes.is_modified[i] == alone.is_modified


def test_modified_eigenvalues(dtype):
    w = jnp.array([-4.0, -1e-9, 0.0, 1.0], dtype)
    np.testing.assert_allclose(modified_eigenvalues(w, 0.01), [4, 0.04, 0.04, 1], rtol=1e-6)
    np.testing.assert_array_equal(modified_eigenvalues(jnp.zeros(2, dtype), 0.01), [1, 1])
    assert jnp.isnan(modified_eigenvalues(w.at[1].set(jnp.nan), 0.01)).any()
