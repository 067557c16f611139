r"""What natural_gradient and scale_by_natural_gradient share: the update of a direction.

    phi  =  argmin  phi.F phi / 2 - g.phi + damping |phi - momentum phi_before|^2 / 2       (1)

Which linear algebra finds it depends on the shape of F = A'A, m rows by n parameters.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import errors, method, tree
from hesskit.core.derivatives import Evaluation
from hesskit.core.keys import as_key
from hesskit.core.method import State
from hesskit.core.status import Status
from hesskit.core.types import Array, Params
from hesskit.curvature.fisher import KINDS, with_fisher
from hesskit.linalg import whitened
from hesskit.linalg.cg import cg
from hesskit.linalg.damped_lstsq import damped_lstsq
from hesskit.linalg.operator import Preconditioner, check_preconditioner
from hesskit.transforms import _optax
from hesskit.transforms._gauss_newton import LINEAR_SOLVERS, Solver
from hesskit.transforms._optax import Call, Transformation

DAMPING = 1e-3
MAX_PRODUCTS = 20
CG_TOL = 1e-3
DIRECT = 2000
"""min(m, n) up to which "auto" factors: a second on a core."""
ENTRIES = 2**27
"""Entries of A up to which "auto" forms it."""


class NaturalGradientInfo(NamedTuple):
    """What the last update did. For people; the next update never reads it."""

    status: Array  # (), int32, 0 while going on
    accepted: Array  # (), bool: the step was taken
    step_norm: Array  # (), |lr phi|
    ratio: Array  # (), 0: nothing is compared
    grad_norm: Array  # (), of the objective
    num_values: Array  # (), int32, evaluations of this update
    num_grads: Array  # (), int32
    num_products: Array  # (), int32: products of CG, or the min(m, n) passes of a new A
    value_mismatch: Array  # (), |value given - value found|
    damping: Array  # (), that of this update
    decrease: Array  # (), g.phi, the first-order decrease of a unit step
    solver: Array  # (), int32, a `Solver`

    @property
    def linear_solver(self) -> str:
        """The name of the linear algebra: "dense", "sample" or "cg"."""
        return Solver(int(self.solver)).name.lower()


class Memory(NamedTuple):
    """What passes from update to update; None where it is not needed."""

    direction: Params | None  # phi
    key: Array | None  # of the next draw
    preconditioner: Any = None  # its state


class Options(NamedTuple):
    """The arguments of a factory; see `natural_gradient`."""

    name: str
    damping: Any
    fisher: str
    key: Any
    momentum: Any
    norm_constraint: Any
    linear_solver: str
    max_products: Any
    preconditioner: Preconditioner | None = None


class Found(NamedTuple):
    """phi with what it took."""

    direction: Params
    num_products: Array
    solver: Solver
    preconditioner: Any = None


def _check(options: Options) -> None:
    errors.check_number(options.damping, name="damping", schedule=True, none=False)
    errors.check_choice(options.fisher, KINDS, name="fisher")
    errors.check_number(options.momentum, name="momentum", high=1.0, none=False)
    errors.check_number(options.norm_constraint, name="norm_constraint", open_low=True)
    errors.check_choice(options.linear_solver, LINEAR_SOLVERS, name="linear_solver")
    errors.check_count(options.max_products, name="max_products")
    check_preconditioner(options.preconditioner)
    as_key(options.key)


def _choose(options: Options, m: int, n: int) -> Solver:
    if options.linear_solver != "auto":
        return Solver[options.linear_solver.upper()]
    if options.preconditioner is not None or min(m, n) > DIRECT or m * n > ENTRIES:
        return Solver.CG
    return Solver.SAMPLE if m < n else Solver.DENSE


def _solve(
    options: Options,
    at: Evaluation,
    rhs: Params,
    damping: Array,
    pull: Params | None,
    point: Params,
    known: Any,
) -> Found:
    """The solution phi of (1); `pull` is momentum phi_before, `known` is of the preconditioner."""
    assert at.rows is not None
    assert at.product is not None
    n = tree.size(rhs)
    m = jax.eval_shape(at.rows).matrix.shape[0]
    solver = _choose(options, m, n)
    if solver is Solver.CG:
        limit = MAX_PRODUCTS if options.max_products is None else options.max_products
        right = rhs if pull is None else tree.axpy(damping, pull, rhs)
        product = at.product
        size, precondition = tree.norm(rhs), None
        if options.preconditioner is not None:
            known = options.preconditioner.update(known, product, point)
            solve = options.preconditioner.apply
            precondition = functools.partial(_apply, solve, known, damping)
            size = jnp.sqrt(jnp.maximum(tree.vdot(rhs, precondition(rhs)), 0))

        def damped(v: Params) -> Params:
            return tree.axpy(damping, v, product(v))

        found = cg(
            damped, right, tol=CG_TOL * size, max_products=limit, x0=pull, precondition=precondition
        )
        return Found(found.x, found.num_products, solver, known)
    rows = at.rows()
    has_residual = rows.residual is not None
    phi = damped_lstsq(
        rows.matrix,
        damping,
        residual=rows.residual,
        gradient=tree.ravel(tree.sub(rhs, at.grad) if has_residual else rhs),
        start=None if pull is None else tree.ravel(pull),
        by_rows=solver is Solver.SAMPLE,
    )
    return Found(tree.unravel(phi, rhs), jnp.asarray(min(m, n), jnp.int32), solver, known)


def _apply(solve: Any, state: Any, damping: Array, v: Params) -> Params:
    return solve(state, v, damping)


def build(options: Options, *, learning_rate: Any, has_aux: bool, sign: float) -> Transformation:
    _check(options)
    errors.check_number(learning_rate, name="learning_rate", schedule=True)
    remembers = not (isinstance(options.momentum, (int, float)) and options.momentum == 0)

    def begin(point: Params, params: Params) -> State:
        zero = jnp.zeros((), tree.result_dtype(point))
        memory = Memory(
            tree.zeros_like(point) if remembers else None,
            as_key(options.key) if options.fisher == "sampled" else None,
            None if options.preconditioner is None else options.preconditioner.init(point),
        )

        def info(**common: Array) -> NaturalGradientInfo:
            solver = jnp.zeros((), jnp.int32)
            return NaturalGradientInfo(**common, damping=zero, decrease=zero, solver=solver)

        return _optax.hide(method.first_state(point, memory, info), params)

    def advance(state: State, call: Call) -> tuple[Params, State]:
        memory: Memory = state.model
        key, draw = (None, None) if memory.key is None else jax.random.split(memory.key)
        fn = call.fn
        if options.fisher != "exact":  # the exact one is the curvature of the loss already
            fn = with_fisher(fn, options.fisher, draw, centered=False, caller=options.name)
        at = whitened.evaluate(fn, call.point, caller=options.name)
        dtype = state.level.dtype
        damping = options.damping
        damping = jnp.asarray(damping(state.count) if callable(damping) else damping, dtype)
        pull = None
        if memory.direction is not None:
            pull = tree.scale(jnp.asarray(options.momentum, dtype), memory.direction)
        rhs = _optax.right_hand_side(call.updates, call.grad)(at.grad)
        known = memory.preconditioner
        found = _solve(options, at, rhs, damping, pull, call.point, known)
        step = _step(options, learning_rate, sign, state.count, found.direction)
        old = _optax.show(state, call.params, call.point)
        kept = Memory(found.direction if remembers else None, key, found.preconditioner)
        sound = tree.all_finite((at.value, at.grad, found.direction, step))
        new = tree.where(
            sound,
            _told(old, call, at, found, step, damping)._replace(model=kept),
            _refused(old, damping, found)._replace(model=memory._replace(key=key)),
        )
        step = tree.where(sound, step, tree.zeros_like(step))
        return step, new._replace(count=state.count + 1)

    init, update = _optax.initializer(begin), _optax.updater(options.name, has_aux, advance)
    return Transformation(
        init, update, method=None, name=options.name, has_aux=has_aux, judges=False
    )


def _told(
    old: State, call: Call, at: Evaluation, found: Found, step: Params, damping: Array
) -> State:
    """The state after a step; `value` stays inf, since that of the new point is not known."""
    dtype = old.level.dtype
    value, norm = at.value.astype(dtype), tree.norm(at.grad).astype(dtype)
    given = value if call.value is None else call.value.astype(dtype)
    rest = method.is_at_rest(norm, value, old.tolerance)
    info = _refused(old, damping, found).info._replace(
        status=jnp.where(rest, Status.GRADIENT_TOL, Status.RUNNING).astype(jnp.int32),
        accepted=jnp.array(True),
        step_norm=tree.norm(step).astype(dtype),
        grad_norm=norm,
        value_mismatch=jnp.abs(given - value),
        decrease=tree.vdot(at.grad, found.direction).astype(dtype),
    )
    return old._replace(level=value, reference=value, grad=at.grad, info=info)


def _refused(old: State, damping: Array, found: Found) -> State:
    """The state after something that was not finite: what is known stays."""
    zero, one = jnp.zeros_like(old.level), jnp.ones((), jnp.int32)
    info = old.info._replace(
        status=jnp.full((), int(Status.NONFINITE_START), jnp.int32),
        accepted=jnp.array(False),
        step_norm=zero,
        num_values=one,
        num_grads=one,
        num_products=found.num_products,
        value_mismatch=zero,
        damping=damping,
        decrease=zero,
        solver=jnp.full((), int(found.solver), jnp.int32),
    )
    return old._replace(info=info)


def _step(options: Options, rate: Any, sign: float, count: Array, phi: Params) -> Params:
    """-lr phi, of at most the root of `norm_constraint` in length."""
    norm = tree.norm(phi)
    rate = 1.0 if rate is None else rate(count) if callable(rate) else rate
    rate = jnp.asarray(rate, norm.dtype)
    if options.norm_constraint is not None:
        most = jnp.sqrt(jnp.asarray(options.norm_constraint, norm.dtype))
        rate = jnp.minimum(rate, most / jnp.where(norm > 0, norm, 1))
    return tree.scale(-sign * rate, phi)
