"""L-BFGS beside its peers: evaluations to a given accuracy, and seconds a step.

    python -m benchmarks.lbfgs [--large] [--rounds 5]

Every solver minimizes the same function from the same start with its own defaults (ten pairs).
An evaluation is one execution of the objective, with or without its gradient, counted by a
callback inside it, so that no solver's own bookkeeping is believed; that run is not timed.
"evaluations" is how many were made when the value first came within `TOL` of the whole decrease
known (1e-3 of it for the net, which has many minima, and at n = 10^6, where 60 iterations are
made; 1,500 elsewhere); "stalled" says that it never did. Seconds a
step are those of `STEPS` iterations in one compiled loop (SciPy's loop runs in Python), medians of
interleaved rounds.
"""

import argparse
import statistics
import time
import warnings

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import optax
import optimistix
import scipy.optimize
from sklearn.datasets import load_breast_cancer, load_digits

import hesskit
from benchmarks._timing import Target, report

TOL = {"float64": 1e-9, "float32": 1e-5}
MOST = 10_000
STEPS = 30


# ---- problems --------------------------------------------------------------------------------


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def rosenbrock_pairs(x):
    return jnp.sum(100 * (x[1::2] - x[::2] ** 2) ** 2 + (1 - x[::2]) ** 2)


def quadratic(n):
    def fn(x):
        scale = 10.0 ** (4 * jnp.arange(n, dtype=x.dtype) / n)
        return jnp.sum(scale * (x - 1) ** 2) / n

    return fn


def logistic(dtype):
    data = load_breast_cancer()
    x = (data.data - data.data.mean(0)) / data.data.std(0)
    x, y = jnp.asarray(x, dtype), jnp.asarray(2 * data.target - 1, dtype)

    def fn(p):
        return jnp.mean(jax.nn.softplus(-y * (x @ p[:-1] + p[-1]))) + 1e-4 * jnp.sum(p**2)

    return fn, jnp.zeros(x.shape[1] + 1, dtype)


def digits(dtype):
    data = load_digits()
    x, y = jnp.asarray(data.data / 16, dtype), jnp.asarray(data.target)
    keys = jax.random.split(jax.random.key(0), 2)
    shapes = (64, 32), (32, 10)
    weights = [
        jax.random.normal(k, s, dtype) / s[0] ** 0.5 for k, s in zip(keys, shapes, strict=True)
    ]
    flat, unravel = jax.flatten_util.ravel_pytree(
        (weights, [jnp.zeros(32, dtype), jnp.zeros(10, dtype)])
    )

    def fn(p):
        (w1, w2), (b1, b2) = unravel(p)
        logits = jnp.tanh(x @ w1 + b1) @ w2 + b2
        loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)
        return jnp.mean(loss) + 1e-3 * jnp.sum(p**2)

    return fn, flat


def problems(dtype, large):
    start = jnp.array([-1.2, 1.0], dtype)
    found = {
        "logistic regression, n = 31": logistic(dtype),
        "MLP on digits, n = 2410": digits(dtype),
        "Rosenbrock chain, n = 1000": (rosenbrock, jnp.tile(start, 500)),
        "Rosenbrock pairs, n = 10^4": (rosenbrock_pairs, jnp.tile(start, 5_000)),
        "quadratic, n = 10^4": (quadratic(10_000), jnp.zeros(10_000, dtype)),
        "quadratic, n = 10^6": (quadratic(1_000_000), jnp.zeros(1_000_000, dtype)),
        "Rosenbrock pairs, n = 10^6": (rosenbrock_pairs, jnp.tile(start, 500_000)),
    }
    if large:
        found["quadratic, n = 10^7"] = (quadratic(10_000_000), jnp.zeros(10_000_000, dtype))
    return found


# ---- solvers: run(fn, x0, steps) -> x ---------------------------------------------------------


def by_hesskit(fn, x, steps):
    run = hesskit.minimize(fn, x, hesskit.lbfgs(), gtol=0.0, max_steps=steps, check="first_order")
    return run.params


def by_optax_loop(optimizer):
    def run(fn, x, steps):
        value_and_grad = optax.value_and_grad_from_state(fn)

        def step(_, carry):
            x, state = carry
            value, grad = value_and_grad(x, state=state)
            more = {"value": value, "grad": grad, "value_fn": fn}
            updates, state = optimizer.update(grad, state, x, **more)
            return optax.apply_updates(x, updates), state

        return jax.lax.fori_loop(0, steps, step, (x, optimizer.init(x)))[0]

    return run


