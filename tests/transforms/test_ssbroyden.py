"""Self-scaled Broyden against plain numpy: the recursion, (2) in scalars, and whole runs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core.pair import between
from hesskit.transforms import ssbroyden

N = 6
UPDATES = ["ssbroyden", "ssbfgs", "bfgs"]


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def start(n, dtype=None):
    return jnp.asarray(np.resize([-1.2, 1.0], n), dtype)


def scales(b, h, n):
    """(2) of the module, transcribed in plain numbers: tau and phi."""
    a = h * b - 1
    c = np.sqrt(a / (1 + a))
    rho = min(1.0, h * (1 - c))
    theta = max((rho - 1) / a, min(1 / rho, (1 - b) / b))
    sigma = 1 + theta * a
    r = min(1.0, 1 / b)
    if theta <= 0:
        tau = min(r * sigma ** (-1 / (n - 1)), sigma)
    else:
        tau = r * min(sigma ** (-1 / (n - 1)), 1 / theta)
    return tau, (1 - theta) / sigma


def revised(h, s, y, kind, b=None):
    """(1) in numpy, from H, or from (6.20) of Nocedal & Wright where H is None."""
    tau, phi, sy = 1.0, 1.0, s @ y
    if h is None:
        h = sy / (y @ y) * np.eye(s.size)
    elif kind != "bfgs":
        b = s @ np.linalg.solve(h, s) / sy if b is None else b
        tau = min(1.0, 1 / b)
        if kind == "ssbroyden":
            tau, phi = scales(b, y @ h @ y / sy, s.size)
    hy = h @ y
    v = np.sqrt(y @ hy) * (s / sy - hy / (y @ hy))
    rest = h - np.outer(hy, hy) / (y @ hy) + phi * np.outer(v, v)
    return rest / tau + np.outer(s, s) / sy


def bfgs(h, s, y):
    """Nocedal & Wright (2006), (6.17)."""
    left = np.eye(s.size) - np.outer(s, y) / (s @ y)
    return left @ h @ left.T + np.outer(s, s) / (s @ y)


@functools.cache
def learner(kind):
    return jax.jit(functools.partial(ssbroyden._learn, update=kind))


def teach(kind, steps, changes, lengths):
    """The matrices H of the library after each pair; g is -B s / length, as in a run."""
    history, table = ssbroyden._empty(jnp.zeros(N))
    found = [None]
    for s, y, length in zip(steps, changes, lengths, strict=True):
        before = np.eye(N) if found[-1] is None else found[-1]
        grad = -np.linalg.solve(before, s) / length
        given = (jnp.asarray(v) for v in (grad, grad + y, s))
        pair = between(*given, length=jnp.asarray(length))
        history, table = learner(kind)(history, table, pair, jnp.array(True))
        found.append(np.asarray(history))
    assert table.num_pairs == len(steps)
    return found


def some_pairs(seed, count=8):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(N, N))
    matrix = root @ root.T + 0.1 * np.eye(N)
    steps = rng.normal(size=(count, N)) * 10 ** rng.uniform(-2, 1, size=(count, 1))
    changes = (steps @ matrix) * rng.uniform(0.2, 3, size=(count, 1))
    return steps, changes, rng.uniform(0.1, 3, size=count)


@pytest.mark.parametrize("kind", UPDATES)
def test_a_sequence_of_updates_is_that_of_numpy(kind, float64):
    for seed in range(4):
        steps, changes, lengths = some_pairs(seed)
        found = teach(kind, steps, changes, lengths)
        for k, (s, y) in enumerate(zip(steps, changes, strict=True)):
            expected = revised(found[k], s, y, kind)
            size = np.abs(expected).max()
            np.testing.assert_allclose(found[k + 1], expected, atol=1e-8 * size)
            np.testing.assert_allclose(found[k + 1] @ y, s, atol=1e-9 * size * np.linalg.norm(y))
            if kind == "bfgs":
                before = s @ y / (y @ y) * np.eye(N) if k == 0 else found[k]
                np.testing.assert_allclose(found[k + 1], bfgs(before, s, y), atol=1e-10 * size)


def test_the_scales_are_those_of_the_formulas(float64):
    """All branches of (2): theta of both signs, b on both sides of 1, a from tiny to large."""
    signs = set()
    for b in (1e-3, 0.2, 0.9, 1.0, 1.1, 5.0, 1e3):
        for a in (1e-6, 1e-2, 0.5, 3.0, 1e2, 1e6):
            h = (1 + a) / b
            numbers = ssbroyden._Numbers(*map(jnp.asarray, (1.0, h, b)))
            for n in (2, 6, 100):
                tau, phi = ssbroyden._broyden(numbers, n)
                expected = scales(b, h, n)
                np.testing.assert_allclose([tau, phi], expected, rtol=1e-6, atol=1e-9)
                assert 0 < tau <= 1 + 1e-12
                signs.add(np.sign(1 - expected[1]))
    assert {-1.0, 1.0} <= signs


def test_bad_pairs_and_broken_numbers_change_nothing(dtype):
    history, table = ssbroyden._empty(jnp.zeros(3, dtype))
    ones = jnp.ones(3, dtype)
    learn = jax.jit(functools.partial(ssbroyden._learn, update="ssbroyden"))

    def pair(s, y):
        return between(-s, y - s, s, length=jnp.ones((), dtype))

    yes = jnp.array(True)
    history, table = learn(history, table, pair(ones, 2 * ones), yes)
    bad = [(ones, -ones), (0 * ones, ones), (ones, 0 * ones), (ones, jnp.nan * ones)]
    for s, y in [*bad, (jnp.inf * ones, ones)]:
        after, count = learn(history, table, pair(s, y), yes)
        np.testing.assert_array_equal(after, history)
        assert count.num_pairs == 1
    after, count = learn(history, table, pair(ones, ones), ~yes)
    np.testing.assert_array_equal(after, history)
    # The same pair again: a = hb - 1 is 0 to rounding, and H stays what it is.
    again, count = learn(history, table, pair(ones, 2 * ones), yes)
    assert count.num_pairs == 2
    assert jnp.all(jnp.isfinite(again))
    np.testing.assert_allclose(again @ (2 * ones), ones, rtol=1e-3)


@functools.cache
def stepper(kind):
    opt = hesskit.ssbroyden(update=kind)

    @jax.jit
    def step(x, state):
        value, grad = jax.value_and_grad(rosenbrock)(x)
        updates, state = opt.update(grad, state, x, value=value, grad=grad, value_fn=rosenbrock)
        return x + updates, state

    return opt.init, step


@pytest.mark.parametrize("kind", UPDATES)
def test_a_run_keeps_the_secant_equation_and_positive_definiteness(kind, float64):
    init, step = stepper(kind)
    x, held = start(N), 0
    state = init(x)
    for _ in range(40):
        point, (x, state) = np.asarray(x), step(x, state)
        h, pairs = np.asarray(state.model.history), int(state.info.num_pairs)
        if pairs == held:
            continue
        held = pairs
        np.testing.assert_allclose(h, h.T, atol=1e-12 * np.abs(h).max())
        assert np.linalg.eigvalsh(h)[0] > 0
        # y is corrected along s by the values: H y = s gives it back, in the plane across s plain.
        s = np.asarray(x) - point
        y = np.linalg.solve(h, s)
        plain = np.asarray(state.grad) - np.asarray(jax.grad(rosenbrock)(point))
        across = np.eye(N) - np.outer(s, s) / (s @ s)
        np.testing.assert_allclose(across @ y, across @ plain, atol=1e-5 * np.linalg.norm(plain))
        assert abs(s @ (y - plain)) <= 0.31 * abs(s @ plain)
    assert held > 25


def test_plain_bfgs_is_a_numpy_run(float64):
    """The direction of each update is that of a numpy BFGS fed with the same points."""
    init, step = stepper("bfgs")
    x, h, held = start(N), None, 0
    state, checked = init(x), 0
    for _ in range(40):
        before = np.asarray(x)
        x, state = step(x, state)
        s, g = np.asarray(x) - before, np.asarray(jax.grad(rosenbrock)(before))
        if h is not None and int(state.info.num_pairs) == held + 1:
            direction = -h @ g * float(state.info.learning_rate)
            np.testing.assert_allclose(s, direction, atol=1e-6 * np.linalg.norm(s))
            checked += 1
        held = int(state.info.num_pairs)
        after = np.asarray(state.grad)
        fall = float(rosenbrock(before) - rosenbrock(x))
        theta = 6 * fall + 3 * (g + after) @ s
        most = 0.3 * abs((after - g) @ s)
        y = after - g + np.clip(theta, -most, most) * s / (s @ s)
        h = s @ y / (y @ y) * np.eye(N) if h is None else h
        h = bfgs(h, s, y)
    assert checked > 25


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 10])
@pytest.mark.parametrize("kind", UPDATES)
def test_converges_on_rosenbrock(kind, n, dtype):
    result = hesskit.minimize(rosenbrock, start(n, dtype), hesskit.ssbroyden(update=kind))
    assert result.success, result
    narrow = dtype == jnp.float32
    if abs(float(result.params[0]) - 1) < 0.5:  # n = 10 has a second minimum near -1
        np.testing.assert_allclose(result.params, 1, atol=5e-3 if narrow else 1e-7)
    assert n == 10 or result.params[0] > 0.5
    assert result.num_values <= (90 if n == 2 else 300)


def test_a_learning_rate_evaluates_nothing(float64):
    opt = hesskit.ssbroyden(0.3)
    ellipse = lambda x: jnp.sum(jnp.array([1.0, 10.0]) * x**2)
    x = jnp.array([1.0, -1.0])
    state = opt.init(x)
    step = jax.jit(lambda x, s: opt.update(jax.grad(ellipse)(x), s, x))
    for _ in range(40):
        updates, state = step(x, state)
        x = x + updates
    assert ellipse(x) < 1e-8
    assert state.info.num_values == 0


def test_bad_arguments():
    with pytest.raises(ValueError, match="update"):
        hesskit.ssbroyden(update="dfp")
    with pytest.raises(ValueError, match="max_linesearch_steps"):
        hesskit.ssbroyden(max_linesearch_steps=0)
