"""The model of a truncated step: plain CG in numpy, its forcing terms, shorter steps, escapes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import acceptance, tree
from hesskit.core.derivatives import linearized
from hesskit.core.rule import Context
from hesskit.curvature import truncated
from hesskit.linalg.operator import Preconditioner

N = 6
RNG = np.random.default_rng(0)


def matrix(spectrum) -> np.ndarray:
    q, _ = np.linalg.qr(RNG.normal(size=(N, N)))
    return q @ np.diag(spectrum) @ q.T


CONVEX = matrix(np.logspace(0, 2, N))
SADDLE = matrix([-2.0, -0.5, 1, 3, 10, 30])
G = RNG.normal(size=N)


def as_tree(x):
    return {"a": x[:2], "b": x[2:].reshape(2, 2)}


def quadratic(h, g, p):
    x = tree.ravel(p)
    return g @ x + x @ (h @ x) / 2


@functools.partial(jax.jit, static_argnames=("options",))
def _build(h, g, x, before, size, rest, options=()):
    params = as_tree(x)
    at = linearized(functools.partial(quadratic, h, g), params)
    context = Context(params, size, rest, jnp.ones(()))
    return truncated.build(at, at.grad, before, context, **dict(options))


def build(h, g, x=None, *, radius=0.0, rest=False, before=None, dtype="float64", **options):
    """The path of a quadratic at x, 0 if None."""
    cast = functools.partial(jnp.asarray, dtype=dtype)
    at = cast(np.zeros(N) if x is None else x)
    known = options.get("preconditioner")
    before = truncated.empty(as_tree(at), preconditioner=known) if before is None else before
    options = tuple(sorted(options.items()))
    return _build(cast(h), cast(g), at, before, cast(radius), jnp.asarray(rest), options)


def cg(h, g, tol: float, radius: float, most: int = 2 * N):
    """Steihaug's method as in Nocedal & Wright (2006), Algorithm 7.2."""
    s, r, d, count = np.zeros(N), g.copy(), -g, 0
    while np.linalg.norm(r) > tol and count < most:
        count += 1
        kappa = d @ h @ d
        alpha = r @ r / kappa if kappa > 0 else np.inf
        if kappa <= 0 or np.linalg.norm(s + alpha * d) >= radius:
            a, b, c = d @ d, 2 * s @ d, s @ s - radius**2
            return s + (-b + np.sqrt(b * b - 4 * a * c)) / (2 * a) * d, count, True
        s, new = s + alpha * d, r + alpha * h @ d
        d = -new + (new @ new) / (r @ r) * d
        r = new
    return s, count, False


def ravel(p) -> np.ndarray:
    return np.asarray(tree.ravel(p), np.float64)