def by_jaxopt(fn, x, steps):
    return jaxopt.LBFGS(fn, maxiter=steps, tol=0.0).run(x).params


def by_optimistix(fn, x, steps):
    solver = optimistix.LBFGS(0.0, 0.0)
    run = optimistix.minimise(lambda y, _: fn(y), solver, x, max_steps=steps, throw=False)
    return run.value


SOLVERS = {
    "hesskit": by_hesskit,
    "hesskit.update": by_optax_loop(hesskit.lbfgs()),
    "optax": by_optax_loop(optax.lbfgs()),
    "jaxopt": by_jaxopt,
    "optimistix": by_optimistix,
}


def scipy_run(compiled, x, steps, seen=None):
    def fn(x):
        value, grad = compiled(x.astype(compiled_dtype))
        if seen is not None:
            seen.append(float(value))
        return float(value), np.asarray(grad, np.float64)

    compiled_dtype = x.dtype
    options = {"maxiter": steps, "maxfun": MOST, "ftol": 0.0, "gtol": 0.0}
    return scipy.optimize.minimize(
        fn, np.asarray(x, np.float64), jac=True, method="L-BFGS-B", options=options
    )


def trace(run, fn, x, steps):
    """The values of all evaluations, in order."""
    seen = []

    def counted(x):
        value = fn(x)
        jax.debug.callback(lambda v: seen.append(float(v)), value, ordered=True)
        return value

    jax.block_until_ready(jax.jit(lambda x: run(counted, x, steps))(x))
    jax.effects_barrier()
    return seen


def first_within(values, best, tol):
    goal = best + tol * (values[0] - best)
    return next((i + 1 for i, value in enumerate(values) if value <= goal), None)


def evaluations(name, fn, x, dtype):
    """Evaluations to the accuracy, by solver."""
    steps = 1500 if x.size <= 10_000 else 60
    seen = {key: trace(run, fn, x, steps) for key, run in SOLVERS.items()}
    seen["SciPy"] = []
    scipy_run(jax.jit(jax.value_and_grad(fn)), np.asarray(x), steps, seen["SciPy"])
    best = min(np.nanmin(values) for values in seen.values())
    tol = 1e-3 if name.startswith("MLP") or x.size > 10_000 else TOL[dtype]
    return {key: first_within(values, best, tol) for key, values in seen.items()}


def seconds_a_step(fn, x, rounds):
    """Seconds of an iteration, by solver, one entry a round."""
    calls = {}
    for key, run in SOLVERS.items():
        if key == "hesskit":  # one step of the machine is one evaluation
            calls[key] = lambda run=run: run(fn, x, STEPS)
        else:
            program = jax.jit(lambda x, run=run: run(fn, x, STEPS))
            calls[key] = lambda program=program: program(x)
    compiled, start = jax.jit(jax.value_and_grad(fn)), np.asarray(x)
    calls["SciPy"] = lambda: scipy_run(compiled, start, STEPS).x
    for call in calls.values():
        jax.block_until_ready(call())
    found = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            begin = time.perf_counter()
            jax.block_until_ready(call())
            found[key].append((time.perf_counter() - begin) / STEPS)
    return {key: statistics.median(item) for key, item in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="with n = 10^7")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # jaxopt's, that it is no longer maintained
    rows, ratios = [], {key: [] for key in (*SOLVERS, "SciPy")}
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            for name, (fn, x) in problems(dtype, arguments.large).items():
                counts = evaluations(name, fn, x, dtype)
                seconds = seconds_a_step(fn, x, arguments.rounds)
                for key, count in counts.items():
                    if count and counts["hesskit"]:
                        ratios[key].append(counts["hesskit"] / count)
                told = {key: "stalled" if count is None else count for key, count in counts.items()}
                rows.append({"problem": name, "dtype": dtype, "what": "evaluations", **told})
                cells = {key: f"{1e3 * item:.3g}" for key, item in seconds.items()}
                rows.append({"problem": name, "dtype": dtype, "what": "ms a step", **cells})
                print(rows[-2], rows[-1], sep="\n", flush=True)
    targets = [
        Target(f"evaluations over those of {key}, median", statistics.median(ratios[key]), 1.0)
        for key in ("optax", "jaxopt", "optimistix", "SciPy")
    ]
    report("lbfgs", __doc__.splitlines()[0], rows, targets)


if __name__ == "__main__":
    main()
