"""What does an L-BFGS direction cost beside one reading of its history?

    python -m benchmarks.lbfgs_direction

An update of `scale_by_lbfgs` takes in one pair and multiplies the gradient by H. Ours and optax's,
state donated, on the same vectors; float32. "reads" is the time over that of one product of both
histories (2 m n numbers) with a vector, the least that any method must read, and it must read them
twice: the coefficients come before the combination.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import optax

import hesskit
from benchmarks._timing import Target, ratio, report

SIZES = ((100_000, 5), (100_000, 10), (100_000, 20), (1_000_000, 5), (1_000_000, 10))
SIZES += ((1_000_000, 20),)
ROUNDS = 15


class Stream:
    """Updates with donated state, on a sequence of points of a quadratic."""

    def __init__(self, optimizer, n):
        self.step = jax.jit(optimizer.update, donate_argnums=1)
        fresh = optimizer.init(jnp.zeros(n))
        self.state = jax.tree.map(jnp.copy, fresh)  # optax shares one buffer, and cannot donate it
        self.scale = 1 + jnp.arange(n) / n

    def __call__(self, x):
        updates, self.state = self.step(self.scale * x, self.state, x)
        return updates


def reading(n, m):
    """One pass over the history: 2 m inner products."""
    steps, changes = jnp.ones((m, n)), jnp.ones((m, n))
    product = jax.jit(lambda s, y, x: (s @ x, y @ x))
    return lambda x: product(steps, changes, x)


def measure(n, m):
    calls = {
        "hesskit": Stream(hesskit.scale_by_lbfgs(m), n),
        "optax": Stream(optax.scale_by_lbfgs(m), n),
        "one reading": reading(n, m),
    }
    points = [jax.random.normal(jax.random.key(i), (n,)) for i in range(m + 2)]
    for x in points:  # compiles, and fills the history
        for call in calls.values():
            jax.block_until_ready(call(x))
    seconds = {name: [] for name in calls}
    for i in range(ROUNDS):
        for name, call in calls.items():
            begin = time.perf_counter()
            jax.block_until_ready(call(points[i % len(points)]))
            seconds[name].append(time.perf_counter() - begin)
    return {
        "n": n,
        "m": m,
        "hesskit [ms]": 1e3 * statistics.median(seconds["hesskit"]),
        "optax [ms]": 1e3 * statistics.median(seconds["optax"]),
        "hesskit over optax": ratio(seconds["hesskit"], seconds["optax"]),
        "one reading [ms]": 1e3 * statistics.median(seconds["one reading"]),
        "hesskit, reads": ratio(seconds["hesskit"], seconds["one reading"]),
        "optax, reads": ratio(seconds["optax"], seconds["one reading"]),
    }


def main():
    rows = [measure(n, m) for n, m in SIZES]
    targets = [
        Target(f"n = {row['n']}, m = 10: seconds over optax's", row["hesskit over optax"], 0.5)
        for row in rows
        if row["m"] == 10
    ]
    report("lbfgs_direction", __doc__.splitlines()[0], rows, targets)


if __name__ == "__main__":
    main()
