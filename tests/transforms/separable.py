"""A function of which one sample of Hutchinson is exact, and runs of transforms on any function."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import hesskit


def waves(x):
    """Separable, so that one sample of Hutchinson is exact, with curvature of both signs."""
    return jnp.sum(jnp.sin(2 * x) + 0.1 * x**4)


def slope(x):
    return 2 * np.cos(2 * x) + 0.4 * x**3


def curvature(x):
    return -4 * np.sin(2 * x) + 1.2 * x**2


def run(opt, fn, x, num, *args):
    """The points and Infos of `num` steps."""

    @jax.jit
    def step(x, state):
        grad = jax.grad(fn)(x, *args)
        updates, state = opt.update(grad, state, x, value_fn=fn, args=args)
        return optax.apply_updates(x, updates), state

    state, points, infos = opt.init(x), [], []
    for _ in range(num):
        x, state = step(x, state)
        points.append(x)
        infos.append(hesskit.last_info(state))
    return points, infos


START = np.array([-2.0, -0.7, 0.1, 0.9, 1.6])
