"""Handwritten digits with flax.nnx: K-FAC on mini-batches where adamw was.

The network has Dropout and BatchNorm, whose state changes with every call. Second-order methods
call the loss themselves, so it must be a pure function: split the model, make the parts pure, and
merge a copy inside. Run `python tests/usecases/train_flax_nnx.py`.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from sklearn.datasets import load_digits

import hesskit

BATCH = 250


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.inner = nnx.Linear(64, 32, rngs=rngs)
        self.norm = nnx.BatchNorm(32, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.outer = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        return self.outer(self.dropout(nnx.relu(self.norm(self.inner(x)))))


def make_loss(graph, rest):
    """The loss as a pure function of params; aux is what Dropout and BatchNorm changed."""

    def forward(params, x):
        model = nnx.merge(graph, params, rest, copy=True)  # a copy: each call starts from `rest`
        return model(x), nnx.as_pure(nnx.state(model, nnx.Not(nnx.Param)))

    loss = hesskit.composite(hesskit.losses.softmax_cross_entropy(), forward, has_aux=True)
    # Weight decay is part of the loss, so that value, gradient and curvature know of it.
    return loss + hesskit.l2(1e-3, mask="*/kernel")


# A batch cannot judge a step, so a learning rate does: with one nothing is rejected.
TX = optax.chain(
    optax.clip_by_global_norm(10.0),
    hesskit.kfac(
        optax.cosine_decay_schedule(0.3, decay_steps=60), damping=0.1, momentum=0.9, key=1
    ),
)


@nnx.jit
def step(model, optimizer, x, y):
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    # as_pure: what value_fn sees no longer changes when the model is called.
    params, rest = nnx.as_pure(params), nnx.as_pure(rest)
    loss = make_loss(graph, rest)
    (value, new_rest), grad = jax.value_and_grad(loss, has_aux=True)(params, x=x, targets=y)
    updates, state = optimizer.tx.update(
        grad,
        nnx.as_pure(optimizer.opt_state),
        params,
        value=value,
        grad=grad,
        value_fn=loss,
        x=x,
        targets=y,
    )
    nnx.update(optimizer.opt_state, nnx.state(state))
    nnx.update(model, optax.apply_updates(params, updates), new_rest)
    return value, hesskit.last_info(state)


def load_data():
    """1500 digits to train on, 297 to test on: (x, y) of each."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = jnp.asarray(x[order] / 16, jnp.float32), jnp.asarray(y[order], jnp.int32)
    return (x[:1500], y[:1500]), (x[1500:], y[1500:])


def batches(x, y, num_epochs):
    rng = np.random.default_rng(0)
    for _ in range(num_epochs):
        for rows in np.split(rng.permutation(len(x)), len(x) // BATCH):
            yield x[rows], y[rows]


def accuracy(model, x, y):
    graph, state = nnx.split(model)
    model = nnx.merge(graph, state, copy=True)
    model.eval()
    return float((model(x).argmax(axis=-1) == y).mean())


def round_trip(model, optimizer, folder):
    """Model and optimizer from a checkpoint of both."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(Path(folder) / "digits", nnx.as_pure(nnx.state((model, optimizer))))
        checkpointer.wait_until_finished()
        model = Net(nnx.Rngs(1))
        optimizer = nnx.Optimizer(model, TX, wrt=nnx.Param)
        target = nnx.as_pure(nnx.state((model, optimizer)))
        nnx.update((model, optimizer), checkpointer.restore(Path(folder) / "digits", target))
    return model, optimizer


def bits(model, optimizer):
    """Every array of both, typed keys as their data."""
    leaves = jax.tree.leaves(nnx.as_pure(nnx.state((model, optimizer))))
    keys = jax.dtypes.prng_key
    return [
        np.asarray(jax.random.key_data(a) if jnp.issubdtype(a.dtype, keys) else a) for a in leaves
    ]


class Numbers(NamedTuple):
    values: list[float]
    blocks: dict[str, str]
    accuracy: float
    same_after_restore: bool


def main(num_epochs=10):
    train, test = load_data()
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, TX, wrt=nnx.Param)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = nnx.as_pure(params), nnx.as_pure(rest)
    table = hesskit.kronecker_table(make_loss(graph, rest), params, args=train)
    print(table)
    values = []
    for i, (x, y) in enumerate(batches(*train, num_epochs)):
        value, info = step(model, optimizer, x, y)
        values.append(float(value))
        if i % 10 == 0:
            print(f"{i:3} loss {value:.4f} step {info.step_norm:.3f} damping {info.damping:.3f}")
    reached = accuracy(model, *test)

    with tempfile.TemporaryDirectory() as folder:
        restored = round_trip(model, optimizer, folder)
    for pair in ((model, optimizer), restored):
        for x, y in batches(*train, 1):
            step(*pair, x, y)
    same = all(map(np.array_equal, bits(model, optimizer), bits(*restored)))
    print(f"loss {values[0]:.4f} -> {values[-1]:.4f}, accuracy {reached:.3f}, restored: {same}")
    return Numbers(values, {row.path: row.kind for row in table.rows}, reached, same)


if __name__ == "__main__":
    main()
