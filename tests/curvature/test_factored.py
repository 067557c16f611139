"""The factored least-squares model: against numpy's lstsq and scipy's bounded one, at any rank."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from hesskit.core import tree
from hesskit.core.bounds import Bounds
from hesskit.core.composite import composite
from hesskit.core.method import Context, default_tolerance
from hesskit.core.residuals import least_squares_loss
from hesskit.curvature import factored, spectral
from hesskit.linalg import whitened
from hesskit.linalg.more_sorensen import trust_region_step

RNG = np.random.default_rng(0)


def problem(m: int, n: int, rank: int | None = None):
    """A of given shape and rank, with columns of very different length, and b."""
    k = min(m, n) if rank is None else rank
    a = RNG.normal(size=(m, k)) @ RNG.normal(size=(k, n)) * np.logspace(-1, 1, n)
    return a, RNG.normal(size=m)


def as_tree(x):
    """R^n as a pytree."""
    return {"a": x[:1].reshape(()), "b": x[1:]}


@jax.jit
def _build(a, b, params, before, rhs, bounds, power):
    loss = least_squares_loss(lambda p: a @ tree.ravel(p) + b)
    evaluation = whitened.evaluate(loss.structure((), {}, "t").without_aux(), params)
    at_rest, size = jnp.array(False), jnp.ones((), a.dtype)
    context = Context(params, size, at_rest, default_tolerance(params), bounds)
    right = evaluation.grad if rhs is None else rhs
    return evaluation.grad, factored.build(evaluation, right, before, context, power=power)


def build(a, b, x=None, *, power=0.5, bounds=None, previous=None, num_rows=None, rhs=None):
    """The model of |A x + b|^2 / 2 at x, 0 if None, from one program for all of these shapes."""
    a, b = jnp.asarray(a), jnp.asarray(b)
    params = as_tree(jnp.zeros(a.shape[1], a.dtype) if x is None else jnp.asarray(x, a.dtype))
    before = factored.empty(params, num_rows) if previous is None else previous
    return params, *_build(a, b, params, before, rhs, bounds, power)


def newton(params, model, radius=1e6):
    """The step of the model in a large region."""
    best = trust_region_step(model.eigenvalues, model.coefficients, radius, exact=True)
    return spectral.to_step(model, best.step, params, on_boundary=best.on_boundary)


SHAPES = [(7, 3), (3, 7)]


@pytest.mark.slow
@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_the_model_is_that_of_the_rows(m: int, n: int, dtype):
    a, b = (jnp.asarray(item, dtype) for item in problem(m, n))
    params, grad, built = build(a, b)
    w, v, c, d = map(np.asarray, built.model[:4])
    assert w.shape == (n,)
    eps = float(jnp.finfo(dtype).eps)
    scaled = np.asarray(a) / np.asarray(d)
    np.testing.assert_allclose(d, np.linalg.norm(a, axis=0) ** 0.5, rtol=10 * eps)
    tol = {"rtol": 1e3 * eps, "atol": 1e3 * eps}
    np.testing.assert_allclose((v * w) @ v.T, scaled.T @ scaled, **tol)
    np.testing.assert_allclose(d * (v @ c), tree.ravel(grad), **tol)
    assert (np.diff(w) >= 0).all()
    assert int((w > 0).sum()) == min(m, n)
    assert not built.indefinite
    assert not built.at_rest
    assert built.num_products == min(m, n)
    step = newton(params, built.model)
    s = tree.ravel(step.step)
    np.testing.assert_allclose(tree.ravel(step.product), a.T @ (a @ s), rtol=1e-3, atol=1e4 * eps)


@pytest.mark.parametrize(("m", "n", "rank"), [(7, 3, 2), (3, 7, 2), (3, 7, 3), (7, 3, 0)])
@pytest.mark.parametrize("power", [0.0, 0.25, 1.0])
def test_the_step_is_the_shortest_minimizer_in_the_norm_of_the_region(m, n, rank, power, float64):
    a, b = (jnp.asarray(item) for item in problem(m, n, rank))
    params, _, built = build(a, b, power=power)
    assert int(jnp.sum(built.model.eigenvalues > 0)) == rank
    d = np.asarray(built.model.scale)
    expected = np.linalg.lstsq(np.asarray(a) / d, -np.asarray(b), rcond=1e-10)[0]
    step = newton(params, built.model)
    np.testing.assert_allclose(d * np.asarray(tree.ravel(step.step)), expected, atol=1e-9)
    np.testing.assert_allclose(step.norm, np.linalg.norm(expected), rtol=1e-9)
    assert not step.on_boundary


def test_the_condition_is_that_of_the_rows(float64):
    """Singular values from 1 to 1e-9: A'A would be singular to working precision."""
    u, _, v = np.linalg.svd(RNG.normal(size=(7, 3)), full_matrices=False)
    a = u @ np.diag([1, 0.1, 1e-9]) @ v
    exact = np.array([1.0, -2.0, 0.5])
    params, _, built = build(a, -a @ exact, power=0.0)
    assert np.linalg.matrix_rank(a.T @ a) == 2
    np.testing.assert_allclose(tree.ravel(newton(params, built.model).step), exact, rtol=1e-6)


