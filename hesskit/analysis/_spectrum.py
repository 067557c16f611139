r"""The spectrum of an operator as questions ask for it: its ends, its sums, what counts as zero."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.analysis import _entry
from hesskit.core import errors, tree
from hesskit.core.keys import as_key
from hesskit.core.types import Array, Params, Product
from hesskit.linalg.inertia import eigen, zero_tolerance
from hesskit.linalg.lanczos import NEGLIGIBLE
from hesskit.linalg.operator import Operator
from hesskit.linalg.probes import normal, signs
from hesskit.linalg.quadrature import Quadrature, quadrature
from hesskit.linalg.stochastic import Estimate, summary
from hesskit.linalg.streamed import Streamed
from hesskit.linalg.thick_restart import Pairs, eigenpairs

LEAST_ROWS, MORE_ROWS = 40, 20
"""Vectors kept in memory: twice what is wanted (scipy and ARPACK) and some, at least 40."""
MOST_CYCLES = 50
"""Products at most, in units of the vectors kept: a bulk at zero never converges."""


def pairs_at_ends(
    op: Operator,
    *,
    lowest: int,
    highest: int,
    key: Any = 0,
    tol: Any = None,
    max_products: Any = None,
    num_rows: int | None = None,
    squared: bool = False,
) -> Pairs:
    """Eigenpairs at the ends of the spectrum; see `hesskit.eigenpairs` for the defaults.

    Args:
      op: the operator.
      lowest: how many of the smallest.
      highest: how many of the largest.
      key: an int or a key, of the start.
      tol: of residuals, relative to |H|.
      max_products: bound.
      num_rows: vectors in memory.
      squared: of H^2 instead, at two products a step.

    Returns:
      `Pairs`, vectors like `_entry.real_like(op)`.

    Raises:
      ValueError: `num_rows` has no room for them.
    """
    errors.check_number(tol, name="tol")
    errors.check_count(max_products, name="max_products")
    n, wanted = _entry.size_of(op), lowest + highest
    room = max(MORE_ROWS + 2 * wanted, LEAST_ROWS) if num_rows is None else num_rows
    if num_rows is not None and not wanted < num_rows:
        raise ValueError(f"num_rows must be more than the {wanted} pairs wanted, got {num_rows}")
    limit = MOST_CYCLES * min(room, n) if max_products is None else max_products
    dtype = tree.result_dtype(op.like)
    return _entry.run(
        _of_square if squared else eigenpairs,
        op,
        normal(as_key(key), _entry.real_like(op)),
        jnp.asarray(accuracy(op, tol), dtype),
        jnp.asarray(limit, jnp.int32),
        lowest=lowest,
        highest=highest,
        num_rows=min(n, room),
    )


def _rules(
    product: Product, like: Params, keys: Array, *, num_steps: int, block_size: int | None
) -> Quadrature:
    def one(key: Array) -> Quadrature:
        return quadrature(product, signs(key, like), num_steps)

    return jax.lax.map(one, keys, batch_size=block_size)


def quadratures(
    op: Operator, num_probes: int, num_steps: int, key: Any, block_size: int | None = None
) -> Quadrature:
    """The rules of `num_probes` random probes, (num_probes, num_steps), at most n steps."""
    errors.check_count(num_probes, name="num_probes")
    errors.check_count(num_steps, name="num_steps")
    errors.check_count(block_size, name="block_size")
    keys = jax.random.split(as_key(key), int(num_probes))
    steps = min(int(num_steps), _entry.size_of(op))
    # Python visits a list of batches with one vector at a time.
    at_once = None if isinstance(op, Streamed) else block_size
    return _entry.run(_rules, op, keys, num_steps=steps, block_size=at_once)


def spectral_sum(
    op: Operator,
    fn: Callable[[Array], Array],
    by_matrix: bool | None,
    num_probes: int,
    num_steps: int,
    key: Any,
) -> Estimate:
    """The sum of `fn` over all eigenvalues: of the matrix that is formed, or by quadrature."""
    if _entry.takes_dense(op, by_matrix):
        w, _ = eigen(_entry.dense(op))
        zero = jnp.zeros((), w.dtype)
        return Estimate(jnp.sum(fn(w)), zero, jnp.asarray(w.size, jnp.int32), jnp.array(True))
    rules = quadratures(op, num_probes, num_steps, key)
    values = jnp.where(rules.weights > 0, fn(rules.nodes), 0)
    sums = _entry.size_of(op) * jnp.sum(rules.weights * values, axis=1)
    return summary(sums, rules.nodes.size)


def accuracy(op: Operator, tol: Any) -> Any:
    """The tolerance of residual norms relative to |H|: as given, or eps^(2/3)."""
    return _entry.eps_of(op) ** (2 / 3) if tol is None else tol


def noise(op: Operator) -> float:
    """What rounding leaves of a residual, relative to |H|."""
    return NEGLIGIBLE * float(jnp.finfo(tree.result_dtype(op.like)).eps)


def _of_square(product: Product, *given: Any, **static: Any) -> Pairs:
    return eigenpairs(lambda v: product(product(v)), *given, **static)


def tolerance_of(given: Any, largest: Array, n: int, eps: float) -> Array:
    """What counts as a zero eigenvalue: as given, or what rounding may make."""
    return zero_tolerance(largest, n, eps) if given is None else jnp.asarray(given, largest.dtype)


def ends(
    op: Operator, by_matrix: bool | None, key: Any, max_products: int | None
) -> tuple[Array, Array, Array]:
    """The smallest and the largest eigenvalue, and the products spent."""
    if _entry.takes_dense(op, by_matrix):
        w, _ = eigen(_entry.dense(op))
        return w[0], w[-1], jnp.asarray(w.size, jnp.int32)
    pairs = pairs_at_ends(op, lowest=1, highest=1, key=key, max_products=max_products)
    return pairs.values[0], pairs.values[1], pairs.num_products
