"""Many problems in one compiled run per method and precision, so that compiling stays cheap."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import hesskit
from tests.problems import by_name

METHODS = {
    "newton": hesskit.newton,
    "newton cholesky": functools.partial(hesskit.newton, modification="cholesky"),
    "newton plain": functools.partial(hesskit.newton, modification=None),
    "damped_newton": hesskit.damped_newton,
    "saddle_free_newton": hesskit.saddle_free_newton,
    "saddle_free_newton krylov": functools.partial(hesskit.saddle_free_newton, num_krylov=4),
    "cubic_newton": hesskit.cubic_newton,
    "trust_region": hesskit.trust_region,
    "newton_cg": hesskit.newton_cg,
}
NUM_STEPS = 80
MATRIX = np.diag([1.0, 4.0, 20.0, 100.0]) + 0.5


def _pair(name):
    """A published problem in two variables, with a bowl in the two others."""
    fn = by_name(name).fn
    return lambda x: fn(x[:2]) + jnp.sum(x[2:] ** 2)


def _wells(x):
    return jnp.sum(x**4 - 2 * x**2) + 1.0


def _barrier(x):
    return 100 * jnp.sum((x - 2.0) ** 2) - jnp.sum(jnp.log(1 - x**2))


def _quadratic(x):
    y = x - 1.0
    return jnp.sum(y * (jnp.asarray(MATRIX, x.dtype) @ y)) / 2


def _convex(x):
    return jnp.sum(jnp.exp(x) - 2 * x) + jnp.sum(x) ** 2 / 2


FUNCTIONS = {
    "rosenbrock": _pair("rosenbrock"),
    "beale": _pair("beale"),
    "wood": by_name("wood").fn,
    "wells": _wells,
    "barrier": _barrier,
    "quadratic": _quadratic,
    "convex": _convex,
}


def objective(x, which):
    return jax.lax.switch(which, list(FUNCTIONS.values()), x)


class Trace(NamedTuple):
    """Row k is the k-th update: the point before it, and what it did."""

    x: np.ndarray
    value: np.ndarray
    grad: np.ndarray
    updates: np.ndarray
    info: NamedTuple


@functools.cache
def _compiled(method, dtype):
    del dtype  # one program per precision
    optimizer = METHODS[method]()

    def step(carry, _):
        x, state, which = carry
        value, grad = jax.value_and_grad(objective)(x, which)
        updates, state = optimizer.update(
            grad, state, x, value=value, grad=grad, value_fn=objective, which=which
        )
        row = Trace(x, value, grad, updates, state.info)
        return (optax.apply_updates(x, updates), state, which), row

    @jax.jit
    def run(x, which):
        return jax.lax.scan(step, (x, optimizer.init(x), which), length=NUM_STEPS)[1]

    return run


def trace(method, problem, start, dtype):
    """NUM_STEPS updates from `start`."""
    which = jnp.asarray(list(FUNCTIONS).index(problem), jnp.int32)
    rows = _compiled(method, str(dtype))(jnp.asarray(start, dtype), which)
    return jax.tree.map(np.asarray, rows)


def update_once(optimizer, fn, x):
    """One compiled update from a fresh state: the updates, and the Info."""

    @jax.jit
    def update(x):
        updates, state = optimizer.update(jax.grad(fn)(x), optimizer.init(x), x, value_fn=fn)
        return updates, state.info

    return update(x)
