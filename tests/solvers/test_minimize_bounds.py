"""`minimize(bounds=)`: forms, answers against SciPy, edges, and no evaluation outside.

All problems of tests/transforms/runs.py are one objective, and a box is data, so that one compiled
solve serves most of this file.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import hesskit
from hesskit.core.status import Status
from tests.transforms.runs import FUNCTIONS, objective

pytestmark = pytest.mark.usefixtures("float64")

BOX = (np.array([-1.3, -1.5, -2.0, -0.1]), np.array([0.7, 1.0, 1.1, 0.6]))
SEEN = []


def watched(x, which):
    """`objective`, which tells of every point at which it is evaluated whether it is inside."""
    jax.debug.callback(
        lambda inside: SEEN.append(bool(inside)), jnp.all((x >= BOX[0]) & (x <= BOX[1]))
    )
    return objective(x, which)


OPTIMIZERS = {"trust_region": hesskit.trust_region(), "lbfgs": hesskit.lbfgs()}
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def solve(name, start, bounds, fn=objective, optimizer="trust_region", **more):
    which = jnp.asarray(list(FUNCTIONS).index(name), jnp.int32)
    start = jnp.asarray(start, float)
    return hesskit.minimize(
        fn, start, OPTIMIZERS[optimizer], args=(which,), bounds=bounds, max_steps=200, **more
    )


def slopes(name, x, bounds):
    """The projected gradient."""
    g = np.asarray(jax.grad(FUNCTIONS[name])(jnp.asarray(x)))
    x = np.asarray(x)
    low, high = (np.broadcast_to(np.asarray(side, float), x.shape) for side in bounds)
    return np.where(((x <= low) & (g > 0)) | ((x >= high) & (g < 0)), 0, g)


INF = np.inf
BOXES = {
    "rosenbrock, a wall before the minimum": ("rosenbrock", [-1.2, 0.8, 0, 0.5], (-INF, 0.8)),
    "rosenbrock, off the valley": ("rosenbrock", [2, 3, 1, 0.5], ([1.5, -INF, 0.1, -1], INF)),
    "rosenbrock, nothing active": ("rosenbrock", [-1.2, 1, 1, 0.5], (-5.0, 5.0)),
    "beale": ("beale", [1, 0.2, 1, -1], ([0, 0, 0, -2], [2, 0.4, 4, 4])),
    "wood": ("wood", [-3, -1, -3, -1], ([-4, -4, -4, -4], [0.5, 4, 4, 0.9])),
    "wood, from a corner": ("wood", [4, 4, 0.9, 4], (-4.0, [4, 4, 0.9, 4])),
    "convex": ("convex", [1, -1, 2, 0.5], ([0.5, -3, -3, 0.3], 3.0)),
    "quadratic, narrow": ("quadratic", [0, 0, 0, 0], (-0.25, [0.25, 2, 0.5, 0.125])),
    "wells, two edges": ("wells", [0.2, 0.3, -0.1, -0.4], ([0, 0, -0.5, -2], [0.5, 2, 0.5, 0])),
}


@each_optimizer
@pytest.mark.parametrize("case", BOXES)
def test_the_answer_is_stationary_inside_and_no_higher_than_scipys(case, optimizer):
    name, start, bounds = BOXES[case]
    bounds = tuple(np.broadcast_to(np.asarray(side, float), 4) for side in bounds)
    result = solve(name, start, bounds, optimizer=optimizer)
    x = np.asarray(result.params)
    assert result.success
    assert np.all((x >= bounds[0]) & (x <= bounds[1]))
    np.testing.assert_allclose(slopes(name, x, bounds), 0.0, atol=1e-8)
    np.testing.assert_allclose(result.grad_norm, np.linalg.norm(slopes(name, x, bounds)), atol=1e-9)
    fn = jax.jit(jax.value_and_grad(FUNCTIONS[name]))
    theirs = scipy.optimize.minimize(
        lambda x: tuple(map(np.asarray, fn(jnp.asarray(x)))),
        np.asarray(start, float),
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(*bounds, strict=True)),
        options={"ftol": 1e-16, "gtol": 1e-10, "maxiter": 2000},
    )
    assert result.value <= theirs.fun + 1e-10 * max(abs(theirs.fun), 1e-10)
    at = (x == bounds[0]) | (x == bounds[1])
    near = np.isclose(x, bounds[0], atol=1e-6) | np.isclose(x, bounds[1], atol=1e-6)
    np.testing.assert_array_equal(at, near)  # on a bound to the bit, or away from it
    assert at.any() or case.endswith("nothing active")
    if result.value >= theirs.fun - 1e-6 * abs(theirs.fun):  # the same minimum
        np.testing.assert_allclose(x, theirs.x, atol=1e-4)


@pytest.mark.slow
def test_every_form_of_bounds_is_the_same_box():
    start = [-1.2, 0.5, 0.5, 0.5]
    wanted = solve("rosenbrock", start, (-2.0, 0.8))
    for bounds in (
        (np.full(4, -2.0), 0.8),
        ([-2.0] * 4, jnp.full(4, 0.8)),
        ([-2.0, -2.0, -2, -2.0], [0.8, 0.8, 0.8, 0.8]),
    ):
        result = solve("rosenbrock", start, bounds)
        np.testing.assert_array_equal(result.params, wanted.params)
        assert result.num_steps == wanted.num_steps
    free = solve("rosenbrock", start, (None, INF))
    np.testing.assert_allclose(free.params, [1, 1, 0, 0], atol=1e-8)
    none = hesskit.minimize(FUNCTIONS["rosenbrock"], jnp.asarray(start, float), bounds=None)
    np.testing.assert_allclose(free.params, none.params, atol=1e-8)


@pytest.mark.slow
def test_pytrees_paths_and_fixed_leaves():
    """Bounds of a leaf that is held say nothing; a scalar bound holds for a whole leaf."""

    def fn(p):
        width, mu, extra = p["peak"]["width"], p["peak"]["mu"], p["bg"]
        return (width + 1) ** 2 + jnp.sum((mu - 2) ** 2) + (extra - width - mu[0]) ** 2

    start = {"bg": 0.5, "peak": {"mu": np.zeros(2), "width": 1.0}}
    by_path = {"peak/width": (0.25, None), "peak/mu": (None, [1.0, 5.0]), "bg": (-1.0, None)}
    by_tree = (
        {"bg": -1.0, "peak": {"mu": None, "width": 0.25}},
        {"bg": None, "peak": {"mu": [1.0, 5.0], "width": None}},
    )
    results = [hesskit.minimize(fn, start, bounds=b, fixed="bg") for b in (by_path, by_tree)]
    for result in results:
        assert result.success
        assert result.params["bg"] == 0.5
        assert result.params["peak"]["width"] == 0.25
        np.testing.assert_allclose(result.params["peak"]["mu"], [1.0, 2.0])
    gradient = jax.grad(fn)(results[0].params)
    assert gradient["bg"] != 0
    assert results[0].grad_norm < 1e-9


@pytest.mark.slow
@each_optimizer
def test_no_point_outside_is_ever_evaluated(optimizer):
    SEEN.clear()
    jax.jit(watched)(jnp.full(4, 2.0), jnp.int32(0))
    jax.effects_barrier()
    assert not all(SEEN)  # the watch watches
    SEEN.clear()
    for name in ("rosenbrock", "wells", "convex", "beale"):
        result = solve(name, [-1.2, 1.0, 1.0, 0.5], BOX, watched, optimizer, history="params")
        path = np.asarray(result.history.params)
        assert np.all((path >= BOX[0]) & (path <= BOX[1]))
        assert result.success
    jax.effects_barrier()
    assert len(SEEN) > 30
    assert all(SEEN)


# Edges.


def saddle(p):
    """A saddle at 0, minima of -1 at (0, +-sqrt 2)."""
    return p[0] ** 2 - p[1] ** 2 + 0.25 * p[1] ** 4


EDGES = {
    "a saddle on an edge": ([0.0, 0.0], [-9, 0], [9, 9], [0, np.sqrt(2)]),
    "a saddle on the other edge": ([0.0, 0.0], [-9, -9], [9, 0], [0, -np.sqrt(2)]),
    "a saddle in a corner": ([0.0, 0.0], [0, 0], [9, 1], [0, 1]),
    "uphill is shut: a minimum of its face": ([0.5, 1.0], [-1, -1], [1, 1], [0, 1]),
    "a saddle of the whole, not of the box": ([0.5, 0.1], [0.25, -9], [9, 9], [0.25, np.sqrt(2)]),
}


@pytest.mark.parametrize("edge", EDGES)
def test_edges(edge):
    start, low, high, answer = EDGES[edge]
    bounds = (np.array(low, float), np.array(high, float))
    result = hesskit.minimize(saddle, jnp.array(start), bounds=bounds)
    assert result.success
    np.testing.assert_allclose(result.params, answer, atol=1e-7)


def test_a_stationary_point_that_the_box_holds_is_found_in_no_step():
    """The gradient points out of it: no step, no complaint."""
    result = hesskit.minimize(
        saddle, jnp.array([0.0, 1.0]), bounds=(np.full(2, -1.0), np.full(2, 1.0))
    )
    assert Status(int(result.status)) == Status.GRADIENT_TOL
    assert result.num_steps == 0
    assert result.grad_norm == 0
    assert np.linalg.norm(jax.grad(saddle)(result.params)) > 0.5


@pytest.mark.slow
def test_under_vmap_boxes_are_lanes():
    highs = jnp.array([0.8, 0.2, INF])
    start = jnp.array([-1.2, 1.0, 1.0, 0.5]) * 0.1
    run = lambda high: solve("rosenbrock", start, (None, high)).params
    many = jax.jit(jax.vmap(run))(highs)
    for i, high in enumerate(highs):
        np.testing.assert_allclose(many[i], run(high), rtol=1e-6, atol=1e-9)


# Bad calls.


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        (hesskit.newton_cg(), "newton_cg"),
        (hesskit.cubic_newton(), "cubic_newton"),
        (optax.sgd(0.1), "this optimizer"),
        (hesskit.trust_region(0.5), "trust_region"),
    ],
)
def test_optimizers_without_bounds_say_so(optimizer, name):
    with pytest.raises(ValueError, match=f"^{name} does not take bounds; use optimizer=None"):
        hesskit.minimize(saddle, jnp.zeros(2), optimizer, bounds=(-1.0, 1.0))


@pytest.mark.parametrize(
    ("bounds", "error", "words"),
    [
        ((0.5, 1.0), ValueError, "start peak/width = 0.1 is outside its bounds [0.5, 1]"),
        ({"peak/width": (0.2, None)}, ValueError, "start peak/width = 0.1 is outside its bounds"),
        ({"width": (0, 1)}, ValueError, "bounds='width' matches no leaf"),
        ((1.0, -1.0), ValueError, "hold no number"),
        (({"peak": 0.0}, {"bg": None}), ValueError, "does not fit params"),
        (0.5, TypeError, "bounds must be (lower, upper)"),
    ],
)
def test_bad_bounds(bounds, error, words):
    start = {"peak": {"mu": 0.6, "width": 0.1}}
    with pytest.raises(error) as caught:
        hesskit.minimize(lambda p: p["peak"]["mu"] ** 2, start, bounds=bounds)
    assert words in str(caught.value)


@pytest.mark.slow
def test_many_parameters_have_a_default_too():
    """Beyond the size of dense methods; the answer here is the clipped minimum."""
    target = jnp.linspace(-2.0, 2.0, 150)
    fn = lambda p: jnp.sum((p - target) ** 2 * (1 + target**2))
    result = hesskit.minimize(fn, jnp.zeros(150), bounds=(-1.0, 1.0))
    assert result.success
    np.testing.assert_allclose(result.params, np.clip(target, -1, 1), atol=1e-7)
