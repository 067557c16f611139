"""Every spelling of a box, what is said of a wrong one, and the geometry at its faces."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core.bounds import Bounds, at_bound, parse, project, projected_gradient

INF = np.inf


class Peak(NamedTuple):
    mu: object
    width: object


def start():
    return {"bg": 1.0, "peak": Peak(jnp.zeros(()), jnp.full((), 2.0)), "w": jnp.array([1.0, 2, 3])}


def check(bounds, lower, upper):
    """The box of `start()` has these sides, entries in the order of bg, mu, width and w."""
    params = start()
    box = parse(bounds, params)
    for side, expected in zip(box, (lower, upper), strict=True):
        assert jax.tree.structure(side) == jax.tree.structure(params)
        leaves = jax.tree.leaves(side)
        for got, leaf in zip(leaves, jax.tree.leaves(params), strict=True):
            assert got.shape == jnp.shape(leaf)
            assert got.dtype == jnp.result_type(leaf)
            assert not got.weak_type
        np.testing.assert_array_equal(np.hstack(leaves), np.asarray(expected, leaves[0].dtype))


@pytest.mark.parametrize(
    ("bounds", "lower", "upper"),
    [
        ((-1, 9.5), [-1] * 6, [9.5] * 6),
        ((None, None), [-INF] * 6, [INF] * 6),
        ((-INF, np.float64(9.1)), [-INF] * 6, [9.1] * 6),
        (({"bg": 0, "peak": -1, "w": None}, 10**12), [0, -1, -1, *[-INF] * 3], [1e12] * 6),
        (
            (None, {"bg": None, "peak": Peak(7, None), "w": np.array([4, 5, 6])}),
            [-INF] * 6,
            [INF, 7, INF, 4, 5, 6],
        ),
        (({"bg": None, "peak": None, "w": [0, None, 2.5]}, None), [*[-INF] * 4, -INF, 2.5], None),
        ({"peak/width": (0, None)}, [-INF, -INF, 0, *[-INF] * 3], [INF] * 6),
        ({"peak": (-1, 4), "bg": [0, 3]}, [0, -1, -1, *[-INF] * 3], [3, 4, 4, *[INF] * 3]),
        ({"*": (-1, 5)}, [-1] * 6, [5] * 6),
        ({"peak/*": (-1, INF)}, [-INF, -1, -1, *[-INF] * 3], [INF] * 6),
        ({"w": ([0, 0, 1], [4, 4, None])}, [-INF] * 3 + [0, 0, 1], [INF] * 3 + [4, 4, INF]),
    ],
)
def test_forms(bounds, lower, upper, x64):
    if upper is None:
        lower, upper = [-INF, -INF, -INF, 0, -INF, 2.5], [INF] * 6
    check(bounds, lower, upper)


def test_no_bounds():
    assert parse(None, start()) is None
    assert parse({}, start()) is None


def test_a_bare_array_and_an_empty_tree(dtype):
    box = parse(([0, -1], [1, None]), jnp.zeros(2, dtype))
    np.testing.assert_array_equal(box.lower, [0, -1])
    np.testing.assert_array_equal(box.upper, [1, INF])
    assert parse((0, 1), None) == Bounds(None, None)
    assert parse(({"a": None, "b": 0}, 1), {"a": None, "b": 0.5}).lower == {"a": None, "b": 0.0}


def test_two_elements_are_two_sides_even_of_params_of_two():
    box = parse(((0, 1), (2, 3)), (0.5, 1.5))
    assert jax.tree.map(float, box) == Bounds((0, 1), (2, 3))


def test_parsing_again_changes_nothing(x64):
    box = parse({"peak/width": (0, None)}, start())
    again = parse(box, start())
    assert isinstance(again, Bounds)
    assert jax.tree.all(jax.tree.map(np.array_equal, box, again))


def test_each_leaf_has_its_own_precision(float64):
    params = {"h": jnp.zeros(2, "bfloat16"), "f": jnp.zeros((), "float32"), "d": np.zeros(1)}
    box = parse((-0.1, 0.1), params)
    assert {k: str(v.dtype) for k, v in box.upper.items()} == {
        "h": "bfloat16",
        "f": "float32",
        "d": "float64",
    }
    np.testing.assert_array_equal(box.lower["f"], np.float32(-0.1))
    np.testing.assert_array_equal(box.lower["d"], [-0.1])


def test_a_start_equal_to_its_bound_in_its_precision_is_inside():
    parse((0.1, None), {"numpy": np.array([0.1]), "plain": 0.1, "half": jnp.bfloat16(0.1)})
    parse((None, 0.7), {"numpy": np.array([0.7]), "plain": 0.7, "half": jnp.bfloat16(0.7)})


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"peak/width": (2.5, None)}, "start peak/width = 2 is outside its bounds [2.5, inf]"),
        ({"w": (1.5, 9)}, "start w[0] = 1 is outside its bounds [1.5, 9]"),
        ((None, {"bg": 9, "peak": 9, "w": [9, 9, 2.9]}), "start w[2] = 3 is outside its bounds "),
        ((None, 1.9), "start peak/width = 2 is outside its bounds [-inf, 1.9]"),
        ({"bg": (2, 0.1)}, "bounds of bg hold no number: lower = 2, upper = 0.1"),
        ({"w": (0, [9, -1, 9])}, "bounds of w[1] hold no number: lower = 0, upper = -1"),
        ({"bg": (INF, None)}, "bounds of bg hold no number: lower = inf, upper = inf"),
        ({"bg": (None, -INF)}, "bounds of bg hold no number: lower = -inf, upper = -inf"),
        ({"bg": (np.nan, 2)}, "bounds of bg are NaN: lower = nan, upper = 2"),
        ({"w": (0, [4, np.nan, 4])}, "bounds of w[1] are NaN: lower = 0, upper = nan"),
        ({"peak/mu": (0.1, 0.1)}, "bounds of peak/mu leave one value, lower = upper = 0.1; to "),
        ({"peak/mu": (0.1, 0.1)}, "start it there and pass fixed='peak/mu'"),
        ({"w": (1, [4, 1, 4])}, "bounds of w[1] leave one value, lower = upper = 1; to hold a "),
        ({"w": (1, [4, 1, 4])}, "fixed='w' (it holds whole leaves: make the entry a leaf)"),
        ({"peak/wdth": (0, 1)}, "bounds='peak/wdth' matches no leaf; the paths are bg, peak/mu"),
        ({"*": (0, 9), "w": (1, 5)}, "bounds has two entries for w, '*' and 'w'"),
        ({"w": ([0, 0], None)}, "the lower bound of w has shape (2,), expected () or (3,)"),
        ((np.zeros(3), None), "the lower bound of bg has shape (3,), expected () or ()"),
    ],
)
def test_wrong_numbers(bounds, message: str, x64):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(bounds, start())


@pytest.mark.parametrize("value", [-0.1, -1 / 3, -1e-20])
def test_the_words_for_a_start_outside(value: float, dtype):
    params = {"peak": {"width": jnp.asarray(value, dtype)}, "w": jnp.ones((2, 3), dtype)}
    with pytest.raises(ValueError, match="start") as raised:
        parse({"peak/width": (0, None)}, params)
    digits = str(np.asarray(value, dtype)[()])
    assert str(raised.value) == f"start peak/width = {digits} is outside its bounds [0, inf]"
    assert digits == "-0.1" or value != -0.1
    params["w"] = params["w"].at[1, 2].set(value)
    with pytest.raises(ValueError, match=r"^start w\[1, 2\] = -.* is outside its bounds \[0, 5\]$"):
        parse({"w": (0, 5)}, params)
    with pytest.raises(ValueError, match=r"^start params\[0\] = -"):
        parse((0, 5), jnp.array([value, 1], dtype))


def test_a_start_that_is_nan_passes():
    parse((0, 1), {"a": jnp.nan, "b": jnp.array([0.5, jnp.nan])})


@pytest.mark.parametrize(
    "bounds",
    [
        3,
        (0,),
        (0, 1, 2),
        [0, 1],
        [(0, 1), (0, 1)],
        "bg",
        {"bg": 0},
        {"bg": (0, 1, 2)},
        {0: (0, 1)},
        {"bg": (0, 1), "w": {"lower": 0}},
    ],
)
def test_what_has_none_of_the_forms(bounds):
    message = r"lims must be \(lower, upper\) of numbers .* prefix trees .* or {\"path\": \(lower"
    with pytest.raises(TypeError, match=message):
        parse(bounds, start(), name="lims")


@pytest.mark.parametrize("side", [{"bg": 0}, [0, 0, 0], {"bg": 0, "peak": (0, 0), "w": 0}])
def test_a_tree_that_does_not_fit(side):
    with pytest.raises(ValueError, match=r"bounds must be \(lower, upper\).*, which does not fit"):
        parse((side, None), start())


@pytest.mark.parametrize(
    "side", ["a", True, 1j, np.array([None]), (0, 0, 0), {"x": 0}, [[0, 1], [2]], [0, 1j, 0]]
)
def test_what_is_no_bound(side):
    with pytest.raises(TypeError, match="bounds: the upper bound of w must be a real number"):
        parse({"w": (None, side)}, start())


def test_complex_leaves_have_no_order(x64):
    params = {"z": jnp.ones(2, complex), "x": jnp.ones(2)}
    with pytest.raises(TypeError, match=r"the lower bound of z is 0, but the leaf is complex"):
        parse((0, None), params)
    with pytest.raises(TypeError, match=r"the upper bound of z is .* but the leaf is complex"):
        jax.jit(lambda u: parse({"z": (None, u)}, params))(1.0)
    box = parse({"x": (0, 1)}, params)
    assert box.lower["z"].dtype == box.lower["x"].dtype
    assert (box.upper["z"] == INF).all()
    moved = jax.tree.map(lambda a: 3 * a, params)
    assert project(moved, box)["z"] is moved["z"]
    assert projected_gradient(params, params, box)["z"] is params["z"]
    assert not at_bound(moved, box)["z"].any()


def test_traced_bounds_pass_unchecked(dtype):
    def sides(lower, upper):
        return parse({"w": (lower, upper), "bg": ([lower][0], 5)}, start())

    box = jax.jit(sides)(2.0, 1.0)
    np.testing.assert_array_equal(box.lower["w"], [2, 2, 2])
    np.testing.assert_array_equal(box.upper["w"], [1, 1, 1])
    assert box.lower["w"].dtype == dtype
    listed = jax.jit(lambda u: parse((None, [u, 1.0, None]), jnp.zeros(3)).upper)(-4.0)
    np.testing.assert_array_equal(listed, [-4, 1, INF])
    many = jax.vmap(lambda u: parse((u, None), start()).lower["w"])(jnp.arange(3.0))
    np.testing.assert_array_equal(many, jnp.arange(3.0)[:, None] * jnp.ones((1, 3)))
    assert jax.grad(lambda u: parse((u, None), start()).lower["w"].sum())(0.5) == 3


def test_inside_jit_concrete_bounds_are_checked_and_a_traced_start_is_not(x64):
    run = jax.jit(lambda params, bounds: project(params, parse(bounds, params)), static_argnums=1)
    np.testing.assert_array_equal(run(jnp.array([-3.0, 3.0]), (0, 1)), [0, 1])
    with pytest.raises(ValueError, match=r"bounds of params hold no number: lower = 1, upper = 0"):
        run(jnp.array(-3.0), (1, 0))
    with pytest.raises(ValueError, match=r"start bg = 1 is outside its bounds \[2, inf\]"):
        jax.jit(lambda u: u * parse({"bg": (2, None)}, start()).lower["bg"])(1.0)


def test_sides_lie_as_params_do():
    explicit = (jax.sharding.AxisType.Explicit,)
    mesh = jax.make_mesh((4,), ("x",), axis_types=explicit)
    with jax.set_mesh(mesh):
        w = jax.device_put(jnp.arange(8.0), jax.NamedSharding(mesh, jax.P("x")))
        box = parse({"w": (0, np.arange(8.0) + 1)}, {"w": w, "b": 1.0})
        assert all(jax.typeof(side["w"]) == jax.typeof(w) for side in box)
        moved = project({"w": 3 * w, "b": 1.0}, box)["w"]
        assert jax.typeof(moved) == jax.typeof(w)
        np.testing.assert_array_equal(np.asarray(moved), [0, *range(2, 9)])


def random_box(dtype, seed=0, n=200):
    """A point of a box, on some of its faces, and a gradient there with some zeros."""
    rng = np.random.default_rng(seed)
    lower, upper = -rng.exponential(size=n), rng.exponential(size=n)
    lower[::5], upper[::7] = -INF, INF
    x = np.clip(rng.normal(size=n) * 2, lower, upper)
    g = rng.normal(size=n)
    g[::3] = 0
    x, g, lower, upper = (jnp.asarray(a, dtype) for a in (x, g, lower, upper))
    return jnp.clip(x, lower, upper), g, Bounds(lower, upper)


def test_projection_is_the_nearest_point(dtype):
    x, g, box = random_box(dtype)
    away = x + 3 * g
    nearest = project(away, box)
    assert nearest.dtype == dtype
    assert ((box.lower <= nearest) & (nearest <= box.upper)).all()
    # <y - P(y), z - P(y)> <= 0 for every z of the box characterizes P
    assert ((away - nearest) * (x - nearest) <= 0).all()
    np.testing.assert_array_equal(project(nearest, box), nearest)
    inside = (box.lower <= away) & (away <= box.upper)
    np.testing.assert_array_equal(nearest[inside], away[inside])
    assert (~inside).any()


def test_projected_gradient_is_what_is_left_of_a_short_step(dtype):
    x, g, box = random_box(dtype, seed=1)
    p = projected_gradient(g, x, box)
    assert p.dtype == dtype
    short = jnp.asarray(2.0**-10, dtype)
    moves = project(x - short * g, box) != x
    np.testing.assert_array_equal(moves, p != 0)
    np.testing.assert_array_equal(p[p != 0], g[p != 0])
    assert ((p == 0) & (g != 0)).any()


def test_projected_gradient_vanishes_exactly_at_first_order_points(dtype):
    box = parse((0, 1), {"a": jnp.full((4,), 0.5, dtype)})
    x = {"a": jnp.array([0, 1, 0.5, 0], dtype)}
    stationary = {"a": jnp.array([2, -3, 0, 0], dtype)}
    np.testing.assert_array_equal(projected_gradient(stationary, x, box)["a"], jnp.zeros(4))
    inward = {"a": jnp.array([-2, 3, 1, -1], dtype)}
    np.testing.assert_array_equal(projected_gradient(inward, x, box)["a"], inward["a"])
    beyond = {"a": jnp.array([-1, 2, 0.5, -1], dtype)}
    np.testing.assert_array_equal(projected_gradient(stationary, beyond, box)["a"], jnp.zeros(4))
    nan = {"a": jnp.full((4,), jnp.nan, dtype)}
    assert jnp.isnan(projected_gradient(nan, x, box)["a"]).all()


def test_at_bound(dtype):
    x, _, box = random_box(dtype, seed=2)
    flags = at_bound(x, box)
    np.testing.assert_array_equal(flags, (x == box.lower) | (x == box.upper))
    assert flags.any()
    assert not flags.all()


def test_the_geometry_compiles_to_no_more_than_elementwise_code():
    x, g, box = random_box("float32", seed=3)
    for run in (project, at_bound):
        assert jax.jit(run)(x, box).shape == x.shape
    together = jax.jit(jax.vmap(projected_gradient))(g, x, box)  # entry by entry
    np.testing.assert_array_equal(together, projected_gradient(g, x, box))
