"""Up to how many parameters is the dense method the faster one?

    python -m benchmarks.dense_limit

Seconds to a minimum, after compilation, of trust_region and newton_cg as n grows: on a cheap
function, where linear algebra is all of the cost, and on a net, where products are. The largest n
at which trust_region wins on both is DENSE_LIMIT in hesskit/solvers/minimize.py.
"""

import statistics

import jax
import jax.numpy as jnp

import hesskit
from benchmarks import _nets
from benchmarks._timing import interleaved, ratio, report

METHODS = ("trust_region", "newton_cg")


def pairs(n):
    """The extended Rosenbrock function, pairs of entries, coupled so that H is not block diagonal.

    The number of steps hardly depends on n.
    """

    def loss(x):
        even, odd = x[::2], x[1::2]
        alone = jnp.sum(100 * (odd - even**2) ** 2 + (1 - even) ** 2)
        return alone + 0.1 * jnp.sum((x - jnp.mean(x)) ** 2)

    return loss, jnp.where(jnp.arange(n) % 2 == 0, -1.2, 1.0)


def net(n):
    """A small regression net of about n parameters, with weight decay."""
    width = max(2, round((n - 1) / 6))
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (256, 4))
    y = jnp.sin(2 * x[:, 0]) * x[:, 1]
    params = {
        "w": jax.random.normal(keys[1], (4, width)) / 2,
        "b": jnp.zeros(width),
        "v": jax.random.normal(keys[2], (width,)) / width**0.5,
    }

    def loss(p):
        error = jnp.tanh(x @ p["w"] + p["b"]) @ p["v"] - y
        return jnp.mean(error**2) + 1e-3 * sum(jnp.sum(a**2) for a in jax.tree.leaves(p))

    return loss, params


def measure(name, build, n):
    loss, params = build(n)
    runs = {
        key: lambda key=key: hesskit.minimize(
            loss, params, getattr(hesskit, key)(), gtol=1e-4, max_steps=100
        )
        for key in METHODS
    }
    results = {key: run() for key, run in runs.items()}
    seconds = interleaved(
        {key: lambda run=run: run().params for key, run in runs.items()}, rounds=2, least=0
    )
    row = {"problem": name, "n": _nets.size(params)}
    for key in METHODS:
        result = results[key]
        row[f"{key} [ms]"] = 1e3 * statistics.median(seconds[key])
        row[f"{key} steps"] = int(result.num_steps)
        row[f"{key} products"] = int(result.num_products)
        row[f"{key} value"] = float(result.value)
    row["dense over matrix-free"] = ratio(*(seconds[key] for key in METHODS))
    return row


def main():
    sizes = (10, 30, 100, 200, 300)
    rows = [measure("pairs", pairs, n) for n in sizes]
    rows += [measure("net", net, n) for n in sizes]
    report("dense_limit", __doc__.splitlines()[0], rows, [])
    for name in ("pairs", "net"):
        wins = [
            row["n"]
            for row in rows
            if row["problem"] == name and row["dense over matrix-free"] <= 1
        ]
        print(f"{name}: trust_region is the faster one at n = {wins}")


if __name__ == "__main__":
    main()