def test_no_direction_is_lost_to_the_units_of_columns(float64):
    """A line far from 0: the second singular value is 1e-16 of the first, or 1e-8 in one unit."""
    far = 1e8 + np.linspace(-1, 1, 7)
    a, exact = np.stack([np.ones(7), far], axis=1), np.array([-2e8, 2.0])
    assert np.linalg.matrix_rank(a) == 1
    params, _, built = build(a, -a @ exact, power=0.0)
    assert int(jnp.sum(built.model.eigenvalues > 0)) == 2
    found = newton(params, built.model, radius=1e30).step
    np.testing.assert_allclose(tree.ravel(found), exact, rtol=1e-5)
    lengths = built.model.scale / np.linalg.norm(a, axis=0)
    np.testing.assert_allclose(lengths, lengths[0])
    assert (built.model.scale >= 1).all()


@pytest.mark.parametrize("unit", [1e-25, 1.0, 1e25])
def test_parts_of_residuals_in_any_unit(unit):
    a = jnp.full((10, 2), unit)
    found = factored.beside(a, jnp.ones(10), jnp.ones(2), jnp.array(1e20), jnp.array(1e-6))
    np.testing.assert_allclose(found.parts, 2 * unit * 10**0.5, rtol=1e-6)


def test_the_rounding_of_residuals_is_that_of_the_parameters(dtype):
    """f of parameters moved by a rounding differs by no more, and by much of that somewhere."""
    a, x = RNG.normal(size=(4, 3)), np.array([1e3, -2e4, 5.0])
    b = a @ x + RNG.normal(size=4)
    one = jnp.ones((), dtype)
    near = factored.beside(*(jnp.asarray(item, dtype) for item in (a, b - a @ x, x)), one, one)
    np.testing.assert_allclose(near.parts, np.linalg.norm(abs(a) @ abs(x)), rtol=1e-6)
    floor = float(near.rounding)
    eps = float(jnp.finfo(dtype).eps)
    moved = [x * (1 + eps * np.array(signs)) for signs in np.ndindex(2, 2, 2)]
    change = max(abs(np.dot(b - a @ x, a @ (y - x))) for y in moved)
    assert change <= floor <= 1e3 * change


def test_the_scale_is_carried_on(float64):
    a, b = (jnp.asarray(item) for item in problem(7, 3))
    _, _, first = build(a, b)
    _, _, second = build(a / 100, b, previous=first.model)
    np.testing.assert_array_equal(second.model.scale, first.model.scale)


