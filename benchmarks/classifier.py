"""Does curvature train classifiers in mini-batches faster than AdamW?

    python -m benchmarks.classifier [--epochs 30] [--seeds 3]

Softmax regression and a network 64-64-10 (tanh) on scikit-learn's digits, 1,437 images to train and
360 to test, in mini-batches of 64. Every method runs at each rate of one grid, from the same starts
over the same batches; the rate with the lowest training loss at the end is shown (the mean over
seeds), and where it stands in the grid: at an edge, a better one may lie outside. All else is as
published; but Sophia's gamma is to be tuned to the problem, so it stands there twice, with the one
published for language models and with the best of 0.05, 0.5, 5 and 50 for both of these. The
natural gradient is that of a sampled Fisher matrix (64 rows), alone and with SPRING's momentum; its
damping is the best of 0.01, 0.1 and 1 for both models. Seconds are those of an epoch alone,
interleaved, and "loss in AdamW's time" is that of the epoch reached when AdamW has done all of its
own.

Targets: the training loss at the end, and in AdamW's time, at most AdamW's.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import hesskit
from benchmarks._timing import Target, interleaved, report

QUESTION = "Does curvature train classifiers in mini-batches faster than AdamW?"
BATCH = 64
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
DECAY = 1e-4  # optax.adamw's, for all
DAMPING = 0.1


def natural(rate: Any, momentum: float) -> optax.GradientTransformation:
    """The natural gradient of a sampled Fisher matrix, with AdamW's decay."""
    return optax.chain(
        hesskit.scale_by_natural_gradient(damping=DAMPING, fisher="sampled", momentum=momentum),
        optax.add_decayed_weights(DECAY),
        optax.scale_by_learning_rate(rate),
    )


METHODS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "adamw": lambda rate: optax.adamw(rate, weight_decay=DECAY),
    "sophia, hutchinson": lambda rate: hesskit.sophia(rate, weight_decay=DECAY),
    "sophia, gnb": lambda rate: hesskit.sophia(rate, weight_decay=DECAY, estimator="gnb"),
    "sophia, gnb, gamma=5": lambda rate: hesskit.sophia(
        rate, weight_decay=DECAY, estimator="gnb", gamma=5.0
    ),
    "adahessian": lambda rate: hesskit.adahessian(rate, weight_decay=DECAY),
    "adahessian, every 10": lambda rate: hesskit.adahessian(
        rate, weight_decay=DECAY, update_interval=10
    ),
    "natural_gradient": lambda rate: natural(rate, momentum=0.0),
    "natural_gradient, SPRING": lambda rate: natural(rate, momentum=0.9),
}
"""Each `rate -> transform`; the first is the one to beat."""


class Split(NamedTuple):
    """Images with entries in [0, 1], and their digits."""

    x: jax.Array
    t: jax.Array


class Curves(NamedTuple):
    """By epoch, after it."""

    loss: jax.Array  # over all training images
    accuracy: jax.Array  # on the test images


def digits() -> tuple[Split, Split]:
    """Training and test images."""
    bunch: Any = load_digits()
    x, t = jnp.asarray(bunch.data / 16, jnp.float32), jnp.asarray(bunch.target, jnp.int32)
    order = np.random.default_rng(0).permutation(len(t))
    train, test = order[:1437], order[1437:]
    return Split(x[train], t[train]), Split(x[test], t[test])


def softmax_regression(params: Any, x: jax.Array) -> jax.Array:
    return x @ params["w"] + params["b"]


