"""Steps in a ball and a box: feasible to the bit, downhill, and against plain implementations."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import lsq_linear

from hesskit.linalg.bounded import BoundedStep, bounded_step
from hesskit.linalg.more_sorensen import trust_region_step


def subproblem_of(b, g, scale):
    """The stage's minimizer from the eigenvalues of the free block; the rest is set positive."""

    def subproblem(held, free, room):
        inside = free[:, None] & free[None, :]
        scaled = b / scale[:, None] / scale[None, :]
        rest = jnp.diag(jnp.where(free, 0, jnp.max(jnp.abs(scaled))))
        w, q = jnp.linalg.eigh(jnp.where(inside, scaled, rest))
        c = q.T @ jnp.where(free, (g + b @ held) / scale, 0)
        best = trust_region_step(w, c, room)
        return jnp.where(free, (q @ best.step) / scale, 0), best.on_boundary

    return subproblem


def slope_of(b, g):
    return lambda s, d: (g + b @ s) @ d


def solve_plain(b, g, lower, upper, scale, radius):
    return bounded_step(
        subproblem_of(b, g, scale),
        slope_of(b, g),
        gradient=g,
        lower=lower,
        upper=upper,
        scale=scale,
        radius=radius,
    )


solve = jax.jit(solve_plain)
solve_many = jax.jit(jax.vmap(solve_plain))


def model(b, g, s):
    return g @ s + s @ b @ s / 2


def eps_of(dtype):
    return float(jnp.finfo(dtype).eps)


