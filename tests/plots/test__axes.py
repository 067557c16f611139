"""What the plots share: one Axes, and one fit at a time."""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from hesskit.plots._axes import (
    axes_3d,
    estimate,
    grid,
    level_curves,
    number,
    one_axes,
    single,
)
from hesskit.solvers.fit_result import fit_result
from tests.solvers.fits import result_of, straight_line


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_one_axes():
    _, ax = plt.subplots()
    assert one_axes(ax) is ax
    assert one_axes(None).figure is not ax.figure
    with pytest.raises(TypeError, match="ax must be a matplotlib Axes or None, got ndarray"):
        one_axes(plt.subplots(2)[1])


@pytest.mark.slow
def test_single():
    single(straight_line())
    with pytest.raises(TypeError, match=r"Result has no covariance; plot what hesskit\.curve_fit"):
        single(result_of({"a": 1.0}))
    with pytest.raises(ValueError, match="the result is a batch; plot one of it"):
        single(jax.tree.map(lambda a: jnp.stack([a, a]), straight_line()))


def three(**kwargs):
    k = 3 - sum(kwargs.get("held", ()))
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(8, k)), "float32")
    params = {"a": 1.0, "b": 2.0, "c": 3.0}
    return fit_result(result_of(params, 2.5), rows, chi2=jnp.array(5.0), num_residuals=8, **kwargs)


@pytest.mark.slow
def test_what_has_no_error_is_left_out():
    fit = three(held=(False, True, False), at_bound=jnp.array([True, False]))
    known = estimate(fit)
    assert known.names == ["c"]
    assert known.places.tolist() == [2]
    np.testing.assert_allclose(known.mean, [3])
    np.testing.assert_allclose(known.errors, [float(fit.standard_errors["c"])])
    np.testing.assert_array_equal(known.correlation, [[1]])
    whole = estimate(three())
    np.testing.assert_allclose(whole.correlation, three().correlation, rtol=1e-6)


def test_nothing_is_left():
    with pytest.raises(ValueError, match="no parameter has a standard error; print"):
        estimate(three(at_bound=jnp.array([True, True, True])))


def test_axes_in_three_dimensions():
    ax = plt.figure().add_subplot(projection="3d")
    assert axes_3d(ax) is ax
    assert hasattr(axes_3d(None), "plot_surface")
    with pytest.raises(ValueError, match=r"use fig\.add_subplot\(projection='3d'\)"):
        axes_3d(plt.subplots()[1])


def test_numbers_and_a_grid():
    assert [number(x) for x in (-0.0, 2.0, -1.23456, 1e-9)] == ["0", "2", "−1.235", "1e−09"]
    found = grid((0, 1), (2, 4), 3)
    np.testing.assert_allclose(found.points[:, 0].reshape(3, 3), [found.x] * 3)
    np.testing.assert_allclose(found.points[:, 1].reshape(3, 3).T, [found.y] * 3)
    with pytest.raises(ValueError, match=r"xlim must be \(low, high\) with low < high, got \(1, 0"):
        grid((1, 0), (2, 4), 3)


def test_levels_of_a_bowl_are_circles_evenly_spaced_and_blind_to_scale():
    at = grid((-1, 1), (-1, 1), 101)
    square = np.sum(at.points**2, axis=1)
    _, axes = plt.subplots(1, 2)
    level_curves(axes[0], at, square, 9)
    level_curves(axes[1], at, np.exp(5 * square), 9)
    plain, other = (ax.collections[1].levels for ax in axes)
    np.testing.assert_allclose(np.exp(5 * plain), other, rtol=0.05)
    gaps = np.diff(np.sqrt(plain))
    assert gaps.max() < 2 * gaps.min()
    level_curves(axes[0], at, np.full(square.shape, np.nan), 9)
    level_curves(axes[0], at, np.ones(square.shape), 9)
    assert len(axes[0].collections) == 2
