r"""Six diagonals of curvature at one point, side by side.

    diag H           of the Hessian, exact, or estimated from products (Hutchinson)
    diag J'H J       of the Gauss-Newton matrix; the Fisher matrix where l is a log-likelihood
    mean c (J'u)^2   its estimate by sampled targets (Gauss, Newton, Bartlett)
    sum c_i g_i^2    of the empirical Fisher matrix, g_i the gradient of example i
    g^2              the squared gradient of this batch, which Adam's second moment averages

They answer different questions. With shares c_i = 1/B, the gradients g_i of a batch have mean g and
variance V, and g^2 is g_bar^2 + V/B in the mean over batches: of the size of diag J'H J / B near a
fit, and not the curvature. curvature/diagonal.py has the estimators.

Source: Martens (2020), "New insights and perspectives on the natural gradient method", section 11;
Kunstner, Balles & Hennig (2019), "Limitations of the empirical Fisher approximation".
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import answer, errors, objective, tree
from hesskit.core.derivatives import linearized
from hesskit.core.keys import as_key
from hesskit.core.structured import Structured
from hesskit.core.types import Array, Params
from hesskit.curvature import diagonal
from hesskit.curvature.fisher import with_fisher
from hesskit.linalg import whitened

AFFORDABLE = 5000
"""Entries up to which the Hessian's diagonal is found exactly, at one product each."""


class Diagonals(NamedTuple):
    """Each a tree like params, or None where there is none; `print` it.

    Attributes:
      hessian: of the Hessian, exact.
      hutchinson: of the Hessian, estimated by random signs and products.
      gauss_newton: of the Gauss-Newton matrix, exact; needs a loss with its structure.
      fisher: of the Fisher matrix, exact: equal to `gauss_newton`, where the loss is a
        log-likelihood.
      bartlett: of the Fisher matrix, estimated by sampled targets.
      empirical_fisher: the sum of the squared gradients of examples, by their shares of the loss.
      squared_gradient: of the whole batch: what Adam's second moment averages.
    """

    hessian: Params | None
    hutchinson: Params
    gauss_newton: Params | None
    fisher: Params | None
    bartlett: Params | None
    empirical_fisher: Params | None
    squared_gradient: Params

    def __repr__(self) -> str:
        """A table: norms, distances and correlations to the first of them."""
        return "Diagonals: not known inside jit" if answer.unknown(tuple(self)) else _table(self)

    def _repr_html_(self) -> str:
        """The same in a notebook."""
        return answer.preformatted(repr(self))


def _vector(entry: Params) -> Array:
    return tree.ravel(objective.split(entry))


def _correlation(x: Array, y: Array) -> Array:
    x, y = x - jnp.mean(x), y - jnp.mean(y)
    size = tree.norm(x) * tree.norm(y)
    return jnp.where(size > 0, tree.vdot(x, y) / jnp.where(size > 0, size, 1), jnp.nan)


def _table(found: Diagonals) -> str:
    """The rows of what there is, beside the exact Hessian, or what is nearest to it."""
    rows = {name: _vector(entry) for name, entry in found._asdict().items() if entry is not None}
    reference = next(name for name in ("hessian", "gauss_newton", "hutchinson") if name in rows)
    near = rows[reference]
    size = float(tree.norm(near)) or 1.0
    lines = [
        f"diagonals of {near.size} entries, beside {reference}",
        f"{'':17}{'norm':>10}{'negative':>10}{'distance':>10}{'correlation':>13}",
    ]
    for name, row in rows.items():
        negative = float(jnp.mean(row < 0))
        distance = float(tree.norm(row - near)) / size
        lines.append(
            f"{name:17}{float(tree.norm(row)):10.2e}{negative:10.1%}{distance:10.2e}"
            f"{float(_correlation(row, near)):13.3f}"
        )
    return "\n".join(lines)


