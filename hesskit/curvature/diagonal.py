r"""The diagonal of a curvature matrix, as a pytree like params: exact or estimated.

With z of independent random signs, H symmetric and A any factor,

    diag H    =  E[z * H z],      one product a sample, of either sign      (1)
    diag A'A  =  E[(A'z)^2],      one reverse pass a sample, never negative (2)

(1) is Hutchinson's estimator; (2) serves Gauss-Newton and Fisher matrices, whose factor is
A = F'J (curvature/gauss_newton.py). With targets drawn from the model's own distribution A has one
row for each example, the gradient of its share of the loss, and (2) is the estimator of Gauss,
Newton and Bartlett: B times the squared gradient of the mean loss of B examples. The signs, one for
each example, change neither its mean nor its variance, since each of those gradients has mean zero;
they keep it unbiased where a penalty is part of the loss.

Source: Bekas, Kokiopoulou & Saad (2007), "An estimator for the diagonal of a matrix"; Liu, Li,
Hall, Liang & Ma (2023), "Sophia", algorithms 1 and 2.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import errors, objective, tree
from hesskit.core.derivatives import Evaluation
from hesskit.core.keys import as_key
from hesskit.core.structured import Outer
from hesskit.core.types import Array, Params, Product
from hesskit.linalg.operator import Preconditioner
from hesskit.linalg.probes import signs

BLOCK = 32
"""Products found at once by `exact`."""


def _mean(sample: Callable[[Array], Params], key: Array, num_samples: Any) -> Params:
    first = sample(jax.random.fold_in(key, 0))
    if isinstance(num_samples, int) and num_samples == 1:
        return first

    def add(i: Array, total: Params) -> Params:
        return tree.add(total, sample(jax.random.fold_in(key, i)))

    total = jax.lax.fori_loop(1, num_samples, add, first)
    return jax.tree.map(lambda a: a / jnp.asarray(num_samples, a.dtype), total)


def hutchinson(product: Product, like: Params, key: Array, *, num_samples: Any = 1) -> Params:
    """The mean of `num_samples` estimates (1).

    Args:
      product: `v -> H v` on real pytrees like `like`.
      like: gives structure, shapes and dtypes.
      key: of the signs, ().
      num_samples: products; may be traced.

    Returns:
      A pytree like `like`, in at least float32.
    """

    def sample(key: Array) -> Params:
        z = signs(key, like)
        return jax.tree.map(jnp.multiply, tree.widen(z), tree.widen(product(z)))

    return _mean(sample, key, num_samples)


def bartlett(
    inner: Callable[[Params], tuple[Any, Any]],
    params: Params,
    drawn: Callable[[Array], Outer],
    key: Array,
    *,
    num_samples: Any = 1,
) -> Params:
    """The mean of `num_samples` estimates (2), each with a factor of its own.

    Args:
      inner: `params -> (outputs, aux)`.
      params: a pytree of real arrays.
      drawn: `key -> Outer`, whose `whiten` gives F': of scores at drawn targets
        (`Outer.scored`), or of any other factor of the curvature of the loss.
      key: of targets and signs, ().
      num_samples: reverse passes; may be traced.

    Returns:
      A pytree like params, in at least float32, with no negative entry.
    """
    outputs, pull, _ = jax.vjp(inner, params, has_aux=True)

    def sample(key: Array) -> Params:
        of_targets, of_signs = jax.random.split(key)
        outer = drawn(of_targets)
        image, back = jax.vjp(lambda v: outer.whiten(outputs, v), tree.zeros_like(outputs))
        (row,) = pull(*back(signs(of_signs, image)))
        return jax.tree.map(jnp.square, tree.widen(row))

    return _mean(sample, key, num_samples)


def exact(product: Product, like: Params) -> Params:
    """The diagonal of the matrix of `product`, by n products.

    Args:
      product: `v -> H v` on real pytrees like `like`.
      like: gives structure, shapes and dtypes.

    Returns:
      A pytree like `like`, in at least float32.
    """
    index = jnp.arange(tree.size(like), dtype=jnp.int32)

    def entry(i: Array) -> Array:
        unit = tree.unravel((index == i).astype(tree.result_dtype(like)), like)
        return tree.vdot(unit, product(unit))

    return tree.unravel(jax.lax.map(entry, index, batch_size=BLOCK), tree.widen(like))


def of_factor(at: Evaluation, like: Params) -> Params:
    """The diagonal of A'A, from the rows of A where they are fewer than its columns.

    Args:
      at: an evaluation of a structured objective, with `product` and `rows`.
      like: params.

    Returns:
      A pytree like `like`, in at least float32.
    """
    assert at.product is not None
    assert at.rows is not None
    if jax.eval_shape(at.rows).matrix.shape[0] < tree.size(like):
        return tree.unravel(jnp.sum(at.rows().matrix ** 2, axis=0), tree.widen(like))
    return exact(at.product, like)


class _Seen(NamedTuple):
    """The mean square of the estimates at the points so far."""

    key: Array  # uint32, of the next signs
    squares: Params
    weight: Array  # (), of the points in the mean


def _positive(diagonal: Params) -> Params:
    """Its absolute value, at least eps times the largest; 1 where all is zero."""
    sizes = jax.tree.map(jnp.abs, diagonal)
    floor = tree.max_abs(sizes) * tree.coarsest_eps(sizes)
    floor = jnp.where(floor > 0, floor, 1)
    return jax.tree.map(lambda d: jnp.maximum(d, floor.astype(d.dtype)), sizes)


def _divide(vector: Params, diagonal: Params, damping: Array, exponent: Any) -> Params:
    def leaf(v: Array, d: Array) -> Array:
        scale = (d + damping.astype(d.dtype)) ** jnp.asarray(exponent, d.dtype)
        return (v.astype(d.dtype) / scale).astype(v.dtype)

    return jax.tree.map(leaf, vector, _positive(diagonal))


def _fixed(diagonal: Params, exponent: Any) -> Preconditioner:
    known = tree.widen(objective.split(errors.check_params(diagonal, name="diagonal")))

    def init(params: Params) -> tuple[()]:
        errors.check_like(known, params, name="diagonal")
        return ()

    return Preconditioner(
        init=init,
        update=lambda state, product, params: state,
        apply=lambda state, vector, damping: _divide(vector, known, damping, exponent),
    )


@functools.lru_cache(maxsize=256)
def _estimated(num_samples: int, decay: Any, exponent: Any, seed: int) -> Preconditioner:
    def init(params: Params) -> _Seen:
        zero = jnp.zeros((), tree.result_dtype(params))
        return _Seen(jax.random.key_data(as_key(seed)), tree.widen(tree.zeros_like(params)), zero)

    def update(state: _Seen, product: Product, params: Params) -> _Seen:
        key, now = jax.random.split(jax.random.wrap_key_data(state.key))

        def sample(key: Array) -> Params:
            return jax.tree.map(jnp.square, hutchinson(product, params, key))

        new = _mean(sample, now, num_samples)
        finite = tree.all_finite(new)
        mixed = _Seen(
            jax.random.key_data(key),
            jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state.squares, new),
            decay * state.weight + (1 - decay),
        )
        return tree.where(finite, mixed, state)

    def apply(state: _Seen, vector: Params, damping: Array) -> Params:
        weight = jnp.where(state.weight > 0, state.weight, 1)
        root = jax.tree.map(lambda a: jnp.sqrt(a / weight.astype(a.dtype)), state.squares)
        return _divide(vector, root, damping, exponent)

    return Preconditioner(init, update, apply)


def diagonal_preconditioner(
    diagonal: Params | None = None,
    *,
    num_samples: int = 1,
    decay: float = 0.9,
    exponent: float = 1.0,
    key: int = 0,
) -> Preconditioner:
    r"""A diagonal in place of the Hessian: for problems whose entries have unlike scales.

    apply(v) = v / (|d| + damping)^exponent. Without a given d it is the root mean square of z * H z
    over random signs z at the points so far, which tends to the norms of the rows of H and is
    therefore never zero by chance.

    Args:
      diagonal: d, like params, kept as it is; entry 0 counts as eps times the largest. None means
        the estimate.
      num_samples: products spent at each new point.
      decay: of the mean over points: an estimate counts for 1 / (1 - decay) points.
      exponent: 1, or 0.75 as Martens (2010), section 4.7.
      key: an int, of the signs.

    Returns:
      A `Preconditioner` for `newton_cg` and other methods that need products alone.

    Raises:
      ValueError: a number is out of its range; in `init`: `diagonal` is not like params.
      TypeError: a number or a tree of floats was expected.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> scales = jnp.logspace(0.0, 4.0, 50)
      >>> f = lambda x: jnp.sum(scales * (x - 1.0) ** 2) + jnp.sum(x) ** 2
      >>> opt = hesskit.newton_cg(preconditioner=hesskit.diagonal_preconditioner())
      >>> print(hesskit.minimize(f, jnp.zeros(50), opt).success)
      True

    References:
      Martens (2010), "Deep learning via Hessian-free optimization"; Chapelle & Erhan (2011),
      "Improved preconditioner for Hessian free optimization"; Yao et al. (2021), AdaHessian, (10).
    """
    errors.check_count(num_samples, name="num_samples")
    errors.check_number(decay, name="decay", high=1.0, none=False)
    errors.check_number(exponent, name="exponent", high=1.0, none=False)
    errors.check_count(key, name="key", low=0)
    if diagonal is not None:
        return _fixed(diagonal, exponent)
    return _estimated(int(num_samples), float(decay), float(exponent), int(key))
