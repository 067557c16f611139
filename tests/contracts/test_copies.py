"""Copies of the user's function in the program, and what a second call compiles."""

import functools
import logging

import jax
import jax.numpy as jnp
import pytest

import hesskit
from tests.contracts.registry import CALLING, DEFAULTS, GLOBALIZED, few
from tests.contracts.support import bowl, data, squares, start, stepper, world


@squares
def marked(params, scale=1.0):
    """`lgamma` marks each copy: it is no derivative of anything."""
    more = 0.03 * jnp.sqrt(jax.lax.lgamma(params["b"]["c"] ** 2 + 3))
    return *(jnp.sqrt(scale) * r for r in bowl.residuals(params)), more


def count(jaxpr, name="lgamma"):
    """How often a primitive stands in a jaxpr, inner ones included."""
    total = 0
    for eqn in jaxpr.eqns:
        total += eqn.primitive.name == name
        total += sum(count(inner, name) for inner in jax.tree.leaves(_inner(eqn.params)))
    return total


def _inner(params):
    inner = [item for value in params.values() for item in _items(value)]
    return [getattr(item, "jaxpr", item) for item in inner]


def _items(value):
    items = value if isinstance(value, (tuple, list)) else (value,)
    return [item for item in items if hasattr(item, "eqns") or hasattr(item, "jaxpr")]


def test_the_count_sees_inner_programs():
    def fn(x):
        return jax.lax.while_loop(lambda y: y < 1, jax.jit(jax.lax.lgamma), jax.lax.lgamma(x))

    assert count(jax.make_jaxpr(fn)(1.0).jaxpr) == 2


def bent(case):
    """The second derivative along a geodesic step is a copy more."""
    return int(case.kwargs.get("geodesic", False))


@pytest.mark.parametrize("case", CALLING)
def test_at_most_two_copies_in_update(case):
    opt = case.make()
    update = functools.partial(opt.update, value_fn=case.of(marked))
    program = jax.make_jaxpr(update)(start(), opt.init(start()), start())
    assert 1 <= count(program.jaxpr) <= (2 if opt.judges else 1) + bent(case)


@pytest.mark.parametrize("case", GLOBALIZED)
def test_one_copy_in_a_solve(case):
    """Where the method cannot see a saddle, the check at the end is one more."""
    opt = case.make()
    check = "second_order" if opt.method.leaves_saddles else "first_order"
    solve = lambda p: hesskit.minimize(case.of(marked), p, opt, check=check).params
    program = jax.make_jaxpr(solve)(start())
    assert count(program.jaxpr) == 1 + bent(case)


@pytest.mark.parametrize("case", few(DEFAULTS))
def test_a_second_solve_compiles_nothing(case, caplog):
    opt = case.make()
    first = {"gtol": 1e-3, "ftol": 1e-4, "max_steps": 5}
    second = {"gtol": 1e-2, "ftol": 1e-5, "max_steps": 7}
    other = jax.tree.map(lambda a: a + a, start())
    scales = [jnp.full((), x, jnp.float32) for x in (1.0, 2.0)]
    hesskit.minimize(case.of(marked), start(), opt, args=(scales[0],), **first)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        hesskit.minimize(case.of(marked), other, case.make(), args=(scales[1],), **second)
    said = [record.getMessage() for record in caplog.records]
    assert not [line for line in said if line.startswith(("Compiling", "Finished XLA"))]


@pytest.mark.parametrize("case", few(DEFAULTS))
def test_a_second_update_compiles_nothing(case, caplog):
    opt, step = stepper(case)
    abouts = [data(shift=shift) for shift in (0.0, 0.5)]
    moved = step(start(), opt.init(start()), abouts[0])
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        step(moved.params, moved.state, abouts[1])
    assert not [r for r in caplog.records if r.getMessage().startswith("Compiling")]
    assert world(start(), abouts[1]) > 0
