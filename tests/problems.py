"""Unconstrained minimization problems from the literature, in plain `jax.numpy`.

The 35 problems of More, Garbow & Hillstrom (1981; "MGH" below, with its numbers) and hard
nonconvex or badly scaled ones from the CUTEst collection (Gould, Orban & Toint 2015; the name
there is given where it differs), at their published starts. Every function is written from the
published definition and follows the dtype of its argument.

The rule: this list was fixed by name before any solver ran on it, and no problem is ever added,
removed, resized or restarted because of how a solver does on it. A definition may be corrected
only where it provably differs from the published one.

`minimum` is the published global minimum. Sources print four to eight digits; `printed` holds
those, and `minimum` the same number to double precision, from the closed form or by refining the
published minimizer (`tests/test_problems.py` checks that it rounds to `printed`). `other_minima`
holds values of local minima that are published beside it; those reached only at infinity too.

A sum of squares is written without the factor 1/2, as in MGH: `fn(x) == sum(residuals(x)**2)`.

In float32 several values lose most of their digits near the minimum (Brown badly scaled, Meyer,
Powell badly scaled, Watson 12, Hilbert, Penalty II, maratosb, mexhat, tangents of Cragg-Levy), some
starts are large (humps, genhumps, loghairy), and `nasty` spans 40 orders of magnitude. That
belongs to the problems and is left alone.

References:
    More, Garbow & Hillstrom (1981), Testing unconstrained optimization software, ACM TOMS 7, 17-41.
    Gould, Orban & Toint (2015), CUTEst, Computational Optimization and Applications 60, 545-557.
    Buckley (1989), Test functions for unconstrained minimization, Dalhousie TR 1989CS-3.
    Toint (1983), Test problems for partially separable optimization, Namur report 83/4.
    Conn, Gould, Lescrenier & Toint (1988), Performance of a multifrontal scheme for partially
    separable optimization, Namur report 88/4.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Function = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Problem:
    """One problem: minimize `fn` from `start`."""

    name: str
    fn: Function  # (n,) -> ()
    start: np.ndarray  # (n,), float64
    minimum: float | None  # published global minimum; None if unbounded below
    source: str
    printed: str | None = None  # the minimum as the source prints it, where rounded
    minimizer: np.ndarray | None = None  # where the source gives it exactly, or it is obvious
    residuals: Function | None = None  # (n,) -> (m,), where fn is a sum of squares
    bounded: bool = True  # bounded below
    other_minima: tuple[float, ...] = ()

    @property
    def n(self) -> int:
        """Number of variables."""
        return self.start.size


def start(problem: Problem, dtype: jax.typing.DTypeLike | None = None) -> Array:
    """The published start, in `dtype` (default: JAX's default float)."""
    return jnp.asarray(problem.start, dtype=dtype or jnp.result_type(float))


def perturbed(problem: Problem, seed: int, dtype: jax.typing.DTypeLike | None = None) -> Array:
    """The start moved by 10 %: x0 (1 + 0.1 u), and 0.1 u where x0 is 0, u uniform in [-1, 1].

    The same `seed` gives the same point, up to rounding, in every dtype.
    """
    rng = np.random.default_rng([seed, zlib.crc32(problem.name.encode())])
    moves = 0.1 * rng.uniform(-1.0, 1.0, problem.n)
    x0 = problem.start
    moved = np.where(x0 == 0.0, moves, x0 * (1.0 + moves))
    return jnp.asarray(moved, dtype=dtype or jnp.result_type(float))


def _data(x: Array, values) -> Array:
    return jnp.asarray(np.asarray(values, np.float64), x.dtype)


def _count(x: Array, first: int, last: int) -> Array:
    """first, first + 1, ..., last in the dtype of x."""
    return jnp.arange(first, last + 1, dtype=x.dtype)


def _sum_of_squares(residuals: Function) -> Function:
    def fn(x: Array) -> Array:
        return jnp.sum(residuals(x) ** 2)

    fn.__name__ = fn.__qualname__ = residuals.__name__
    return fn


def _problem(name, fn, start, minimum, source, **more) -> Problem:
    minimizer = more.pop("minimizer", None)
    if minimizer is not None:
        minimizer = np.broadcast_to(np.asarray(minimizer, np.float64), np.shape(start))
    start = np.asarray(start, np.float64)
    return Problem(name, fn, start, minimum, source, minimizer=minimizer, **more)


def _squares(name, residuals, start, minimum, source, **more) -> Problem:
    fn = _sum_of_squares(residuals)
    return _problem(name, fn, start, minimum, source, residuals=residuals, **more)


# ---- More, Garbow & Hillstrom (1981), fixed dimension ----------------------------------------


def _rosenbrock(x):
    return jnp.stack([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])


def _freudenstein_roth(x):
    a, b = x
    return jnp.stack(
        [-13.0 + a + ((5.0 - b) * b - 2.0) * b, -29.0 + a + ((b + 1.0) * b - 14.0) * b]
    )


def _powell_badly_scaled(x):
    return jnp.stack([1e4 * x[0] * x[1] - 1.0, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])


def _brown_badly_scaled(x):
    return jnp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2.0])


def _beale(x):
    return _data(x, [1.5, 2.25, 2.625]) - x[0] * (1.0 - x[1] ** _count(x, 1, 3))


def _jennrich_sampson(x):
    i = _count(x, 1, 10)
    return 2.0 + 2.0 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1]))


def _helical_valley(x):
    # MGH: theta = arctan(x2/x1) / 2 pi, plus 1/2 where x1 < 0; here without a hole at x1 = 0.
    theta = jnp.arctan2(-x[0], x[1]) / (2.0 * math.pi) + 0.25
    radius = jnp.sqrt(x[0] ** 2 + x[1] ** 2)
    return jnp.stack([10.0 * (x[2] - 10.0 * theta), 10.0 * (radius - 1.0), x[2]])


_BARD = (0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39)


def _bard(x):
    u = _count(x, 1, 15)
    v = 16.0 - u
    return _data(x, _BARD) - (x[0] + u / (v * x[1] + jnp.minimum(u, v) * x[2]))


_GAUSSIAN = (0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521, 0.3989)


def _gaussian(x):
    t = (8.0 - _count(x, 1, 15)) / 2.0
    y = _data(x, _GAUSSIAN + _GAUSSIAN[-2::-1])
    return x[0] * jnp.exp(-x[1] * (t - x[2]) ** 2 / 2.0) - y


