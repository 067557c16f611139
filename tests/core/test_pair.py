"""The pair against true curvature: exact for a quadratic, one order more from the values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import tree
from hesskit.core.pair import CLEAR, LIMIT, Point, between, learned


@jax.jit
def pair_of(before, after, step, noise):
    length = jnp.asarray(0.5, noise.dtype)
    return learned(before, after, step, norm=tree.norm(step), length=length, noise=noise)


def taught(fn, x, step, noise=0.0):
    """The pair of a step of `fn`, and the plain difference of gradients."""
    evaluations = [jax.value_and_grad(fn)(at) for at in (x, tree.add(x, step))]
    ends = [Point(value, grad, tree.vdot(grad, step)) for value, grad in evaluations]
    pair = pair_of(*ends, step, jnp.asarray(noise, ends[0].value.dtype))
    return pair, tree.sub(ends[1].grad, ends[0].grad), ends


def quadratic(x):
    return 3 * x["a"][0] ** 2 + 0.5 * x["a"][1] ** 2 + x["a"][0] * x["b"] + 2 * x["b"] ** 2


def test_a_quadratic_needs_no_correction(dtype):
    x = {"a": jnp.array([1.0, -2.0], dtype), "b": jnp.asarray(0.5, dtype)}
    step = {"a": jnp.array([-0.5, 0.25], dtype), "b": jnp.asarray(0.125, dtype)}
    pair, plain, ends = taught(quadratic, x, step)
    hessian = np.array([[6.0, 0, 1], [0, 1, 0], [1, 0, 4]])
    s = np.asarray(tree.ravel(step), float)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(tree.ravel(pair.change), hessian @ s, rtol=50 * eps)
    np.testing.assert_allclose(tree.ravel(plain), hessian @ s, rtol=50 * eps)
    norms = np.linalg.norm(s), np.linalg.norm(hessian @ s)
    np.testing.assert_allclose(pair.unit, np.sqrt(np.prod(norms)), rtol=8 * eps)
    np.testing.assert_allclose(pair.cosine, s @ hessian @ s / np.prod(norms), rtol=50 * eps)
    assert pair.length == 0.5
    for mine, given in ((pair.step, step), (pair.grad, ends[0].grad)):
        assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, mine, given)))


def test_two_gradients_alone(dtype):
    """`between` is the pair without a correction, at any scale."""
    s, y = jnp.array([3.0, 0.0], dtype), jnp.array([1.0, 1.0], dtype)
    for size in (1.0, 1e-25, 1e25):
        pair = between(-y * size, 0 * y, s / size, length=jnp.asarray(2.0, dtype))
        np.testing.assert_allclose(pair.change, y * size, rtol=1e-6)
        np.testing.assert_allclose(pair.cosine, np.sqrt(0.5), rtol=1e-6)
        np.testing.assert_allclose(pair.unit, np.sqrt(3 * np.sqrt(2)), rtol=1e-6)


def curvature_errors(fn, x, direction, sizes):
    """|s.y / s.s - s.H(x+s)s / s.s| of the pair and of the plain difference, by step size."""
    rows = []
    for size in sizes:
        step = size * direction
        pair, plain, _ = taught(fn, x, step)
        true = direction @ jax.hessian(fn)(x + step) @ direction
        rows.append([abs(step @ y / (step @ step) - true) for y in (pair.change, plain)])
    return np.array(rows).T


@pytest.mark.slow
def test_the_values_give_one_order_more(float64):
    """With third derivatives the plain difference errs by |s|, the pair by |s|^2; a cubic by 0."""
    x, direction = jnp.array([1.0, 2.0]), jnp.array([0.6, -0.8])
    sizes = 0.1 / 2 ** np.arange(5)
    quartic = lambda x: x[0] ** 4 + x[1] ** 4 / 2 + (x[0] * x[1]) ** 2
    ours, plain = curvature_errors(quartic, x, direction, sizes)
    np.testing.assert_allclose(np.log2(plain[:-1] / plain[1:])[-2:], 1, atol=0.1)
    np.testing.assert_allclose(np.log2(ours[:-1] / ours[1:])[-2:], 2, atol=0.1)
    cubic = lambda x: x[0] ** 3 + x[0] * x[1] ** 2 + 4 * jnp.sum(x**2)
    ours, plain = curvature_errors(cubic, x, direction, sizes)
    assert np.all(ours < 1e-9)
    assert np.all(plain > 1e-3)


def test_the_correction_is_along_the_step_and_at_most_a_part(dtype):
    """A step over a bend, where (1) alone would triple the curvature, or turn its sign."""
    bend = lambda x: jnp.exp(6 * x[0]) + x[1] ** 2
    for sign in (1.0, -1.0):
        x = jnp.array([-0.5 * sign, 1.0], dtype)
        step = jnp.array([1.0 * sign, 0.1], dtype)
        pair, plain, _ = taught(bend, x, step)
        change = float((pair.change - plain) @ step)
        np.testing.assert_allclose(change, sign * LIMIT * float(plain @ step), rtol=1e-3)
        across = jnp.array([-step[1], step[0]])
        np.testing.assert_allclose(pair.change @ across, plain @ across, rtol=1e-3)


def test_below_the_noise_it_is_left_out():
    fn = lambda x: jnp.sum(x**4)
    x, step = jnp.array([1.0, 2.0]), jnp.array([-0.01, 0.002])
    fall = float(abs(fn(x) - fn(x + step)))
    clear, plain, _ = taught(fn, x, step, noise=0.99 * fall / CLEAR)
    assert not np.array_equal(clear.change, plain)
    for noise in (1.01 * fall / CLEAR, np.nan):
        dim, plain, _ = taught(fn, x, step, noise=noise)
        np.testing.assert_array_equal(dim.change, plain)


def test_no_step_and_no_number_stay_what_they_are():
    none, _, _ = taught(lambda x: jnp.sum(x**4), jnp.ones(2), jnp.zeros(2))
    np.testing.assert_array_equal(none.change, [0, 0])
    assert none.unit == none.cosine == 0
    lost, _, _ = taught(lambda x: jnp.sum(jnp.log(x)), jnp.ones(2), jnp.array([-1.0, 0.0]))
    assert not np.all(np.isfinite(lost.change))  # who learns from it sees that


def test_tiny_and_huge_steps():
    """Curvature of 1e36 and 1e-36 is still a float32; so is the pair."""
    for size in (1e-18, 1e18):
        fn = lambda x, c=size: jnp.sum((x / c) ** 2 + (x / c) ** 3 / 10)
        x, step = jnp.full(3, 2 * size), jnp.full(3, -0.5 * size)
        pair, plain, _ = taught(fn, x, step)
        assert np.all(np.isfinite(pair.change))
        unit, _, _ = taught(
            lambda x: jnp.sum(x**2 + x**3 / 10), jnp.full(3, 2.0), jnp.full(3, -0.5)
        )
        np.testing.assert_allclose(pair.change * size, unit.change, rtol=1e-4)
        assert not np.array_equal(pair.change, plain)


def test_narrow_leaves_keep_their_dtype():
    x = {"h": jnp.ones(3, jnp.bfloat16), "f": jnp.ones(2, jnp.float32)}
    fn = lambda x: jnp.sum(x["h"].astype("float32") ** 4) + jnp.sum(x["f"] ** 4)
    pair, _, _ = taught(fn, x, tree.scale(-0.25, x))
    assert jax.tree.map(jnp.result_type, pair.change) == jax.tree.map(jnp.result_type, x)
    assert pair.unit.dtype == pair.cosine.dtype == jnp.float32