@pytest.mark.parametrize(("m", "n"), SHAPES)
@pytest.mark.parametrize("known", [True, False])
def test_empty_has_the_shapes_of_a_build(m: int, n: int, known: bool):
    a, b = (jnp.asarray(item, "float32") for item in problem(m, n))
    rows = m if known else None
    params, _, built = build(a, b, num_rows=rows)
    empty = factored.empty(params, rows)
    assert empty.eigenvalues.shape == (min(m, n) if known else n,)
    for ours, theirs in zip(jax.tree.leaves(empty), jax.tree.leaves(built.model), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert not ours.any()
    step = newton(params, built.model)
    expected = np.linalg.lstsq(a / built.model.scale[None, :], -b, rcond=None)[0]
    np.testing.assert_allclose(
        tree.ravel(step.step) * built.model.scale, expected, rtol=1e-3, atol=1e-4
    )


def test_rows_that_are_not_finite_give_no_step_and_are_no_answer():
    for bad in (np.nan, np.inf):
        a = RNG.normal(size=(7, 3)).astype("float32")
        a[1, 0] = bad
        params, _, built = build(a, np.ones(7, "float32"), np.array([0.0, 1.0, 1.0]))
        assert not built.at_rest
        assert all(bool(tree.all_finite(leaf)) for leaf in built.model)
        np.testing.assert_array_equal(tree.ravel(newton(params, built.model).step), 0)


def test_huge_rows_are_no_false_answer():
    """Squares of these entries are no numbers in float32."""
    a, b = (jnp.asarray(item, "float32") for item in problem(7, 3))
    params, _, built = build(a * 1e22, b)
    assert not built.at_rest
    expected = np.linalg.lstsq(np.asarray(a), -np.asarray(b), rcond=None)[0]
    np.testing.assert_allclose(
        1e22 * tree.ravel(newton(params, built.model).step), expected, rtol=1e-3
    )


def test_a_right_hand_side_of_its_own(float64):
    """What an upstream transform made of the gradient: G s = -rhs in the range of A'."""
    a, b = (jnp.asarray(item) for item in problem(3, 7))
    rhs = as_tree(a.T @ jnp.asarray(RNG.normal(size=3)))
    params, _, built = build(a, b, rhs=rhs, power=0.0)
    step = tree.ravel(newton(params, built.model).step)
    expected = -np.linalg.pinv(a.T @ a, rcond=1e-10) @ tree.ravel(rhs)
    np.testing.assert_allclose(step, expected, atol=1e-9)


@pytest.mark.slow
def test_without_a_residual_the_gradient_serves(float64):
    a, b = (jnp.asarray(item) for item in problem(7, 3))
    loss = least_squares_loss(lambda p: a @ tree.ravel(p) + b).structure((), {}, "t")
    params = as_tree(jnp.zeros(3))
    evaluation = whitened.evaluate(loss.without_aux(), params)
    rows = evaluation.rows()._replace(residual=None)
    context = Context(params, jnp.ones(()), jnp.array(False), default_tolerance(params))
    less = factored.build(
        evaluation._replace(rows=lambda: rows),
        evaluation.grad,
        factored.empty(params),
        context,
        power=0.5,
    )
    _, _, full = build(a, b)
    np.testing.assert_allclose(less.model.most, np.linalg.norm(np.linalg.qr(a)[0].T @ b), rtol=1e-9)
    same = less.model._replace(most=full.model.most)
    for ours, theirs in zip(jax.tree.leaves(same), jax.tree.leaves(full.model), strict=True):
        np.testing.assert_allclose(jnp.abs(ours), jnp.abs(theirs), rtol=1e-9)
    np.testing.assert_allclose(
        tree.ravel(newton(params, less.model).step), tree.ravel(newton(params, full.model).step)
    )


# Where nothing is left to gain.


def at_rest(a, b, x, **more) -> bool:
    return bool(build(a, b, x, **more)[2].at_rest)


units = pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])


@units
def test_at_rest_by_the_relative_offset_in_any_unit(unit: float, float64):
    """|c| <= eps^(2/3) |b|: c is what the residual has in the range of A."""
    a, b = problem(7, 3)
    best = np.linalg.lstsq(a, -b, rcond=None)[0]
    rest = np.linalg.norm(a @ best + b)
    away = np.linalg.lstsq(a, np.ones(7), rcond=None)[0]
    away /= np.linalg.norm(a @ away)  # one unit of offset
    tolerance = np.finfo(float).eps ** (2 / 3)
    assert at_rest(unit * a, unit * b, best)
    assert at_rest(unit * a, unit * b, best + 0.5 * tolerance * rest * away)
    assert not at_rest(unit * a, unit * b, best + 2 * tolerance * rest * away)


@units
def test_at_rest_where_residuals_vanish(unit, float64):
    """Each beside its parts and the largest one so far, or all at the rounding of their parts."""
    a, x = RNG.normal(size=(7, 3)), np.array([1.0, -2.0, 0.5])
    a[0] /= 1e3
    parts = np.abs(a) @ np.abs(x)
    tolerance, eps = np.finfo(float).eps ** (2 / 3), np.finfo(float).eps

    def rests(residual, most):
        seen = factored.empty(as_tree(jnp.zeros(3)))._replace(most=jnp.asarray(unit * most))
        return at_rest(unit * a, unit * (residual - a @ x), x, previous=seen)

    signs = np.array([1, -1, 1, 1, -1, 1, -1])
    assert rests(0.5 * tolerance * signs * parts, 100.0)
    assert not rests(2 * tolerance * signs * parts, 100.0)
    assert not rests(0.5 * tolerance * signs * np.max(parts), 100.0)
    assert not rests(0.5 * tolerance * signs * parts, 0.01)
    assert rests(eps * signs * np.max(parts), 0.0)
    assert not rests(100 * eps * signs * np.max(parts), 0.0)
    assert at_rest(a, np.zeros(7), np.zeros(3))