_MEYER = (
    (34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744)
    + (8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872)
)  # fmt: skip


def _meyer(x):
    t = 45.0 + 5.0 * _count(x, 1, 16)
    return x[0] * jnp.exp(x[1] / (t + x[2])) - _data(x, _MEYER)


def _gulf(x):
    # m = 99. MGH misprints the exponent as |y_i m i x2|; the intended one is |y_i - x2|.
    t = _count(x, 1, 99) / 100.0
    y = 25.0 + (-50.0 * jnp.log(t)) ** (2.0 / 3.0)
    return jnp.exp(-(jnp.abs(y - x[1]) ** x[2]) / x[0]) - t


def _box_3d(x):
    t = 0.1 * _count(x, 1, 10)
    known = jnp.exp(-t) - jnp.exp(-10.0 * t)
    return jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * known


def _powell_singular(x):
    a, b, c, d = x.reshape(-1, 4).T  # blocks of four; MGH 13 is one block, MGH 22 many
    columns = [
        a + 10.0 * b,
        math.sqrt(5.0) * (c - d),
        (b - 2.0 * c) ** 2,
        math.sqrt(10.0) * (a - d) ** 2,
    ]
    return jnp.concatenate(columns)


def _wood(x):
    a, b, c, d = x.reshape(-1, 4).T  # blocks of four; MGH 14 is one block, CUTEst WOODS many
    columns = [
        10.0 * (b - a**2),
        1.0 - a,
        math.sqrt(90.0) * (d - c**2),
        1.0 - c,
        math.sqrt(10.0) * (b + d - 2.0),
        (b - d) / math.sqrt(10.0),
    ]
    return jnp.concatenate(columns)


_KOWALIK_Y = (
    (0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627)
    + (0.0456, 0.0342, 0.0323, 0.0235, 0.0246)
)  # fmt: skip
_KOWALIK_U = (4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625)


def _kowalik_osborne(x):
    u = _data(x, _KOWALIK_U)
    return _data(x, _KOWALIK_Y) - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def _brown_dennis(x):
    t = _count(x, 1, 20) / 5.0
    return (x[0] + t * x[1] - jnp.exp(t)) ** 2 + (x[2] + x[3] * jnp.sin(t) - jnp.cos(t)) ** 2


_OSBORNE_1 = (
    (0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751)
    + (0.718, 0.685, 0.658, 0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490)
    + (0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411, 0.406)
)


def _osborne_1(x):
    t = 10.0 * _count(x, 0, 32)
    return _data(x, _OSBORNE_1) - (x[0] + x[1] * jnp.exp(-t * x[3]) + x[2] * jnp.exp(-t * x[4]))


def _biggs_exp6(x):
    t = 0.1 * _count(x, 1, 13)
    y = jnp.exp(-t) - 5.0 * jnp.exp(-10.0 * t) + 3.0 * jnp.exp(-4.0 * t)
    return (
        x[2] * jnp.exp(-t * x[0]) - x[3] * jnp.exp(-t * x[1]) + x[5] * jnp.exp(-t * x[4]) - y
    )  # fmt: skip


_OSBORNE_2 = (
    (1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746, 0.679, 0.608)
    + (0.655, 0.616, 0.606, 0.602, 0.626, 0.651, 0.724, 0.649, 0.649, 0.694, 0.644, 0.624, 0.661)
    + (0.612, 0.558, 0.533, 0.495, 0.500, 0.423, 0.395, 0.375, 0.372, 0.391, 0.396, 0.405, 0.428)
    + (0.429, 0.523, 0.562, 0.607, 0.653, 0.672, 0.708, 0.633, 0.668, 0.645, 0.632, 0.591, 0.559)
    + (0.597, 0.625, 0.739, 0.710, 0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098, 0.054)
)


def _osborne_2(x):
    t = _count(x, 0, 64) / 10.0
    peaks = [x[k] * jnp.exp(-((t - x[k + 7]) ** 2) * x[k + 4]) for k in (1, 2, 3)]
    return _data(x, _OSBORNE_2) - (x[0] * jnp.exp(-t * x[4]) + peaks[0] + peaks[1] + peaks[2])


# ---- More, Garbow & Hillstrom (1981), variable dimension -------------------------------------


def _watson(x):
    n = x.size
    t = np.arange(1, 30)[:, None] / 29.0
    j = np.arange(n)
    powers = _data(x, t**j)
    slopes = _data(x, j * t ** np.maximum(j - 1, 0))
    curve = slopes @ x - (powers @ x) ** 2 - 1.0
    return jnp.concatenate([curve, jnp.stack([x[0], x[1] - x[0] ** 2 - 1.0])])


def _extended_rosenbrock(x):
    a, b = x.reshape(-1, 2).T
    return jnp.concatenate([10.0 * (b - a**2), 1.0 - a])


def _penalty_1(x):
    return jnp.append(math.sqrt(1e-5) * (x - 1.0), jnp.sum(x**2) - 0.25)


def _penalty_2(x):
    n = x.size
    i = _count(x, 2, n)
    e = jnp.exp(x / 10.0)
    y = jnp.exp(i / 10.0) + jnp.exp((i - 1.0) / 10.0)
    pairs = math.sqrt(1e-5) * (e[1:] + e[:-1] - y)
    singles = math.sqrt(1e-5) * (e[1:] - math.exp(-0.1))
    last = jnp.sum(_count(x, 1, n)[::-1] * x**2) - 1.0
    return jnp.concatenate([x[:1] - 0.2, pairs, singles, last[None]])


def _variably_dimensioned(x):
    s = jnp.sum(_count(x, 1, x.size) * (x - 1.0))
    return jnp.concatenate([x - 1.0, jnp.stack([s, s**2])])


def _trigonometric(x):
    n = x.size
    return n - jnp.sum(jnp.cos(x)) + _count(x, 1, n) * (1.0 - jnp.cos(x)) - jnp.sin(x)


def _brown_almost_linear(x):
    n = x.size
    return jnp.append(x[:-1] + jnp.sum(x) - (n + 1.0), jnp.prod(x) - 1.0)


def _grid(x):
    """Interior points t_i = i h of (0, 1), and h = 1 / (n + 1)."""
    h = 1.0 / (x.size + 1.0)
    return h * _count(x, 1, x.size), h