def random_problems(n, count, dtype, *, indefinite, seed=0):
    """Boxes of unlike widths, on some faces of which the problem starts, and unlike units."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(count, n, n))
    if indefinite:
        b = (a + a.transpose(0, 2, 1)) / 2
    else:
        b = a @ a.transpose(0, 2, 1) / n + 0.01 * np.eye(n)
    units = 10 ** rng.uniform(-0.5, 0.5, (count, n))
    b = b * units[:, :, None] * units[:, None, :]
    g = rng.normal(size=(count, n))
    lower, upper = -rng.uniform(0, 0.6, (count, n)), rng.uniform(0, 0.6, (count, n))
    lower[rng.random((count, n)) < 0.2] = 0
    upper[(rng.random((count, n)) < 0.2) & (lower < 0)] = 0
    lower[rng.random((count, n)) < 0.2] = -np.inf
    scale = 10 ** rng.uniform(-0.5, 0.5, (count, n))
    radius = 10 ** rng.uniform(-1, 1, count)
    return tuple(x.astype(dtype) for x in (b, g, lower, upper, scale, radius))


CASES = [(n, indefinite) for n in (1, 5, 12) for indefinite in (False, True)]
COUNT = 100  # lanes, everywhere: one compiled program for each n and dtype
cases = pytest.mark.parametrize(("n", "indefinite"), CASES)


def lanes(answers):
    """The answers one by one, as numpy arrays."""
    answers = jax.tree.map(np.asarray, answers)
    return [BoundedStep(*fields) for fields in zip(*answers, strict=True)]


@pytest.mark.slow
@cases
def test_feasible_and_downhill(n, indefinite, dtype):
    problems = random_problems(n, COUNT, dtype, indefinite=indefinite)
    answers = solve_many(*problems)
    assert answers.step.dtype == dtype
    assert answers.num_stages.dtype == jnp.int32
    for (b, g, lower, upper, scale, radius), answer in zip(
        zip(*problems, strict=True), lanes(answers), strict=True
    ):
        s = answer.step
        assert ((lower <= s) & (s <= upper)).all()  # to the bit
        np.testing.assert_array_equal(answer.active, (s == lower) | (s == upper))
        length = np.linalg.norm((scale * s).astype(float))
        assert length <= radius * (1 + 20 * eps_of(dtype))
        if answer.on_boundary:
            np.testing.assert_allclose(length, radius, rtol=20 * eps_of(dtype))
        pushed = ((lower == 0) & (g > 0)) | ((upper == 0) & (g < 0))
        assert (s[pushed] == 0).all()
        assert answer.num_stages <= n - pushed.sum()
        if pushed.all():
            assert (s == 0).all()
        else:
            assert model(*(x.astype(float) for x in (b, g, s))) < 0


def plain_region(b, g, radius):
    """The global minimizer in a ball by bisection."""
    w, q = np.linalg.eigh(b)
    c = q.T @ g
    if w[0] > 0 and np.linalg.norm(c / w) <= radius:
        return -q @ (c / w)
    low = max(0, -w[0])
    high = low + np.linalg.norm(c) / radius
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.linalg.norm(c / (w + middle)) > radius else (low, middle)
    s = -c / (w + high)
    short = radius**2 - s @ s
    if short > 1e-9 * radius**2:
        s[0] += np.copysign(np.sqrt(short), -c[0])
    return q @ s


def reference(b, g, lower, upper, scale, radius):
    """The path of stages on index sets of numpy: (s, whether it came straight from the last)."""
    path, n = [(np.zeros(len(g)), False)], len(g)
    free = [i for i in range(n) if not (lower[i] == 0 < g[i] or upper[i] == 0 > g[i])]
    radius = min(radius, np.linalg.norm(scale * np.maximum(-lower, upper)))
    while free:
        s = path[-1][0]
        held = s.copy()
        held[free] = 0
        room = np.sqrt(radius**2 - ((scale * held) ** 2).sum())
        d_free = scale[free]
        z = plain_region(
            b[np.ix_(free, free)] / np.outer(d_free, d_free), (g + b @ held)[free] / d_free, room
        )
        target = held.copy()
        target[free] = z / d_free
        d = target - s
        times = {i: ((upper if d[i] > 0 else lower)[i] - s[i]) / d[i] for i in free if d[i] != 0}
        straight = (g + b @ s) @ d < 0
        t = min([1, *times.values()]) if straight else 1
        new = np.clip(s + t * d, lower, upper)
        if not straight and model(b, g, new) >= model(b, g, s):
            break
        path.append((new, straight))
        hits = [i for i in times if times[i] <= t]
        if not hits:
            break
        free = [i for i in free if i not in hits]
    return path


def cauchy_value(b, g, lower, upper, scale, radius):
    """The model at its first local minimum along the projected gradient, in the ball."""
    u = -g / scale**2
    t = np.divide(np.where(u > 0, upper, lower), u, where=u != 0, out=np.full_like(u, np.inf))
    s, now = np.zeros_like(g), 0.0
    for after in [*np.unique(t[np.isfinite(t) & (t > 0)]), np.inf]:
        d = np.where(t > now, u, 0)
        fall, bend = (g + b @ s) @ d, d @ b @ d
        length, ahead = np.linalg.norm(scale * d), scale**2 * d @ s
        room = radius**2 - np.linalg.norm(scale * s) ** 2
        edge = (np.sqrt(ahead**2 + length**2 * room) - ahead) / length**2 if length > 0 else 0
        stop = 0 if fall >= 0 else min(edge, -fall / bend if bend > 0 else np.inf)
        s = s + min(stop, after - now) * d
        if stop <= after - now:
            break
        now = after
    return model(b, g, s)


@cases
def test_against_plain_stages_and_the_cauchy_point(n, indefinite, float64):
    problems = random_problems(n, COUNT, "float64", indefinite=indefinite, seed=1)
    same, paths = [], []
    for problem, answer in zip(
        zip(*problems, strict=True), lanes(solve_many(*problems)), strict=True
    ):
        value = functools.partial(model, *problem[:2])
        path = reference(*problem)
        end = path[-1][0]
        assert value(answer.step) <= min(cauchy_value(*problem), value(end)) + 1e-9
        same.append(np.allclose(answer.step, end, rtol=1e-6, atol=1e-6))
        paths.append(path)
        for (start, _), (new, straight) in itertools.pairwise(path):
            values = [value(start + t * (new - start)) for t in np.linspace(0, 1, 21)]
            assert values[-1] <= values[0]
            assert not straight or (np.diff(values) <= 1e-12).all()
    # Else the step is the Cauchy point, or came from there: 9 of 100 at most.
    assert np.mean(same) > 0.9
    if n == 12:
        clipped = any(not straight for path in paths for _, straight in path[1:])
        assert clipped == indefinite  # the way of a model that rises first was taken


@pytest.mark.slow
def test_the_cauchy_point_where_the_stages_fall_behind(dtype):
    # The target has no room along x_1, where the gradient is; the path along -g has.
    b = jnp.array([[-1, -1], [-1, -1]], dtype)
    g, one = jnp.array([-1, 0.9], dtype), jnp.ones(2, dtype)
    problem = (b, g, -one, jnp.array([0.01, 1], dtype), one, jnp.asarray(1, dtype))
    answer = solve(*problem)
    assert model(b, g, answer.step) <= cauchy_value(*(np.asarray(x, float) for x in problem)) + 1e-6
    end = reference(*(np.asarray(x, float) for x in problem))[-1][0]
    assert model(b, g, answer.step) < 0.9 * model(np.asarray(b), np.asarray(g), end)


def test_two_stages_by_hand(dtype):
    b = jnp.array([[2, 1], [1, 2]], dtype)
    g, one, inf = jnp.array([-5, -4], dtype), jnp.ones(2, dtype), jnp.asarray(jnp.inf, dtype)
    upper = jnp.array([1, 9], dtype)
    first_stage = subproblem_of(b, g, one)(0 * one, jnp.array([True, True]), inf)[0]
    np.testing.assert_allclose(first_stage, [2, 1], rtol=1e-6)
    answer = solve(b, g, -one, upper, one, inf)
    assert answer.num_stages == 2
    np.testing.assert_allclose(answer.step, [1, 1.5], rtol=1e-6)  # clipping would give [1, 1]
    np.testing.assert_array_equal(answer.active, [True, False])
    assert not answer.on_boundary
    short = solve(b, g, -one, upper, one, jnp.asarray(1.25, dtype))
    np.testing.assert_allclose(short.step, [1, 0.75], rtol=1e-6)
    assert short.on_boundary
    assert short.num_stages == 2


def test_stages_ledger(float64):
    # Calls of the subproblem: about one for each bound met, and one more.
    means = {}
    for n, indefinite in CASES:
        problems = random_problems(n, COUNT, "float64", indefinite=indefinite, seed=2)
        means[n, indefinite] = float(np.mean(solve_many(*problems).num_stages))
    expected = [0.82, 0.82, 2.92, 3.03, 5.5, 6.13]
    np.testing.assert_allclose(list(means.values()), expected, atol=0.01)


@pytest.mark.parametrize("indefinite", [False, True])
def test_without_bounds_the_step_is_that_of_the_subproblem(indefinite, dtype):
    b, g, _, _, scale, radius = random_problems(5, COUNT, dtype, indefinite=indefinite, seed=4)
    endless = np.full_like(g, np.inf)
    answers = solve_many(b, g, -endless, endless, scale, radius)

    def alone(b, g, scale, radius):
        return subproblem_of(b, g, scale)(jnp.zeros_like(g), jnp.ones(g.shape, bool), radius)

    z, on_boundary = jax.jit(jax.vmap(alone))(b, g, scale, radius)
    rtol = 20_000 * eps_of(dtype)  # two compiled programs, and ill-conditioned problems
    np.testing.assert_allclose(answers.step, z, rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(answers.on_boundary, on_boundary)
    np.testing.assert_array_equal(answers.num_stages, 1)
    assert not answers.active.any()
    assert on_boundary.any()
    assert indefinite or not on_boundary.all()


def descend(b, g, lower, upper, *, radius, dtype, max_steps):
    """Steps from 0, each from the new point, until one does not move: the points."""
    b, g, lower, upper = (np.asarray(x, dtype) for x in (b, g, lower, upper))
    points = [np.zeros_like(g)]
    for _ in range(max_steps):
        x = points[-1]
        low, high = lower - x, upper - x
        s = np.asarray(solve(b, g + b @ x, low, high, np.ones_like(g), dtype(radius)).step)
        new = np.where(s == low, lower, np.where(s == high, upper, x + s))
        points.append(np.clip(new, lower, upper))
    return points


@pytest.mark.parametrize("n", [2, 12])
@pytest.mark.parametrize("corner", [False, True])
def test_repeated_steps_find_the_bounded_minimizer_of_a_convex_model(n, corner, float64):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        a, y = rng.normal(size=(2 * n, n)), rng.normal(size=2 * n) * 9
        lower, upper = -rng.uniform(0.01, 0.4, n), rng.uniform(0.01, 0.4, n)
        if corner:
            lower = np.zeros(n)
        expected = lsq_linear(a, y, (lower, upper), method="bvls", tol=1e-15)
        points = descend(
            a.T @ a, -a.T @ y, lower, upper, radius=np.inf, dtype=np.float64, max_steps=5
        )
        np.testing.assert_allclose(points[-1], expected.x, rtol=0, atol=1e-8)
        np.testing.assert_array_equal(points[-1] == lower, expected.active_mask == -1)
        np.testing.assert_array_equal(points[-1] == upper, expected.active_mask == 1)
        assert (expected.active_mask != 0).any()


@pytest.mark.slow
def test_repeated_steps_on_an_indefinite_model_end_at_a_second_order_point(float64):
    problems = random_problems(5, 20, "float64", indefinite=True, seed=5)
    for b, g, lower, upper, _, _ in zip(*problems, strict=True):
        lower = np.maximum(lower, -1)
        points = descend(b, g, lower, upper, radius=0.5, dtype=np.float64, max_steps=40)
        values = [model(b, g, x) for x in points]
        assert (np.diff(values) <= 1e-13).all()
        x = points[-1]
        slope = g + b @ x
        free = (x > lower) & (x < upper)
        assert np.abs(slope[free]).max(initial=0) < 1e-8
        assert (slope[x == lower] > -1e-8).all()
        assert (slope[x == upper] < 1e-8).all()
        assert np.linalg.eigvalsh(b[np.ix_(free, free)]).min(initial=0) >= -1e-8


@pytest.mark.parametrize("side", [-1, 1])
def test_leaves_a_saddle_at_the_edge_of_the_box(side, dtype):
    # The gradient is zero, so the sign of the target is arbitrary; one of them has no room.
    b, zero = jnp.diag(jnp.array([-1, 2], dtype)), jnp.zeros(2, dtype)
    reach = jnp.array([2, 2], dtype)
    lower, upper = (-reach, reach.at[0].set(0)) if side < 0 else (-reach.at[0].set(0), reach)
    answer = solve(b, zero, lower, upper, jnp.ones(2, dtype), jnp.asarray(0.5, dtype))
    np.testing.assert_allclose(answer.step, [0.5 * side, 0], atol=1e-6)
    assert answer.on_boundary
    assert answer.num_stages == 1
    far = solve(b, zero, lower, upper, jnp.ones(2, dtype), jnp.asarray(5.0, dtype))
    np.testing.assert_array_equal(far.step, [2 * side, 0])
    np.testing.assert_array_equal(far.active, [True, False])
    assert not far.on_boundary


def test_the_longer_way_off_a_saddle_is_taken(dtype):
    b, zero, one = jnp.diag(jnp.array([-1, 2], dtype)), jnp.zeros(2, dtype), jnp.ones(2, dtype)
    for upper, expected in ((0.25, -1.0), (3.0, 2.0)):
        answer = solve(b, zero, -one, upper * one, one, jnp.asarray(2, dtype))
        np.testing.assert_array_equal(answer.step, [expected, 0])
    # A maximum in a corner: each axis is left in turn.
    peak = solve(-b @ b, zero, -one, 0 * one, one, jnp.asarray(jnp.sqrt(2.0), dtype))
    np.testing.assert_array_equal(peak.step, [-1, -1])


def test_a_stationary_point_stays(dtype):
    b, zero, one = jnp.eye(3, dtype=dtype), jnp.zeros(3, dtype), jnp.ones(3, dtype)
    answer = solve(b, zero, 0 * one, one, one, jnp.asarray(1, dtype))
    np.testing.assert_array_equal(answer.step, zero)
    assert not answer.on_boundary
    np.testing.assert_array_equal(answer.active, [True] * 3)


def test_all_held(dtype):
    g, one = jnp.array([1, -2, 3], dtype), jnp.ones(3, dtype)
    b = -jnp.eye(3, dtype=dtype)
    lower, upper = jnp.array([0, -1, 0], dtype), jnp.array([1, 0, 1], dtype)
    answer = solve(b, g, lower, upper, one, jnp.asarray(1, dtype))
    np.testing.assert_array_equal(answer.step, 0 * g)
    assert answer.num_stages == 0
    assert answer.active.all()
    assert not answer.on_boundary


@pytest.mark.parametrize("indefinite", [False, True])
def test_coordinates_without_width_do_not_take_part(indefinite, dtype):
    problems = random_problems(12, COUNT, dtype, indefinite=indefinite, seed=6)
    b, g, lower, upper, scale, radius = problems
    out = np.array([1, 4, 5, 6, 8, 10, 11])
    keep = np.array([0, 2, 3, 7, 9])
    g[::2, 1] = 0  # neither pushed out nor in
    lower[:, out] = upper[:, out] = 0
    answers = solve_many(b, g, lower, upper, scale, radius)
    small = solve_many(
        b[:, keep][:, :, keep],
        *(np.ascontiguousarray(x[:, keep]) for x in (g, lower, upper, scale)),
        radius,
    )
    np.testing.assert_array_equal(answers.step[:, out], 0)
    assert answers.active[:, out].all()
    rtol = 2000 * eps_of(dtype)
    np.testing.assert_allclose(answers.step[:, keep], small.step, rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(answers.num_stages, small.num_stages)
    np.testing.assert_array_equal(answers.on_boundary, small.on_boundary)


@pytest.mark.parametrize("indefinite", [False, True])
def test_lanes_equal_one_by_one(indefinite, dtype):
    problems = random_problems(5, COUNT, dtype, indefinite=indefinite, seed=7)
    together = solve_many(*problems)
    assert len(np.unique(together.num_stages)) > 1  # lanes wait for one another
    for i, problem in enumerate(itertools.islice(zip(*problems, strict=True), 8)):
        alone = solve(*problem)
        rtol = 500 * eps_of(dtype)
        np.testing.assert_allclose(together.step[i], alone.step, rtol=rtol, atol=rtol)
        for field in ("on_boundary", "active", "num_stages"):
            np.testing.assert_array_equal(getattr(together, field)[i], getattr(alone, field))


@jax.jit
def solve_poisoned(poison, poisoned_from):
    """A problem of two stages, the targets of which have `poison` added from some stage on."""
    b, one = jnp.diag(jnp.array([1, 100], poison.dtype)), jnp.ones_like(poison)
    g = jnp.array([-3, -1], poison.dtype)

    def subproblem(held, free, room):
        z, on_boundary = subproblem_of(b, g, one)(held, free, room)
        stage = 2 - jnp.sum(free)  # the calls so far: each stage meets one bound
        return jnp.where(stage >= poisoned_from, z + poison, z), on_boundary

    return bounded_step(
        subproblem,
        slope_of(b, g),
        gradient=g,
        lower=-one,
        upper=jnp.array([1, 9], poison.dtype),
        scale=one,
        radius=jnp.inf,
    )


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("places", [[1, 1], [0, 1]])
def test_a_target_that_is_not_finite_ends_with_the_step_so_far(bad, places, dtype):
    poison = jnp.where(jnp.array(places) == 1, jnp.asarray(bad, dtype), 0)
    for calls, expected in enumerate([[0, 0], [1, 1 / 300]]):
        answer = solve_poisoned(poison, calls)
        np.testing.assert_allclose(answer.step, expected, rtol=1e-5)
        assert answer.num_stages == calls + 1
        assert not answer.on_boundary
    whole = solve_poisoned(poison, 9)
    np.testing.assert_allclose(whole.step, [1, 0.01], rtol=1e-5)
    assert whole.num_stages == 2


@pytest.mark.parametrize("name", ["gradient", "matrix", "radius", "lower", "scale"])
def test_nan_in_the_data_gives_no_step(name, dtype):
    problem = [jnp.asarray(x[0]) for x in random_problems(5, 1, dtype, indefinite=False, seed=8)]
    place = ["matrix", "gradient", "lower", "upper", "scale", "radius"].index(name)
    problem[place] = problem[place].at[...].set(jnp.nan)
    answer = solve(*problem)
    np.testing.assert_array_equal(answer.step, jnp.zeros(5))
    assert answer.num_stages <= 1
    assert not answer.on_boundary


def test_radius_zero_infinite_and_beyond_its_square(dtype):
    b, g, lower, upper, scale, _ = (
        x[0] for x in random_problems(5, 1, dtype, indefinite=False, seed=9)
    )
    still = solve(b, g, lower, upper, scale, dtype.type(0))
    np.testing.assert_array_equal(still.step, jnp.zeros(5))
    assert still.num_stages == 1
    endless = solve(b, g, lower, upper, scale, dtype.type(np.inf))
    huge = solve(b, g, lower, upper, scale, dtype.type(np.sqrt(jnp.finfo(dtype).max) * 100))
    np.testing.assert_allclose(huge.step, endless.step, rtol=100 * eps_of(dtype))
    assert endless.num_stages > 1
    assert jnp.any(endless.step != 0)
    assert not endless.on_boundary
    assert not huge.on_boundary
    # A concave model has no minimum in an infinite ball: no step, and no NaN; but in a box.
    none = solve(-b, g, -np.inf * scale, upper, scale, dtype.type(np.inf))
    np.testing.assert_array_equal(none.step, jnp.zeros(5))
    corner = solve(-b, g, -scale, 2 * scale, scale, dtype.type(np.inf))
    assert corner.active.all()
    assert not corner.on_boundary


def test_scale_is_a_change_of_variables(dtype):
    problems = random_problems(5, COUNT, dtype, indefinite=True, seed=10)
    b, g, lower, upper, scale, radius = problems
    scale = (2.0 ** np.round(np.log2(scale) * 2)).astype(dtype)  # exact
    plain = solve_many(
        b / scale[:, :, None] / scale[:, None, :],
        g / scale,
        lower * scale,
        upper * scale,
        np.ones_like(scale),
        radius,
    )
    scaled = solve_many(b, g, lower, upper, scale, radius)
    rtol = 100 * eps_of(dtype)
    np.testing.assert_allclose(scaled.step * scale, plain.step, rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(scaled.num_stages, plain.num_stages)


@pytest.mark.parametrize(("force", "length"), [(2.0**30, 2.0**-20), (2.0**-30, 2.0**20)])
def test_units_do_not_matter(force, length, dtype):
    problems = random_problems(5, COUNT, dtype, indefinite=True, seed=11)
    b, g, lower, upper, scale, radius = problems
    plain = solve_many(*problems)
    scaled = solve_many(
        *(b * dtype.type(force / length), g * dtype.type(force)),
        *(lower * dtype.type(length), upper * dtype.type(length)),
        *(scale, radius * dtype.type(length)),
    )
    rtol = 100 * eps_of(dtype)
    np.testing.assert_allclose(scaled.step / dtype.type(length), plain.step, rtol, atol=rtol)
    np.testing.assert_array_equal(scaled.num_stages, plain.num_stages)
    np.testing.assert_array_equal(scaled.active, plain.active)


def test_the_subproblem_is_asked_at_one_place_and_never_more_than_n_times(float64):
    n = 6
    b, g = np.eye(n), -np.arange(1.0, n + 1)  # the bounds are met one after the other
    upper = np.full(n, 0.5)
    calls = []

    def run(b, g):
        def subproblem(held, free, room):
            jax.debug.callback(lambda held, free: calls.append((held, free)), held, free)
            return jnp.where(free, jax.lax.bessel_i1e(-g) * 0 - g, 0), jnp.array(False)

        return bounded_step(
            subproblem,
            slope_of(b, g),
            gradient=g,
            lower=-upper,
            upper=upper,
            scale=np.ones(n),
            radius=1.0,
        )

    assert str(jax.make_jaxpr(run)(b, g)).count("bessel_i1e") == 1
    answer = jax.jit(run)(b, g)
    jax.effects_barrier()
    np.testing.assert_array_equal(answer.step, upper)
    assert answer.num_stages == len(calls) == n
    for held, free in calls:
        np.testing.assert_array_equal(held, np.where(free, 0, 0.5))
    assert [int(free.sum()) for _, free in calls] == [6, 5, 4, 3, 2, 1]


def test_room_is_what_the_held_coordinates_leave(dtype):
    rooms = []

    def run(radius):
        def subproblem(held, free, room):
            jax.debug.callback(rooms.append, room)
            return jnp.where(free, jnp.array([6, 1], dtype), 0), jnp.array(True)

        return bounded_step(
            subproblem,
            lambda s, d: (s - jnp.array([6, 1], dtype)) @ d,
            gradient=-jnp.array([6, 1], dtype),
            lower=-jnp.ones(2, dtype),
            upper=jnp.array([1.5, 5], dtype),
            scale=jnp.array([2, 1], dtype),
            radius=radius,
        )

    answer = jax.jit(run)(jnp.asarray(5, dtype))
    jax.effects_barrier()
    np.testing.assert_allclose(rooms, [5, 4], rtol=1e-6)
    np.testing.assert_array_equal(answer.step, jnp.array([1.5, 1], dtype))
    assert answer.on_boundary


def test_uphill_targets_are_refused(dtype):
    g, one = jnp.array([1, -1], dtype), jnp.ones(2, dtype)
    run = functools.partial(bounded_step, gradient=g, lower=-one, upper=one, scale=one, radius=1.0)
    answer = run(lambda held, free, room: (0.5 * g, jnp.array(True)), lambda s, d: (g + s) @ d)
    np.testing.assert_array_equal(answer.step, 0 * g)
    assert not answer.on_boundary
    assert answer.num_stages == 1
