r"""Losses of a model's outputs whose curvature is known in closed form.

    l(z; t)  =  sum_i c_i l_i(z_i, t_i)                                     (1)

over entries or examples i, with the Hessian H and a factor F, H = F F', of each l_i:

    squared error, gaussian, sigmoid, poisson:   H a number, F = sqrt(H)

Squares have a residual b with F b = grad l. For the others b grows beyond all numbers where an
output is far off (that of sigmoid as exp(|z|/2)), so they have none. Classes have a file of their
own (core/categorical.py).

Each is the negative log-likelihood of a distribution of t given z, a constant apart: the Gaussian
of variance 1/2 or sigma^2, Bernoulli, Poisson, categorical. H does not depend on t, so it is the
Fisher matrix of the outputs.

Source: Martens (2020), "New insights and perspectives on the natural gradient method", sections 6
and 9.
"""

import abc
import dataclasses
import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from hesskit.core import errors, tree
from hesskit.core.structured import Scores
from hesskit.core.terms import ByParts
from hesskit.core.types import Array, Scalar

REDUCTIONS = ("mean", "sum")
"""c_i is 1 over the number of i that count, or 1."""


def one_array(item: Any, name: str) -> Array:
    """`item` as one array; TypeError for a pytree or complex numbers."""
    if not jax.tree_util.all_leaves([item]):
        raise TypeError(f"got {errors.describe(item)} for {name}; this loss takes one array")
    array = jnp.asarray(item)
    if jnp.iscomplexobj(array):
        raise TypeError(f"got {array.dtype} for {name}; this loss takes real numbers")
    return array


def _like(item: Any, outputs: Array, name: str) -> Array:
    """`item`, of shape () or that of the outputs, in their dtype."""
    array = one_array(item, name)
    if array.shape not in ((), outputs.shape):
        raise ValueError(
            f"got shape {array.shape} for {name}, {outputs.shape} for outputs; reshape one to the "
            "other, since a broadcast would pair every entry with every other"
        )
    return jnp.broadcast_to(array.astype(outputs.dtype), outputs.shape)


def _mask(where: Any, shape: tuple[int, ...]) -> Array:
    """The mask of what counts, in `shape`; a mask of fewer axes has the leading ones."""
    mask = jnp.asarray(where)
    if mask.shape != shape[: mask.ndim]:
        raise ValueError(f"where has shape {mask.shape}, expected the leading axes of {shape}")
    return jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)


def kept(c: Array, entry: Array) -> Array:
    """0 in place of what does not count: not even NaN gets through."""
    return jnp.where(c > 0, entry, 0)


def _check_mask(where: Any) -> None:
    if where is not None and jnp.asarray(where).dtype != jnp.bool_:
        raise TypeError(f"where must be a mask of bools, got {jnp.asarray(where).dtype}")


@dataclasses.dataclass(frozen=True, eq=False)
class Loss(ByParts, abc.ABC):
    """The loss (1); a subclass gives its values and what they are differentiated to.

    Attributes:
      reduction: "mean" or "sum".
      where: a mask of what counts, or None for all.
    """

    is_likelihood: ClassVar = True

    reduction: str = "mean"
    where: Any = None

    def __post_init__(self) -> None:
        """Checks the arguments of a factory."""
        errors.check_choice(self.reduction, REDUCTIONS, name="reduction")
        _check_mask(self.where)

    def _at(self, outputs: Any, targets: Any, *, where: Any = None) -> tuple[Array, ...]:
        """Coefficients c of (1), outputs z and targets t."""
        z = tree.widen(one_array(outputs, "outputs"))
        c = self._shares(where, z.shape, z.dtype)
        return c, kept(c, z), kept(c, _like(targets, z, "targets"))

    def _shares(
        self, where: Any, shape: tuple[int, ...], dtype: jnp.dtype, known: Array | None = None
    ) -> Array:
        """Coefficients c of (1), 0 where not `where` or not `known`."""
        where = self.where if where is None else where
        _check_mask(where)
        masks = [known] if where is None else [known, _mask(where, shape)]
        counted = functools.reduce(jnp.logical_and, (m for m in masks if m is not None), True)
        number = math.prod(shape) if counted is True else jnp.sum(counted)
        c = jnp.broadcast_to(counted, shape).astype(dtype)
        return c / jnp.maximum(number, 1).astype(dtype) if self.reduction == "mean" else c

    @abc.abstractmethod
    def _values(self, *entries: Array) -> Array:
        """l_i."""

    @abc.abstractmethod
    def hessian_product(self, outputs: Any, v: Any, *data: Any, **named: Any) -> Array:
        """H v."""

    @abc.abstractmethod
    def whiten(self, outputs: Any, v: Any, *data: Any, **named: Any) -> Array:
        """F'v."""

    @abc.abstractmethod
    def scores(self, outputs: Any, *data: Any, key: Any = None, **named: Any) -> Scores:
        """sqrt(c) grad l_i by example, the first axis; at drawn targets if there is a key."""

    def __call__(self, outputs: Any, targets: Any, *, where: Any = None) -> Array:
        """The loss, () of at least float32; a mask given here replaces its own."""
        return self._total(*self._at(outputs, targets, where=where))

    def _total(self, c: Array, *entries: Array) -> Array:
        return jnp.sum(c * self._values(*entries))

    def residual(self, outputs: Any, *data: Any, **named: Any) -> Array | None:
        """None, or b with F b = grad l."""
        del outputs, data, named

    def report(self, outputs: Any, aux: Any, *data: Any, **named: Any) -> Any:
        """The aux of the inner function."""
        del outputs, data, named
        return aux


