"""Two physics-informed networks: Poisson's equation in 2-D, and Burgers' equation.

Each is a network u(params, z) of one point z, residuals of one point, points drawn by a seed, and
the relative L2 error against a known solution on a dense grid. The objective is the sum over the
terms of weight * mean(residual**2), the same number for every method.

Sources: Raissi, Perdikaris & Karniadakis (2019), "Physics-informed neural networks", J. Comput.
Phys. 378, section 3.1.1 and appendix A.1 (Burgers); Basdevant et al. (1986), "Spectral and finite
difference solutions of the Burgers equation", Computers & Fluids 14, 23-41 (its exact solution).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import hesskit

NU = 0.01 / np.pi


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A network, its equations, and what is known of the solution."""

    name: str
    sizes: tuple[int, ...]
    terms: dict[str, Callable]  # residual(params, point) of one point
    weights: dict[str, float]
    draw: Callable[[np.random.Generator], dict[str, np.ndarray]]  # (points, 2) of each term
    grid: np.ndarray  # (g, 2)
    exact: np.ndarray  # (g,)
    marks: tuple[float, ...]  # seconds at which errors are told
    damping: tuple[float, int, float]  # of natural_gradient: first, updates to a tenth, least

    def residuals(self, params: Any, points: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Those of all points, with the structure that least squares can use."""
        return {key: hesskit.per_example(fn)(params, points[key]) for key, fn in self.terms.items()}

    def vector(self, params: Any, points: dict[str, jax.Array]) -> jax.Array:
        """One vector whose sum of squares is the objective."""
        parts = self.residuals(params, points)
        scaled = [(self.weights[key] / r.size) ** 0.5 * r for key, r in parts.items()]
        return jnp.concatenate(scaled)

    def start(self, seed: int, dtype: Any) -> list[dict[str, jax.Array]]:
        """Glorot's normal weights, zero biases."""
        rng = np.random.default_rng([seed, 1])
        return [
            {
                "w": jnp.asarray(rng.normal(size=(m, n)) * (2 / (m + n)) ** 0.5, dtype),
                "b": jnp.zeros(n, dtype),
            }
            for m, n in zip(self.sizes[:-1], self.sizes[1:], strict=True)
        ]

    def points(self, seed: int, dtype: Any) -> dict[str, jax.Array]:
        """Where the residuals are taken."""
        drawn = self.draw(np.random.default_rng([seed, 2]))
        return {key: jnp.asarray(z, dtype) for key, z in drawn.items()}

    def error(self, dtype: Any) -> Callable[[Any], jax.Array]:
        """The relative L2 error of params on the grid."""
        grid, exact = jnp.asarray(self.grid, dtype), jnp.asarray(self.exact, dtype)
        values = lambda params: jax.vmap(network, (None, 0))(params, grid)
        return jax.jit(
            lambda params: jnp.linalg.norm(values(params) - exact) / jnp.linalg.norm(exact)
        )


def network(params: Any, z: jax.Array) -> jax.Array:
    """tanh layers and a linear one, at one point: ()."""
    for layer in params[:-1]:
        z = jnp.tanh(z @ layer["w"] + layer["b"])
    return (z @ params[-1]["w"] + params[-1]["b"])[0]


def along(params: Any, z: jax.Array, axis: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """u and its first and second derivatives along one axis."""
    e = jnp.zeros_like(z).at[axis].set(1)
    first = lambda z: jax.jvp(lambda y: network(params, y), (z,), (e,))
    (u, slope), (_, bend) = jax.jvp(first, (z,), (e,))
    return u, slope, bend


# ---- Poisson: -(u_xx + u_yy) = 2 pi^2 sin(pi x) sin(pi y), 0 on the edge -----------------------


def _poisson(params, z):
    force = 2 * jnp.pi**2 * jnp.prod(jnp.sin(jnp.pi * z))
    return along(params, z, 0)[2] + along(params, z, 1)[2] + force


def _square(rng):
    edge = rng.random((100, 2))
    edge[:50, 0] = np.repeat([0.0, 1.0], 25)
    edge[50:, 1] = np.repeat([0.0, 1.0], 25)
    return {"pde": rng.random((400, 2)), "edge": edge}


def poisson() -> Problem:
    """On the unit square; the solution is sin(pi x) sin(pi y)."""
    line = np.linspace(0.0, 1.0, 101)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    return Problem(
        "Poisson",
        (2, 32, 32, 32, 1),
        {"pde": _poisson, "edge": network},
        {"pde": 1.0, "edge": 100.0},
        _square,
        grid,
        np.prod(np.sin(np.pi * grid), axis=1),
        (2.3, 2.5, 5.0, 5.6),
        (30.0, 10, 1e-4),
    )


# ---- Burgers: u_t + u u_x = nu u_xx, u(0, x) = -sin(pi x), u(t, -1) = u(t, 1) = 0 --------------


def _burgers(params, z):
    u, slope, bend = along(params, z, 1)
    return along(params, z, 0)[1] + u * slope - NU * bend


def _initial(params, z):
    return network(params, z) + jnp.sin(jnp.pi * z[1])


def _strip(rng):
    start, edge = rng.random((2, 200, 2))
    inside = rng.random((2800, 2))
    x = 2 * inside[:, 1] - 1
    x[1600:] = np.sign(x[1600:]) * 10.0 ** (-3 * np.abs(x[1600:]))
    inside[:, 1] = x
    start[:, 0], start[:, 1] = 0.0, 2 * start[:, 1] - 1
    edge[:, 1] = np.repeat([-1.0, 1.0], 100)
    return {"pde": inside, "initial": start, "edge": edge}


def cole_hopf(t: np.ndarray, x: np.ndarray, num: int = 600) -> np.ndarray:
    r"""The exact solution, by the trapezoidal rule with `num` points.

        u(t, x)  =  - E[sin(pi y) w(y)] / E[w(y)],   w(y) = exp(-cos(pi y) / (2 pi nu))

    over normal y of mean x and variance 2 nu t. The integrands are analytic and below 1e-16 of
    their peak at 13 sqrt(2) deviations, since the exponent of w is within 50 of 0: so the rule
    converges exponentially.
    """
    z = np.linspace(-13.0, 13.0, num)
    y = x[:, None] - 2 * np.sqrt(NU * t)[:, None] * z
    power = -np.cos(np.pi * y) / (2 * np.pi * NU) - z**2
    w = np.exp(power - power.max(axis=1, keepdims=True))
    return -np.sum(np.sin(np.pi * y) * w, axis=1) / np.sum(w, axis=1)


def burgers() -> Problem:
    """On t in [0, 1], x in [-1, 1] with nu = 0.01 / pi: a front 0.01 wide forms at x = 0.

    1,600 points are uniform and 1,200 have a uniform log|x| down to 1e-3, since at fewer points
    near the front the residuals vanish and the error stays at 0.3.
    """
    t, x = np.linspace(0.0, 1.0, 51), np.linspace(-1.0, 1.0, 257)
    grid = np.stack(np.meshgrid(t, x, indexing="ij"), -1).reshape(-1, 2)
    exact = cole_hopf(*grid.T)
    change = np.max(np.abs(cole_hopf(*grid.T, num=1200) - exact))
    if not change < 1e-10:
        raise AssertionError(f"twice the points change the reference by {change:.1e}")
    return Problem(
        "Burgers",
        (2, 14, 14, 14, 1),
        {"pde": _burgers, "initial": _initial, "edge": network},
        {"pde": 1.0, "initial": 10.0, "edge": 10.0},
        _strip,
        grid,
        exact,
        (5.0, 15.0),
        (1.0, 80, 1e-2),
    )


PROBLEMS = {"poisson": poisson, "burgers": burgers}