def _discrete_boundary_value(x):
    t, h = _grid(x)
    padded = jnp.pad(x, 1)
    return 2.0 * x - padded[:-2] - padded[2:] + h**2 * (x + t + 1.0) ** 3 / 2.0


def _discrete_integral(x):
    t, h = _grid(x)
    cubes = (x + t + 1.0) ** 3
    below = jnp.cumsum(t * cubes)
    above = (1.0 - t) * cubes
    above = jnp.sum(above) - jnp.cumsum(above)
    return x + h * ((1.0 - t) * below + t * above) / 2.0


def _broyden_tridiagonal(x):
    padded = jnp.pad(x, 1)
    return (3.0 - 2.0 * x) * x - padded[:-2] - 2.0 * padded[2:] + 1.0


def _broyden_banded(x):
    n = x.size
    band = jnp.pad(x * (1.0 + x), (5, 1))  # entry i + 5 belongs to x_i
    neighbors = sum(band[k : k + n] for k in (0, 1, 2, 3, 4, 6))
    return x * (2.0 + 5.0 * x**2) + 1.0 - neighbors


def _linear_full_rank(x):
    m = 2 * x.size
    return jnp.pad(x, (0, m - x.size)) - 2.0 / m * jnp.sum(x) - 1.0


def _linear_rank_one(x):
    return _count(x, 1, 2 * x.size) * jnp.sum(_count(x, 1, x.size) * x) - 1.0


def _linear_rank_one_zero(x):
    n, m = x.size, 2 * x.size
    s = jnp.sum(_count(x, 2, n - 1) * x[1:-1])
    return jnp.pad(_count(x, 1, m - 2), 1) * s - 1.0


def _chebyquad(x):
    u = 2.0 * x - 1.0
    previous, current, rows = jnp.ones_like(u), u, []
    for i in range(1, x.size + 1):
        integral = 0.0 if i % 2 else -1.0 / (i**2 - 1.0)
        rows.append(jnp.mean(current) - integral)
        previous, current = current, 2.0 * u * current - previous
    return jnp.stack(rows)


# ---- two to nine variables, CUTEst and textbooks ---------------------------------------------


def _himmelblau(x):
    return jnp.stack([x[0] ** 2 + x[1] - 11.0, x[0] + x[1] ** 2 - 7.0])


def _himmelbb(x):
    a, b = x
    return (a * b * (1.0 - a) * (1.0 - b - a * (1.0 - a) ** 5))[None]


def _himmelbg(x):
    return jnp.exp(-x[0] - x[1]) * (2.0 * x[0] ** 2 + 3.0 * x[1] ** 2)


def _himmelbh(x):
    return -3.0 * x[0] - 2.0 * x[1] + 2.0 + x[0] ** 3 + x[1] ** 2


def _humps(x):
    return (jnp.sin(20.0 * x[0]) * jnp.sin(20.0 * x[1])) ** 2 + 0.05 * jnp.sum(x**2)


def _hairy(x):
    fur = jnp.sin(7.0 * x[0]) ** 2 * jnp.cos(7.0 * x[1]) ** 2
    cup = jnp.sqrt(0.01 + (x[0] - x[1]) ** 2) + jnp.sqrt(0.01 + x[0] ** 2)
    return 30.0 * fur + 100.0 * cup


def _loghairy(x):
    return jnp.log((100.0 + _hairy(x)) / 100.0)


def _snail(x):
    # r cos(r - theta) is written as x cos r + y sin r; derivatives at the origin stay finite.
    square = jnp.sum(x**2)
    r = jnp.where(square > 0.0, jnp.sqrt(jnp.where(square > 0.0, square, 1.0)), 0.0)
    wave = x[0] * jnp.cos(r) + x[1] * jnp.sin(r)
    return square / (1.0 + square) * (1.0 + 1.5 * r - 0.5 * wave)


def _heart(products, sums):
    """Moments of sum_k (a_k + i c_k) (t_k + i v_k)^p, p = 0, 1, ..., minus the measured sums."""
    parts = []
    for a, c, t, v in products:
        re, im, rows = a, c, []
        for _ in range(len(sums) // 2):
            rows += [re, im]
            re, im = re * t - im * v, re * v + im * t
        parts.append(jnp.stack(rows))
    return sum(parts) - jnp.stack(sums)


def _heart6(x):
    a, c, t, u, v, w = x
    b, d = -0.816 - a, -0.017 - c
    total = _heart([(a, c, t, v), (b, d, u, w)], [*_data(x, _HEART_6)])
    return total[2:]


_HEART_6 = (-0.816, -0.017, -1.826, -0.754, -4.839, -3.259, -14.023, 15.467)
_HEART_8 = (-0.69, -0.044, -1.57, -1.31, -2.65, 2.0, -12.6, 9.48)


def _heart8(x):
    a, b, c, d, t, u, v, w = x
    return _heart([(a, c, t, v), (b, d, u, w)], [*_data(x, _HEART_8)])


def _sineval(x):
    return jnp.stack([math.sqrt(1e3) * (x[1] - jnp.sin(x[0])), 0.5 * x[0]])


def _cube(x):
    return jnp.stack([x[0] - 1.0, 10.0 * (x[1] - x[0] ** 3)])


def _rosenbrock_steep(x):
    return jnp.stack([1e3 * (x[1] - x[0] ** 2), 1.0 - x[0]])


def _denschna(x):
    return jnp.stack([x[0] ** 2, x[0] + x[1], jnp.exp(x[1]) - 1.0])


def _denschnb(x):
    return jnp.stack([x[0] - 2.0, (x[0] - 2.0) * x[1], x[1] + 1.0])


def _denschnc(x):
    return jnp.stack([x[0] ** 2 + x[1] ** 2 - 2.0, jnp.exp(x[0] - 1.0) + x[1] ** 3 - 2.0])


def _denschnd(x):
    a, b, c = x
    return jnp.stack(
        [a**2 + b**3 - c**4, 2.0 * a * b * c, 2.0 * a * b - 3.0 * b * c + a * c]
    )  # fmt: skip


def _denschne(x):
    return jnp.stack([x[0], x[1] + x[1] ** 2, jnp.exp(x[2]) - 1.0])


def _denschnf(x):
    a, b = x
    return jnp.stack(
        [2.0 * (a + b) ** 2 + (a - b) ** 2 - 8.0, 5.0 * a**2 + (b - 3.0) ** 2 - 9.0]
    )  # fmt: skip


def _engval2(x):
    a, b, c = x
    rows = [
        a**2 + b**2 + c**2 - 1.0,
        a**2 + b**2 + (c - 2.0) ** 2 - 1.0,
        a + b + c - 1.0,
        a + b - c + 1.0,
        3.0 * b**2 + a**3 + (5.0 * c - a + 1.0) ** 2 - 36.0,
    ]
    return jnp.stack(rows)


_HATFLDD_T = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)
_HATFLDD_Z = (1.751, 1.561, 1.391, 1.239, 1.103, 0.981, 0.925, 0.8721, 0.8221, 0.7748)
_HATFLDE_Z = (
    (1.561, 1.473, 1.391, 1.313, 1.239, 1.169, 1.103, 1.04, 0.981, 0.925, 0.8721)
    + (0.8221, 0.7748, 0.73, 0.6877, 0.6477, 0.6099, 0.5741, 0.5403, 0.5084, 0.4782)
)  # fmt: skip


