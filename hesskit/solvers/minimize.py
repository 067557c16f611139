r"""One call runs a method to a trustworthy answer with an honest status.

    minimize f(x, data) over x: params -> Result                            (1)

The whole solve is one compiled function: a `while_loop` around a driver (driver.py), cached on
the objective, the optimizer and the shapes, so that a second call with new params, data or
tolerances compiles nothing. Under `vmap` a finished lane is frozen and a lane of NaN harms none.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hesskit.core import errors, objective, select, tree
from hesskit.core.derivatives import linearized
from hesskit.core.method import default_tolerance, is_small
from hesskit.core.status import TOLERANCES, Status
from hesskit.core.types import Array, Params
from hesskit.linalg.lanczos import escape
from hesskit.solvers import driver, inputs, loop
from hesskit.solvers import progress as live
from hesskit.solvers.loop import Limits, Static
from hesskit.solvers.result import Result
from hesskit.transforms._build import Transformation
from hesskit.transforms.newton_cg import newton_cg
from hesskit.transforms.trust_region import trust_region

DENSE_LIMIT = 100
MAX_STEPS = 5000
ESCAPE_PRODUCTS = 20


def _negative_curvature(
    fn: Callable[[Params], Any], params: Params, wanted: Array
) -> tuple[Array, Array]:
    """Whether Lanczos finds negative curvature at `params`, and what it cost."""

    def look() -> tuple[Array, Array]:
        product = linearized(fn, params, has_aux=True).product
        assert product is not None
        found = escape(product, params, num_steps=ESCAPE_PRODUCTS)
        return found.negative, found.num_products.astype(jnp.int32)

    return tree.while_once(wanted, look, (jnp.array(False), jnp.zeros((), jnp.int32)))


def _begin(engine: driver.Driver, point: Params, state: Any) -> Any:
    """The first carry: a fresh one, or that of `state`."""
    if state is None:
        return engine.start(point)
    expected = jax.eval_shape(engine.start, point)
    known = isinstance(state, type(expected))
    if not known or not errors.same_shapes(state._replace(aux=()), expected._replace(aux=())):
        raise ValueError(
            "state does not belong to this optimizer and these params; pass state=result.state "
            "of a run with the same optimizer, and params of the same shapes and dtypes"
        )
    return engine.resume(state, point)


@functools.partial(jax.jit, static_argnums=0)
def _solve(static: Static, params: Params, args: Any, limits: Limits, state: Any) -> Result:
    bound = objective.bind(static.value_fn, args=args, has_aux=static.has_aux, caller="minimize")
    free, frozen = select.split(params, static.fixed)
    run = getattr(static.optimizer, "method", None)
    parts = objective.split(free)
    flat = static.flat and run is not None and run.any_structure
    point = tree.ravel(parts) if flat else parts

    def present(real: Params) -> Params:
        whole = tree.unravel(real, parts) if flat else real
        return select.merge(objective.join(whole, free), frozen)

    fn = objective.precompose(bound, present)
    aux = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(fn, point)[1])
    problem = driver.Problem(fn, limits.tolerance, aux)
    if run is not None:
        engine = driver.machine(run, problem)
    else:
        extended = optax.with_extra_args_support(static.optimizer)
        engine = driver.updated(extended, problem, free)
    carry = _begin(engine, point, state)
    empty = driver.blank(point, aux)
    out = loop.run(engine, carry, static, limits, empty=empty, present=present)
    report, best, status, num_products = out.report, out.report.best, out.status, out.num_products
    at_rest, indefinite = report.at_rest, report.indefinite
    small = is_small(best.grad_norm, tree.coarsest_eps(point))
    if static.check == "second_order" and not (run is not None and run.leaves_saddles):
        ends = jnp.isin(status, jnp.array(TOLERANCES, status.dtype))
        found, spent = _negative_curvature(fn, best.params, ends & (at_rest | small))
        status = jnp.where(found, Status.SADDLE, status).astype(jnp.int32)
        indefinite, num_products = indefinite | found, num_products + spent
    history = out.history
    if history is not None and history.params is not None:
        history = history._replace(params=jax.vmap(present)(history.params))
    return Result(
        params=present(best.params),
        value=best.value,
        grad_norm=best.grad_norm,
        status=status,
        stationary=(at_rest | small | report.at_floor)
        & ~(indefinite & (static.check == "second_order")),
        num_steps=out.num_steps,
        num_values=out.num_values,
        num_grads=out.num_grads,
        num_products=num_products,
        aux=report.aux,
        history=history,
        state=out.carry,
        method=getattr(static.optimizer, "name", "optax"),
    )


def _tolerance(gtol: Any, params: Params) -> Array:
    if gtol is None:
        return default_tolerance(params)
    return jnp.asarray(gtol, tree.result_dtype(params))


def default_optimizer(params: Params, fixed: tuple[bool, ...]) -> Transformation:
    """`trust_region()` for at most DENSE_LIMIT entries that are not fixed, `newton_cg()` beyond."""
    num = tree.size(objective.split(select.split(params, fixed)[0]))
    return trust_region() if num <= DENSE_LIMIT else newton_cg()


def _check_optimizer(optimizer: Any) -> None:
    if isinstance(optimizer, tuple) and hasattr(optimizer, "update"):
        return
    hint = ""
    if callable(optimizer):
        hint = f"; call it: {getattr(optimizer, '__name__', 'optimizer')}()"
    raise TypeError(
        "optimizer must be an optax transformation, such as hesskit.trust_region(); got "
        f"{optimizer!r}{hint}"
    )


def _fixed(fixed: Any, params: Params) -> tuple[bool, ...]:
    """Which leaves are held."""
    if fixed is None:
        return (False,) * len(jax.tree.leaves(params))
    chosen = select.select(fixed, params, name="fixed")
    if all(chosen):
        raise ValueError("fixed selects every leaf of params: nothing is left to optimize")
    return chosen


def _limits(gtol: Any, ftol: Any, xtol: Any, max_steps: Any, params: Params) -> Limits:
    """The tolerances checked, as arrays."""
    for name, item in (("gtol", gtol), ("ftol", ftol), ("xtol", xtol)):
        errors.check_number(item, name=name)
    if max_steps is None:
        raise TypeError("max_steps must be an integer, got None")
    errors.check_count(max_steps, name="max_steps")
    dtype = tree.result_dtype(params)
    return Limits(
        tolerance=_tolerance(gtol, params),
        ftol=jnp.asarray(0 if ftol is None else ftol, dtype),
        xtol=jnp.asarray(0 if xtol is None else xtol, dtype),
        max_steps=jnp.asarray(inputs.limit_of(max_steps), jnp.int32),
    )


def minimize(
    value_fn: Callable[..., Any],
    params: Params,
    optimizer: optax.GradientTransformation | None = None,
    *,
    args: Any = (),
    has_aux: bool = False,
    fixed: Any = None,
    gtol: Any = None,
    ftol: Any = None,
    xtol: Any = None,
    max_steps: Any = MAX_STEPS,
    check: str = "second_order",
    state: Any = None,
    callback: Callable[[live.Progress], Any] | None = None,
    history: bool | str = False,
    progress: bool = False,
) -> Result:
    r"""The minimum of `value_fn` over a pytree of parameters, with an honest status.

    Runs `optimizer` from `params` until

        |g| <= gtol,   |f - f+| <= ftol max(|f|, |f+|),   |s| <= xtol (|x| + xtol),             (1)

    with g the gradient, f and f+ the values around a kept step s, and x the parameters; a zero
    ftol or xtol turns its test off. The first ends in GRADIENT_TOL, which also means that no
    negative curvature was found; VALUE_TOL and STEP_TOL count as `success` only where the gradient
    is small for the dtype. Never raises for numbers: `result.status` says why it stopped,
    `result.message` says it in a sentence.

    Works under `jit` and `vmap`: finished lanes are frozen. Not differentiable through the loop
    yet. `value_fn` is traced and cached as under `jax.jit`: what changes from call to call goes
    into `params` or `args`, and then nothing is compiled again.

    Args:
      value_fn: `value_fn(params, ...) -> ()`, or `-> ((), aux)` with `has_aux`.
      params: the start, a pytree of float or complex arrays; C^n is R^{2n}.
      optimizer: any optax transformation. None chooses `hesskit.trust_region()` for at most 100
        free entries and `hesskit.newton_cg()` beyond.
      args: data for `value_fn`: a tuple, positional after params, or a dict, by name.
      has_aux: whether `value_fn` returns a pair; `result.aux` is its second part at the answer.
      fixed: leaves to hold: a prefix tree of bools, a path ("bg/b", "peak/*") or a list of paths,
        or `f(path, leaf) -> bool`.
      gtol: for the Euclidean norm of the gradient. None means eps^(2/3), eps
        of the coarsest leaf: between sqrt(eps), which is easy, and eps, which rounding forbids.
      ftol: for the relative change of the value; None means 0, off: a slow run is no answer.
      xtol: for the relative length of a step; None means 0, off, likewise.
      max_steps: trials at most (updates of an optax optimizer). 5000 is a limit, not a plan: a
        hundred times the median of our methods on tests/problems.py.
      check: "second_order" asks for no negative curvature at the answer; methods that do not
        know it spend at most 20 Hessian products at the end. "first_order" asks for the gradient.
      state: `result.state` of a run to continue, with `result.params` as `params`. Value and
        gradient are evaluated anew; radius, damping and, where the value is the same, the model
        are kept: two runs of n steps are one of 2n.
      callback: `callback(progress) -> stop`, called each step with numbers and params; True stops.
        Under `vmap` it is called for each running lane.
      history: True records value, grad_norm, step_norm, accepted and num_values by step, "params"
        the points as well (max_steps + 1 rows are allocated).
      progress: show a live bar (needs tqdm: `pip install 'hesskit[progress]'`).

    Returns:
      A `Result`; its `params` are the best point found, finite if the start was.

    Raises:
      TypeError: an argument of the wrong kind, a leaf or a value that is no float, missing data.
      ValueError: an argument out of its range, a value that is not (), a `fixed` that fits nothing,
        a `state` of another run.

    Example:
      >>> import jax.numpy as jnp
      >>> import hesskit
      >>> def rosenbrock(p, scale):
      ...     return (1 - p["x"]) ** 2 + scale * (p["y"] - p["x"] ** 2) ** 2
      >>> start = {"x": jnp.array(-1.2), "y": jnp.array(1.0)}
      >>> result = hesskit.minimize(rosenbrock, start, args=(100.0,))
      >>> print(result.params["x"].round(3), bool(result.success), result.method)
      1.0 True trust_region

    References:
      Nocedal & Wright (2006), Numerical Optimization, chapters 4 and 7; Conn, Gould & Toint (2000),
      Trust-Region Methods, section 17.4 (rounding).
    """
    errors.check_callable(value_fn, name="value_fn")
    if callback is not None:
        errors.check_callable(callback, name="callback", of="a step")
    errors.check_choice(check, ("second_order", "first_order"), name="check")
    errors.check_choice(history, (False, True, "params"), name="history")
    inputs.warn_float64((params, args))
    params = errors.check_params(params)
    errors.check_data(args)
    chosen = _fixed(fixed, params)
    if optimizer is None:
        optimizer = default_optimizer(params, chosen)
    _check_optimizer(optimizer)
    live.check(progress)
    limits = _limits(gtol, ftol, xtol, max_steps, params)
    static = Static(
        value_fn=inputs.hashable(value_fn),
        optimizer=optimizer,
        fixed=chosen,
        flat=inputs.may_ravel(params),
        has_aux=has_aux,
        check=check,
        history=history,
        rows=inputs.rows(max_steps) if history else 0,
        callback=None if callback is None else inputs.hashable(callback),
        progress=progress,
    )
    result = _solve(static, params, args, limits, state)
    if result.history is None:
        return result
    return dataclasses.replace(result, history=inputs.trimmed(result.history))
