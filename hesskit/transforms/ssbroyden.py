r"""Self-scaled Broyden: a dense inverse Hessian from gradients, for small n and stiff losses.

At parameters x with gradient g, each update takes x <- x - a H g with a from the approximate Wolfe
conditions (core/line_search.py), and then, with the pair (s, y),

    H  <-  (H - Hy (Hy)' / y.Hy + phi v v') / tau  +  s s' / s.y            (1)
    v  =  sqrt(y.Hy) (s / s.y - Hy / y.Hy)

phi = tau = 1 is BFGS. Self-scaling divides by a tau <= 1 chosen from b = s.Bs / s.y (B = 1/H) and
h = y.Hy / s.y, which lets large eigenvalues of H fall faster; for losses of physics-informed nets
that is worth an order of magnitude or two over BFGS.

    a = h b - 1,  c = sqrt(a / (1 + a)),  rho = min(1, h (1 - c)),                 (2)
    theta = max((rho - 1) / a, min(1 / rho, (1 - b) / b)),  sigma = 1 + theta a,
    phi = (1 - theta) / sigma,
    tau = min(r sigma^(-1/(n-1)), sigma) if theta <= 0 else r min(sigma^(-1/(n-1)), 1 / theta),
    r = min(1, 1 / b)

Source: Urban, Stefanou & Pons (2025), J. Comput. Phys. 523, 113656, section 2.3; Al-Baali,
Spedicato & Maggioni (2014), Optim. Methods Softw. 29, 937-954; Nocedal & Wright (2006), (6.20) for
the first H.
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import errors, tree
from hesskit.core.course import Line
from hesskit.core.pair import Pair
from hesskit.core.types import Array, Params
from hesskit.transforms import _descend
from hesskit.transforms._optax import Transformation, memoize

UPDATES = ("ssbroyden", "ssbfgs", "bfgs")


class Count(NamedTuple):
    """How many pairs H was made of, () int32; 0 stands for H = 1."""

    num_pairs: Array


class _Numbers(NamedTuple):
    """The inner products of (1); all ()."""

    sy: Array
    y_hy: Array
    s_bs: Array


def _empty(params: Params) -> tuple[Array, Count]:
    size = tree.size(params)
    return jnp.zeros((size, size), tree.result_dtype(params)), Count(jnp.zeros((), jnp.int32))


def _broyden(at: _Numbers, size: int) -> tuple[Array, Array]:
    """(2): tau and phi."""
    b, h = at.s_bs / at.sy, at.y_hy / at.sy
    eps = jnp.finfo(b.dtype).eps
    a = jnp.maximum(h * b - 1, eps)  # >= 0 by Cauchy-Schwarz, 0 for a multiple of the last pair
    rho = jnp.minimum(1, h * (1 - jnp.sqrt(a / (1 + a))))
    theta = jnp.maximum((rho - 1) / a, jnp.minimum(1 / rho, (1 - b) / b))
    sigma = jnp.maximum(1 + theta * a, eps)
    spread = sigma ** (-1 / max(size - 1, 1))
    most = jnp.minimum(1, 1 / b)
    inner = jnp.minimum(spread, 1 / jnp.where(theta > 0, theta, 1))
    tau = jnp.where(theta > 0, most * inner, jnp.minimum(most * spread, sigma))
    return tau, (1 - theta) / sigma


def _scales(update: str, at: _Numbers, size: int, plain: Array) -> tuple[Array, Array]:
    """tau and phi of (1); both 1 where `plain` says so, and where rounding spoils them."""
    one = jnp.ones_like(at.sy)
    tau, phi = one, one
    if update == "ssbfgs":
        tau = jnp.minimum(one, at.sy / at.s_bs)
    if update == "ssbroyden":
        tau, phi = _broyden(at, size)
    sound = (tau > 0) & jnp.isfinite(tau) & jnp.isfinite(phi) & ~plain
    return jnp.where(sound, tau, 1), jnp.where(sound, phi, 1)


def _is_own(matrix: Array, s: Array, g: Array, length: Array) -> Array:
    """Whether s = -length H g, so that s.Bs = -length s.g; not if a chain changed g or the step."""
    off = s + length * jnp.matmul(matrix, g, precision="highest")
    return off @ off <= 1e-4 * (s @ s)


def _revised(matrix: Array, pair: Pair, first: Array, update: str) -> Array:
    """(1); the first H is s.y / y.y times the identity."""
    s, y, g = (tree.ravel(v) for v in (pair.step, pair.change, pair.grad))
    sy = s @ y
    start = sy / (y @ y) * jnp.eye(s.size, dtype=s.dtype)
    matrix = jnp.where(first, start, matrix)
    hy = jnp.matmul(matrix, y, precision="highest")
    y_hy = y @ hy
    plain = first | ~_is_own(matrix, s, g, pair.length)
    tau, phi = _scales(update, _Numbers(sy, y_hy, -pair.length * (s @ g)), s.size, plain)
    v = jnp.sqrt(y_hy) * (s / sy - hy / y_hy)
    new = (matrix - jnp.outer(hy / y_hy, hy) + phi * jnp.outer(v, v)) / tau
    new = new + jnp.outer(s / sy, s)
    return jnp.where(jnp.isfinite(new).all(), new, matrix)


def _learn(
    history: Array, table: Count, pair: Pair, kept: Array, *, update: str
) -> tuple[Array, Count]:
    good = kept & (pair.cosine > tree.coarsest_eps(pair.step)) & jnp.isfinite(pair.unit)
    first = table.num_pairs == 0
    history = tree.while_once(good, lambda: _revised(history, pair, first, update), history)
    return history, Count(table.num_pairs + good.astype(jnp.int32))


def _direct(history: Array, table: Count, rhs: Params) -> tuple[Count, Params]:
    flat = tree.ravel(rhs)
    product = jnp.matmul(history, flat, precision="highest")
    return table, tree.unravel(-jnp.where(table.num_pairs > 0, product, flat), rhs)


@memoize
def ssbroyden(
    learning_rate: Any = None,
    *,
    update: str = "ssbroyden",
    max_linesearch_steps: Any = None,
    has_aux: bool = False,
) -> Transformation:
    r"""Dense quasi-Newton with self-scaling: gradients only, n x n memory, for small n.

    x <- x - a H g, H by the self-scaled Broyden update, a by the approximate Wolfe conditions. One
    update is one search, most often one evaluation; f never increases. Where `lbfgs` stalls on a
    stiff loss (physics-informed nets of a few thousand parameters) this goes on.

    Args:
      learning_rate: None for lengths that the line search finds. A number or schedule multiplies
        H g instead, and nothing is evaluated or rejected.
      update: "ssbroyden"; "ssbfgs", BFGS with tau = min(1, s.y / s.Bs); or plain "bfgs".
      max_linesearch_steps: evaluations of one search at most; one that finds nothing is followed
        by one along -grad. None means 30.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation`. Its `update` needs `value_fn`.

    Raises:
      ValueError: `update` is none of these, or a count no positive integer.
      TypeError: a number was expected.

    For mini-batches: no.

    Cost of an update in gradients: about 1.1, and 8 n^2 operations; memory n^2 numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> import hesskit
      >>> rosenbrock = lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
      >>> result = hesskit.minimize(rosenbrock, jnp.array([-1.2, 1.0]), hesskit.ssbroyden())
      >>> print(bool(result.success), result.params.round(3))
      True [1. 1.]

    References:
      Urban, Stefanou & Pons (2025), J. Comput. Phys. 523, 113656.
    """
    errors.check_number(learning_rate, name="learning_rate", schedule=True)
    errors.check_choice(update, UPDATES, name="update")
    errors.check_count(max_linesearch_steps, name="max_linesearch_steps")
    line = Line(empty=_empty, learn=functools.partial(_learn, update=update), direct=_direct)
    if max_linesearch_steps is not None:
        line = line._replace(rules=line.rules._replace(max_trials=max_linesearch_steps))
    if learning_rate is not None:
        return _descend.build_unsearched(line, name="ssbroyden", learning_rate=learning_rate)
    return _descend.build(line, name="ssbroyden", has_aux=has_aux)
