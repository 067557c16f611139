"""How long does a whole solve take to trace and compile, beside its peers?

    python -m benchmarks.compile_time [--rounds 3]

Every solver is traced, lowered and compiled afresh (`jax.clear_caches`, no persistent cache), in
turn, in one process. Seconds are CPU seconds of the process, beside those on the clock. Classes:

    dense        a dense matrix of second derivatives, or an approximation of one. No JAX peer has
                 a Newton method with a dense Hessian; the nearest keep a dense BFGS matrix.
    matrix-free  vectors only. No JAX peer has a matrix-free Newton method; the nearest keep a few
                 vectors (L-BFGS), or one (nonlinear CG, which solves no system at all).

`copies` counts the user's function in the traced program, by a marker that its derivatives lack.
"""

import argparse
import statistics
import time
import warnings

import jax
import jax.numpy as jnp
import jaxopt
import optax
import optimistix

import hesskit
from benchmarks import _nets
from benchmarks._timing import Target, report

MARKER = "erf_inv"  # its derivatives reuse its value and call it no more
STEPS = 1000


def ours(name):
    return lambda fn, x: hesskit.minimize(fn, x, getattr(hesskit, name)()).params


def by_optimistix(name):
    def run(fn, x):
        solver = getattr(optimistix, name)(1e-6, 1e-6)
        answer = optimistix.minimise(lambda y, _: fn(y), solver, x, max_steps=STEPS, throw=False)
        return answer.value

    return run


def by_jaxopt(name):
    return lambda fn, x: getattr(jaxopt, name)(fn, maxiter=STEPS, tol=1e-5).run(x).params


def by_optax(fn, x):
    """The loop of optax's documentation."""
    optimizer, value_and_grad = optax.lbfgs(), optax.value_and_grad_from_state(fn)

    def step(carry):
        params, state = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=fn)
        return optax.apply_updates(params, updates), state

    def unfinished(carry):
        _, state = carry
        count, grad = optax.tree.get(state, "count"), optax.tree.get(state, "grad")
        return (count == 0) | ((count < STEPS) & (optax.tree.norm(grad) > 1e-5))

    return jax.lax.while_loop(unfinished, step, (x, optimizer.init(x)))[0]


SOLVERS = {  # name: (class, ours or a peer, run)
    "hesskit.trust_region": ("dense", True, ours("trust_region")),
    "optimistix.BFGS": ("dense", False, by_optimistix("BFGS")),
    "jaxopt.BFGS": ("dense", False, by_jaxopt("BFGS")),
    "hesskit.newton_cg": ("matrix-free", True, ours("newton_cg")),
    "hesskit.lbfgs": ("matrix-free", True, ours("lbfgs")),
    "optimistix.LBFGS": ("matrix-free", False, by_optimistix("LBFGS")),
    "optimistix.NonlinearCG": ("matrix-free", False, by_optimistix("NonlinearCG")),
    "jaxopt.LBFGS": ("matrix-free", False, by_jaxopt("LBFGS")),
    "optax.lbfgs": ("matrix-free", False, by_optax),
}


def marked(fn):
    """A new function each time, so that no cache knows it, with the marker inside."""

    def marked_fn(params):
        first = jax.tree.leaves(params)[0].reshape(-1)[0]
        return fn(params) + 0.0 * jax.lax.erf_inv(0.5 * jnp.tanh(first))

    return marked_fn


def count(node, name):
    """Equations named `name` in a jaxpr and in those inside it."""
    if isinstance(node, (tuple, list)):
        return sum(count(item, name) for item in node)
    equations = getattr(getattr(node, "jaxpr", node), "eqns", ())
    return sum(
        (equation.primitive.name == name) + count(list(equation.params.values()), name)
        for equation in equations
    )


def compile_once(run, fn, x):
    """CPU and clock seconds from function to program, and what the program holds."""
    jax.clear_caches()
    fn = marked(fn)
    cpu, clock = time.process_time(), time.perf_counter()
    traced = jax.jit(lambda x: run(fn, x)).trace(x)
    cpu_traced = time.process_time()
    program = traced.lower().compile()
    found = {
        "cpu": time.process_time() - cpu,
        "clock": time.perf_counter() - clock,
        "trace": cpu_traced - cpu,
    }
    return found, count(traced.jaxpr, MARKER), program.as_text()


def measure(name, fn, x, rounds):
    found = {key: [] for key in SOLVERS}
    rows = []
    for turn in range(rounds + 1):  # the first one warms the process up
        for key, (_, _, run) in SOLVERS.items():
            seconds, copies, text = compile_once(run, fn, x)
            found[key].append(seconds)
            if turn == 0:
                rows.append(
                    {
                        "problem": name,
                        "solver": key,
                        "class": SOLVERS[key][0],
                        "copies": copies,
                        "instructions": text.count(" = "),
                        "kernels": text.count(" fusion("),
                    }
                )
    for row in rows:
        for part, title in (("cpu", "cpu [s]"), ("clock", "clock [s]"), ("trace", "trace [s]")):
            row[title] = statistics.median(each[part] for each in found[row["solver"]][1:])
    targets = []
    for key, (kind, is_ours, _) in SOLVERS.items():
        if is_ours:
            peers = [p for p, (k, o, _) in SOLVERS.items() if k == kind and not o]
            seconds = {row["solver"]: row["cpu [s]"] for row in rows}
            best = min(peers, key=seconds.__getitem__)
            what = f"{name}: {key} over the fastest of its class, {best}"
            targets.append(Target(what, seconds[key] / seconds[best], 1.0))
        if is_ours:
            copies = next(row["copies"] for row in rows if row["solver"] == key)
            targets.append(Target(f"{name}: {key}, copies of the function", copies, 1))
    return rows, targets


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")  # jaxopt's, that it is no longer maintained
    jax.config.update("jax_enable_compilation_cache", False)
    jax.block_until_ready(jax.jit(jnp.sin)(1.0))
    net = _nets.mlp((8, 16, 4), 100)
    problems = {"rosenbrock": (_nets.rosenbrock, jnp.array([-1.2, 1.0])), "mlp": net}
    results = [measure(name, *problem, rounds) for name, problem in problems.items()]
    rows = [row for part, _ in results for row in part]
    targets = [target for _, part in results for target in part]
    report("compile_time", __doc__.splitlines()[0], rows, targets)


if __name__ == "__main__":
    main()
