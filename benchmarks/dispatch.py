"""What does it cost to call us: a jitted `update` at n = 10, and `import hesskit`?

    python -m benchmarks.dispatch

A call is `jax.jit` of `update` alone, gradient and value given, on a trivial quadratic: flattening
the state, the dispatch and the small kernels of one step. The dispatch alone is a jitted identity
on the same arguments and results. The import is what `import hesskit`, and with it the first use
of a name, adds to `import jax, optax` in fresh processes, in CPU seconds, which a busy machine does
not stretch; as after an installation, Python finds our files compiled to bytecode.
"""

import os
import statistics
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import optax

import hesskit
from benchmarks._timing import Target, interleaved, ratio, report

N = 10
IMPORT = """
import sys, time, jax, optax
begin = time.process_time()
import hesskit
for name in sys.argv[1:]:
    getattr(hesskit, name)
print(time.process_time() - begin)
"""
PEER = "optax.lbfgs"


def quadratic(x):
    return 0.5 * jnp.sum(x * x)


def calls(optimizer):
    """One update, and the identity on the same trees."""
    params = jnp.arange(1.0, N + 1)
    value, grad = jax.value_and_grad(quadratic)(params)
    state = optimizer.init(params)

    @jax.jit
    def update(grad, state, params, value):
        return optimizer.update(grad, state, params, value=value, grad=grad, value_fn=quadratic)

    @jax.jit
    def identity(grad, state, params, value):
        return jax.tree.map(lambda leaf: leaf + jnp.ones_like(leaf), (grad + params, state, value))

    arguments = (grad, state, params, value)
    return lambda: update(*arguments), lambda: identity(*arguments)


def import_seconds(names, bytecode):
    """CPU seconds of the import in a fresh process that keeps its bytecode in that folder."""
    environment = os.environ | {"PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", IMPORT, *names]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(answer.stdout)


def imports(uses):
    """Five times each, after one that writes the bytecode."""
    with tempfile.TemporaryDirectory() as bytecode:
        for names in uses.values():
            import_seconds(names, bytecode)
        return {
            what: [import_seconds(names, bytecode) for _ in range(5)]
            for what, names in uses.items()
        }


def main():
    optimizers = {PEER: optax.lbfgs(), "newton_cg": hesskit.newton_cg()}
    optimizers["lbfgs"] = hesskit.lbfgs()
    optimizers["trust_region"] = hesskit.trust_region()
    updates, identities = {}, {}
    for name, optimizer in optimizers.items():
        updates[name], identities[name] = calls(optimizer)
    seconds = interleaved(updates, rounds=15)
    dispatch = interleaved(identities, rounds=15)
    rows = [
        {
            "update": name,
            "call [us]": 1e6 * statistics.median(seconds[name]),
            f"call over {PEER}": ratio(seconds[name], seconds[PEER]),
            "dispatch [us]": 1e6 * statistics.median(dispatch[name]),
            f"dispatch over {PEER}": ratio(dispatch[name], dispatch[PEER]),
            "leaves of the state": len(jax.tree.leaves(optimizer.init(jnp.ones(N)))),
        }
        for name, optimizer in optimizers.items()
    ]
    uses = {"import hesskit": (), "... and lbfgs": ("lbfgs",), "... and minimize": ("minimize",)}
    imported = imports(uses)
    rows += [
        {"update": what, "call [us]": 1e6 * statistics.median(times)}
        for what, times in imported.items()
    ]
    targets = [
        Target(f"{name}: call over {PEER}", ratio(seconds[name], seconds[PEER]), 1.2)
        for name in optimizers
        if name != PEER
    ]
    targets.append(Target("seconds of import hesskit", min(imported["import hesskit"]), 0.15))
    report("dispatch", __doc__.splitlines()[0], rows, targets)


if __name__ == "__main__":
    main()
