"""A physics-informed network for Burgers' equation: Adam, then SSBroyden, then Levenberg-Marquardt.

    python tests/usecases/pinn.py [FOLDER]      a picture goes to FOLDER

Every method minimizes one objective, sum_k w_k mean(r_k^2). Levenberg-Marquardt runs in chunks on
points drawn anew, with weights that follow the terms: both are data, so one program serves all
chunks. Chunks are where a cluster may stop a job: `params` and `state` go to the checkpoint.
"""

import functools
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import hesskit
import hesskit.plots

NU = 0.01 / jnp.pi
WEIGHTS = {"pde": 1.0, "edge": 10.0, "start": 10.0}


def init(key, width, depth):
    """Glorot's normal weights of a network from (t, x) to u."""
    sizes = (2, *(width,) * depth, 1)
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        {"w": jax.random.normal(k, (m, n)) * (2 / (m + n)) ** 0.5, "b": jnp.zeros(n)}
        for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def u(params, tx):
    """The network at one point."""
    for layer in params[:-1]:
        tx = jnp.tanh(tx @ layer["w"] + layer["b"])
    return (tx @ params[-1]["w"] + params[-1]["b"])[0]


def pde(params, tx):
    """u_t + u u_x - nu u_xx at one point."""
    along_x = lambda y: jax.jvp(lambda z: u(params, z), (y,), (jnp.array([0.0, 1.0]),))
    (value, u_x), (_, u_xx) = jax.jvp(along_x, (tx,), (jnp.array([0.0, 1.0]),))
    u_t = jax.jvp(lambda z: u(params, z), (tx,), (jnp.array([1.0, 0.0]),))[1]
    return u_t + value * u_x - NU * u_xx


def start(params, tx):
    """u(0, x) + sin(pi x) at one point."""
    return u(params, tx) + jnp.sin(jnp.pi * tx[1])


def residual(params, pts):
    """Those of all points. `per_example` is `jax.vmap` that tells which row depends on which."""
    return {
        "pde": hesskit.per_example(pde)(params, pts["pde"]),
        "edge": hesskit.per_example(u)(params, pts["edge"]),  # u(t, -1) = u(t, 1) = 0
        "start": hesskit.per_example(start)(params, pts["start"]),
    }


loss = hesskit.least_squares_loss(residual, weights=WEIGHTS, reduction="mean")


def sample(key, num):
    """Points inside, on the edges and at t = 0."""
    keys = jax.random.split(key, 4)
    few, zero = num // 4, jnp.zeros(num // 4)
    spread = lambda key: jax.random.uniform(key, (few,), minval=-1.0)
    return {
        "pde": jax.random.uniform(keys[0], (num, 2)) * jnp.array([1.0, 2.0]) - jnp.array([0, 1.0]),
        "edge": jnp.stack([jax.random.uniform(keys[1], (few,)), jnp.sign(spread(keys[2]))], 1),
        "start": jnp.stack([zero, spread(keys[3])], 1),
    }


def follow(weights, terms, before):
    """ReLoBRaLo (Bischof & Kraus 2021) in short: terms that fall slowly weigh more."""
    progress = jnp.stack([terms[k] / (before[k] + 1e-12) for k in sorted(terms)])
    shares = len(terms) * jax.nn.softmax(progress)
    pairs = zip(sorted(terms), shares, strict=True)
    return {k: 0.9 * weights[k] + 0.1 * WEIGHTS[k] * share for k, share in pairs}


class Numbers(NamedTuple):
    """What came of it: `compiled` is what `watch()` said after each chunk."""

    params: list[dict[str, jax.Array]]
    values: list[float]
    terms: dict[str, float]
    compiled: list[int]


def main(folder, *, width=32, depth=3, num=800, steps=(5000, 2000, 20), chunks=50, watch=None):
    """Trains; `watch()` counts programs compiled so far."""
    key = jax.random.key(0)
    params, pts = init(key, width, depth), sample(jax.random.fold_in(key, 0), num)
    many, some, few = steps
    # None of these runs ends at a minimum, so none need prove that it is one.
    run = functools.partial(hesskit.minimize, loss, check="first_order", history=True)
    adam = run(params, optax.adam(1e-3), args=(pts,), max_steps=many)
    print(adam)
    # Memory n^2: 4,000 parameters take 128 MB in float64.
    quasi = run(adam.params, hesskit.ssbroyden(), args=(pts,), max_steps=some)
    print(quasi, {k: float(v) for k, v in quasi.aux["terms"].items()}, sep="\n")

    runs, weights, now, compiled = [adam, quasi], WEIGHTS, quasi, []
    state, terms = None, quasi.aux["terms"]
    for k in range(chunks):
        pts = sample(jax.random.fold_in(key, k + 1), num)
        data = {"pts": pts, "residual_weights": weights}
        optimizer = hesskit.levenberg_marquardt()
        now = run(now.params, optimizer, args=data, max_steps=few, state=state)
        state, before, terms = now.state, terms, now.aux["terms"]
        weights = follow(weights, terms, before)
        runs.append(now)
        compiled.append(0 if watch is None else watch())
    print(now, {k: float(v) for k, v in terms.items()}, sep="\n")

    operator = hesskit.gauss_newton_operator(loss, now.params, args=(pts,))
    ones = jax.tree.map(jnp.ones_like, now.params)
    print(f"curvature along (1, ..., 1): {optax.tree.vdot(ones, operator @ ones):.3g}")
    labels = ["Adam", "SSBroyden", *["Levenberg-Marquardt"] * chunks]
    ax = hesskit.plots.convergence(runs, labels=labels, sequential=True, x="evaluations")
    ax.figure.savefig(Path(folder) / "pinn.png", dpi=110)
    plt.close(ax.figure)
    values = [float(value) for each in runs for value in each.history.value]
    return Numbers(now.params, values, {k: float(v) for k, v in terms.items()}, compiled)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(sys.argv[1] if len(sys.argv) > 1 else ".")
