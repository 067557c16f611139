r"""Derivatives of an answer with respect to its data, by the implicit function theorem.

At a minimum x of f(x; t) over the entries that no bound holds, the gradient g(x; t) is zero and
stays so as the data t move:

    H dx  =  -dg,     dg  =  the derivative of g along dt at fixed x        (1)
    df    =  the derivative of f along dt at fixed x (the envelope theorem)  (2)

with H the Hessian of f, whole: residuals that do not vanish count. The loop that found x is never
differentiated, and nothing here runs unless a derivative is asked for. x, f and aux carry
tangents, the start none; a held leaf is data, and an entry at a bound moves with the bound.

(1) is one symmetric linear solve (linalg/symmetric.py), so forward and reverse mode and second
derivatives follow. Where the run did not end at a stationary point, and where H is singular, the
tangent is NaN; where it is zero, because nothing that moves matters, it is zero all the same.

What the user's function closes over counts as data: a trace of the solve tells whether there is
something that a derivative may flow through.

Source: Blondel et al. (2022), "Efficient and modular implicit differentiation"; Griewank & Walther
(2008), chapter 15; (2): Danskin (1967), The Theory of Max-Min.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero, zero_from_primal

from hesskit.core import objective, select, tree
from hesskit.core.bounds import Bounds, at_bound
from hesskit.core.closure import Hoisted, is_eager
from hesskit.core.derivatives import along, linearized
from hesskit.core.types import Array, Params, Product
from hesskit.linalg import symmetric
from hesskit.solvers.loop import Limits, Static
from hesskit.solvers.result import Result
from hesskit.solvers.solve import real_box, solve

NAN = float("nan")
AnyResult = TypeVar("AnyResult", bound=Result)


class Given(NamedTuple):
    """The t of (1): whatever the answer depends on."""

    args: Any
    data: dict[str, Any]
    held: Params  # the leaves that are fixed, None at the others
    box: Bounds | None  # of the real free parameters
    closed: tuple[Any, ...] = ()  # what the function closes over


class Found(NamedTuple):
    """What carries tangents; `params` are the free leaves, None at the others."""

    params: Params
    value: Array
    aux: Any


@dataclasses.dataclass(frozen=True)
class _Objective:
    """The function f(x; t), with aux; equal for equal functions, so that programs are shared."""

    value_fn: Callable[..., Any]
    has_aux: bool
    caller: str

    def __call__(self, free: Params, given: Given) -> tuple[Array, Any]:
        bound = objective.bind(
            self.value_fn,
            args=given.args,
            data=given.data,
            has_aux=self.has_aux,
            caller=self.caller,
        )
        return bound(select.merge(free, given.held))


def _of_closed(program: Hoisted, free: Params, given: Given) -> tuple[Array, Any]:
    return program(given.closed, free, given._replace(closed=()))


def solved(
    static: Static,
    params: Params,
    args: Any,
    data: dict[str, Any],
    limits: Limits,
    state: Any,
    bounds: Bounds | None,
) -> Result:
    """The answer of `solve`, differentiable: the same program, and the same numbers to the bit.

    Args:
      static: what the program depends on.
      params: the start.
      args: data of the objective: a tuple or a dict.
      data: more data by name.
      limits: when to stop.
      state: that of a run to continue, or None.
      bounds: the box, like params, or None.

    Returns:
      A `Result` whose `params`, `value` and `aux` carry tangents.
    """
    operands = (params, args, data, limits, state, bounds)
    result, closes = without_tangents(functools.partial(solve, static), *operands)
    if closes is None:
        return result
    return attached(static, result, params, args, data, bounds, closes=closes)


def without_tangents(run: Callable[..., Any], *operands: Any) -> tuple[Any, bool | None]:
    """`run(*operands)`, of which no derivative is taken.

    Args:
      run: a compiled solve.
      *operands: what it is called on.

    Returns:
      The answer, and whether `run` closes over tracers: None where there is no derivative, vmap or
      jit around this call.
    """
    if is_eager():
        return run(*operands), None
    hoisted = Hoisted(run, *operands)  # the call below traces no more
    still, consts = jax.lax.stop_gradient((operands, hoisted.consts))
    return hoisted(consts, *still) if hoisted.has_tracers else run(*still), hoisted.has_tracers


def attached(
    static: Static,
    result: AnyResult,
    params: Params,
    args: Any,
    data: dict[str, Any],
    bounds: Bounds | None,
    *,
    closes: bool = False,
) -> AnyResult:
    """The result of one solve, with tangents by (1) and (2) where a derivative is asked for.

    Args:
      static: what the program depended on.
      result: the answer, found from operands without tangents.
      params: the start, for the leaves that are held.
      args: data of the objective.
      data: more data by name.
      bounds: the box, like params, or None.
      closes: whether the objective closes over tracers.

    Returns:
      The same numbers.
    """
    free, held = select.split(params, static.fixed)
    answer, _ = select.split(result.params, static.fixed)
    given = Given(args, data, held, real_box(bounds, static.fixed, free, flat=False))
    fn = _Objective(static.value_fn, static.has_aux, static.caller)
    if closes:
        program = Hoisted(fn, answer, given)
        given, fn = given._replace(closed=program.consts), functools.partial(_of_closed, program)
    found = Found(answer, result.value, result.aux)
    found = _answer(fn, found, given, result.stationary)
    whole = select.merge(found.params, held)
    return dataclasses.replace(result, params=whole, value=found.value, aux=found.aux)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _answer(fn: Callable[..., Any], found: Found, given: Given, stationary: Array) -> Found:
    """What was found, as a function of what was given."""
    del fn, given, stationary
    return found


@functools.partial(_answer.defjvp, symbolic_zeros=True)
def _answer_jvp(fn: Callable[..., Any], primals: Any, tangents: Any) -> tuple[Found, Found]:
    found, given, stationary = primals
    found = _answer(fn, found, given, stationary)  # second derivatives see what it depends on
    moves = jax.tree.leaves(tangents[1])
    moved = tuple(not isinstance(move, SymbolicZero) for move in moves)
    moving = [move for move, flag in zip(moves, moved, strict=True) if flag]
    return found, _tangent(fn, moved, found, given, moving, stationary)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _tangent(
    fn: Callable[..., Any],
    moved: tuple[bool, ...],
    found: Found,
    given: Given,
    moving: list[Array],
    stationary: Array,
) -> Found:
    """The tangent of what was found; the leaves of `given` that are `moved` move by `moving`."""
    leaves, structure = jax.tree.flatten(given)
    start = [leaf for leaf, flag in zip(leaves, moved, strict=True) if flag]
    point, box = objective.split(found.params), given.box

    def known(chosen: list[Array]) -> Given:
        new = iter(chosen)
        full = [next(new) if flag else leaf for leaf, flag in zip(leaves, moved, strict=True)]
        return jax.tree.unflatten(structure, full)

    def at(point: Params, chosen: list[Array]) -> tuple[Array, Any]:
        return fn(objective.join(point, found.params), known(chosen))

    def slope(chosen: list[Array]) -> tuple[Array, Params]:
        return jax.value_and_grad(lambda p: at(p, chosen)[0])(point)

    d_value, d_grad = along(slope, (start,), (moving,))
    product = linearized(lambda p: at(p, start)[0], point).product
    assert product is not None
    if box is None:
        step = _solution(product, tree.negative(d_grad), stationary)
    else:
        pin = jax.jvp(lambda c: _pinned(point, known(c).box), (start,), (moving,))[1]
        step = _on_face(product, d_grad, pin, at_bound(point, box), stationary)
        d_value += tree.vdot(slope(start)[1], pin).astype(d_value.dtype)
    d_aux = _pushed(lambda p, c: at(p, c)[1], (point, start), (step, moving), found.aux)
    d_value = jax.lax.custom_linear_solve(  # of the identity: a way to be NaN in both modes
        lambda v: v, d_value, lambda _, v: _honest(v, v == 0, stationary), symmetric=True
    )
    return Found(objective.join(step, found.params), d_value.astype(found.value.dtype), d_aux)


def _pushed(fn: Callable[..., Any], at: Any, moves: Any, like: Any) -> Any:
    """The derivative of `fn(*at)`, a tree like `like`, along `moves`; zero of what is no float."""
    leaves, structure = jax.tree.flatten(like)
    smooth = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
    none = [zero_from_primal(leaf) for leaf in leaves]
    if not any(smooth):
        return jax.tree.unflatten(structure, none)
    new = iter(along(lambda *x: _floats(fn(*x)), at, moves))
    full = [next(new) if flag else zero for zero, flag in zip(none, smooth, strict=True)]
    return jax.tree.unflatten(structure, full)


def _floats(values: Any) -> list[Array]:
    return [leaf for leaf in jax.tree.leaves(values) if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def _pinned(point: Params, box: Bounds | None) -> Params:
    """The point, where it is at a bound as a function of the bound."""
    assert box is not None

    def pin(x: Array, low: Array, high: Array) -> Array:
        return jnp.where(x <= low, low, jnp.where(x >= high, high, x)).astype(x.dtype)

    return jax.tree.map(pin, point, *box)


def _on_face(
    product: Product, d_grad: Params, pin: Params, stuck: Params, stationary: Array
) -> Params:
    """The solution of (1) in the entries that are not stuck; the others move by `pin`."""

    def free(v: Params) -> Params:
        return jax.tree.map(lambda flag, a: jnp.where(flag, 0, a), stuck, v)

    def on_face(v: Params) -> Params:
        inside = product(free(v))
        return jax.tree.map(lambda flag, a, b: jnp.where(flag, a, b), stuck, v, inside)

    b = free(tree.negative(tree.add(d_grad, product(pin))))
    return tree.add(_solution(on_face, b, stationary), pin)


def _solution(product: Product, b: Params, stationary: Array) -> Params:
    """The x of H x = b, NaN where there is none or the run did not end at a stationary point."""

    def solver(product: Product, b: Params) -> Params:
        x, sound = symmetric.solve(product, b)
        return _honest(x, tree.norm(b) == 0, sound & stationary)

    return jax.lax.custom_linear_solve(product, _joined(b), solver, symmetric=True)


def _joined(b: Params) -> Params:
    """The same b, each leaf a function of all: with a constant one, JAX transposes no solve."""
    total = tree.vdot(b, jax.tree.map(jnp.ones_like, b))
    nothing = jnp.where(jnp.array(False), total, 0)  # zero whatever the total is
    return jax.tree.map(lambda a: a + nothing.astype(a.dtype), b)


def _honest(x: Params, is_zero: Array, known: Array) -> Params:
    """The linear answer x to something: 0 to zero whatever x is, else NaN unless it is known."""
    return jax.tree.map(lambda a: jnp.where(is_zero, 0, jnp.where(known, a, NAN)), x)
