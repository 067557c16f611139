r"""L-BFGS: the last few gradients stand for the Hessian.

At parameters x with gradient g, each update takes

    x  <-  x - a H g                                                        (1)

with H the inverse BFGS matrix of the last m pairs of steps and gradient changes, in compact form
(curvature/secant.py: no inner product waits for another), and a length a that
satisfies the approximate Wolfe conditions (core/line_search.py), which float32 can still meet at
its rounding floor. Both ends of a pair come from the same `value_fn`, so that mini-batches are
never mixed in one pair (Berahas, Nocedal & Takac 2016, with the batch as its own overlap). A pair
without enough curvature is left out; a search that fails drops them all and tries -g.

Source: Liu & Nocedal (1989), Math. Program. 45, 503-528; Nocedal & Wright (2006), Algorithm 7.5;
Byrd, Nocedal & Schnabel (1994); Hager & Zhang (2005) for the length.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hesskit.core import errors, tree
from hesskit.core.bounds import Bounds
from hesskit.core.course import Line
from hesskit.core.pair import Pair
from hesskit.core.types import Array, Params
from hesskit.curvature import secant, secant_box
from hesskit.curvature.secant import History, Table
from hesskit.transforms import _descend
from hesskit.transforms._optax import Transformation, memoize

MEMORY_SIZE = 10  # as optax and SciPy; Nocedal & Wright (2006), section 7.2: 3 to 20
HAGER_ZHANG = "hager_zhang"


def _check(memory_size: Any) -> Any:
    errors.check_count(memory_size, name="memory_size")
    return MEMORY_SIZE if memory_size is None else memory_size


def _empty(params: Params, *, memory_size: Any, follows: bool) -> tuple[History, Table]:
    num = errors.length_of(memory_size, name="memory_size")
    return secant.empty(params, num, follows=follows)


def _direct(history: History, table: Table, rhs: Params, *, scaled: bool) -> tuple[Table, Params]:
    table, product = secant.multiply(history, table, rhs, scaled=scaled)
    return table, tree.negative(product)


def _follow(
    history: History, table: Table, pair: Pair, kept: Array, rhs: Params, **options: Any
) -> tuple[History, Table, Params]:
    history, table, product = secant.follow(history, table, pair, kept, rhs, **options)
    return history, table, tree.negative(product)


def _boxed(
    history: History,
    table: Table,
    grad: Params,
    params: Params,
    box: Bounds,
    first: Array,
    *,
    scaled: bool,
) -> tuple[Params, Array]:
    """The step to a face of the box, raveled on the way."""
    num = table.cross.shape[0]
    age = (table.newest - jnp.arange(num, dtype=table.newest.dtype)) % num
    steps, changes = (jax.vmap(tree.ravel)(rows) for rows in (history.steps, history.changes))
    dtype, x = table.cross.dtype, tree.ravel(params)
    matrix = secant_box.compact(
        steps.astype(dtype), changes.astype(dtype), age, table.num_pairs, scaled=scaled
    )
    bare = matrix._replace(theta=jnp.where(table.num_pairs > 0, matrix.theta, 1 / first))
    lower, upper = (tree.ravel(side) - x for side in box)
    step = secant_box.boxed_step(bare, tree.ravel(grad), lower, upper)
    return tree.unravel(step, params), secant_box.reach(step, lower, upper)


def line(memory_size: Any, scale_init_precond: bool) -> Line:
    """L-BFGS for the line-search machine."""
    return Line(
        empty=functools.partial(_empty, memory_size=memory_size, follows=False),
        learn=secant.push,
        direct=functools.partial(_direct, scaled=scale_init_precond),
        shortened=scale_init_precond,
        boxed=functools.partial(_boxed, scaled=scale_init_precond),
    )


def unsearched(memory_size: Any, scale_init_precond: bool, *, bare: bool = False) -> Line:
    """L-BFGS where nothing is searched; `bare` keeps pairs of negative curvature."""
    return line(memory_size, scale_init_precond)._replace(
        empty=functools.partial(_empty, memory_size=memory_size, follows=True),
        follow=functools.partial(_follow, scaled=scale_init_precond, any_sign=bare),
    )


@memoize
def scale_by_lbfgs(memory_size: Any = None, scale_init_precond: bool = True) -> Transformation:
    r"""The L-BFGS direction with its sign changed, for chains.

    u = H g, from the differences of params and updates between calls; no evaluations. Follow it
    with `optax.scale_by_learning_rate` or `scale_by_hager_zhang_linesearch`.

    Args:
      memory_size: pairs kept. None means 10. Under `optax.inject_hyperparams` list it in
        `static_args`.
      scale_init_precond: start each product from gamma = s.y / y.y of the newest pair times the
        identity (the first from min(1, 1/|g|)); else from the identity.

    Returns:
      A `Transformation` whose updates point uphill, in the dtypes of
      params; zeros where an input is not finite.

    Raises:
      ValueError: `memory_size` is no positive integer, or `params` is missing in `update`.

    For mini-batches: no; consecutive gradients must belong to one function.

    Cost of an update in gradients: 0, and 4 passes over memory_size vectors.

    Example:
      >>> import jax, jax.numpy as jnp, optax, hesskit
      >>> opt = optax.chain(hesskit.scale_by_lbfgs(), optax.scale_by_learning_rate(0.5))
      >>> f, x = lambda x: jnp.sum(jnp.array([1.0, 4.0]) * x**2), jnp.ones(2)
      >>> state = opt.init(x)
      >>> for _ in range(20):
      ...     updates, state = opt.update(jax.grad(f)(x), state, x)
      ...     x = optax.apply_updates(x, updates)
      >>> print(bool(f(x) < 1e-8))
      True

    References:
      Nocedal & Wright (2006), Numerical Optimization, Algorithm 7.4.
    """
    method = unsearched(_check(memory_size), scale_init_precond)
    return _descend.build_unsearched(method, name="scale_by_lbfgs", learning_rate=1.0, sign=-1.0)


@memoize
def lbfgs(
    learning_rate: Any = None,
    memory_size: Any = None,
    scale_init_precond: bool = True,
    *,
    linesearch: Any = HAGER_ZHANG,
    has_aux: bool = False,
) -> Transformation:
    r"""L-BFGS with a line search that survives float32: the drop-in for `optax.lbfgs`.

    x <- x - a H g, H from the last memory_size pairs, a by the approximate Wolfe conditions. One
    update is one search, most often one evaluation; f never increases. Call it as `optax.lbfgs`,
    with `value`, `grad` and `value_fn`, and get both from the state by
    `hesskit.value_and_grad_from_state` or optax's.

    Args:
      learning_rate: None for lengths that the line search finds. A number or schedule multiplies
        H g instead, and nothing is evaluated or rejected.
      memory_size: pairs kept. None means 10. Under `optax.inject_hyperparams` list it in
        `static_args`.
      scale_init_precond: start each product from gamma = s.y / y.y of the newest pair times the
        identity; else from the identity.
      linesearch: "hager_zhang"; or any optax transformation to follow the direction, such as
        `optax.scale_by_zoom_linesearch(20)`; or None for the bare formula, as in optax: pairs of
        negative curvature are kept too, and nothing holds the step.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation`. With the line search of ours its `update` needs `value_fn`, and its state
      has `count`, `value`, `grad` and `info` as that of `optax.lbfgs`.

    Raises:
      ValueError: `memory_size` is no positive integer, `linesearch` is another word, or `has_aux`
        is combined with a line search of optax.
      TypeError: a number or a transformation was expected.

    For mini-batches: with large ones (each pair belongs to one batch), or with `newton_cg`.

    Cost of an update in gradients: about 1.1, one for each evaluation of the search (at most 30,
    and as many again along -g if those found nothing).

    Example:
      >>> import jax.numpy as jnp
      >>> import hesskit
      >>> rosenbrock = lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
      >>> result = hesskit.minimize(rosenbrock, jnp.zeros(100), hesskit.lbfgs())
      >>> print(bool(result.success), result.params[:2])
      True [1. 1.]

    References:
      Liu & Nocedal (1989), Math. Program. 45, 503-528; Hager & Zhang (2005), SIAM J. Optim. 16.
    """
    errors.check_number(learning_rate, name="learning_rate", schedule=True)
    memory_size = _check(memory_size)
    if not isinstance(linesearch, (str, tuple, type(None))):
        raise TypeError(
            'linesearch must be "hager_zhang", None, or an optax transformation, such as '
            f"optax.scale_by_zoom_linesearch(20); got {linesearch!r}"
        )
    if has_aux and isinstance(linesearch, tuple):
        raise ValueError("has_aux needs the line search of ours: optax's take a scalar value_fn")
    bare = linesearch is None
    if isinstance(linesearch, str):
        errors.check_choice(linesearch, (HAGER_ZHANG,), name="linesearch")
        if learning_rate is None:
            method = line(memory_size, scale_init_precond)
            return _descend.build(method, name="lbfgs", has_aux=has_aux)
        linesearch = None
    method = unsearched(memory_size, scale_init_precond, bare=bare)
    rate = 1.0 if learning_rate is None else learning_rate
    direction = _descend.build_unsearched(method, name="lbfgs", learning_rate=rate)
    if linesearch is None:
        return direction
    search: Any = linesearch
    return Transformation(*optax.chain(direction, search), method=None, name="lbfgs")