@pytest.mark.parametrize("name", ["convex", "saddle"])
@pytest.mark.parametrize("radius", [0.05, 0.5, 100.0])
def test_the_path_is_that_of_plain_cg(name: str, radius: float, float64):
    h = CONVEX if name == "convex" else SADDLE
    built = build(h, G, radius=radius)
    s, count, edge = cg(h, G, truncated.ETA_MAX * np.linalg.norm(G), radius)
    np.testing.assert_allclose(ravel(built.model.plane.s), s, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ravel(built.model.plane.s_product), h @ s, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(built.model.plane.s_norm, np.linalg.norm(s), rtol=1e-10)
    assert built.num_products == count
    assert bool(built.model.on_boundary) == edge
    assert built.indefinite == built.model.negative_curvature
    assert bool(built.indefinite) <= (name == "saddle")
    u = -G / np.linalg.norm(G)
    np.testing.assert_allclose(ravel(built.model.plane.u), u, rtol=1e-12)
    np.testing.assert_allclose(ravel(built.model.plane.u_product), h @ u, rtol=1e-11)


def test_a_saddle_is_seen_with_room_enough(float64):
    assert build(SADDLE, G, radius=100.0).indefinite
    assert not build(CONVEX, G, radius=100.0).indefinite


def test_the_first_radius_is_that_of_the_parameters(float64):
    x = np.linspace(-3, 2, N)
    g = G - CONVEX @ x  # so that the gradient at x is G
    for at, right, radius in ((None, 100 * G, 1.0), (x, 100 * g, 3.0)):
        built = build(CONVEX / 1e3, right, at)
        unit = acceptance.first_radius(as_tree(jnp.zeros(N) if at is None else jnp.asarray(at)))
        np.testing.assert_allclose([unit, built.model.plane.s_norm], radius, rtol=1e-9)
        assert built.model.on_boundary


@pytest.mark.slow
def test_forcing_terms_are_those_of_eisenstat_and_walker(float64):
    """eta = gamma (|g|/|g-|)^2, at most 1/2, and not far below gamma eta-^2 while that is large."""
    before = truncated.empty(as_tree(jnp.zeros(N)))
    norm = float(np.linalg.norm(G))

    def forcing(previous: float, eta: float, g=G):
        known = before._replace(grad_norm=jnp.asarray(previous), forcing=jnp.asarray(eta))
        return float(build(CONVEX, g, radius=1e3, before=known).model.forcing)

    assert forcing(0.0, 0.0) == 0.5  # the first point
    np.testing.assert_allclose(forcing(2 * norm, 0.0), 0.9 / 4)
    assert forcing(norm / 2, 0.0) == 0.5  # the gradient grew
    np.testing.assert_allclose(forcing(10 * norm, 0.5), 0.9 * 0.25)  # held back
    np.testing.assert_allclose(forcing(10 * norm, 0.3), 0.9 / 100)  # 0.9 0.3^2 < 0.1
    known = before._replace(grad_norm=jnp.asarray(10 * norm), forcing=jnp.asarray(0.3))
    built = build(CONVEX, G, radius=1e3, before=known)
    s, count, _ = cg(CONVEX, G, 0.009 * norm, 1e3)
    assert built.num_products == count > build(CONVEX, G, radius=1e3).num_products
    np.testing.assert_allclose(ravel(built.model.plane.s), s, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(built.model.grad_norm, norm)


@pytest.mark.slow
def test_products_are_bounded(float64):
    known = truncated.empty(as_tree(jnp.zeros(N)))
    known = known._replace(grad_norm=jnp.asarray(1e9), forcing=jnp.zeros(()))  # eta is nearly 0
    assert build(CONVEX, G, radius=1e3, before=known, max_products=3).num_products == 3
    assert build(CONVEX, G, radius=1e3, before=known).num_products <= 2 * N
    assert build(SADDLE, G, rest=True).num_products == 0


def solve(model, g, size):
    context = Context(None, jnp.ones(()), jnp.array(False), jnp.ones(()))
    return truncated.solve(model, as_tree(jnp.asarray(g)), jnp.asarray(size), context)


@pytest.mark.parametrize("name", ["convex", "saddle"])
def test_shorter_steps_need_no_products_and_fall_at_least_as_far_as_the_cauchy_point(name, float64):
    h = CONVEX if name == "convex" else SADDLE
    model = build(h, G, radius=100.0).model
    full = float(model.plane.s_norm)
    run = jax.jit(lambda size: solve(model, G, size))
    u = -G / np.linalg.norm(G)
    before = 0.0
    for size in full * np.array([1e-3, 0.1, 0.5, 0.9, 0.999]):
        step = run(size)
        s = ravel(step.step)
        assert np.linalg.norm(s) <= size * (1 + 1e-9)
        np.testing.assert_allclose(ravel(step.product), h @ s, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(step.norm, np.linalg.norm(s), rtol=1e-9)
        assert step.on_boundary
        value = G @ s + s @ h @ s / 2
        bend = u @ h @ u
        t = min(size, -G @ u / bend) if bend > 0 else size
        assert value <= t * (G @ u) + t * t * bend / 2 + 1e-10
        assert value <= before
        before = value
    for size in (full, 2 * full):
        step = run(size)
        np.testing.assert_array_equal(ravel(step.step), ravel(model.plane.s))
        assert step.on_boundary == model.on_boundary


@pytest.mark.slow
@pytest.mark.parametrize("lowest", [-2.0, -1e-3])
def test_at_rest_a_saddle_is_left_along_negative_curvature(lowest: float, float64):
    h = matrix([lowest, 0.5, 1, 3, 10, 30])
    built = build(h, np.zeros(N), radius=0.7, rest=True, max_escape_products=2 * N)
    assert built.indefinite
    assert built.num_products <= 2 * N
    step = solve(built.model, np.zeros(N), 0.7)
    s = ravel(step.step)
    assert s @ h @ s < 0
    np.testing.assert_allclose(np.linalg.norm(s), 0.7, rtol=1e-9)
    half = ravel(solve(built.model, np.zeros(N), 0.35).step)
    np.testing.assert_allclose(np.linalg.norm(half), 0.35, rtol=1e-6)


@pytest.mark.slow
def test_at_rest_it_goes_downhill(float64):
    """The sign of a direction of negative curvature is that against what is left of g."""
    for g in (1e-12 * G, -1e-12 * G):
        built = build(SADDLE, g, radius=1.0, rest=True, max_escape_products=2 * N)
        assert g @ ravel(solve(built.model, g, 1.0).step) < 0


def test_at_rest_a_minimum_is_not_left(float64):
    for lowest in (1.0, 0.0, -1e-13):  # the last is rounding
        h = matrix([lowest, 0.5, 1, 3, 10, 30])
        built = build(h, np.zeros(N), radius=0.7, rest=True, max_escape_products=2 * N)
        assert not built.indefinite
        np.testing.assert_array_equal(ravel(solve(built.model, np.zeros(N), 0.7).step), 0)


@pytest.mark.slow
def test_a_product_that_is_not_finite_leaves_the_line_of_the_gradient():
    built = build(np.full((N, N), np.nan), G, radius=0.5, dtype="float32")
    assert not built.indefinite  # and the gradient is NaN as well: no step at all
    np.testing.assert_array_equal(ravel(solve(built.model, G, 0.5).step), 0)

    @jax.jit
    def poisoned(params):
        at = linearized(lambda p: jnp.sum(tree.ravel(p) ** 2), params)
        at = at._replace(product=lambda v: tree.scale(jnp.nan, v))
        context = Context(params, jnp.asarray(0.5), jnp.array(False), jnp.ones(()))
        built = truncated.build(at, at.grad, truncated.empty(params), context)
        return truncated.solve(built.model, at.grad, jnp.asarray(0.5), context), built.indefinite

    step, indefinite = poisoned(as_tree(jnp.asarray(G, "float32")))
    assert not indefinite
    np.testing.assert_allclose(ravel(step.step), -0.5 * G / np.linalg.norm(G), rtol=1e-5)
    assert step.on_boundary


@pytest.mark.slow
def test_a_preconditioner_gives_the_norm_of_the_region(float64):
    """With M = H the first CG step is Newton's, and |s|_M bounds it."""
    inverse = np.linalg.inv(CONVEX)
    exact = Preconditioner(
        lambda params: jnp.zeros((N, N), tree.result_dtype(params)),
        lambda state, product, params: jnp.asarray(inverse),
        lambda state, v, damping: as_tree(state @ tree.ravel(v)),
    )
    newton = -inverse @ G
    length = np.sqrt(newton @ CONVEX @ newton)
    built = build(CONVEX, G, radius=2 * length, preconditioner=exact)
    assert built.num_products == 1
    np.testing.assert_allclose(ravel(built.model.plane.s), newton, rtol=1e-9)
    np.testing.assert_allclose(built.model.plane.s_norm, length, rtol=1e-9)
    np.testing.assert_array_equal(built.model.preconditioner, inverse)
    cut = build(CONVEX, G, radius=length / 2, preconditioner=exact)
    np.testing.assert_allclose(ravel(cut.model.plane.s), newton / 2, rtol=1e-9)
    assert cut.model.on_boundary


def test_empty_has_the_shapes_of_a_build_in_both_precisions(dtype):
    built = build(CONVEX, G, radius=1.0, dtype=dtype)
    empty = truncated.empty(as_tree(jnp.zeros(N, dtype)))
    assert jax.tree.structure(empty) == jax.tree.structure(built.model)
    for ours, theirs in zip(jax.tree.leaves(empty), jax.tree.leaves(built.model), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    eps = float(jnp.finfo(dtype).eps)
    s, _, _ = cg(CONVEX, G, 0.5 * np.linalg.norm(G), 1.0)
    np.testing.assert_allclose(ravel(built.model.plane.s), s, rtol=1e3 * eps, atol=100 * eps)
