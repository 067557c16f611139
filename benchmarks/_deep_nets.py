"""The models and data of `deep_nets`: a convolutional classifier and a transformer."""

import pydoc_data.topics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import hesskit
from benchmarks.classifier import digits

WIDTH, HEADS, DEPTH, LENGTH = 32, 4, 2, 32
CHANNELS = (8, 16)


class Problem(NamedTuple):
    """What is trained.

    Attributes:
      start: `key -> params`.
      model: `(params, x) -> logits`.
      batch: `(key, size) -> (x, t)`, drawn from the training part.
      size: of a mini-batch.
      held_out: (x, t), for the validation loss.
      tries: starts from which a choice of rate and damping is judged.
    """

    start: Callable[[jax.Array], Any]
    model: Callable[[Any, jax.Array], jax.Array]
    batch: Callable[[jax.Array, int], tuple[jax.Array, jax.Array]]
    size: int
    held_out: tuple[jax.Array, jax.Array]
    tries: int

    @property
    def loss(self) -> Any:
        """The mean cross-entropy."""
        return hesskit.composite(hesskit.losses.softmax_cross_entropy(), self.model)


def _matrix(key: jax.Array, *shape: int) -> jax.Array:
    """Normal entries of variance 2 over the number of inputs."""
    return jax.random.normal(key, shape) * (2 / np.prod(shape[:-1])) ** 0.5


def convolutional() -> Problem:
    """Two convolutions and a dense layer on scikit-learn's digits, 1,437 to train, 360 held out."""
    train, test = digits()
    first, second = CHANNELS

    def start(key: jax.Array) -> Any:
        keys = jax.random.split(key, 3)
        return {
            "first": {"w": _matrix(keys[0], 3, 3, 1, first), "b": jnp.zeros(first)},
            "second": {"w": _matrix(keys[1], 3, 3, first, second), "b": jnp.zeros(second)},
            "last": {"w": _matrix(keys[2], 16 * second, 10), "b": jnp.zeros(10)},
        }

    def convolved(layer: Any, x: jax.Array, stride: int) -> jax.Array:
        made = jax.lax.conv_general_dilated(
            x, layer["w"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.nn.relu(made + layer["b"])

    def model(params: Any, x: jax.Array) -> jax.Array:
        x = convolved(params["first"], x.reshape(-1, 8, 8, 1), 1)
        x = convolved(params["second"], x, 2).reshape(x.shape[0], -1)
        return x @ params["last"]["w"] + params["last"]["b"]

    def drawn(key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
        rows = jax.random.randint(key, (batch,), 0, len(train.t))
        return train.x[rows], train.t[rows]

    return Problem(start, model, drawn, 64, (test.x, test.t), tries=4)


def text() -> tuple[jax.Array, int]:
    """The topics of Python's own help, as numbers of its characters, and how many there are."""
    topics: dict[str, str] = pydoc_data.topics.topics
    joined = "\n".join(topics[name] for name in sorted(topics))
    symbols, numbers = np.unique(
        np.frombuffer(joined.encode("ascii", "replace"), np.uint8), return_inverse=True
    )
    return jnp.asarray(numbers, jnp.int32), len(symbols)


def _normalized(layer: Any, x: jax.Array) -> jax.Array:
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5)
    return x * layer["scale"] + layer["shift"]


def _attended(layer: Any, x: jax.Array) -> jax.Array:
    batch, length, width = x.shape
    parts = (x @ layer["qkv"]).reshape(batch, length, 3, HEADS, width // HEADS)
    q, k, v = (parts[:, :, i] for i in range(3))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / (width // HEADS) ** 0.5
    past = jnp.tril(jnp.ones((length, length), bool))
    weights = jax.nn.softmax(jnp.where(past, scores, -1e9), axis=-1)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, length, width)
    return mixed @ layer["out"]


def _transform(params: Any, tokens: jax.Array) -> jax.Array:
    """Logits of the next character at each place."""
    x = params["embed"][tokens] + params["place"]
    for block in params["blocks"]:
        x = x + _attended(block, _normalized(block["before"], x))
        hidden = _normalized(block["between"], x) @ block["up"] + block["up_b"]
        x = x + (jax.nn.gelu(hidden) @ block["down"] + block["down_b"])
    return _normalized(params["end"], x) @ params["last"]


def transformer() -> Problem:
    """Two blocks of attention on the text of Python's help, the last tenth held out."""
    numbers, num = text()
    cut = len(numbers) * 9 // 10
    part = numbers[cut : cut + 64 * (LENGTH + 1)].reshape(64, LENGTH + 1)

    def norm() -> Any:
        return {"scale": jnp.ones(WIDTH), "shift": jnp.zeros(WIDTH)}

    def block(key: jax.Array) -> Any:
        k, less = jax.random.split(key, 4), (2 * DEPTH) ** -0.5
        return {
            "before": norm(),
            "qkv": _matrix(k[0], WIDTH, 3 * WIDTH) * 0.5**0.5,
            "out": _matrix(k[1], WIDTH, WIDTH) * less,
            "between": norm(),
            "up": _matrix(k[2], WIDTH, 4 * WIDTH),
            "up_b": jnp.zeros(4 * WIDTH),
            "down": _matrix(k[3], 4 * WIDTH, WIDTH) * less,
            "down_b": jnp.zeros(WIDTH),
        }

    def start(key: jax.Array) -> Any:
        keys = jax.random.split(key, DEPTH + 3)
        return {
            "embed": 0.5 * jax.random.normal(keys[0], (num, WIDTH)),
            "place": 0.1 * jax.random.normal(keys[1], (LENGTH, WIDTH)),
            "blocks": [block(k) for k in keys[3:]],
            "end": norm(),
            "last": 0.1 * _matrix(keys[2], WIDTH, num),
        }

    def drawn(key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
        first = jax.random.randint(key, (batch, 1), 0, cut - LENGTH - 1)
        taken = numbers[first + jnp.arange(LENGTH + 1)]
        return taken[:, :-1], taken[:, 1:]

    return Problem(start, _transform, drawn, 32, (part[:, :-1], part[:, 1:]), tries=1)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "convolutional classifier": convolutional,
    "transformer": transformer,
}