@units
def test_at_rest_without_a_residual(unit, float64):
    """What the gradient has in the range of A, in the place of b."""
    a = RNG.normal(size=(7, 3))
    loss = composite(lambda r: unit**2 * jnp.sum(jnp.cosh(r) - 1), lambda p: a @ (p - 1.0))
    fn = loss.structure((), {}, "t").without_aux()

    def rests(params):
        seen = factored.empty(params)._replace(most=jnp.asarray(unit * 100.0))
        evaluation = whitened.evaluate(fn, params)
        assert evaluation.rows().residual is None
        context = Context(params, jnp.ones(()), jnp.array(False), default_tolerance(params))
        built = factored.build(evaluation, evaluation.grad, seen, context, power=0.5)
        return bool(built.at_rest)

    away = np.linalg.lstsq(a, np.ones(7), rcond=None)[0]
    parts = np.linalg.norm(np.abs(a) @ np.ones(3)) / np.linalg.norm(a @ away)
    tolerance = np.finfo(float).eps ** (2 / 3)
    assert rests(jnp.asarray(1.0 + 0.5 * tolerance * parts * away))
    assert not rests(jnp.asarray(1.0 + 2 * tolerance * parts * away))


def test_the_largest_residual_is_remembered(float64):
    a, b = problem(7, 3)
    _, _, first = build(a, b)
    _, _, second = build(a, b / 100, previous=first.model)
    np.testing.assert_allclose(first.model.most, np.linalg.norm(b), rtol=1e-12)
    assert second.model.most == first.model.most


def test_a_small_gradient_alone_is_no_rest(float64):
    """A flat residual: |g| is tiny, and a step of the model gains all the same."""
    a = RNG.normal(size=(7, 3))
    b = 1e-3 * a @ np.ones(3)
    assert not at_rest(1e-9 * a, b, np.zeros(3))


def box(low, high) -> Bounds:
    return Bounds(as_tree(jnp.asarray(low)), as_tree(jnp.asarray(high)))


def test_at_rest_on_the_face_that_the_gradient_presses_on(float64):
    a, b = problem(7, 3)
    plain = np.linalg.lstsq(a, -b, rcond=None)[0]
    upper = np.array([np.inf, plain[1] - 1.0, np.inf])
    face = np.linalg.lstsq(a[:, ::2], -b - a[:, 1] * upper[1], rcond=None)[0]
    best = np.array([face[0], upper[1], face[1]])
    bounds = box(np.full(3, -np.inf), upper)
    assert at_rest(a, b, best, bounds=bounds)
    assert not at_rest(a, b, best)
    assert not at_rest(a, b, best + np.array([1e-6, 0, 0]), bounds=bounds)
    inside = box(np.full(3, -np.inf), upper + 1e-3)
    assert not at_rest(a, b, best, bounds=inside)


# Steps in a box.


@jax.jit
def _bounded(params, grad, model, bounds, radius):
    context = Context(params, radius, jnp.array(False), jnp.ones(()), bounds)
    return factored.bounded_step(model, grad, radius, context)


def bounded(a, b, x, bounds, radius, model=None):
    params, grad, built = build(a, b, x, bounds=bounds, previous=model)
    return built.model, _bounded(params, grad, built.model, bounds, radius)


@pytest.mark.parametrize(("m", "n", "rank"), [(7, 3, 3), (7, 3, 2), (3, 7, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_repeated_steps_in_a_box_end_where_scipy_does(m, n, rank, seed, float64):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n))
    b = rng.normal(size=m)
    low, high = -rng.uniform(0.05, 0.5, size=n), rng.uniform(0.05, 0.5, size=n)
    low[0] = -np.inf
    truth = scipy.optimize.lsq_linear(a, -b, (low, high), tol=1e-14)
    bounds, x, model = box(low, high), np.zeros(n), None
    for _ in range(6):
        model, step = bounded(a, b, x, bounds, 10.0, model)
        s = np.asarray(tree.ravel(step.step))
        change = (np.sum((a @ (x + s) + b) ** 2) - np.sum((a @ x + b) ** 2)) / 2
        assert change <= 1e-12
        np.testing.assert_allclose(tree.ravel(step.product), a.T @ (a @ s), atol=1e-10)
        x = x + s
        assert (x >= low - 1e-15).all()
        assert (x <= high + 1e-15).all()
    np.testing.assert_allclose(np.sum((a @ x + b) ** 2) / 2, truth.cost, rtol=1e-9, atol=1e-12)
    assert at_rest(a, b, np.clip(x, low, high), bounds=bounds)


def test_a_step_in_a_box_heeds_the_radius_too(float64):
    a, b = (jnp.asarray(item) for item in problem(7, 3))
    wide = box(np.full(3, -1e3), np.full(3, 1e3))
    params, _, built = build(a, b)
    for radius in (0.01, 1e5):
        _, ours = bounded(a, b, np.zeros(3), wide, radius)
        plain = newton(params, built.model, radius)
        np.testing.assert_allclose(tree.ravel(ours.step), tree.ravel(plain.step), rtol=1e-7)
        assert bool(ours.on_boundary) == bool(plain.on_boundary) == (radius == 0.01)
        np.testing.assert_allclose(ours.norm, plain.norm, rtol=1e-9)