def _hatfld(x, t, z):
    return jnp.exp(t * x[2]) - x[0] * jnp.exp(t * x[1]) + z


def _hatfldd(x):
    return _hatfld(x, _data(x, _HATFLDD_T), _data(x, _HATFLDD_Z))


def _hatflde(x):
    return _hatfld(x, _data(x, 0.3 + 0.05 * np.arange(21)), _data(x, _HATFLDE_Z))


def _hilbert(x):
    i = np.arange(1, x.size + 1)
    return 0.5 * x @ _data(x, 1.0 / (i[:, None] + i - 1.0)) @ x


def _logros(x):
    return jnp.log1p(1e4 * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2)


def _mexhat(x):
    far = (x[0] - 1.0) ** 2
    ring = 1e4 * (x[1] - x[0] ** 2) ** 2 + far - 0.02
    return -2.0 * far + 1e5 * ring**2


def _nasty(x):
    return 0.5 * (1e10 * x[0]) ** 2 + 0.5 * x[1] ** 2


def _sisser(x):
    return 3.0 * x[0] ** 4 - 2.0 * (x[0] * x[1]) ** 2 + 3.0 * x[1] ** 4


def _zangwil2(x):
    a, b = x
    quadratic = 16.0 * a**2 + 16.0 * b**2 - 8.0 * a * b
    return (quadratic - 56.0 * a - 256.0 * b + 991.0) / 15.0


def _cliff(x):
    return ((x[0] - 3.0) / 100.0) ** 2 - (x[0] - x[1]) + jnp.exp(20.0 * (x[0] - x[1]))


def _brkmcc(x):
    a, b = x
    ellipse = -0.25 * a**2 - b**2 + 1.0
    return (a - 2.0) ** 2 + (b - 1.0) ** 2 + 0.04 / ellipse + 5.0 * (a - 2.0 * b + 1.0) ** 2


def _allinitu(x):
    a, b, c, d = x
    linear = c - 1.0 + d - 3.0
    squares = a**2 + b**2 + (c + d) ** 2 + a**2 * b**2 + b**4 + (d - 1.0) ** 2
    sines = 2.0 * jnp.sin(c) ** 2 + jnp.sin(d) ** 4
    mixed = (c**2 + (d + a) ** 2) ** 2 + (a - 4.0 + jnp.sin(d) ** 2 + b**2 * c**2) ** 2
    return linear + squares + sines + mixed


def _maratosb(x):
    return x[0] + 1e6 * (x[0] ** 2 + x[1] ** 2 - 1.0) ** 2


def _s308(x):
    a, b = x
    return jnp.stack([a**2 + a * b + b**2, jnp.sin(a), jnp.cos(b)])


# ---- many variables, CUTEst ------------------------------------------------------------------

_TOINT_ALPHA = (
    (1.25, 1.40, 2.40, 1.40, 1.75, 1.20, 2.25, 1.20, 1.00, 1.10, 1.50, 1.60, 1.25)
    + (1.25, 1.20, 1.20, 1.40, 0.50, 0.50, 1.25, 1.80, 0.75, 1.25, 1.40, 1.60, 2.00)
    + (1.00, 1.60, 1.25, 2.75, 1.25, 1.25, 1.25, 3.00, 1.50, 2.00, 1.25, 1.40, 1.80)
    + (1.50, 2.20, 1.40, 1.50, 1.25, 2.00, 1.50, 1.25, 1.40, 0.60, 1.50)
)
_TOINT_BETA = (
    (1.0, 1.5, 1.0, 0.1, 1.5, 2.0, 1.0, 1.5, 3.0, 2.0, 1.0, 3.0, 0.1, 1.5, 0.15, 2.0, 1.0)
    + (0.1, 3.0, 0.1, 1.2, 1.0, 0.1, 2.0, 1.2, 3.0, 1.5, 3.0, 2.0, 1.0, 1.2, 2.0, 1.0)
)  # fmt: skip
_TOINT_D = (
    (5.0, 5.0, 5.0, 2.5, 6.0, 6.0, 5.0, 6.0, 10.0, 6.0, 5.0, 9.0, 2.0, 7.0, 2.5, 6.0, 5.0)
    + (2.0, 9.0, 2.0, 5.0, 5.0, 2.5, 5.0, 6.0, 10.0, 7.0, 10.0, 6.0, 5.0, 4.0, 4.0, 4.0)
)  # fmt: skip
_TOINT_ROWS = (  # signed, 1-based variables of each sum
    (1, -31), (-1, 2, 3), (-2, 4, 5), (-4, 6, 7), (-6, 8, 9), (-8, 10, 11), (-10, 12, 13),
    (-12, 14, 15), (-11, -13, -14, 16, 17), (-16, 18, 19), (-9, -18, 20), (-5, -20, -21),
    (-19, 22, 23, 24), (-23, 25, 26), (-7, -25, 27, 28), (-28, 29, 30), (-29, 31, 32),
    (-32, 33, 34), (-3, -33, 35), (21, -35, 36), (-36, 37, 38), (-30, -37, 39), (-38, -39, 40),
    (-40, 41, 42), (-41, 43, 44, 50), (-44, 45, 46, 47), (-46, 48), (-42, -45, -48, 49, -50),
    (-26, -34, -43), (-15, -17, -24, -47), (-49,), (-22,), (-27,),
)  # fmt: skip


def _toint_matrix() -> np.ndarray:
    matrix = np.zeros((33, 50))
    for row, variables in enumerate(_TOINT_ROWS):
        for variable in variables:
            matrix[row, abs(variable) - 1] = math.copysign(1.0, variable)
    return matrix


