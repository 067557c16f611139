r"""Cross entropy of labels and softmax outputs, with its curvature in closed form.

For labels t, p = softmax(z), q = sqrt(p) and an example of share c,

    H  =  c |t|_1 (diag(p) - p p'),     F  =  (c |t|_1)^(1/2) (diag(q) - p q')     (1)

Source: Martens (2020), "New insights and perspectives on the natural gradient method", section 9.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import tree
from hesskit.core.closed_form import Loss, kept, one_array
from hesskit.core.structured import Scores, row_dot
from hesskit.core.types import Array


@dataclasses.dataclass(frozen=True, eq=False)
class SoftmaxCrossEntropy(Loss):
    """Cross entropy of labels and softmax(z) over the last axis."""

    def _at(self, outputs: Any, targets: Any, *, where: Any = None) -> tuple[Array, ...]:
        """Coefficients of examples, with an axis for classes; outputs z and labels t."""
        z = tree.widen(one_array(outputs, "outputs"))
        if z.ndim == 0:
            raise ValueError("got shape () for outputs, expected (..., classes)")
        c = self._shares(where, z.shape[:-1], z.dtype)[..., None]
        return c, kept(c, z), kept(c, _labels(targets, z))

    def _values(self, z: Array, t: Array) -> Array:
        # A logit of -inf excludes a class: 0 log 0 = 0.
        log_p = jnp.maximum(jax.nn.log_softmax(z), jnp.finfo(z.dtype).min)
        return -jnp.sum(t * log_p, axis=-1, keepdims=True)

    def hessian_product(self, outputs: Any, v: Any, *data: Any, **named: Any) -> Array:
        """H v = p (v - p.v), times |t|_1."""
        c, z, t = self._at(outputs, *data, **named)
        p, away = _centered(z, v)
        return (c * jnp.sum(t, axis=-1, keepdims=True) * p * away).astype(v.dtype)

    def whiten(self, outputs: Any, v: Any, *data: Any, **named: Any) -> Array:
        """F'v = sqrt(p) (v - p.v), times the root of |t|_1."""
        c, z, t = self._at(outputs, *data, **named)
        p, away = _centered(z, v)
        return jnp.sqrt(c * jnp.sum(t, axis=-1, keepdims=True) * p) * away

    def scores(self, outputs: Any, *data: Any, key: Any = None, **named: Any) -> Scores:
        """sqrt(c |t|_1) (p - t / |t|_1) by example; at drawn classes if there is a key."""
        c, z, t = self._at(outputs, *data, **named)
        size = jnp.sum(t, axis=-1, keepdims=True)
        if key is None:
            share = t / jnp.where(size > 0, size, 1)
        else:
            share = jax.nn.one_hot(jax.random.categorical(key, z), z.shape[-1], dtype=z.dtype)
        root = jnp.sqrt(c * size)
        return Scores(root * (jax.nn.softmax(z) - share), root[..., 0])


def _labels(targets: Any, z: Array) -> Array:
    """Labels like z: those given, or one-hot; NaN for a class number that is none."""
    t = one_array(targets, "targets")
    if t.shape == z.shape:
        return t.astype(z.dtype)
    if t.shape != z.shape[:-1]:
        raise ValueError(
            f"got shape {t.shape} for targets, {z.shape} for outputs; expected class numbers of "
            f"shape {z.shape[:-1]} or labels of shape {z.shape}"
        )
    if not jnp.issubdtype(t.dtype, jnp.integer):
        raise TypeError(f"got {t.dtype} for targets; class numbers are integers: astype(int)")
    number, classes = t.astype(jnp.int32)[..., None], z.shape[-1]
    hot = number == jax.lax.broadcasted_iota(jnp.int32, z.shape, z.ndim - 1)
    return jnp.where((number >= 0) & (number < classes), hot.astype(z.dtype), jnp.nan)


def _centered(z: Array, v: Array) -> tuple[Array, Array]:
    """p = softmax(z), and v - p.v."""
    p, v = jax.nn.softmax(z), v.astype(z.dtype)
    # Less that of the likeliest class: p.v then has no cancellation where p is nearly 1.
    v = v - jnp.take_along_axis(v, jnp.argmax(z, axis=-1, keepdims=True), axis=-1)
    return p, v - row_dot(p, v)[..., None]
