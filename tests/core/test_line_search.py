"""The line search against plain Wolfe conditions: a table of functions, lengths and precisions."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import line_search
from hesskit.core.line_search import DEFAULT, DELTA, MAX_TRIALS, SIGMA, Rules

NAN, INF = float("nan"), float("inf")
LENGTHS = [10.0**k for k in range(-6, 7)]


class Curve(NamedTuple):
    """phi and its slope, of a float64 length."""

    value: Callable[[float], float]
    slope: Callable[[float], float]


def parabola(weight: float, at: float) -> Curve:
    return Curve(lambda a: weight * (a - at) ** 2 / 2, lambda a: weight * (a - at))


def wall(at: float, beyond: float) -> Curve:
    """A log barrier at `at`, nothing but `beyond` behind it; the minimum is at 0.9 of it."""

    def value(a):
        return -0.1 * at * np.log(1 - a / at) - a if a < at else beyond

    return Curve(value, lambda a: 0.1 / (1 - a / at) - 1 if a < at else beyond)


def kinked_more_thuente(a: float, flat: float = 0.01, waves: float = 39.0) -> tuple[float, float]:
    """The third of More & Thuente (1994), section 5."""
    if abs(a - 1) >= flat:
        base, slope = abs(a - 1), np.sign(a - 1)
    else:
        base, slope = (a - 1) ** 2 / (2 * flat) + flat / 2, (a - 1) / flat
    wave, turn = 2 * (1 - flat) / (waves * np.pi), waves * np.pi / 2
    return base + wave * np.sin(turn * a), slope + wave * turn * np.cos(turn * a)


CURVES = {
    **{
        f"parabola {weight:g} {at:g}": parabola(weight, at)
        for weight in (1e-12, 1.0, 1e12)
        for at in (1e-6, 1e-2, 1.0, 1e3, 1e6)
    },
    "more-thuente 1": Curve(lambda a: -a / (a * a + 2), lambda a: (a * a - 2) / (a * a + 2) ** 2),
    "more-thuente 2": Curve(
        lambda a: (a + 0.004) ** 5 - 2 * (a + 0.004) ** 4,
        lambda a: 5 * (a + 0.004) ** 4 - 8 * (a + 0.004) ** 3,
    ),
    "more-thuente 3": Curve(
        lambda a: kinked_more_thuente(a)[0], lambda a: kinked_more_thuente(a)[1]
    ),
    "exponential": Curve(lambda a: np.exp(a) - 9 * a, lambda a: np.exp(a) - 9),
    "hyperbola": Curve(
        lambda a: np.sqrt(1 + (a - 2) ** 2), lambda a: (a - 2) / np.sqrt(1 + (a - 2) ** 2)
    ),
    "kink": Curve(lambda a: abs(a - 1), lambda a: np.sign(a - 1)),
    "eighth power": Curve(lambda a: (a - 1) ** 8, lambda a: 8 * (a - 1) ** 7),
    "well in a plain": Curve(
        lambda a: -np.exp(-((2 * a - 2) ** 2)),
        lambda a: 8 * (a - 1) * np.exp(-((2 * a - 2) ** 2)),
    ),
    **{
        f"wall {at:g} {beyond}": wall(at, beyond)
        for at in (1e-5, 1e-3, 0.1, 1.0, 30.0, 1e4)
        for beyond in (NAN, INF)
    },
}


@functools.cache
def told(dtype: str) -> Callable:
    """One compiled `tell` a precision; the precision is part of the key alone."""
    del dtype
    return jax.jit(line_search.tell)


class Found(NamedTuple):
    """The last state, and the (length, value, slope) of each trial in float64."""

    search: line_search.LineSearch
    start: tuple[float, float]
    trials: list[tuple[float, float, float]]
    noise: float
    ceiling: float


def drive(
    curve: Curve, length: float, dtype: str, *, longest: float = INF, rules: Rules = DEFAULT
) -> Found:
    """The machine in a plain loop; every state on the way keeps its invariants."""
    rounded = np.dtype(dtype).type
    at = lambda a: (rounded(curve.value(float(a))), rounded(curve.slope(float(a))))
    with np.errstate(all="ignore"):
        value, slope = at(0.0)
        noise = rounded(10 * np.finfo(dtype).eps * abs(value))
        rules = Rules(rounded(rules.delta), rounded(rules.sigma), np.int32(rules.max_trials))
        search = line_search.begin(
            jnp.asarray(value), jnp.asarray(slope), rounded(length), rounded(longest)
        )
        trials = []
        while not (search.accepted or search.exhausted):
            here = at(search.length)
            trials.append((float(search.length), float(here[0]), float(here[1])))
            search = told(dtype)(
                search,
                *here,
                finite=np.bool_(np.isfinite(here[0]) & np.isfinite(here[1])),
                calmer=np.bool_(abs(here[1]) <= abs(slope)),
                ceiling=value + noise,
                noise=noise,
                rules=rules,
            )
            check_state(search, trials, value + noise, longest)
    return Found(search, (float(value), float(slope)), trials, float(noise), float(value + noise))


def check_state(search, trials, ceiling, longest):
    """The interval, and what may stand at its ends."""
    assert int(search.num_trials) == len(trials) <= MAX_TRIALS + 1
    assert np.isfinite(search.length)
    assert 0 < search.length <= longest
    for end in (search.low, search.best):
        assert np.all(np.isfinite(end))
        assert end.value <= ceiling
    assert search.low.slope < 0
    ended = search.accepted | search.exhausted | search.closing  # the point may come twice
    assert search.low.length < search.high.length or ended
    if not np.isfinite(search.high.value):  # nothing is known there but where it is
        poor = {length for length, *rest in trials if not np.all(np.isfinite(rest))}
        assert float(search.high.length) in poor | {INF} or search.high.value == INF
    assert not (search.accepted and search.exhausted)


def wolfe(found: Found, dtype: str) -> bool:
    """(1) or (2) of the module at the last trial, up to a few roundings."""
    (value, slope), (length, reached, turned) = found.start, found.trials[-1]
    slack = 8 * np.finfo(dtype).eps * max(abs(value), abs(reached))
    tilt = 8 * np.finfo(dtype).eps * abs(slope)
    curved = turned >= SIGMA * slope - tilt
    strong = reached <= value + DELTA * length * slope + slack
    weak = reached <= found.ceiling and turned <= (2 * DELTA - 1) * slope + tilt
    return curved and (strong or weak)


@functools.cache
def table(dtype: str) -> dict[tuple[str, float], Found]:
    with jax.enable_x64(dtype == "float64"):
        return {
            (name, length): drive(curve, length, dtype)
            for name, curve in CURVES.items()
            for length in LENGTHS
        }


@pytest.mark.slow
def test_every_answer_satisfies_wolfe_or_its_approximation(dtype):
    for (name, length), found in table(str(dtype)).items():
        assert found.search.accepted, (name, length)
        assert np.isfinite(found.trials[-1]).all(), (name, length)
        assert found.trials[-1][1] <= found.ceiling, (name, length)
        assert wolfe(found, str(dtype)), (name, length, found.start, found.trials)


LEDGER = {"float32": (2736, 21), "float64": (2730, 24)}  # in all, and of the longest search


@pytest.mark.slow
def test_the_ledger_of_evaluations(dtype):
    found = table(str(dtype))
    total = sum(len(one.trials) for one in found.values())
    worst = max(len(one.trials) for one in found.values())
    assert (total, worst) == LEDGER[str(dtype)], f"for {len(found)} searches: record it"


@pytest.mark.parametrize("length", LENGTHS)
def test_at_the_rounding_floor_the_slopes_decide(length, dtype):
    """1 + w (a - 1)^2 with values that are equal, or off by rounding, for a < 10."""
    weight = 1e-2 * float(jnp.finfo(dtype).eps)
    rng = np.random.default_rng(0)
    noisy = lambda a: 1 + weight * (a - 1) ** 2 + rng.choice([-1, 0, 1]) * jnp.finfo(dtype).eps
    smooth = lambda a: 1 + weight * (a - 1) ** 2
    for value in (smooth, noisy):
        found = drive(Curve(value, lambda a: 2 * weight * (a - 1)), length, str(dtype))
        assert found.search.accepted
        # (2) in terms of a, or no longer a gradient and a value lower by one rounding: (1).
        assert found.trials[-1][0] * (1 + 1e-5) >= 0.1
        assert found.trials[-1][0] <= (1.8 if value is smooth else 2.0) * (1 + 1e-5)


def test_slopes_decide_only_if_the_gradient_does_not_grow():
    """`calmer` False under the noise: no trial is the answer, however right its slope."""
    search = line_search.begin(jnp.float32(1.0), jnp.float32(-1e-9), 1.0)
    quiet = dict(finite=jnp.array(True), ceiling=jnp.float32(1.0), noise=jnp.float32(1e-6))
    at = (jnp.float32(1.0), jnp.float32(0.0))
    assert line_search.tell(search, *at, calmer=jnp.array(True), **quiet).accepted
    assert not line_search.tell(search, *at, calmer=jnp.array(False), **quiet).accepted


RISING = {
    "slope of the wrong sign": Curve(lambda a: 1 + a, lambda a: -1.0),
    "the same, turned": Curve(lambda a: 1 + a, lambda a: 1.0 if a else -1.0),
    "nothing finite": Curve(lambda a: NAN if a else 1.0, lambda a: -1.0),
    "infinite": Curve(lambda a: INF if a else 1.0, lambda a: -1.0),
    "a slope of nan": Curve(lambda a: 1.0 - a, lambda a: NAN if a else -1.0),
    "minus infinity": Curve(lambda a: -INF if a else 1.0, lambda a: -1.0),
}


@pytest.mark.parametrize("name", RISING)
def test_where_nothing_decreases_it_is_exhausted(name, dtype):
    for length in (1e-6, 1.0, 1e6):
        found = drive(RISING[name], length, str(dtype))
        assert found.search.exhausted
        assert len(found.trials) <= MAX_TRIALS
        assert found.search.best.length == 0
        assert found.search.met == ("wrong" in name or "turned" in name)


def cliff(at: float) -> Curve:
    """-a, NaN beyond `at`: a decrease everywhere, the curvature condition nowhere."""
    return Curve(lambda a: -a if a <= at else NAN, lambda a: -1.0 if a <= at else NAN)


@pytest.mark.parametrize("at", [1e-4, 0.7, 3.0, 1e5])
def test_a_budget_that_ends_after_a_decrease_asks_its_best_point_again(at, dtype):
    for trials in (1, 2, 3, 5, 30):
        found = drive(cliff(at), 0.5, str(dtype), rules=Rules(max_trials=trials))
        best = [length for length, value, _ in found.trials if np.isfinite(value)]
        if not best:
            assert found.search.exhausted
            assert len(found.trials) <= trials
            continue
        assert found.search.accepted
        assert found.trials[-1][0] == max(best) == float(found.search.length)
        asked = [length for length, *_ in found.trials]
        again = asked.count(max(best)) == 2
        assert len(asked) <= trials + again
    assert at - found.trials[-1][0] <= 1e-3 * at  # with 30 it comes close to the edge


def test_a_closing_point_above_the_ceiling_is_refused(dtype):
    """An objective that answers differently the second time."""
    answers = iter([-0.5, NAN, 7.0])
    curve = Curve(lambda a: next(answers) if a else 0.0, lambda a: -1.0)
    found = drive(curve, 0.5, str(dtype), rules=Rules(max_trials=2))
    assert found.search.exhausted
    assert not found.search.accepted
    assert len(found.trials) == 3


@pytest.mark.parametrize("longest", [1e-3, 1.0, 50.0])
def test_the_longest_length_ends_a_descent(longest, dtype):
    line = Curve(lambda a: -a, lambda a: -1.0)
    for length in LENGTHS:
        found = drive(line, length, str(dtype), longest=longest)
        assert found.search.accepted
        assert found.trials[-1][0] == np.dtype(dtype).type(longest)
        assert len(found.trials) <= 9  # tenfold from 1e-6


def test_a_fall_without_end_is_accepted_when_the_budget_ends(dtype):
    for power in (1, 2):
        # Beyond 1e30 a trial length times a slope may overflow: not finite, and never accepted.
        fall = Curve(lambda a, p=power: -(a**p) - a, lambda a, p=power: -p * a ** (p - 1) - 1)
        found = drive(fall, 1.0, str(dtype))
        assert found.search.accepted
        assert np.isfinite(found.trials[-1]).all()
        assert found.trials[-1][1] < -1e6


def test_random_answers_never_pass_the_ceiling(dtype):
    rng = np.random.default_rng(1)
    accepted = 0
    for _ in range(150):
        bad = rng.choice([NAN, INF, -INF])
        draw = lambda a, bad=bad: rng.normal() if rng.random() < 0.8 else bad
        curve = Curve(lambda a, d=draw: d(a) if a else 0.3, lambda a, d=draw: d(a) if a else -1.0)
        found = drive(curve, 10 ** rng.uniform(-3, 3), str(dtype))
        accepted += bool(found.search.accepted)
        if found.search.accepted:
            assert np.isfinite(found.trials[-1]).all()
            assert found.trials[-1][1] <= found.ceiling
    assert accepted > 75


def search_in_jax(length: jax.Array) -> tuple[line_search.LineSearch, jax.Array]:
    """Barrier at 3, minimum near 2.7, in jax."""
    fn = jax.value_and_grad(lambda a: -0.3 * jnp.log(3 - a) - a)
    value, slope = fn(jnp.zeros_like(length))
    noise = 1e-5 * jnp.ones_like(value)

    def body(search):
        here, turned = fn(search.length)
        return line_search.tell(
            search,
            here,
            turned,
            finite=jnp.isfinite(here) & jnp.isfinite(turned),
            calmer=jnp.abs(turned) <= jnp.abs(slope),
            ceiling=value + noise,
            noise=noise,
        )

    going = lambda search: ~(search.accepted | search.exhausted)
    return jax.lax.while_loop(going, body, line_search.begin(value, slope, length))


@pytest.mark.slow
def test_lanes_equal_one_by_one(dtype):
    lengths = jnp.asarray(LENGTHS, dtype)
    together = jax.vmap(search_in_jax)(lengths)
    run = jax.jit(search_in_jax)
    for lane, length in enumerate(lengths):
        alone = run(length)
        mine = jax.tree.map(lambda leaf, k=lane: leaf[k], together)
        assert alone.num_trials == mine.num_trials
        assert alone.accepted
        assert mine.accepted
        np.testing.assert_allclose(mine.length, alone.length, rtol=1e-5)
    assert len({int(num) for num in together.num_trials}) > 2


def test_errors_say_by_how_much_the_last_trial_missed(float64):
    """Against (1) in plain numbers, for a parabola with its minimum at 1."""
    for length in (0.01, 0.5, 1.0, 1.9, 5.0):
        search = line_search.begin(jnp.array(0.5), jnp.array(-1.0), length)
        value, slope = (length - 1) ** 2 / 2, length - 1
        told_once = line_search.tell(
            search,
            jnp.array(value),
            jnp.array(slope),
            finite=jnp.array(True),
            calmer=jnp.array(True),
            ceiling=jnp.array(0.5),
            noise=jnp.array(0.0),
        )
        over = max(value - 0.5 + DELTA * length, 0.0)
        np.testing.assert_allclose(told_once.decrease_error, over, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(told_once.curvature_error, max(-SIGMA - slope, 0.0), rtol=1e-12)
