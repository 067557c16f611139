"""Do K-FAC and Hessian-free train a small deep autoencoder faster than Adam and L-BFGS?

The digits autoencoder: 64-128-64-16-64-128-64 tanh, linear output, 600 images of scikit-learn's
digits in [0, 1], float32, Glorot start, mean squared error of the whole set. Every method runs in
jitted chunks of steps of about 0.1 s, in turns; the clock is CPU seconds of its own chunks,
compiling apart. Adam at three rates, each on the whole set and on batches of 60; its best counts.

Targets: hessian_free's error at 5 s at most Adam's; kfac's at most 1e-4, and 0.5 s to 0.002.

    python -m benchmarks.autoencoder [--seconds 5] [--seed 0] [--only kfac adam]
"""

import argparse
import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import hesskit
from benchmarks._timing import Target, report, table

SIZES = (64, 128, 64, 16, 64, 128, 64)
IMAGES, BATCH = 600, 60
MARKS = (1.0, 2.0, 5.0)
GOAL = 2e-3


def start(seed: int) -> list[dict[str, jax.Array]]:
    """Glorot's uniform weights."""
    keys = jax.random.split(jax.random.key(seed), len(SIZES))
    params = []
    for key, (m, n) in zip(keys, itertools.pairwise(SIZES), strict=False):
        size = (6 / (m + n)) ** 0.5
        params.append(
            {"w": jax.random.uniform(key, (m, n), minval=-size, maxval=size), "b": jnp.zeros(n)}
        )
    return params


def model(params: Any, x: jax.Array) -> jax.Array:
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


LOSS = hesskit.composite(hesskit.losses.squared_error(), model)


class Runner(NamedTuple):
    """One method: `chunk(carry) -> carry`, the carry (params, state)."""

    init: Callable[[Any], Any]
    chunk: Callable[[Any], Any]


def whole(opt: Any, x: jax.Array, *, part: int | None = None, steps: int = 25) -> Runner:
    """Steps on the whole set; `part`: the curvature is that of so many images, others each time."""
    opt = optax.with_extra_args_support(opt)

    def body(carry: Any, _: Any) -> Any:
        params, state, count = carry
        value, grad = jax.value_and_grad(LOSS)(params, x, x)
        extra = {}
        if part is not None:
            some = jax.lax.dynamic_slice_in_dim(x, (count * part) % (IMAGES - part + 1), part)
            extra = {"curvature_args": (some, some)}
        # optax.lbfgs passes data on by name, and refuses `args`.
        data = {"x": x, "targets": x}
        updates, state = opt.update(
            grad, state, params, value=value, grad=grad, value_fn=LOSS, **data, **extra
        )
        return (optax.apply_updates(params, updates), state, count + 1), None

    chunk = jax.jit(lambda carry: jax.lax.scan(body, carry, None, length=steps)[0])
    return Runner(lambda p: (p, opt.init(p), jnp.zeros((), jnp.int32)), chunk)


def batches(opt: Any, x: jax.Array, steps: int = 300) -> Runner:
    """Steps on batches drawn anew."""

    def body(carry: Any, _: Any) -> Any:
        params, state, key = carry
        key, now = jax.random.split(key)
        some = x[jax.random.choice(now, IMAGES, (BATCH,), replace=False)]
        updates, state = opt.update(jax.grad(LOSS)(params, some, some), state, params)
        return (optax.apply_updates(params, updates), state, key), None

    chunk = jax.jit(lambda carry: jax.lax.scan(body, carry, None, length=steps)[0])
    return Runner(lambda p: (p, opt.init(p), jax.random.key(0)), chunk)


def runners(x: jax.Array) -> dict[str, Runner]:
    found = {
        "hesskit.kfac": whole(hesskit.kfac(), x),
        "hesskit.kfac, eigenvalues corrected": whole(
            hesskit.kfac(eigenvalue_correction=True, period=10), x
        ),
        "hesskit.hessian_free": whole(hesskit.hessian_free(), x, steps=2),
        "hesskit.hessian_free, curvature of 150": whole(
            hesskit.hessian_free(), x, part=150, steps=5
        ),
        "hesskit.lbfgs": whole(hesskit.lbfgs(), x),
        "optax.lbfgs": whole(optax.lbfgs(), x),
        "hesskit.newton_cg": whole(hesskit.newton_cg(), x, steps=1),
        "hesskit.newton_cg, leafwise": whole(
            hesskit.newton_cg(preconditioner=hesskit.leafwise_preconditioner()), x, steps=1
        ),
    }
    for rate in (1e-3, 3e-3, 1e-2):
        found[f"adam {rate:g}"] = whole(optax.adam(rate), x, steps=50)
        found[f"adam {rate:g}, batches of {BATCH}"] = batches(optax.adam(rate), x)
    return found


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="words of methods; nothing is written")
    options = parser.parse_args()
    x = jnp.asarray(load_digits().data[:IMAGES] / 16, jnp.float32)
    params, error = start(options.seed), jax.jit(lambda p: LOSS(p, x, x))
    carries, spent, seen, compiling = {}, {}, {}, {}
    everyone = runners(x)
    if options.only:
        chosen = [n for n in everyone if any(word in n for word in options.only)]
        everyone = {name: everyone[name] for name in chosen}
    for name, runner in everyone.items():
        begin = time.process_time()
        # Twice: the state of optax.lbfgs changes its types in the first call.
        jax.block_until_ready(runner.chunk(runner.chunk(runner.init(params))))
        compiling[name] = time.process_time() - begin
        carries[name], spent[name], seen[name] = runner.init(params), 0.0, []
    while going := [name for name in everyone if spent[name] < options.seconds]:
        for name in going:
            begin = time.process_time()
            carries[name] = jax.block_until_ready(everyone[name].chunk(carries[name]))
            spent[name] += time.process_time() - begin
            seen[name].append((spent[name], float(error(carries[name][0]))))
    rows = []
    for name, points in seen.items():
        lowest = {m: min([e for t, e in points if t <= m], default=np.nan) for m in MARKS}
        rows.append(
            {
                "method": name,
                **{f"mse at {m:g} s": lowest[m] for m in MARKS},
                f"s to {GOAL:g}": min((t for t, e in points if e <= GOAL), default=np.inf),
                "first calls, CPU s": compiling[name],
            }
        )
    if options.only:
        print(table(rows))
        return
    last = f"mse at {MARKS[-1]:g} s"
    ours = min(row[last] for row in rows if "hessian_free" in row["method"])
    adam = min(row[last] for row in rows if row["method"].startswith("adam"))
    target = Target("error of hessian_free over the best Adam's at 5 s", ours / adam, 1.0)
    kfac = next(row for row in rows if row["method"] == "hesskit.kfac")
    targets = [
        target,
        Target("error of kfac at 5 s", kfac[last], 1e-4),
        Target("seconds of kfac to 0.002", kfac[f"s to {GOAL:g}"], 0.5),
    ]
    report("autoencoder", __doc__.splitlines()[0], rows, targets)


if __name__ == "__main__":
    main()
