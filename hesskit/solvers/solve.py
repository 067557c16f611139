"""The compiled solve behind `minimize` and `least_squares`.

One jitted function: a `while_loop` (loop.py) around a driver (driver.py), cached on the objective,
the optimizer and the shapes, so that a second call with new params, data or tolerances compiles
nothing.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hesskit.core import errors, objective, select, tree
from hesskit.core.acceptance import is_negative
from hesskit.core.bounds import Bounds, on_face
from hesskit.core.composite import Structured
from hesskit.core.derivatives import linearized
from hesskit.core.method import Method, is_small
from hesskit.core.status import TOLERANCES, Status
from hesskit.core.types import Array, Params
from hesskit.linalg import small
from hesskit.linalg.dense import dense
from hesskit.linalg.lanczos import escape
from hesskit.solvers import driver, loop
from hesskit.solvers.loop import Limits, Static
from hesskit.solvers.result import Result

ESCAPE_PRODUCTS = 20


def _negative_curvature(
    fn: Callable[[Params], Any], params: Params, box: Bounds | None, wanted: Array
) -> tuple[Array, Array, Array]:
    """Whether there is negative curvature at `params`, on its face, and what it cost.

    By all eigenvalues of a Hessian of few entries, else as far as Lanczos sees.

    Args:
      fn: the objective, with aux.
      params: the point.
      box: the bounds, or None.
      wanted: whether to look, () bool.

    Returns:
      Whether it was found, () bool, whether the Hessian is finite, () bool, and the number of
      products, () int32.
    """
    n = tree.size(params)

    def look() -> tuple[Array, Array, Array]:
        here = linearized(fn, params, has_aux=True)
        product = here.product
        assert product is not None
        if box is not None:
            product = on_face(product, here.grad, params, box)
        if n <= ESCAPE_PRODUCTS:
            w, _ = small.eigh(dense(product, params))
            negative = is_negative(w[0], jnp.max(jnp.abs(w)), tree.coarsest_eps(params))
            return negative, jnp.all(jnp.isfinite(w)), jnp.full((), n, jnp.int32)
        found = escape(product, params, num_steps=ESCAPE_PRODUCTS)
        return found.negative, found.finite, found.num_products.astype(jnp.int32)

    nothing = (jnp.array(False), jnp.array(True), jnp.zeros((), jnp.int32))
    return tree.while_once(wanted, look, nothing)


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


def real_box(bounds: Bounds | None, fixed: tuple[bool, ...], free: Params, flat: bool) -> Any:
    """The bounds in the space where a machine works: of the real free parameters."""
    if bounds is None:
        return None

    def real(side: Params) -> Params:
        parts = jax.tree.map(
            lambda b, a: jnp.stack([b, b]) if jnp.iscomplexobj(a) else b,
            select.split(side, fixed)[0],
            free,
        )
        return tree.ravel(parts) if flat else parts

    return Bounds(real(bounds.lower), real(bounds.upper))


def _suited(
    static: Static, run: Method | None, fn: Any, point: Params, box: Bounds | None
) -> Method | None:
    """The machine for these bounds and, of a structured objective, for its number of outputs."""
    special = getattr(static.optimizer, "special", None)
    structured = isinstance(fn, Structured)
    if special is None or not (structured or box is not None):
        return run
    return special(box, tree.size(jax.eval_shape(fn.inner, point)[0]) if structured else None)


class Ready(NamedTuple):
    """A solve before its loop: the driver, where it begins, and what leads back to the user.

    `present` maps real free parameters to the user's; `run` is the machine, None for an optax
    transformation; `fn` the objective of `point`, with aux, and `box` its bounds.
    """

    engine: driver.Driver
    point: Params
    blank: driver.Report
    present: Callable[[Params], Params]
    run: Method | None
    fn: Callable[[Params], Any]
    box: Bounds | None


def ready(
    static: Static,
    params: Params,
    args: Any,
    data: dict[str, Any],
    limits: Limits,
    bounds: Bounds | None,
) -> Ready:
    """The driver of a problem; arguments as in `solve`."""
    bound = objective.bind(
        static.value_fn, args=args, data=data, has_aux=static.has_aux, caller=static.caller
    )
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
    box = real_box(bounds, static.fixed, free, flat)
    run = _suited(static, run, fn, point, box)
    if static.many and run is not None and run.many is not None:
        run = run.many()
    problem = driver.Problem(fn, limits.tolerance, aux)
    if run is not None:
        engine = driver.machine(run, problem)
    else:
        engine = driver.updated(optax.with_extra_args_support(static.optimizer), problem, free)
    return Ready(engine, point, driver.blank(point, aux), present, run, fn, box)


def answer(static: Static, here: Ready, end: loop.End) -> dict[str, Any]:
    """The fields of a result that belong to the end of the loop, after the last look.

    Args:
      static: what the program depends on.
      here: the solve.
      end: where its loop stopped.

    Returns:
      All fields of `Result` but `history` and `state`.
    """
    best, status, indefinite, num_products = end.best, end.status, end.indefinite, end.num_products
    small = is_small(best.grad_norm, tree.coarsest_eps(here.point))
    if static.check == "second_order" and not (here.run is not None and here.run.leaves_saddles):
        wanted = jnp.isin(status, jnp.array(TOLERANCES, status.dtype)) & (end.at_rest | small)
        found, finite, spent = _negative_curvature(here.fn, best.params, here.box, wanted)
        status = jnp.where(finite, jnp.where(found, Status.SADDLE, status), Status.SINGULAR)
        status = status.astype(jnp.int32)
        indefinite, num_products = indefinite | found, num_products + spent
    return {
        "params": here.present(best.params),
        "value": best.value,
        "grad_norm": best.grad_norm,
        "status": status,
        "stationary": (end.at_rest | small | end.at_floor)
        & ~(indefinite & (static.check == "second_order")),
        "num_steps": end.num_steps,
        "num_values": end.num_values,
        "num_grads": end.num_grads,
        "num_products": num_products,
        "aux": end.aux,
        "method": getattr(static.optimizer, "name", "optax"),
    }


@functools.partial(jax.jit, static_argnums=0)
def solve(
    static: Static,
    params: Params,
    args: Any,
    data: dict[str, Any],
    limits: Limits,
    state: Any,
    bounds: Bounds | None,
) -> Result:
    """The compiled solve, cached on `static` and shapes.

    Args:
      static: what the program depends on.
      params: the start.
      args: data of the objective: a tuple or a dict.
      data: more data by name; names that the objective does not take are ignored.
      limits: when to stop.
      state: that of a run to continue, or None.
      bounds: the box, like params, or None.

    Returns:
      A `Result`.
    """
    here = ready(static, params, args, data, limits, bounds)
    carry = _begin(here.engine, here.point, state)
    out = loop.run(here.engine, carry, static, limits, empty=here.blank, present=here.present)
    history = out.history
    if history is not None and history.params is not None:
        history = history._replace(params=jax.vmap(here.present)(history.params))
    return Result(**answer(static, here, loop.end(out)), history=history, state=out.carry)
