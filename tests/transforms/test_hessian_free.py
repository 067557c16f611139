"""Hessian-free optimization on a small autoencoder, and its words."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit


def autoencoder():
    """A 6-8-6 tanh net, its loss, and points on a curved surface."""
    sizes, rng = (6, 8, 6), np.random.default_rng(0)
    params = [
        {"w": jnp.asarray(rng.normal(size=(m, n)) / m**0.5, "float32"), "b": jnp.zeros(n)}
        for m, n in itertools.pairwise(sizes)
    ]
    angles = rng.uniform(-2, 2, size=(60, 2))
    x = np.sin(angles @ rng.normal(size=(2, 6)))

    def model(params, x):
        for layer in params[:-1]:
            x = jnp.tanh(x @ layer["w"] + layer["b"][None])
        return x @ params[-1]["w"] + params[-1]["b"][None]

    loss = hesskit.composite(hesskit.losses.squared_error(), model)
    return loss, params, (jnp.asarray(x, "float32"),) * 2


@pytest.mark.slow
@pytest.mark.parametrize("part", [None, 20])
def test_it_never_raises_the_loss_and_learns(part):
    loss, params, args = autoencoder()
    opt = hesskit.hessian_free()

    def body(carry, _):
        params, state = carry
        value, grad = jax.value_and_grad(loss)(params, *args)
        own = None if part is None else tuple(a[:part] for a in args)
        updates, state = opt.update(
            grad,
            state,
            params,
            value=value,
            grad=grad,
            value_fn=loss,
            args=args,
            curvature_args=own,
        )
        return (optax.apply_updates(params, updates), state), value

    start = (params, opt.init(params))
    values = jax.jit(lambda c: jax.lax.scan(body, c, None, length=60)[1])(start)
    assert np.all(np.diff(values) <= 1e-6 * values[0])
    assert values[-1] < 1e-3 * values[0]


@pytest.mark.parametrize(
    ("kwargs", "error", "words"),
    [
        ({"damping": 0.0}, ValueError, "damping must"),
        ({"max_products": 0}, ValueError, "max_products must"),
        ({"warm_start": 1.5}, ValueError, "warm_start must"),
        ({"damping": "a"}, TypeError, "damping must"),
        ({"preconditioner": "kfac"}, ValueError, "preconditioner must be one of 'leafwise'"),
    ],
)
def test_words(kwargs, error, words):
    with pytest.raises(error, match=words):
        hesskit.hessian_free(**kwargs)
