"""Does natural gradient with momentum (SPRING) find a ground state with fewer samples than without?

Variational Monte Carlo of the transverse-field Ising chain

    H = -sum_i s_i s_{i+1} - h sum_i x_i,    periodic, N = 10 spins, h = 1 (critical)

with a restricted Boltzmann machine, log psi = sum_j log cosh(b_j + w_j . s), whose lowest energy is
known from the dense matrix of 1,024 states. Samples are drawn exactly from |psi|^2, fewer than the
parameters. Every candidate takes the same number of steps from the same starts at each of three
rates; its best rate counts. The error is that of the exact energy of psi, over the last tenth of
the steps.

Target: SPRING's error at most that of plain stochastic reconfiguration (`momentum=0`).

    python -m benchmarks.vmc [--steps 300] [--samples 64] [--seeds 3]
"""

import argparse
import functools
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import hesskit
from benchmarks._timing import Target, report

SPINS, HIDDEN, FIELD = 10, 20, 1.0
RATES = (0.2, 0.1, 0.05, 0.02)
ADAM_RATES = (3e-2, 1e-2, 3e-3)

STATES = 1.0 - 2.0 * ((np.arange(2**SPINS)[:, None] >> np.arange(SPINS)) & 1)


def exact_energy() -> float:
    """The lowest eigenvalue of the dense matrix."""
    diagonal = -np.sum(STATES * np.roll(STATES, 1, axis=1), axis=1)
    matrix = np.diag(diagonal)
    number = np.arange(2**SPINS)
    for i in range(SPINS):
        matrix[number, number ^ (1 << i)] -= FIELD
    return float(np.linalg.eigvalsh(matrix)[0])


def log_psi(p: Any, s: jax.Array) -> jax.Array:
    """The amplitude of one configuration, real and positive."""
    z = p["w"] @ s + p["b"]
    return jnp.sum(jnp.logaddexp(z, -z))


def local_energy(p: Any, s: jax.Array) -> jax.Array:
    """<s|H|psi> / <s|psi>."""
    flips = s[None, :] * (1 - 2 * jnp.eye(SPINS, dtype=s.dtype))
    ratios = jnp.exp(jax.vmap(log_psi, (None, 0))(p, flips) - log_psi(p, s))
    return -jnp.sum(s * jnp.roll(s, 1)) - FIELD * jnp.sum(ratios)


LOSS = hesskit.score_objective(hesskit.per_example(lambda p, s: 2 * log_psi(p, s)))


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def train(opt: Any, key: jax.Array, steps: int, samples: int) -> jax.Array:
    """The exact energy after each step."""
    states = jnp.asarray(STATES, jnp.float32)
    start, *keys = jax.random.split(key, steps + 1)
    w = 0.1 * jax.random.normal(start, (HIDDEN, SPINS))
    params = {"w": w, "b": jnp.zeros(HIDDEN)}

    def body(carry: Any, key: jax.Array) -> Any:
        p, state = carry
        logs = 2 * jax.vmap(log_psi, (None, 0))(p, states)
        energies = jax.vmap(local_energy, (None, 0))(p, states)
        chosen = jax.random.categorical(key, logs, shape=(samples,))
        data = (states[chosen], energies[chosen])
        grads = jax.grad(LOSS)(p, *data)
        updates, state = opt.update(grads, state, p, value_fn=LOSS, args=data)
        return (optax.apply_updates(p, updates), state), jax.nn.softmax(logs) @ energies

    return jax.lax.scan(body, (params, opt.init(params)), jnp.stack(keys))[1]


def candidates() -> dict[str, dict[float, Any]]:
    """Optimizers by name and rate."""

    def natural(momentum: float) -> dict[float, Any]:
        def make(rate: float) -> Any:
            schedule = lambda k: rate / (1 + k / 300)
            return hesskit.natural_gradient(
                schedule, damping=1e-3, momentum=momentum, norm_constraint=1e-2
            )

        return {rate: make(rate) for rate in RATES}

    adam = {rate: optax.with_extra_args_support(optax.adam(rate)) for rate in ADAM_RATES}
    return {
        "SPRING, momentum 0.9": natural(0.9),
        "SPRING, momentum 0.8": natural(0.8),
        "stochastic reconfiguration": natural(0.0),
        "adam": adam,
    }


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    exact, rows, best = exact_energy(), [], {}
    for name, by_rate in candidates().items():
        found = {}
        for rate, opt in by_rate.items():
            errors = []
            for seed in range(options.seeds):
                energies = train(opt, jax.random.key(seed), options.steps, options.samples)
                late = np.asarray(energies)[-options.steps // 10 :]
                errors.append(float(np.mean(late) / exact - 1) * -1)
            found[rate] = errors
        rate = min(found, key=lambda r: statistics.median(found[r]))
        best[name] = statistics.median(found[rate])
        rows.append(
            {
                "method": name,
                "rate": rate,
                "relative error": best[name],
                "worst of seeds": max(found[rate]),
            }
        )
    print(f"exact energy {exact:.6f}; {options.samples} samples, {HIDDEN * (SPINS + 1)} parameters")
    plain = best["stochastic reconfiguration"]
    spring = min(error for name, error in best.items() if name.startswith("SPRING"))
    target = Target("error of SPRING over that without momentum", spring / plain, 1.0)
    report("vmc", __doc__.splitlines()[0], rows, [target])


if __name__ == "__main__":
    main()
