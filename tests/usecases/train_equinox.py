"""Handwritten digits with equinox: L-BFGS on large mini-batches where adamw was.

`hesskit.newton_cg` fits the same loop: `main(hesskit.newton_cg())`. The loss is a function of the
arrays alone; it puts the model together itself. Run `python tests/usecases/train_equinox.py`.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from sklearn.datasets import load_digits

import hesskit

BATCH = 500  # large: a step that lowers the loss of a batch should lower that of the others
EVALUATIONS = 5  # updates on a batch before the next, so that the search pays


class Net(eqx.Module):
    inner: eqx.nn.Linear
    outer: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __init__(self, key):
        first, second = jax.random.split(key)
        self.inner = eqx.nn.Linear(64, 32, key=first)
        self.outer = eqx.nn.Linear(32, 10, key=second)
        self.dropout = eqx.nn.Dropout(0.1)

    def __call__(self, x, key, inference=False):
        hidden = jax.nn.gelu(self.inner(x))
        return self.outer(self.dropout(hidden, key=key, inference=inference))


def make_loss(static):
    """The loss of the arrays in params; `static` is the rest of the model."""

    def cross_entropy(params, x, y, key):
        model = eqx.combine(params, static)
        logits = jax.vmap(model)(x, jax.random.split(key, len(x)))
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    # In the memory of 125 examples. The decay is part of the loss, and is no mean over examples.
    decay = hesskit.l2(1e-3, mask=["inner/weight", "outer/weight"])
    return hesskit.microbatched(cross_entropy, 4) + decay


def make_step(optimizer, loss):
    @jax.jit
    def step(params, state, x, y, key):
        value, grad = jax.value_and_grad(loss)(params, x, y, key)
        # key= is the loss's: all data goes by name.
        updates, state = optimizer.update(
            grad, state, params, value=value, grad=grad, value_fn=loss, x=x, y=y, key=key
        )
        return optax.apply_updates(params, updates), state, value

    return step


def load_data():
    """1500 digits to train on, 297 to test on: (x, y) of each."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = jnp.asarray(x[order] / 16, jnp.float32), jnp.asarray(y[order], jnp.int32)
    return (x[:1500], y[:1500]), (x[1500:], y[1500:])


def batches(x, y, num_epochs):
    """Each batch several times, with one key: the same function for a few updates."""
    rng, key = np.random.default_rng(0), jax.random.key(1)
    for epoch in range(num_epochs):
        for i, rows in enumerate(np.split(rng.permutation(len(x)), len(x) // BATCH)):
            mine = jax.random.fold_in(jax.random.fold_in(key, epoch), i)
            for _ in range(EVALUATIONS):
                yield x[rows], y[rows], mine


def accuracy(model, x, y):
    logits = jax.vmap(lambda x: model(x, None, inference=True))(x)
    return float((logits.argmax(axis=-1) == y).mean())


def round_trip(optimizer, params, state, folder):
    """Params and state from a checkpoint of both."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(Path(folder) / "digits", (params, state))
        checkpointer.wait_until_finished()
        blank = jax.tree.map(jnp.zeros_like, params)
        return checkpointer.restore(Path(folder) / "digits", (blank, optimizer.init(blank)))


class Numbers(NamedTuple):
    values: list[float]
    accepted: float
    accuracy: float
    same_after_restore: bool


def main(optimizer=None, num_epochs=6):
    optimizer = hesskit.lbfgs() if optimizer is None else optimizer
    train, test = load_data()
    model = Net(jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)  # None where no array is
    loss = make_loss(static)
    step, state = make_step(optimizer, loss), optimizer.init(params)
    values, accepted = [], []
    for i, (x, y, key) in enumerate(batches(*train, num_epochs)):
        params, state, value = step(params, state, x, y, key)
        info = hesskit.last_info(state)
        values.append(float(value))
        accepted.append(bool(info.accepted))
        if i % 10 == 0:
            print(f"{i:3} loss {value:.4f} step {info.step_norm:.3f} values {info.num_values}")
    reached = accuracy(eqx.combine(params, static), *test)

    with tempfile.TemporaryDirectory() as folder:
        restored = round_trip(optimizer, params, state, folder)
    here, there = (params, state), restored
    for x, y, key in batches(*train, 1):
        here = step(*here, x, y, key)[:2]
        there = step(*there, x, y, key)[:2]
    pairs = zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True)
    same = all(np.array_equal(a, b) for a, b in pairs)
    print(f"loss {values[0]:.4f} -> {values[-1]:.4f}, accuracy {reached:.3f}, restored: {same}")
    return Numbers(values, float(np.mean(accepted)), reached, same)


if __name__ == "__main__":
    main()