def network(params: Any, x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(x @ params["first"]["w"] + params["first"]["b"])
    return softmax_regression(params["last"], hidden)


def layer(key: jax.Array, m: int, n: int) -> dict[str, jax.Array]:
    return {"w": jax.random.normal(key, (m, n)) / m**0.5, "b": jnp.zeros(n)}


def network_start(key: jax.Array) -> Any:
    first, last = jax.random.split(key)
    return {"first": layer(first, 64, 64), "last": layer(last, 64, 10)}


MODELS = {
    "softmax regression": (softmax_regression, lambda key: layer(key, 64, 10)),
    "64-64-10": (network, network_start),
}


def trainer(model: Any, make: Callable[[Any], Any], train: Split) -> tuple[Any, Any]:
    """`begin(rate, params) -> state` and one epoch, `(rate, params, state, key) -> the same`."""
    loss = hesskit.composite(hesskit.losses.softmax_cross_entropy(), model)
    num = len(train.t) // BATCH

    def epoch(rate: Any, params: Any, state: Any, key: jax.Array) -> tuple[Any, Any]:
        opt = optax.with_extra_args_support(make(rate))

        def step(carry: tuple[Any, Any], rows: jax.Array) -> tuple[tuple[Any, Any], None]:
            params, state = carry
            data = (train.x[rows], train.t[rows])
            grad = jax.grad(loss)(params, *data)
            updates, state = opt.update(grad, state, params, value_fn=loss, args=data)
            return (optax.apply_updates(params, updates), state), None

        order = jax.random.permutation(key, len(train.t))[: num * BATCH].reshape(num, BATCH)
        return jax.lax.scan(step, (params, state), order)[0]

    return lambda rate, params: make(rate).init(params), epoch


def curves(name: str, method: str, train: Split, test: Split, epochs: int, seeds: int) -> Curves:
    """All rates (first axis) and seeds (second), as lanes of one program."""
    model, start = MODELS[name]
    begin, epoch = trainer(model, METHODS[method], train)

    def run(rate: jax.Array, seed: jax.Array) -> Curves:
        first, shuffle = jax.random.split(jax.random.key(seed))
        params = start(first)

        def body(carry: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], Curves]:
            params, state = epoch(rate, *carry, key)
            loss = optax.softmax_cross_entropy_with_integer_labels(model(params, train.x), train.t)
            right = jnp.argmax(model(params, test.x), axis=-1) == test.t
            return (params, state), Curves(jnp.mean(loss), jnp.mean(right))

        return jax.lax.scan(body, (params, begin(rate, params)), jax.random.split(shuffle, epochs))[
            1
        ]

    by_seed = jax.vmap(run, (None, 0))
    both = jax.jit(jax.vmap(by_seed, (0, None)))
    return both(jnp.asarray(RATES, jnp.float32), jnp.arange(seeds))


def epoch_seconds(name: str, train: Split) -> dict[str, list[float]]:
    """Seconds of one epoch of each method, interleaved."""
    model, start = MODELS[name]
    params, key = start(jax.random.key(0)), jax.random.key(1)

    def call(make: Callable[[Any], Any]) -> Callable[[], Any]:
        begin, epoch = trainer(model, make, train)
        state, step = begin(1e-2, params), jax.jit(epoch)
        return lambda: step(1e-2, params, state, key)

    return interleaved({method: call(make) for method, make in METHODS.items()})


def measure(name: str, epochs: int, seeds: int) -> list[dict[str, Any]]:
    """One row a method."""
    train, test = digits()
    seconds = {m: statistics.median(s) for m, s in epoch_seconds(name, train).items()}
    budget = epochs * seconds[next(iter(METHODS))]
    rows = []
    for method in METHODS:
        found = curves(name, method, train, test, epochs, seeds)
        loss, accuracy = (np.asarray(jnp.mean(a, axis=1)) for a in found)
        last = np.where(np.isfinite(loss[:, -1]), loss[:, -1], np.inf)
        best = int(np.argmin(last))
        within = min(epochs, max(1, int(budget / seconds[method])))
        shown = sorted({1, 3, 10, epochs} & set(range(1, epochs + 1)))
        rows.append(
            {
                "model": name,
                "method": method,
                "rate": RATES[best],
                "at an edge": best in (0, len(RATES) - 1),
                **{f"loss, {k} epochs": float(loss[best, k - 1]) for k in shown},
                "loss in AdamW's time": float(loss[best, within - 1]),
                **{f"accuracy, {k}": float(accuracy[best, k - 1]) for k in shown},
                "best accuracy": float(accuracy[:, -1].max()),
                "ms an epoch": 1e3 * seconds[method],
            }
        )
    return rows


def targets(rows: list[dict[str, Any]], epochs: int) -> list[Target]:
    """Each method's losses over AdamW's."""
    found = []
    for name in MODELS:
        first, *others = (row for row in rows if row["model"] == name)
        for row in others:
            for key in (f"loss, {epochs} epochs", "loss in AdamW's time"):
                said = f"{name}, {row['method']}: {key} over AdamW's"
                found.append(Target(said, row[key] / first[key], 1.0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    rows = [row for name in MODELS for row in measure(name, given.epochs, given.seeds)]
    report("classifier", QUESTION, rows, targets(rows, given.epochs))


if __name__ == "__main__":
    main()