@dataclasses.dataclass(frozen=True, eq=False)
class EntryLoss(Loss):
    """The loss (1) with a diagonal H; a subclass gives `_values` and its derivatives by entry."""

    @abc.abstractmethod
    def _curvatures(self, *entries: Array) -> Array:
        """The second derivative of l_i by z_i."""

    @abc.abstractmethod
    def _slopes(self, *entries: Array) -> Array:
        """The derivative of l_i by z_i."""

    @abc.abstractmethod
    def _draw(self, key: Array, *entries: Array) -> Array:
        """Targets from the model's distribution, in place of those among the entries."""

    def hessian_product(self, outputs: Any, v: Any, *data: Any, **named: Any) -> Array:
        """H v."""
        c, *entries = self._at(outputs, *data, **named)
        return (c * self._curvatures(*entries) * v.astype(c.dtype)).astype(v.dtype)

    def whiten(self, outputs: Any, v: Any, *data: Any, **named: Any) -> Array:
        """F'v with F = sqrt(H)."""
        c, *entries = self._at(outputs, *data, **named)
        return jnp.sqrt(c * self._curvatures(*entries)) * v.astype(c.dtype)

    def scores(self, outputs: Any, *data: Any, key: Any = None, **named: Any) -> Scores:
        """sqrt(c) grad l_i by example, the first axis; at drawn targets if there is a key."""
        c, z, t, *rest = self._at(outputs, *data, **named)
        if key is not None:
            t = self._draw(key, z, *rest).astype(z.dtype)
        root = jnp.sqrt(c)
        by_example = jnp.max(root, axis=tuple(range(1, root.ndim)), initial=0)
        return Scores(kept(c, root * self._slopes(z, t, *rest)), by_example)


@dataclasses.dataclass(frozen=True, eq=False)
class SquaredError(EntryLoss):
    """The square of z - t."""

    def _values(self, z: Array, t: Array) -> Array:
        return (z - t) ** 2

    def _curvatures(self, z: Array, t: Array) -> Array:
        del t
        return jnp.full_like(z, 2)

    def _slopes(self, z: Array, t: Array) -> Array:
        return 2 * (z - t)

    def _draw(self, key: Array, z: Array) -> Array:
        return z + math.sqrt(0.5) * jax.random.normal(key, z.shape, z.dtype)

    def residual(self, outputs: Any, *data: Any, **named: Any) -> Array:
        """sqrt(2 c) (z - t)."""
        c, z, t = self._at(outputs, *data, **named)
        return jnp.sqrt(2 * c) * (z - t)


@dataclasses.dataclass(frozen=True, eq=False)
class SigmoidCrossEntropy(EntryLoss):
    """Cross entropy of a probability t and sigmoid(z)."""

    def _values(self, z: Array, t: Array) -> Array:
        return -t * jax.nn.log_sigmoid(z) - (1 - t) * jax.nn.log_sigmoid(-z)

    def _curvatures(self, z: Array, t: Array) -> Array:
        del t
        return jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)

    def _slopes(self, z: Array, t: Array) -> Array:
        return jax.nn.sigmoid(z) - t

    def _draw(self, key: Array, z: Array) -> Array:
        return jax.random.bernoulli(key, jax.nn.sigmoid(z))


@dataclasses.dataclass(frozen=True, eq=False)
class Poisson(EntryLoss):
    """Negative log-likelihood of a count t at the log rate z, less log t!."""

    def _values(self, z: Array, t: Array) -> Array:
        return jnp.exp(z) - t * z

    def _curvatures(self, z: Array, t: Array) -> Array:
        del t
        return jnp.exp(z)

    def _slopes(self, z: Array, t: Array) -> Array:
        return jnp.exp(z) - t

    def _draw(self, key: Array, z: Array) -> Array:
        return jax.random.poisson(key, jnp.exp(z))


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian(EntryLoss):
    """Negative log-likelihood of t at mean z and known standard deviation."""

    def _at(
        self, outputs: Any, targets: Any, sigma: Any = 1.0, *, where: Any = None
    ) -> tuple[Array, ...]:
        """Also sigma; an infinite one drops its entry."""
        z = tree.widen(one_array(outputs, "outputs"))
        sigma = _like(sigma, z, "sigma")
        c = self._shares(where, z.shape, z.dtype, ~jnp.isinf(sigma))
        t = _like(targets, z, "targets")
        return c, kept(c, z), kept(c, t), jnp.where(c > 0, sigma, 1)

    def _values(self, z: Array, t: Array, sigma: Array) -> Array:
        return ((z - t) / sigma) ** 2 / 2 + jnp.log(sigma) + math.log(2 * math.pi) / 2

    def _curvatures(self, z: Array, t: Array, sigma: Array) -> Array:
        del z, t
        return 1 / sigma**2

    def _slopes(self, z: Array, t: Array, sigma: Array) -> Array:
        return (z - t) / sigma**2

    def _draw(self, key: Array, z: Array, sigma: Array) -> Array:
        return z + sigma * jax.random.normal(key, z.shape, z.dtype)

    def __call__(
        self, outputs: Any, targets: Any, sigma: Scalar | Array = 1.0, *, where: Any = None
    ) -> Array:
        """The loss, () of at least float32; a mask given here replaces its own."""
        return self._total(*self._at(outputs, targets, sigma, where=where))

    def residual(self, outputs: Any, *data: Any, **named: Any) -> Array:
        """sqrt(c) (z - t) / sigma."""
        c, z, t, sigma = self._at(outputs, *data, **named)
        return jnp.sqrt(c) * (z - t) / sigma