def _toint(x, activity, balance):
    """sum_i alpha_i activity(x_i) + sum_j beta_j balance(d_j + (A x)_j)."""
    t = _data(x, _TOINT_D) + _data(x, _toint_matrix()) @ x
    first = jnp.sum(_data(x, _TOINT_ALPHA) * activity(x))
    return first + jnp.sum(_data(x, _TOINT_BETA) * balance(t))


def _tointgor(x):
    def activity(x):  # |x| log(1 + |x|) as x^2 times a smooth factor: right second derivative at 0
        a = jnp.where(x == 0.0, 1.0, jnp.abs(x))
        return x**2 * jnp.where(x == 0.0, 1.0, jnp.log1p(a) / a)

    def balance(t):
        return t**2 * jnp.where(t > 0.0, jnp.log1p(jnp.maximum(t, 0.0)), 1.0)

    return _toint(x, activity, balance)


def _tointpsp(x):
    def balance(t):
        return jnp.where(t >= 0.1, 1.0 / jnp.maximum(t, 0.1), 20.0 - 100.0 * t)

    return _toint(x, lambda x: (x - 5.0) ** 2, balance)


def _tointqor(x):
    return _toint(x, jnp.square, jnp.square)


def _chnrosnb(x):
    alpha = _data(x, _TOINT_ALPHA)[1 : x.size]
    return jnp.concatenate([4.0 * alpha * (x[:-1] - x[1:] ** 2), x[1:] - 1.0])


def _errinros(x):
    alpha = _data(x, _TOINT_ALPHA)[1 : x.size]
    return jnp.concatenate([x[:-1] - 16.0 * alpha**2 * x[1:] ** 2, x[1:] - 1.0])


def _genhumps(x):
    s = jnp.sin(20.0 * x)
    return jnp.sum((s[:-1] * s[1:]) ** 2 + 0.05 * (x[:-1] ** 2 + x[1:] ** 2))


def _arwhead(x):
    return jnp.sum((x[:-1] ** 2 + x[-1] ** 2) ** 2 - 4.0 * x[:-1] + 3.0)


def _bdqrtic(x):
    s = x**2
    quartic = s[:-4] + 2.0 * s[1:-3] + 3.0 * s[2:-2] + 4.0 * s[3:-1] + 5.0 * s[-1]
    return jnp.concatenate([3.0 - 4.0 * x[:-4], quartic])


def _cosine(x):
    return jnp.sum(jnp.cos(x[:-1] ** 2 - 0.5 * x[1:]))


def _cragglvy(x):
    a, b, c, d = x[:-2:2], x[1:-2:2], x[2::2], x[3::2]
    rows = [
        (jnp.exp(a) - b) ** 2,
        10.0 * (b - c) ** 3,
        (jnp.tan(c - d) + c - d) ** 2,
        a**4,
        d - 1.0,
    ]
    return jnp.concatenate(rows)


def _dixon3dq(x):
    return jnp.concatenate([x[:1] - 1.0, x[1:-1] - x[2:], x[-1:] - 1.0])


def _dqdrtic(x):
    return jnp.concatenate([x[:-2], 10.0 * x[1:-1], 10.0 * x[2:]])


def _dqrtic(x):
    return (x - _count(x, 1, x.size)) ** 2


def _edensch(x):
    a, b = x[:-1], x[1:]
    return 16.0 + jnp.sum((a - 2.0) ** 4 + (a * b - 2.0 * b) ** 2 + (b + 1.0) ** 2)


def _engval1(x):
    return jnp.sum((x[:-1] ** 2 + x[1:] ** 2) ** 2 - 4.0 * x[:-1] + 3.0)


def _fletchcr(x):
    return jnp.concatenate([10.0 * (x[1:] - x[:-1] ** 2), x[:-1] - 1.0])


def _freuroth(x):
    a, b = x[:-1], x[1:]
    first = a - 2.0 * b + (5.0 - b) * b**2 - 13.0
    return jnp.concatenate([first, a - 14.0 * b + (1.0 + b) * b**2 - 29.0])


def _genrose(x):
    return 1.0 + jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (x[1:] - 1.0) ** 2)


def _liarwhd(x):
    return jnp.concatenate([2.0 * (x**2 - x[0]), x - 1.0])


def _noncvxu2(x):
    i = np.arange(1, x.size + 1)
    v = x + x[(3 * i - 2) % x.size] + x[(7 * i - 3) % x.size]
    return jnp.sum(v**2 + 4.0 * jnp.cos(v))


def _nondia(x):
    return jnp.append(10.0 * (x[0] - x[:-1] ** 2), x[0] - 1.0)


def _nondquar(x):
    ends = (x[0] - x[1]) ** 2 + (x[-2] - x[-1]) ** 2
    return ends + jnp.sum((x[:-2] + x[1:-1] + x[-1]) ** 4)


def _schmvett(x):
    a, b, c = x[:-2], x[1:-1], x[2:]
    wave = jnp.sin(0.5 * (math.pi * b + c))
    bump = jnp.exp(-(((a + c) / b - 2.0) ** 2))
    return -jnp.sum(1.0 / (1.0 + (a - b) ** 2) + wave + bump)


def _tquartic(x):
    return jnp.append(x[0] ** 2 - x[1:] ** 2, x[0] - 1.0)


def _tridia(x):
    weights = jnp.sqrt(_count(x, 2, x.size))
    return jnp.append(weights * (2.0 * x[1:] - x[:-1]), x[0] - 1.0)


# ---- the list: fixed by name before any solver ran on it --------------------------------------


def _mgh(number: int) -> str:
    return f"More, Garbow & Hillstrom 1981, problem {number}"


def _fractions(n: int) -> np.ndarray:
    return np.arange(1, n + 1) / (n + 1.0)


def _cragglvy_start(n: int) -> np.ndarray:
    return np.append(1.0, np.full(n - 1, 2.0))


def _freuroth_start(n: int) -> np.ndarray:
    return np.append([0.5, -2.0], np.zeros(n - 2))


def _genhumps_start(n: int) -> np.ndarray:
    return np.append(-506.0, np.full(n - 1, -506.2))


