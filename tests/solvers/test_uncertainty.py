"""Errors, samples and derived quantities of a normal distribution with a known covariance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.solvers.spread import Spread, unformed
from hesskit.solvers.uncertainty import Uncertain

PARAMS = {"a": jnp.array(2.0), "w": jnp.array([1.0, -3.0, 0.5])}
NAMES = ("a", "w[0]", "w[1]", "w[2]")
FACTOR = np.tril(np.random.default_rng(0).normal(size=(4, 4)))


class Known(Uncertain):
    """An estimate with this spread."""

    def __init__(self, spread, params=PARAMS, held=(False, False)):
        self.spread, self.params, self.held = spread, params, held

    def _estimate(self):
        return self.params, self.spread

    def _held(self):
        return self.held


def spread_of(factor=FACTOR, null=None, at_bound=(False,) * 4, dtype="float32"):
    null = np.zeros((4, 4)) if null is None else null
    return Spread(jnp.asarray(factor, dtype), jnp.asarray(null, dtype), jnp.array(at_bound))


FULL = Known(spread_of())


def half_open(*, fixed: bool):
    """w[0] is at a bound, only w[1] + w[2] is known, a is fixed or not."""
    factor, null = np.diag([0.5, 0.0, 0.0, 0.0]), np.zeros((4, 4))
    factor[2:, 2] = 0.1
    null[2:, 3] = [1.0, -1.0]
    first = 1 if fixed else 0
    at_bound = (False, True, False, False)[first:]
    return Known(
        spread_of(factor[first:, first:], null[first:, first:], at_bound), held=(fixed, False)
    )


def test_covariance_correlation_and_standard_errors():
    covariance = FACTOR @ FACTOR.T
    size = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(FULL.covariance, covariance, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        FULL.correlation, covariance / np.outer(size, size), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(np.diagonal(FULL.correlation), 1)
    errors = FULL.standard_errors
    np.testing.assert_allclose(errors["a"], size[0], rtol=1e-6)
    np.testing.assert_allclose(errors["w"], size[1:], rtol=1e-6)


def test_errors_whose_squares_underflow():
    tiny = Known(spread_of(1e-25 * FACTOR))
    size = 1e-25 * np.linalg.norm(FACTOR, axis=1)
    np.testing.assert_allclose(tiny.standard_errors["a"], size[0], rtol=1e-6)
    np.testing.assert_allclose(tiny.correlation, FULL.correlation, rtol=1e-6)


def test_what_is_not_known_is_nan_and_what_is_fixed_is_zero():
    known = half_open(fixed=True)
    nan = np.isnan(known.covariance)
    wanted = np.array([[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]], bool)
    np.testing.assert_array_equal(nan, wanted)
    np.testing.assert_array_equal(known.covariance[0], 0)
    np.testing.assert_array_equal(known.correlation[0], [1, 0, 0, 0])
    assert np.isnan(known.correlation[1, 1])
    assert known.standard_errors["a"] == 0
    assert np.isnan(known.standard_errors["w"]).all()


@pytest.mark.slow
def test_what_the_data_determine_has_an_error():
    known = half_open(fixed=False)
    total = known.derived(lambda p: p["w"][1] + p["w"][2])
    np.testing.assert_allclose(total.value, -2.5)
    np.testing.assert_allclose(total.standard_error, 0.2, rtol=1e-6)
    for fn in (
        lambda p: p["w"][1],
        lambda p: p["w"][1] - p["w"][2],
        lambda p: p["w"][0] + p["a"],
        lambda p: p["w"][1] + 1.01 * p["w"][2],
        lambda p: 1e6 * p["a"] + p["w"][1],
    ):
        assert np.isnan(known.derived(fn).standard_error)
    both = known.derived(lambda p: (p["a"] ** 2, p["w"][0]))
    np.testing.assert_allclose(both.standard_error[0], 2 * 2.0 * 0.5, rtol=1e-6)
    assert np.isnan(both.standard_error[1])
    np.testing.assert_array_equal(np.isnan(both.covariance), [[False, True], [True, True]])


def test_derived_is_the_delta_method():
    fn = lambda p: {"product": p["a"] * p["w"], "sum": jnp.sum(p["w"]) + jnp.sin(p["a"])}
    found = FULL.derived(fn)
    gradient = np.zeros((4, 4))
    gradient[:3, 0] = PARAMS["w"]
    gradient[:3, 1:] = 2 * np.eye(3)
    gradient[3] = [np.cos(2.0), 1, 1, 1]
    covariance = gradient @ FACTOR @ FACTOR.T @ gradient.T
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.standard_error["sum"], covariance[3, 3] ** 0.5, rtol=1e-5)
    identity = FULL.derived(lambda p: p)
    np.testing.assert_allclose(identity.covariance, FULL.covariance, rtol=1e-6)
    np.testing.assert_allclose(identity.standard_error["w"], FULL.standard_errors["w"], rtol=1e-6)


def test_samples_have_this_mean_and_covariance():
    draws = FULL.sample(0, 40_000)
    rows = np.concatenate([draws["a"][:, None], draws["w"]], axis=1)
    covariance = FACTOR @ FACTOR.T
    spread = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(rows.mean(0), [2, 1, -3, 0.5], atol=5 * spread.max() / 200)
    # Monte Carlo: an entry is off by sqrt((C_ii C_jj + C_ij^2) / num).
    allowed = 5 * np.sqrt(2 * np.outer(spread**2, spread**2)) / 200
    assert (abs(np.cov(rows.T) - covariance) < allowed).all()
    np.testing.assert_array_equal(FULL.sample(jax.random.key(0), 40_000)["w"], draws["w"])
    assert not np.array_equal(FULL.sample(1, 40_000)["a"], draws["a"])


def test_samples_of_what_is_fixed_and_of_what_is_open():
    draws = half_open(fixed=True).sample(0, 5)
    np.testing.assert_array_equal(draws["a"], 2.0)
    assert np.isnan(draws["w"]).all()


def test_blocks_and_single_correlations():
    covariance = FULL.covariance
    np.testing.assert_array_equal(FULL.block("w"), covariance[1:, 1:])
    np.testing.assert_array_equal(FULL.block("a", "w"), covariance[:1, 1:])
    np.testing.assert_array_equal(FULL.block(["a", "w"]), covariance)
    np.testing.assert_array_equal(FULL.block({"a": True, "w": False}), covariance[:1, :1])
    with pytest.raises(ValueError, match="rows='peak' matches no leaf; the paths are a, w"):
        FULL.block("peak")
    np.testing.assert_array_equal(FULL.correlation_between("w[2]", "a"), FULL.correlation[3, 0])
    with pytest.raises(ValueError, match=r"no entry 'w\[3\]'; names are a, .* Did you mean 'w\["):
        FULL.correlation_between("a", "w[3]")


@pytest.mark.slow
def test_a_complex_leaf_has_errors_of_both_parts():
    known = Known(spread_of(), {"z": jnp.array([1 + 2j, 3 + 4j])}, (False,))
    size = np.linalg.norm(FACTOR, axis=1)
    np.testing.assert_allclose(known.standard_errors["z"], size[:2] + 1j * size[2:], rtol=1e-6)
    draws = known.sample(0, 1000)["z"]
    np.testing.assert_allclose(np.std(draws.imag, axis=0), size[2:], rtol=0.1)
    assert known.derived(lambda p: jnp.abs(p["z"][0])).value == np.abs(1 + 2j).astype("float32")


@pytest.mark.slow
def test_a_batch_is_one_by_one():
    lanes = [spread_of(FACTOR * scale) for scale in (1.0, 2.0, 3.0)]
    spread = jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes)
    params = jax.tree.map(lambda a: jnp.stack([a, a + 1, a + 2]), PARAMS)
    batch = Known(spread, params=params)
    alone = Known(lanes[2], params=jax.tree.map(lambda a: a[2], params))
    product = lambda p: p["a"] * p["w"]
    for ours, theirs in (
        (batch.covariance, alone.covariance),
        (batch.correlation, alone.correlation),
        (batch.standard_errors["w"], alone.standard_errors["w"]),
        (batch.derived(product).covariance, alone.derived(product).covariance),
        (batch.block("a", "w"), alone.block("a", "w")),
        (batch.correlation_between("a", "w[0]"), alone.correlation_between("a", "w[0]")),
    ):
        np.testing.assert_allclose(ours[2], theirs, rtol=1e-5, atol=1e-6)
    draws = batch.sample(0, 7)["w"]
    assert draws.shape == (3, 7, 3)
    noise = (draws - params["w"][:, None]) / jnp.arange(1.0, 4.0)[:, None, None]
    assert not np.allclose(noise[0], noise[1])  # each lane has its own


@pytest.mark.slow
def test_what_is_fixed_costs_nothing():
    """A leaf that is held may be large: no array has its size squared."""
    size = 200_000
    params = {"a": jnp.array([1.0, 2.0]), "w": jnp.zeros(size)}
    known = Known(
        spread_of(FACTOR[:2, :2], np.zeros((2, 2)), (False, False)), params, (False, True)
    )
    covariance = FACTOR[:2, :2] @ FACTOR[:2, :2].T
    np.testing.assert_allclose(known.block("a"), covariance, rtol=1e-5)
    errors = known.standard_errors
    np.testing.assert_allclose(errors["a"], np.sqrt(np.diag(covariance)), rtol=1e-5)
    assert errors["w"].shape == (size,)
    assert not errors["w"].any()
    total = known.derived(lambda p: jnp.sum(p["a"]) + p["w"][7])
    np.testing.assert_allclose(total.standard_error**2, covariance.sum(), rtol=1e-5)
    assert known.sample(0, 3)["w"].shape == (3, size)
    assert not known.block("a", "w").any()


@pytest.mark.slow
def test_without_a_covariance():
    params = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}
    known = Known(unformed(jnp.array([False, False]), jnp.dtype("float32")), params, (False, True))
    errors = known.standard_errors
    assert jnp.all(jnp.isnan(errors["a"]))
    assert errors["b"] == 0
    for fn in (lambda p: p["a"][0], lambda p: p["a"][0] - p["a"][1]):
        assert jnp.isnan(known.derived(fn).standard_error)
    assert known.derived(lambda p: p["b"]).standard_error == 0
    draws = known.sample(0, 2)
    assert jnp.all(jnp.isnan(draws["a"]))
    np.testing.assert_array_equal(draws["b"], 3)
    for ask in (
        lambda: known.covariance,
        lambda: known.correlation,
        lambda: known.block("a"),
        lambda: known.correlation_between("a[0]", "a[1]"),
    ):
        with pytest.raises(ValueError, match="formed for at most 4000 entries, and 2 were fitted"):
            ask()


def test_bad_calls():
    with pytest.raises(TypeError, match="fn must be a function of params"):
        FULL.derived(3.0)
    with pytest.raises(TypeError, match="num is the length of an array"):
        jax.jit(lambda n: FULL.sample(0, n))(3)