@functools.partial(jax.jit, static_argnames=("value_fn", "num_samples", "exact"))
def _compare(
    params: Params, args: Any, key: Array, *, value_fn: Any, num_samples: int, exact: bool
) -> Diagonals:
    caller = "compare_diagonals"
    fn, point = objective.real(value_fn, params, args=args, caller=caller)
    at = linearized(fn, point)
    assert at.product is not None
    for_hessian, for_fisher = jax.random.split(key)
    whole: dict[str, Any] = dict.fromkeys(Diagonals._fields)
    if exact:
        whole["hessian"] = diagonal.exact(at.product, point)
    whole["hutchinson"] = diagonal.hutchinson(
        at.product, point, for_hessian, num_samples=num_samples
    )
    whole["squared_gradient"] = jax.tree.map(jnp.square, tree.widen(at.grad))
    if isinstance(fn, Structured):
        whole["gauss_newton"] = diagonal.of_factor(
            whitened.evaluate(fn, point, caller=caller), point
        )
        if fn.outer.scored is not None:
            whole |= _of_likelihood(fn, point, for_fisher, num_samples)
            whole["fisher"] = whole["gauss_newton"]
    return Diagonals(**{name: _joined(entry, params) for name, entry in whole.items()})


def _of_likelihood(fn: Structured, point: Params, key: Array, num_samples: int) -> dict[str, Any]:
    """What needs the distribution of the outputs."""
    caller, scored = "compare_diagonals", fn.outer.scored
    assert scored is not None
    given = with_fisher(fn, "empirical", None, centered=False, caller=caller)
    return {
        "bartlett": diagonal.bartlett(
            fn.inner, point, lambda k: scored(k, False), key, num_samples=num_samples
        ),
        "empirical_fisher": diagonal.of_factor(
            whitened.evaluate(given, point, caller=caller), point
        ),
    }


def _joined(entry: Params | None, params: Params) -> Params | None:
    return None if entry is None else objective.join(entry, params)


def compare_diagonals(
    value_fn: Callable[..., Any],
    params: Params,
    *,
    args: Any = (),
    key: Any = 0,
    num_samples: int = 100,
    exact: bool | None = None,
) -> Diagonals:
    r"""The diagonals of curvature at `params` side by side, exact and as optimizers estimate them.

    What `hesskit.adahessian` and `hesskit.sophia` divide by (Hutchinson, Bartlett), what these
    estimate (Hessian, Gauss-Newton, Fisher), and what is used in their place (the empirical Fisher
    matrix, Adam's squared gradient).

    Args:
      value_fn: `value_fn(params, ...) -> ()`. With its structure, such as
        `hesskit.composite(hesskit.losses.softmax_cross_entropy(), model)`, there are all; of a
        plain function, those of the Hessian and of the gradient.
      params: a pytree of real or complex float arrays with n entries.
      args: data for `value_fn`: a tuple, positional after params, or a dict, by name.
      key: an int or a key, for the two estimates.
      num_samples: products and reverse passes averaged in each of them.
      exact: whether the Hessian's own is found, by n products. None means up to 5,000 entries.

    Returns:
      `Diagonals`: trees like params, which print as a table. Of a complex entry the two curvatures
      are the real and imaginary part.

    Raises:
      TypeError: a leaf or an entry of `args` is no array of numbers, `value_fn` no function.
      ValueError: `num_samples` is no positive integer, or params is empty.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> loss = hesskit.composite(hesskit.losses.sigmoid_cross_entropy(), lambda w, x: x @ w)
      >>> data = jnp.array([[1.0, 0.0], [1.0, 2.0]]), jnp.array([0, 1])
      >>> found = hesskit.compare_diagonals(loss, jnp.zeros(2), args=data)
      >>> print(found.hessian, found.gauss_newton, found.squared_gradient)
      [0.25 0.5 ] [0.25 0.5 ] [0.   0.25]

    References:
      Kunstner, Balles & Hennig (2019), NeurIPS; Liu et al. (2023), Sophia, section 2.3.
    """
    errors.check_callable(value_fn, name="value_fn")
    errors.check_data(args)
    errors.check_count(num_samples, name="num_samples")
    params = errors.check_params(params)
    if exact is None:
        exact = tree.size(objective.split(params)) <= AFFORDABLE
    return _compare(
        params,
        args,
        as_key(key),
        value_fn=value_fn,
        num_samples=int(num_samples),
        exact=bool(exact),
    )
