r"""What a function does where its second derivatives are silent: the first terms that speak.

At a critical point x with Hessian H let N be the null space of H and R its complement. For d in N
follow the curve that is critical across N,

    c(t)  =  x + d t + c_2 t^2 + c_3 t^3 + ...,    c_k in R,
    c_k   =  -H^+ [t^k] grad f(x + d t + ... + c_{k-1} t^{k-1}),                  (1)

and expand f(c(t)) = f(x) + a_3(d) t^3 + a_4(d) t^4 + ... By the splitting lemma f is, in suitable
coordinates, a definite quadratic form across N plus a function on N with these coefficients. If the
first a_k that is not zero on N is odd in k, f goes both up and down; if k is even and a_k is
positive (negative) for every d, x is a strict minimum (maximum) on N. Where a_k is positive for
some d and zero for others the terms of one order do not decide.

Source: Gromoll & Meyer (1969), Topology 8, 361-369 (the splitting lemma); Poston & Stewart (1978),
Catastrophe Theory and its Applications, chapter 4.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import pseudo_random
from hesskit.core.types import Array

CIRCLE, SAMPLES = 256, 128
"""Directions looked at: of the half circle in the first two dimensions of N, and at random."""
BETWEEN = 1e-3
"""By how much of its range a form of order <= 8 may undercut its least value on the circle: a
trigonometric polynomial of degree k at M points, (1/cos(pi k/M) - 1)/2 (Ehlich & Zeller 1964)."""
BETWEEN_SAMPLES = 1e-2
"""The same where directions are random ones of more dimensions: a matter of judgment."""
ROUNDING = 100
"""Of a coefficient, in eps of the largest; between it and sqrt(eps) one is in doubt."""
MAX_ORDER = 4
"""The first order that can make a degenerate minimum; the next, 6, costs four times as much."""


class LeadingForm(NamedTuple):
    """What the first terms beyond the quadratic say, each ()."""

    ascends: Array  # bool: f goes up along some curve
    descends: Array  # bool: f goes down along some curve
    definite: Array  # bool: the first form is of one sign in all directions of N
    order: Array  # int32, of the first term that is not zero; 0 if there is none


def coefficients(fn: Callable[[Array], Array], t: Array, order: int) -> list[Array]:
    """The Taylor coefficients of a function of one number up to `order`, by nested tangents."""

    def up_to(k: int, t: Array) -> tuple[Array, ...]:
        if k == 0:
            return (fn(t),)
        found, tangents = jax.jvp(functools.partial(up_to, k - 1), (t,), (jnp.ones_like(t),))
        return (*found, tangents[-1] / k)

    return list(up_to(order, t))


def _along(
    fn: Callable[[Array], Array], x: Array, d: Array, inverse: Array, max_order: int
) -> Array:
    """a_2 ... a_max along the curve (1) of one direction, (max_order - 1,)."""
    grad, terms, zero = jax.grad(fn), [d], jnp.zeros((), x.dtype)

    def curve(t: Array) -> Array:
        total = jnp.zeros_like(x)
        for term in reversed(terms):
            total = t * (term + total)
        return x + total

    for k in range(2, max_order // 2 + 1):
        terms.append(-inverse @ coefficients(lambda t: grad(curve(t)), zero, k)[k])
    return jnp.stack(coefficients(lambda t: fn(curve(t)), zero, max_order)[2:])


def _directions(n: int, null: Array, dtype: jnp.dtype) -> Array:
    """Unit vectors whose entries beyond the first `null` are zero, (num, n)."""
    angle = jnp.arange(CIRCLE, dtype=dtype) * (jnp.pi / CIRCLE)
    circle = jnp.zeros((CIRCLE, n), dtype).at[:, 0].set(jnp.cos(angle))
    if n == 1:
        return circle.at[:, 0].set(1)
    circle = circle.at[:, 1].set(jnp.sin(angle))
    rest = pseudo_random.like(jnp.zeros((SAMPLES, n), dtype))
    all_of = jnp.concatenate([circle, jnp.eye(n, dtype=dtype), rest])
    all_of = jnp.where(jnp.arange(n) < null, all_of, 0)
    size = jnp.sqrt(jnp.sum(all_of**2, axis=1, keepdims=True))
    first = jnp.zeros((1, n), dtype).at[0, 0].set(1)
    return jnp.where(size > 0, all_of / jnp.where(size > 0, size, 1), first)


def leading_form(
    fn: Callable[[Array], Array],
    x: Array,
    eigenvalues: Array,
    eigenvectors: Array,
    tolerance: Array,
    *,
    max_order: int,
) -> LeadingForm:
    """The first terms that speak on the null space of the Hessian at a critical point.

    Args:
      fn: f, of a vector.
      x: the point, (n,).
      eigenvalues: of H, (n,).
      eigenvectors: its columns, (n, n).
      tolerance: eigenvalues within it are zero, ().
      max_order: static, the last order looked at; cost grows as its power of two.

    Returns:
      A `LeadingForm`. Coefficients below sqrt(eps) of the largest count as zero; where one of
      them comes before the form and is above 100 eps, the form does not count as definite.
    """
    zero = jnp.abs(eigenvalues) <= tolerance
    null = jnp.sum(zero)
    first = jnp.argsort(~zero, stable=True)
    d = _directions(x.shape[0], null, x.dtype) @ eigenvectors[:, first].T
    inverted = jnp.where(zero, 0, 1 / jnp.where(zero, 1, eigenvalues))
    inverse = (eigenvectors * inverted[None, :]) @ eigenvectors.T
    a = jax.vmap(lambda row: _along(fn, x, row, inverse, max_order))(d)
    scale = jnp.maximum(jnp.max(jnp.abs(eigenvalues)), jnp.max(jnp.abs(a)))
    eps = jnp.finfo(x.dtype).eps
    speaks = jnp.abs(a[:, 1:]) > eps**0.5 * scale
    whispers = jnp.any(jnp.abs(a[:, 1:]) > ROUNDING * eps * scale, axis=0)
    place = jnp.argmax(speaks, axis=1)
    lead = jnp.where(
        jnp.any(speaks, axis=1), jnp.take_along_axis(a[:, 1:], place[:, None], axis=1)[:, 0], 0
    )
    odd = (place % 2 == 0) & (lead != 0)
    lowest = jnp.min(jnp.where(lead != 0, place, max_order))
    at = jnp.take(a[:, 1:], jnp.minimum(lowest, max_order - 3), axis=1)
    doubt = jnp.any(whispers & (jnp.arange(max_order - 2) < lowest))
    size, sign = jnp.max(jnp.abs(at)), jnp.sign(jnp.sum(at))
    margin = jnp.where(null <= 2, BETWEEN, BETWEEN_SAMPLES)
    definite = jnp.all((sign * at > margin * size) & (place == lowest) & (lead != 0))
    return LeadingForm(
        ascends=jnp.any(odd | (lead > 0)),
        descends=jnp.any(odd | (lead < 0)),
        definite=definite & ~jnp.any(odd) & ~doubt,
        order=jnp.where(lowest < max_order, lowest + 3, 0).astype(jnp.int32),
    )
