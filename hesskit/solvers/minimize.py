r"""One call runs a method to a trustworthy answer with an honest status.

    minimize f(x, data) over x: params -> Result                            (1)

The whole solve is one compiled function: a `while_loop` around a driver (driver.py), cached on
the objective, the optimizer and the shapes, so that a second call with new params, data or
tolerances compiles nothing. Under `vmap` a finished lane is frozen and a lane of NaN harms none.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hesskit.core import errors, objective, select, tree
from hesskit.core.derivatives import linearized
from hesskit.core.method import default_tolerance
from hesskit.core.status import Status
from hesskit.core.types import Array, Params
from hesskit.linalg.lanczos import escape
from hesskit.solvers import driver, loop
from hesskit.solvers import progress as live
from hesskit.solvers.loop import Limits, Static
from hesskit.solvers.result import History, Result
from hesskit.transforms._build import Transformation
from hesskit.transforms.newton_cg import newton_cg
from hesskit.transforms.trust_region import trust_region

DENSE_LIMIT = 200
MAX_STEPS = 1000
ESCAPE_PRODUCTS = 20
SMALL = 1 / 3


def _negative_curvature(fn: Callable[[Params], Any], params: Params, wanted: Array) -> Any:
    """Whether Lanczos finds negative curvature at `params`, and what it cost."""

    def look() -> tuple[Array, Array]:
        product = linearized(fn, params, has_aux=True).product
        found = escape(product, params, num_steps=ESCAPE_PRODUCTS)
        return found.curvature < 0, found.num_products.astype(jnp.int32)

    return tree.while_once(wanted, look, (jnp.array(False), jnp.zeros((), jnp.int32)))


@functools.partial(jax.jit, static_argnums=0)
def _solve(static: Static, params: Params, args: Any, limits: Limits, state: Any) -> Result:
    bound = objective.bind(static.value_fn, args=args, has_aux=static.has_aux, caller="minimize")
    free, frozen = select.split(params, static.fixed)
    fn = objective.precompose(bound, lambda p: select.merge(p, frozen))
    point = objective.split(free)
    if objective.is_complex(free):
        fn = objective.precompose(fn, functools.partial(objective.join, like=free))
    aux = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(fn, point)[1])
    problem = driver.Problem(fn, limits.tolerance.astype(tree.result_dtype(point)), aux)
    run = getattr(static.optimizer, "method", None)
    if run is not None:
        engine = driver.machine(run, problem)
    else:
        extended = optax.with_extra_args_support(static.optimizer)
        engine = driver.updated(extended, problem, free)
    carry = engine.start(point) if state is None else engine.resume(state, point)
    out = loop.run(engine, carry, static, limits, point)
    report, status, num_products = out.report, out.status, out.num_products
    indefinite = report.indefinite
    if static.check == "second_order" and run is None:
        wanted = report.at_rest & jnp.isfinite(report.best.value)
        indefinite, spent = _negative_curvature(fn, report.best.params, wanted)
        status = jnp.where(indefinite & report.at_rest, Status.SADDLE, status)
        num_products = num_products + spent
    eps = tree.coarsest_eps(point)
    small = report.best.grad_norm <= eps**SMALL * jnp.maximum(1, jnp.abs(report.best.value))
    rejoin = functools.partial(objective.join, like=free)
    history = out.history
    if history is not None and history.params is not None:
        path = jax.vmap(lambda p: select.merge(rejoin(p), frozen))(history.params)
        history = history._replace(params=path)
    return Result(
        params=select.merge(rejoin(report.best.params), frozen),
        value=report.best.value,
        grad_norm=report.best.grad_norm,
        status=status.astype(jnp.int32),
        stationary=(report.at_rest | small | report.at_floor)
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


_WARNED: list[str] = []


def _warn_float64(trees: Any) -> None:
    """Warns once that float64 data becomes float32 while x64 is off."""
    wide = [a for a in jax.tree.leaves(trees) if isinstance(a, (np.ndarray, np.generic))]
    if _WARNED or jax.config.jax_enable_x64:
        return
    if any(a.dtype in (np.float64, np.complex128) for a in wide):
        _WARNED.append("float64")
        warnings.warn(
            "float64 data is converted to float32 because jax_enable_x64 is off. For float64 "
            "call jax.config.update('jax_enable_x64', True) before anything else.",
            stacklevel=3,
        )


def _tolerance(gtol: Any, params: Params) -> Array:
    dtype = tree.result_dtype(params)
    if gtol is None:
        return default_tolerance(params)
    return jnp.stack([jnp.asarray(gtol, dtype), jnp.zeros((), dtype)])


def _trim(history: History | None) -> History | None:
    if history is None or isinstance(history.length, jax.core.Tracer):
        return history
    length = int(history.length)
    rows = {
        name: jax.tree.map(lambda a: a[:length], item)
        for name, item in history._asdict().items()
        if name != "length"
    }
    return history._replace(**rows)


def default_optimizer(params: Params) -> Transformation:
    """`trust_region()` for at most DENSE_LIMIT entries, `newton_cg()` beyond."""
    return trust_region() if tree.size(params) <= DENSE_LIMIT else newton_cg()


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
    """Doc."""
    errors.check_callable(value_fn, name="value_fn")
    for name, item in (("gtol", gtol), ("ftol", ftol), ("xtol", xtol)):
        errors.check_number(item, name=name)
    if max_steps is None:
        raise TypeError("max_steps must be an integer, got None")
    errors.check_count(max_steps, name="max_steps")
    errors.check_choice(check, ("second_order", "first_order"), name="check")
    errors.check_choice(history, (False, True, "params"), name="history")
    _warn_float64((params, args))
    params = errors.check_params(params)
    if optimizer is None:
        optimizer = default_optimizer(params)
    if not (isinstance(optimizer, tuple) and hasattr(optimizer, "update")):
        raise TypeError(
            f"optimizer must be an optax transformation, such as hesskit.trust_region(); got "
            f"{optimizer!r}"
        )
    chosen = (False,) * len(jax.tree.leaves(params))
    if fixed is not None:
        chosen = select.select(fixed, params, name="fixed")
        if all(chosen):
            raise ValueError("fixed selects every leaf of params: nothing is left to optimize")
    static = Static(
        value_fn=_hashable(value_fn),
        optimizer=optimizer,
        fixed=chosen,
        has_aux=has_aux,
        check=check,
        history=history,
        rows=_rows(max_steps) if history else 0,
        callback=callback,
        progress=progress,
    )
    live.check(progress)
    dtype = tree.result_dtype(params)
    limits = Limits(
        tolerance=_tolerance(gtol, params),
        ftol=jnp.asarray(0 if ftol is None else ftol, dtype),
        xtol=jnp.asarray(0 if xtol is None else xtol, dtype),
        max_steps=jnp.asarray(max_steps, jnp.int32),
    )
    result = _solve(static, params, args, limits, state)
    return dataclasses.replace(result, history=_trim(result.history))


def _rows(max_steps: Any) -> int:
    if isinstance(max_steps, jax.core.Tracer):
        raise TypeError("history needs a concrete max_steps: its length is a shape")
    return int(max_steps) + 1


class _ById:
    """A function that has no hash, hashed by identity."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __hash__(self) -> int:
        return id(self.fn)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self.fn is other.fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)


def _hashable(fn: Callable[..., Any]) -> Callable[..., Any]:
    try:
        hash(fn)
    except TypeError:
        return functools.wraps(fn)(_ById(fn))
    return fn
