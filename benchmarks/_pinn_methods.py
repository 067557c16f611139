"""The methods of the race: `make(problem, loss) -> Method`, advanced by a number of steps.

The number of steps is data of one compiled program, so that the clock may stop anywhere and
nothing is compiled while it runs. hesskit's accepting methods run through
`hesskit.minimize(state=)`, as users would; `natural_gradient`, which judges nothing, and optax's in
the loop of optax's documentation; optimistix's through the `init` and `step` that it documents.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import optax
import optimistix

import hesskit
from benchmarks._pinn_problems import Problem

RATES = (1e-3, 3e-3, 1e-2)


class Method(NamedTuple):
    """`begin(params, points) -> carry`, `advance(carry, points, num_steps) -> carry`."""

    begin: Callable[[Any, Any], Any]
    advance: Callable[[Any, Any, int], Any]
    stopped: Callable[[Any], bool] = lambda carry: False

    @staticmethod
    def params(carry: Any) -> Any:
        """Params come first in every carry."""
        return carry[0]


Make = Callable[[Problem, Callable], Method]


def _looped(begin: Callable, step: Callable) -> Method:
    """`step(carry, points) -> carry` in one compiled loop."""

    @jax.jit
    def advance(carry, points, num_steps):
        return jax.lax.fori_loop(0, num_steps, lambda _, carry: step(carry, points), carry)

    return Method(begin, advance)


def solver(optimizer: Any) -> Make:
    """By `hesskit.minimize` in chunks."""

    def make(problem: Problem, loss: Callable) -> Method:
        def advance(carry, points, num_steps):
            params, state, _ = carry
            result = hesskit.minimize(
                loss,
                params,
                optimizer,
                args=(points,),
                max_steps=num_steps,
                state=state,
                gtol=0.0,
                check="first_order",
            )
            return result.params, result.state, result.status

        going = (None, hesskit.Status.MAX_STEPS)
        stopped = lambda carry: int(carry[2]) != hesskit.Status.MAX_STEPS
        return Method(lambda params, points: (params, *going), advance, stopped)

    return make


def updates(optimizer: Any) -> Make:
    """By `update`, from value and gradient."""

    def make(problem: Problem, loss: Callable) -> Method:
        def step(carry, points):
            params, state = carry
            value, grad = jax.value_and_grad(loss)(params, points)
            given = {"value": value, "grad": grad, "value_fn": loss, "args": (points,)}
            change, state = optimizer.update(grad, state, params, **given)
            return optax.apply_updates(params, change), state

        return _looped(lambda params, points: (params, optimizer.init(params)), step)

    return make


def optax_lbfgs(problem: Problem, loss: Callable) -> Method:
    """optax.lbfgs, which recycles value and gradient."""
    optimizer, value_and_grad = optax.lbfgs(), optax.value_and_grad_from_state(loss)

    def step(carry, points):
        params, state = carry
        value, grad = value_and_grad(params, points, state=state)
        fn = lambda params: loss(params, points)
        change, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=fn)
        return optax.apply_updates(params, change), state

    return _looped(lambda params, points: (params, optimizer.init(params)), step)


def stepped(make_solver: Callable[[], Any], *, of_vector: bool) -> Make:
    """optimistix, by its documented `init` and `step`."""

    def make(problem: Problem, loss: Callable) -> Method:
        method = make_solver()
        fn = lambda params, points: ((problem.vector if of_vector else loss)(params, points), None)
        static, options = [], {}

        def begin(params, points):
            shape = jax.eval_shape(fn, params, points)[0]
            if of_vector:  # the Jacobian by rows or columns, whichever are fewer
                num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
                options["jac"] = "bwd" if shape.size < num_params else "fwd"
            state = method.init(fn, params, points, options, shape, None, frozenset())
            state, rest = eqx.partition(state, eqx.is_array)
            static[:] = static or [rest]
            return params, state

        def step(carry, points):
            params, state = carry
            state = eqx.combine(state, static[0])
            params, state, _ = method.step(fn, params, points, options, state, frozenset())
            return params, eqx.filter(state, eqx.is_array)

        return _looped(begin, step)

    return make


def natural_gradient(problem: Problem, loss: Callable) -> Method:
    """It compares nothing, so its damping falls as slowly as the problem asks for."""
    first, tenth, least = problem.damping
    damping = optax.exponential_decay(first, tenth, 0.1, end_value=least)
    return updates(hesskit.natural_gradient(1.0, damping=damping))(problem, loss)


METHODS: dict[str, Make] = {
    "levenberg_marquardt": solver(hesskit.levenberg_marquardt()),
    "natural_gradient": natural_gradient,
    "ssbroyden": solver(hesskit.ssbroyden()),
    **{
        f"optax.adam({rate:g})": updates(optax.with_extra_args_support(optax.adam(rate)))
        for rate in RATES
    },
    "optax.lbfgs": optax_lbfgs,
    "optimistix.BFGS": stepped(lambda: optimistix.BFGS(1e-12, 1e-12), of_vector=False),
    "optimistix.LevenbergMarquardt": stepped(
        lambda: optimistix.LevenbergMarquardt(1e-12, 1e-12), of_vector=True
    ),
}