_DENNIS_SCHNABEL = "Dennis & Schnabel 1983"
_CONN = "Conn, Gould, Lescrenier & Toint 1988"
_TOINT_1978 = "Toint 1978, Mathematics of Computation 32, 839-852"
_TOINT_PRIVATE = "Toint, private communication; CUTEst"
_GRID_10 = _fractions(10) * (_fractions(10) - 1.0)
_GRID_100 = _fractions(100) * (_fractions(100) - 1.0)

_MGH_FIXED = (
    _squares("rosenbrock", _rosenbrock, [-1.2, 1], 0.0, _mgh(1), minimizer=[1, 1]),
    _squares(
        "freudenstein_roth",
        _freudenstein_roth,
        [0.5, -2],
        0.0,
        _mgh(2),
        minimizer=[5, 4],
        other_minima=(48.98425367924,),
    ),
    _squares("powell_badly_scaled", _powell_badly_scaled, [0, 1], 0.0, _mgh(3)),
    _squares(
        "brown_badly_scaled", _brown_badly_scaled, [1, 1], 0.0, _mgh(4), minimizer=[1e6, 2e-6]
    ),
    _squares("beale", _beale, [1, 1], 0.0, _mgh(5), minimizer=[3, 0.5]),
    _squares(
        "jennrich_sampson",
        _jennrich_sampson,
        [0.3, 0.4],
        124.362182355615,
        _mgh(6),
        printed="124.362",
    ),
    _squares("helical_valley", _helical_valley, [-1, 0, 0], 0.0, _mgh(7), minimizer=[1, 0, 0]),
    _squares(
        "bard",
        _bard,
        [1, 1, 1],
        8.21487730657896e-3,
        _mgh(8),
        printed="8.21487e-3",
        other_minima=(17.4286,),
    ),
    _squares(
        "gaussian", _gaussian, [0.4, 1, 0], 1.12793276961862e-8, _mgh(9), printed="1.12793e-8"
    ),
    _squares("meyer", _meyer, [0.02, 4000, 250], 87.9458551703425, _mgh(10), printed="87.9458"),
    _squares("gulf", _gulf, [5, 2.5, 0.15], 0.0, _mgh(11), minimizer=[50, 25, 1.5]),
    _squares("box_3d", _box_3d, [0, 10, 20], 0.0, _mgh(12), minimizer=[1, 10, 1]),
    _squares(
        "powell_singular", _powell_singular, [3, -1, 0, 1], 0.0, _mgh(13), minimizer=[0, 0, 0, 0]
    ),
    _squares("wood", _wood, [-3, -1, -3, -1], 0.0, _mgh(14), minimizer=[1, 1, 1, 1]),
    _squares(
        "kowalik_osborne",
        _kowalik_osborne,
        [0.25, 0.39, 0.415, 0.39],
        3.07505603849236e-4,
        _mgh(15),
        printed="3.07505e-4",
        other_minima=(1.02734e-3,),
    ),
    _squares(
        "brown_dennis",
        _brown_dennis,
        [25, 5, -5, -1],
        85822.2016263563,
        _mgh(16),
        printed="85822.2",
    ),
    _squares(
        "osborne_1",
        _osborne_1,
        [0.5, 1.5, -1, 0.01, 0.02],
        5.4648946974825e-5,
        _mgh(17),
        printed="5.46489e-5",
    ),
    # MGH prints 5.65565e-3 as well, a saddle: one eigenvalue of the Hessian there is negative.
    _squares(
        "biggs_exp6",
        _biggs_exp6,
        [1, 2, 1, 1, 1, 1],
        0.0,
        _mgh(18),
        minimizer=[1, 10, 1, 5, 4, 3],
        other_minima=(5.65565e-3,),
    ),
    _squares(
        "osborne_2",
        _osborne_2,
        [1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5],
        4.01377362935477e-2,
        _mgh(19),
        printed="4.01377e-2",
    ),
)

