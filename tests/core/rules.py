"""The simplest rule there is, for tests of the machine: steepest descent in a trust region.

The model is f + g.s + L|s|^2/2 with the curvature L of f along g, from one product.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import acceptance, tree
from hesskit.core.rule import Built, Rule, Step


class Info(NamedTuple):
    status: jax.Array
    accepted: jax.Array
    step_norm: jax.Array
    ratio: jax.Array
    grad_norm: jax.Array
    num_values: jax.Array
    num_grads: jax.Array
    num_products: jax.Array
    value_mismatch: jax.Array
    radius: jax.Array


def empty(params):
    zero = jnp.zeros((), tree.result_dtype(params))
    return zero, tree.zeros_like(params)


def build(evaluation, rhs, model, context):
    curved = evaluation.product(rhs)
    size = tree.vdot(rhs, rhs)
    curvature = tree.vdot(rhs, curved) / jnp.where(size > 0, size, 1)
    return Built((curvature, curved), curvature < 0, jnp.ones((), jnp.int32))


def solve(model, grad, size, context):
    curvature, curved = model
    norm = tree.norm(grad)
    free = jnp.where(curvature > 0, 1 / jnp.where(curvature > 0, curvature, 1), jnp.inf)
    factor = jnp.minimum(free, size / jnp.where(norm > 0, norm, 1))
    factor = jnp.where(norm > 0, factor, 0)
    return Step(
        step=tree.scale(-factor, grad),
        product=tree.scale(-factor, curved),
        norm=factor * norm,
        on_boundary=factor < free,
    )


STEEPEST = Rule(
    info=Info,
    empty=empty,
    build=build,
    solve=solve,
    adapt=acceptance.next_radius,
    first_size=lambda model, grad, context: jnp.ones((), tree.result_dtype(grad)),
    describe=lambda model, size: {"radius": size},
)
