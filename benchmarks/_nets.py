"""Objectives of the speed benchmarks, each a plain JAX function of a pytree of parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Net(NamedTuple):
    """A loss of params alone, and a point."""

    loss: Callable[[Any], jax.Array]
    params: Any


def _layers(key: jax.Array, sizes: tuple[int, ...]) -> list[dict[str, jax.Array]]:
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        {"w": jax.random.normal(k, (m, n)) / m**0.5, "b": jnp.zeros(n)}
        for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def _forward(layers: list[dict[str, jax.Array]], x: jax.Array) -> jax.Array:
    for layer in layers[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ layers[-1]["w"] + layers[-1]["b"]


def mlp(sizes: tuple[int, ...] = (64, 256, 256, 10), batch: int = 1024) -> Net:
    """A fully connected classifier."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (batch, sizes[0]))
    labels = jax.random.randint(keys[1], (batch,), 0, sizes[-1])

    def loss(params: Any) -> jax.Array:
        logits = jax.nn.log_softmax(_forward(params, x))
        picked = jnp.take_along_axis(logits, labels[:, None], axis=1)
        return -jnp.mean(picked) + 1e-4 * sum(jnp.sum(a**2) for a in jax.tree.leaves(params))

    return Net(loss, _layers(keys[2], sizes))


def transformer(width: int = 64, depth: int = 2, length: int = 32, batch: int = 16) -> Net:
    """A small causal language model."""
    vocabulary, heads = 64, 4
    keys = jax.random.split(jax.random.key(1), depth + 3)
    tokens = jax.random.randint(keys[0], (batch, length + 1), 0, vocabulary)

    def block(key: jax.Array) -> dict[str, jax.Array]:
        k = jax.random.split(key, 4)
        return {
            "qkv": jax.random.normal(k[0], (width, 3 * width)) / width**0.5,
            "out": jax.random.normal(k[1], (width, width)) / width**0.5,
            "up": jax.random.normal(k[2], (width, 4 * width)) / width**0.5,
            "down": jax.random.normal(k[3], (4 * width, width)) / (4 * width) ** 0.5,
        }

    params = {
        "embed": 0.1 * jax.random.normal(keys[1], (vocabulary, width)),
        "place": 0.1 * jax.random.normal(keys[2], (length, width)),
        "blocks": [block(k) for k in keys[3:]],
    }
    mask = jnp.where(jnp.tril(jnp.ones((length, length), bool)), 0.0, -1e9)

    def normalized(x: jax.Array) -> jax.Array:
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5)

    def attend(block: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        parts = (normalized(x) @ block["qkv"]).reshape(batch, length, 3, heads, width // heads)
        q, k, v = (parts[:, :, i] for i in range(3))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / (width // heads) ** 0.5
        weights = jax.nn.softmax(scores + mask, axis=-1)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, length, width)
        return x + mixed @ block["out"]

    def loss(params: Any) -> jax.Array:
        x = params["embed"][tokens[:, :-1]] + params["place"]
        for block in params["blocks"]:
            x = attend(block, x)
            x = x + jax.nn.gelu(normalized(x) @ block["up"]) @ block["down"]
        logits = jax.nn.log_softmax(normalized(x) @ params["embed"].T)
        return -jnp.mean(jnp.take_along_axis(logits, tokens[:, 1:, None], axis=-1))

    return Net(loss, params)


def pinn(sizes: tuple[int, ...] = (2, 64, 64, 1), points: int = 512) -> Net:
    """The residual of a Poisson equation on the unit square, by Taylor mode in the inputs."""
    keys = jax.random.split(jax.random.key(2), 2)
    x = jax.random.uniform(keys[0], (points, 2))
    force = 2 * jnp.pi**2 * jnp.prod(jnp.sin(jnp.pi * x), axis=1)

    def loss(params: Any) -> jax.Array:
        def u(z: jax.Array) -> jax.Array:
            return _forward(params, z)[0] * jnp.prod(z * (1 - z))

        def laplacian(z: jax.Array) -> jax.Array:
            def second(e: jax.Array) -> jax.Array:
                return jax.jvp(lambda y: jax.jvp(u, (y,), (e,))[1], (z,), (e,))[1]

            return sum(second(e) for e in jnp.eye(2))

        return jnp.mean((jax.vmap(laplacian)(x) + force) ** 2)

    return Net(loss, _layers(keys[1], sizes))


def conv(channels: int = 8, batch: int = 32) -> Net:
    """A small convolutional classifier of 8 x 8 pictures."""
    keys = jax.random.split(jax.random.key(3), 5)
    x = jax.random.normal(keys[0], (batch, 8, 8, 1))
    labels = jax.random.randint(keys[1], (batch,), 0, 10)
    params = {
        "first": jax.random.normal(keys[2], (3, 3, 1, channels)) / 3,
        "second": jax.random.normal(keys[3], (3, 3, channels, channels)) / (9 * channels) ** 0.5,
        "w": jax.random.normal(keys[4], (4 * channels, 10)) / (4 * channels) ** 0.5,
        "b": jnp.zeros(10),
    }

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def loss(params: Any) -> jax.Array:
        h = jnp.tanh(convolve(x, params["first"]))
        h = jnp.tanh(convolve(h, params["second"])).reshape(batch, -1)
        logits = jax.nn.log_softmax(h @ params["w"] + params["b"])
        return -jnp.mean(jnp.take_along_axis(logits, labels[:, None], axis=1))

    return Net(loss, params)


def rosenbrock(x: jax.Array) -> jax.Array:
    """The chained Rosenbrock function."""
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def size(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