_MGH_VARIABLE = (
    _squares("watson_6", _watson, np.zeros(6), 2.28767005355231e-3, _mgh(20), printed="2.28767e-3"),
    _squares("watson_9", _watson, np.zeros(9), 1.39976013808977e-6, _mgh(20), printed="1.39976e-6"),
    _squares(
        "watson_12", _watson, np.zeros(12), 4.72238109980923e-10, _mgh(20), printed="4.72238e-10"
    ),
    *(
        _squares(
            f"extended_rosenbrock_{n}",
            _extended_rosenbrock,
            np.tile([-1.2, 1], n // 2),
            0.0,
            _mgh(21),
            minimizer=1,
        )
        for n in (100, 1000)
    ),
    *(
        _squares(
            f"extended_powell_singular_{n}",
            _powell_singular,
            np.tile([3, -1, 0, 1], n // 4),
            0.0,
            _mgh(22),
            minimizer=0,
        )
        for n in (100, 1000)
    ),
    _squares(
        "penalty_1_4",
        _penalty_1,
        np.arange(1, 5),
        2.24997750089994e-5,
        _mgh(23),
        printed="2.24997e-5",
    ),
    _squares(
        "penalty_1_10",
        _penalty_1,
        np.arange(1, 11),
        7.08765146709037e-5,
        _mgh(23),
        printed="7.08765e-5",
    ),
    _squares(
        "penalty_2_4",
        _penalty_2,
        np.full(4, 0.5),
        9.37629300735544e-6,
        _mgh(24),
        printed="9.37629e-6",
    ),
    _squares(
        "penalty_2_10",
        _penalty_2,
        np.full(10, 0.5),
        2.93660537456746e-4,
        _mgh(24),
        printed="2.93660e-4",
    ),
    *(
        _squares(
            f"variably_dimensioned_{n}",
            _variably_dimensioned,
            1.0 - np.arange(1, n + 1) / n,
            0.0,
            _mgh(25),
            minimizer=1,
        )
        for n in (10, 100)
    ),
    _squares(
        "trigonometric_10",
        _trigonometric,
        np.full(10, 0.1),
        0.0,
        _mgh(26),
        minimizer=0,
        other_minima=(2.79506e-5,),
    ),
    _squares("trigonometric_100", _trigonometric, np.full(100, 0.01), 0.0, _mgh(26), minimizer=0),
    _squares(
        "brown_almost_linear_10",
        _brown_almost_linear,
        np.full(10, 0.5),
        0.0,
        _mgh(27),
        minimizer=1,
        other_minima=(1.0,),
    ),
    _squares("discrete_boundary_value_10", _discrete_boundary_value, _GRID_10, 0.0, _mgh(28)),
    _squares("discrete_boundary_value_100", _discrete_boundary_value, _GRID_100, 0.0, _mgh(28)),
    _squares("discrete_integral_10", _discrete_integral, _GRID_10, 0.0, _mgh(29)),
    _squares("discrete_integral_100", _discrete_integral, _GRID_100, 0.0, _mgh(29)),
    *(
        _squares(f"broyden_tridiagonal_{n}", _broyden_tridiagonal, -np.ones(n), 0.0, _mgh(30))
        for n in (10, 1000)
    ),
    *(
        _squares(f"broyden_banded_{n}", _broyden_banded, -np.ones(n), 0.0, _mgh(31))
        for n in (10, 100)
    ),
    # Closed forms of MGH, with n = 10 and m = 20: m - n, m (m - 1) / (2 (2 m + 1)) and
    # (m^2 + 3 m - 6) / (2 (2 m - 3)).
    _squares("linear_full_rank_10", _linear_full_rank, np.ones(10), 10.0, _mgh(32), minimizer=-1),
    _squares("linear_rank_one_10", _linear_rank_one, np.ones(10), 380 / 82, _mgh(33)),
    _squares("linear_rank_one_zero_10", _linear_rank_one_zero, np.ones(10), 454 / 74, _mgh(34)),
    _squares(
        "chebyquad_8",
        _chebyquad,
        _fractions(8),
        3.51687372567792e-3,
        _mgh(35),
        printed="3.51687e-3",
    ),
    _squares("chebyquad_9", _chebyquad, _fractions(9), 0.0, _mgh(35)),
    # MGH prints the local minimum 6.50395e-3 for n = 10; CUTEst (CHEBYQAD) the lower one.
    _squares(
        "chebyquad_10",
        _chebyquad,
        _fractions(10),
        4.77271369637534e-3,
        _mgh(35) + "; CUTEst CHEBYQAD",
        printed="4.772713e-3",
        other_minima=(6.50395e-3,),
    ),
)

_SMALL = (
    _squares(
        "himmelblau",
        _himmelblau,
        [1, 1],
        0.0,
        "Himmelblau 1972, problem 5; CUTEst HIMMELBC",
        minimizer=[3, 2],
    ),
    _squares("himmelbb", _himmelbb, [-1.2, 1], 0.0, "Himmelblau 1972, problem 27; Buckley 77"),
    _problem(
        "himmelbg",
        _himmelbg,
        [0.5, 0.5],
        0.0,
        "Himmelblau 1972, problem 33; Buckley 87",
        minimizer=[0, 0],
    ),
    _problem(
        "himmelbh",
        _himmelbh,
        [0, 2],
        None,
        "Himmelblau 1972; CUTEst (unbounded below; the local minimum is the published answer)",
        bounded=False,
        other_minima=(-1.0,),
    ),
    _problem("humps", _humps, [-506, -506.2], 0.0, _TOINT_PRIVATE, minimizer=[0, 0]),
    _problem("hairy", _hairy, [-5, -7], 20.0, _TOINT_PRIVATE, minimizer=[0, 0]),
    _problem(
        "loghairy", _loghairy, [-500, -700], math.log(1.2), _TOINT_PRIVATE, minimizer=[0, 0]
    ),
    _problem("snail", _snail, [10, 10], 0.0, "Engels, private communication; CUTEst",
             minimizer=[0, 0]),
    _squares("heart6", _heart6, [0, 0, 1, 1, 1, 1], 0.0,
             "Dennis, Gay & Vu 1983, Rice TR 83-16; CUTEst HEART6LS"),
    _squares("heart8", _heart8, [0, 1, 0, 1, 1, 1, 1, 1], 0.0,
             "Dennis, Gay & Vu 1983, Rice TR 83-16; CUTEst HEART8LS"),
    _squares("sineval", _sineval, [4.712389, -1], 0.0, "Xiao & Zhou 1992, problem 4.2; CUTEst",
             minimizer=[0, 0]),
    _squares("cube", _cube, [-1.2, 1], 0.0, "Leon 1966; Buckley 31; CUTEst CUBE",
             minimizer=[1, 1]),
    _squares("rosenbrock_steep", _rosenbrock_steep, [-1.2, 1], 0.0,
             "Rosenbrock 1960, with the weight 1e6 for 100 (a steeper valley)", minimizer=[1, 1]),
    _squares("denschna", _denschna, [1, 1], 0.0, f"{_DENNIS_SCHNABEL}, p. 206; CUTEst",
             minimizer=[0, 0]),
    _squares("denschnb", _denschnb, [1, 1], 0.0, f"{_DENNIS_SCHNABEL}, p. 201; CUTEst",
             minimizer=[2, -1]),
    _squares("denschnc", _denschnc, [2, 3], 0.0, f"{_DENNIS_SCHNABEL}, p. 98; CUTEst",
             minimizer=[1, 1]),
    _squares("denschnd", _denschnd, [10, 10, 10], 0.0, f"{_DENNIS_SCHNABEL}, p. 83; CUTEst",
             minimizer=[0, 0, 0]),
    _squares("denschne", _denschne, [2, 3, -8], 0.0, f"{_DENNIS_SCHNABEL}, p. 87; CUTEst",
             minimizer=[0, 0, 0]),
    _squares("denschnf", _denschnf, [2, 0], 0.0, f"{_DENNIS_SCHNABEL}, p. 41; CUTEst"),
    _squares("engval2", _engval2, [1, 2, 0], 0.0, "Engvall 1966; Buckley 15; CUTEst"),
    _squares("hatfldd", _hatfldd, [1, -1, 0], 6.61511391862792e-8,
             "OPTIMA user manual 8, Hatfield 1989, p. 35; CUTEst", printed="6.615114e-8"),
    _squares("hatflde", _hatflde, [1, -1, 0], 5.1203769366174e-7,
             "OPTIMA user manual 8, Hatfield 1989, p. 37; CUTEst", printed="5.120377e-7"),
    _problem("hilbert_10", _hilbert, np.full(10, -3), 0.0,
             "Schittkowski 1987, problem 274 ff.; Buckley 19; CUTEst HILBERTA", minimizer=0),
    _problem("logros", _logros, [-1.2, 1], 0.0, _TOINT_PRIVATE + " LOGROS, without its bounds",
             minimizer=[1, 1]),
    # Closed form: on the curve x2 = x1^2, -2 c + 1e5 (c - 0.02)^2 is lowest at c = 0.02001. (The
    # values in the comments of CUTEst's file, -0.0898793 and -1.1171526, are of other penalties.)
    _problem("mexhat", _mexhat, [0.86, 0.72], -0.04001,
             "Brown & Bartholomew-Biggs 1987, TR 178; CUTEst MEXHAT",
             minimizer=[1 - math.sqrt(0.02001), (1 - math.sqrt(0.02001)) ** 2]),
    _problem("nasty", _nasty, [1e-30, 1], 0.0, "Gould 1996, CUTE NASTY (AMPL collection)",
             minimizer=[0, 0]),
    _problem("sisser", _sisser, [1, 0.1], 0.0, "Sisser 1981; Buckley 216; CUTEst SISSER2",
             minimizer=[0, 0]),
    _problem("zangwil2", _zangwil2, [3, 8], -18.2, "Zangwill 1967; Buckley 7; CUTEst",
             minimizer=[4, 9]),
    _problem("cliff", _cliff, [0, -1], 0.1997866136777, "Buckley 206; CUTEst",
             printed="0.199786613"),
    _problem("brkmcc", _brkmcc, [2, 2], 0.16904267919645, "Buckley 85; CUTEst", printed="0.16904"),
    _problem("allinitu", _allinitu, [0, 0, 0, 0], 5.74438491032033,
             "Gould, private communication; CUTEst", printed="5.74438"),
    _problem("maratosb", _maratosb, [1.1, 0.1], -1.0000000625, _TOINT_PRIVATE, printed="-1.0"),
    _squares("s308", _s308, [3, 0.1], 0.773199056492924, "Schittkowski 1987, problem 308",
             printed="0.773199"),
)  # fmt: skip

_LARGE = (
    _problem("tointgor", _tointgor, np.zeros(50), 1373.90546066364, _TOINT_1978,
             printed="1373.90546067"),
    _problem("tointpsp", _tointpsp, np.zeros(50), 225.560409421886, _TOINT_1978,
             printed="225.56040942"),
    _problem("tointqor", _tointqor, np.zeros(50), 1175.47222214617, _TOINT_1978,
             printed="1175.4722221"),
    _squares("chnrosnb_50", _chnrosnb, -np.ones(50), 0.0, "Toint 1978; Buckley 4; CUTEst",
             minimizer=1),
    _squares("errinros_50", _errinros, -np.ones(50), 39.904153920127,
             "Toint 1978, erroneously coded variant; CUTEst", printed="39.9041540"),
    _problem("genhumps_5", _genhumps, _genhumps_start(5), 0.0, _TOINT_PRIVATE, minimizer=0),
    _problem("arwhead_1000", _arwhead, np.ones(1000), 0.0, f"{_CONN}, problem 55",
             minimizer=np.append(np.ones(999), 0.0)),
    _squares("bdqrtic_100", _bdqrtic, np.ones(100), 378.769191808684, f"{_CONN}, problem 61",
             printed="3.78769e2"),
    _problem("cosine_100", _cosine, np.ones(100), -99.0, "Gould, private communication; CUTEst"),
    _squares("cragglvy_4", _cragglvy, _cragglvy_start(4), 0.0, "Cragg & Levy 1969; Buckley 18",
             minimizer=[0, 1, 1, 1]),
    _squares("cragglvy_100", _cragglvy, _cragglvy_start(100), 32.2699114585818,
             "Toint 1983, problem 32; CUTEst", printed="3.2270e1"),
    _squares("dixon3dq_100", _dixon3dq, -np.ones(100), 0.0, "Dixon; Buckley 156; CUTEst",
             minimizer=1),
    _squares("dqdrtic_100", _dqdrtic, np.full(100, 3), 0.0, "Toint 1983, problem 22; CUTEst",
             minimizer=0),
    _squares("dqrtic_100", _dqrtic, np.full(100, 2), 0.0, "Buckley 157 (p. 87); CUTEst DQRTIC",
             minimizer=np.arange(1, 101)),
    _problem("edensch_36", _edensch, np.full(36, 8), 219.284592020765,
             "Li 1988; Buckley 157; CUTEst", printed="219.28"),
    _problem("engval1_1000", _engval1, np.full(1000, 2), 1108.19471878501,
             "Toint 1983, problem 31; Conn, Gould & Toint 1992 (LANCELOT)", printed="1.1082e3"),
    _squares("fletchcr_100", _fletchcr, np.zeros(100), 0.0,
             "Fletcher 1992, Dundee NA/145, problem 2; CUTEst", minimizer=1),
    _squares("freuroth_100", _freuroth, _freuroth_start(100), 11964.5773486542,
             "Toint 1983, problem 33; CUTEst", printed="1.1965e4"),
    _problem("genrose_100", _genrose, _fractions(100), 1.0, "Nash 1984, problem 5; CUTEst",
             minimizer=1),
    _squares("liarwhd_1000", _liarwhd, np.full(1000, 4), 0.0, "Li 1990; CUTEst", minimizer=1),
    _problem("noncvxu2_100", _noncvxu2, np.arange(1, 101), 231.680841978821,
             "Gould 1996, private communication; CUTEst", printed="2.3168084e2"),
    _squares("nondia_100", _nondia, -np.ones(100), 0.0, "Shanno 1978; Buckley 37; CUTEst",
             minimizer=1),
    _problem("nondquar_100", _nondquar, np.tile([1, -1], 50), 0.0, f"{_CONN}, problem 57",
             minimizer=0),
    _problem("schmvett_100", _schmvett, np.full(100, 0.5), -294.0,
             "Schmidt & Vetters 1970; Buckley 14; CUTEst"),
    _squares("tquartic_100", _tquartic, np.full(100, 0.1), 0.0, "Toint 1986; CUTEst",
             minimizer=1),
    _squares("tridia_1000", _tridia, np.ones(1000), 0.0, "Toint 1983, problem 8; CUTEst",
             minimizer=0.5 ** np.arange(1000)),
    _squares("woods_1000", _wood, np.tile([-3, -1, -3, -1], 250), 0.0,
             "Toint 1983, problem 27; CUTEst WOODS", minimizer=1),
)  # fmt: skip

PROBLEMS: tuple[Problem, ...] = _MGH_FIXED + _MGH_VARIABLE + _SMALL + _LARGE
_BY_NAME = {problem.name: problem for problem in PROBLEMS}


def by_name(name: str) -> Problem:
    """The problem called `name`."""
    return _BY_NAME[name]
