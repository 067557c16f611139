r"""Sums of squared residuals, robust or not: the outer loss of least squares.

With residuals r, standard deviations sigma, a coefficient c for each leaf and u = r / sigma,

    l(r)  =  sum_leaf c sum_i  scale^2 rho(u_i^2 / scale^2)                 (1)

    "sum":   c = w / 2,   half the sum of squares
    "mean":  c = w / (residuals of the leaf with finite sigma), the sum over leaves of w mean(u^2)

and rho(z) = z unless the loss is robust. Its Hessian is diagonal, with entries and floor

    2 c / sigma^2  max(rho' + 2 z rho'', FLOOR rho')                        (2)

since rho' + 2 z rho'' is zero or negative for outliers, which the rows of least squares cannot be.

Source: Nocedal & Wright (2006), chapter 10; robust: Triggs, McLauchlan, Hartley & Fitzgibbon
(2000), "Bundle adjustment", section 4.3; the losses: scipy.optimize.least_squares.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import errors, objective, prefix, tree
from hesskit.core.composite import Composite
from hesskit.core.structured import Scores
from hesskit.core.terms import ByParts
from hesskit.core.types import Array, Scalar

FLOOR = 0.01
"""Of the slope of rho: an outlier keeps a hundredth of the curvature it has as a reweighted one."""


def _huber(z: Array) -> Array:
    return jnp.where(z <= 1, z, 2 * jnp.sqrt(jnp.where(z <= 1, 1, z)) - 1)


LOSSES: dict[str, Callable[[Array], Array]] = {
    "linear": lambda z: z,
    "huber": _huber,
    "soft_l1": lambda z: 2 * z / (jnp.sqrt(1 + z) + 1),  # 2 (sqrt(1 + z) - 1) without cancellation
    "cauchy": jnp.log1p,
    "arctan": jnp.arctan,
}
"""rho(z) by name, z = (r / scale)^2."""


class Complex(NamedTuple):
    """A complex leaf of residuals as two real ones: each of its numbers is one residual."""

    parts: Array  # (2, *shape)


class Leaf(NamedTuple):
    """What (1) needs of one leaf of the residuals."""

    r: Array  # at least float32, 0 where sigma is infinite
    c: Array  # ()
    inverse: Array  # 1 / sigma
    count: Array  # (), the residuals that are not dropped


def _is_complex(node: Any) -> bool:
    return isinstance(node, Complex)


@dataclasses.dataclass(frozen=True, eq=False)
class Squares(ByParts):
    """The loss (1) of residuals.

    Attributes:
      weights: w, a prefix tree of scalars, or None for 1.
      reduction: "sum" or "mean".
      loss: a name of `LOSSES`, or rho itself.
      scale: where an outlier begins, in the unit of r / sigma.
      sigma: standard deviations, a prefix tree of scalars or arrays, or None for 1.
    """

    names: ClassVar = ("least_squares_loss", "residual_fn")
    is_squares: ClassVar = True

    weights: Any = None
    reduction: str = "sum"
    loss: str | Callable[[Array], Array] = "linear"
    scale: Scalar = 1.0
    sigma: Any = None

    def _given(self, residual_weights: Any = None, residual_sigma: Any = None) -> "Squares":
        """The loss with the weights and deviations of this call."""
        return dataclasses.replace(
            self,
            weights=self.weights if residual_weights is None else residual_weights,
            sigma=self.sigma if residual_sigma is None else residual_sigma,
        )

    def _rho(self, z: Array) -> Array:
        if isinstance(self.loss, str):
            return LOSSES[self.loss](z)
        rho = self.loss(z)
        if jnp.shape(rho) != z.shape:
            raise ValueError(
                f"loss returned shape {jnp.shape(rho)} for z of shape {z.shape}; return rho(z) "
                "alone, entry by entry: its derivatives are found"
            )
        return rho

    def split(self, outputs: Any) -> Any:
        """Complex leaves as `Complex`."""
        parts = objective.split(outputs)
        return jax.tree.map(lambda a, b: Complex(b) if jnp.iscomplexobj(a) else b, outputs, parts)

    def _leaves(self, outputs: Any) -> list[Leaf]:
        numbers = [1 + _is_complex(a) for a in jax.tree.leaves(outputs, is_leaf=_is_complex)]
        leaves = jax.tree.leaves(tree.widen(outputs))
        weights = sigmas = [1.0] * len(leaves)
        if self.weights is not None:
            weights = jax.tree.leaves(prefix.spread(self.weights, outputs, name="weights"))
        if self.sigma is not None:
            sigmas = jax.tree.leaves(prefix.spread(self.sigma, outputs, name="sigma"))
        return [self._leaf(*one) for one in zip(leaves, weights, sigmas, numbers, strict=True)]

    def _leaf(self, r: Array, weight: Any, sigma: Any, numbers: int) -> Leaf:
        """A leaf, all in one dtype; `numbers` real ones make a residual."""
        c, sigma = jnp.asarray(weight, r.dtype), jnp.asarray(sigma, r.dtype)
        if c.shape != ():
            raise ValueError(
                f"a weight has shape {c.shape}, expected () for a leaf; for entries, "
                "sigma = 1 / sqrt(weight)"
            )
        try:
            sigma = jnp.broadcast_to(sigma, r.shape)
        except ValueError as error:
            raise ValueError(f"sigma has shape {sigma.shape}, the residuals {r.shape}") from error
        dropped = jnp.isinf(sigma)
        count = jnp.maximum(jnp.sum(~dropped).astype(r.dtype) / numbers, 1)
        c = c / 2 if self.reduction == "sum" else c / count
        return Leaf(jnp.where(dropped, 0, r), c, 1 / sigma, count)

    def _each(self, outputs: Any, fn: Callable[..., Array], *more: Any) -> Any:
        """`fn(leaf, ...)` by leaf, in the structure of outputs."""
        rest = [jax.tree.leaves(tree_) for tree_ in more]
        found = [fn(*one) for one in zip(self._leaves(outputs), *rest, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(outputs), found)

    def _slopes(self, u: Array) -> tuple[Array, Array]:
        """The derivative of rho at z, and the curvature of (2) without 2 c / sigma^2."""
        if self.loss == "linear":
            return jnp.ones_like(u), jnp.ones_like(u)
        scale = jnp.asarray(self.scale, u.dtype)
        z = (u / scale) ** 2
        one = jnp.ones_like(z)

        def first(z: Array) -> Array:
            return jax.jvp(self._rho, (z,), (one,))[1]

        slope, bend = jax.jvp(first, (z,), (one,))
        return slope, jnp.maximum(slope + 2 * z * bend, FLOOR * slope)

    def _part(self, leaf: Leaf) -> Array:
        """The term of one leaf in (1)."""
        u = leaf.r * leaf.inverse
        if self.loss == "linear":
            return leaf.c * jnp.sum(u * u)
        scale = jnp.asarray(self.scale, u.dtype)
        return leaf.c * scale**2 * jnp.sum(self._rho((u / scale) ** 2))

    def __call__(
        self, outputs: Any, *, residual_weights: Any = None, residual_sigma: Any = None
    ) -> Array:
        """The loss, () of at least float32; weights and sigma given here replace its own."""
        loss = self._given(residual_weights, residual_sigma)
        parts = [loss._part(leaf) for leaf in loss._leaves(outputs)]
        dtype = tree.widest(*(p.dtype for p in parts))
        return sum((p.astype(dtype) for p in parts), start=jnp.zeros((), dtype))

    def hessian_product(self, outputs: Any, v: Any, **given: Any) -> Any:
        """H v, diagonal: (2)."""

        def part(leaf: Leaf, v: Array) -> Array:
            r, c, inverse, _ = leaf
            _, curvature = self._slopes(r * inverse)
            return (2 * c * inverse**2 * curvature * v.astype(r.dtype)).astype(v.dtype)

        return self._given(**given)._each(outputs, part, v)

    def whiten(self, outputs: Any, v: Any, **given: Any) -> Any:
        """The square root of (2) times v."""

        def part(leaf: Leaf, v: Array) -> Array:
            r, c, inverse, _ = leaf
            _, curvature = self._slopes(r * inverse)
            return jnp.sqrt(2 * c * curvature) * inverse * v.astype(r.dtype)

        return self._given(**given)._each(outputs, part, v)

    def residual(self, outputs: Any, **given: Any) -> Any:
        """b with F b = grad l: r itself, scaled."""

        def part(leaf: Leaf) -> Array:
            u = leaf.r * leaf.inverse
            slope, curvature = self._slopes(u)
            some = curvature > 0
            root = jnp.sqrt(jnp.where(some, curvature, 1))
            return jnp.sqrt(2 * leaf.c) * jnp.where(some, slope / root, 0) * u

        return self._given(**given)._each(outputs, part)

    @property
    def is_likelihood(self) -> bool:
        """Whether (1) is that of Gaussian residuals."""
        return self.loss == "linear"

    def scores(self, outputs: Any, *, key: Any = None, **given: Any) -> Scores:
        """sqrt(c_i) grad l_i by entries of the first axis; of normal draws if there is a key."""
        loss = self._given(**given)
        leaves = loss._leaves(outputs)
        keys = [None] * len(leaves) if key is None else [*jax.random.split(key, len(leaves))]

        def part(leaf: Leaf, key: Any) -> Scores:
            r, c, inverse, count = leaf
            root = jnp.ones_like(count) if self.reduction == "sum" else 1 / jnp.sqrt(count)
            if key is None:
                u = 2 * c * inverse**2 * r / root
            else:
                u = jnp.sqrt(2 * c) * inverse * jax.random.normal(key, r.shape, r.dtype)
            return Scores(u, jnp.broadcast_to(root, r.shape[:1]))

        found = [part(leaf, k) for leaf, k in zip(leaves, keys, strict=True)]
        structure = jax.tree.structure(outputs)
        return Scores(*(jax.tree.unflatten(structure, x) for x in zip(*found, strict=True)))

    def report(self, outputs: Any, aux: Any, **given: Any) -> dict[str, Any]:
        """`terms`, the unweighted value of each leaf, and the `aux` of the residuals if any."""
        plain = dataclasses.replace(self._given(**given), weights=None)
        structure = jax.tree.structure(outputs, is_leaf=_is_complex)
        terms = jax.tree.unflatten(
            structure, [plain._part(leaf) for leaf in plain._leaves(outputs)]
        )
        return {"terms": terms} if aux is None else {"terms": terms, "aux": aux}


def least_squares_loss(
    residual_fn: Callable[..., Any],
    *,
    weights: Any = None,
    reduction: str = "sum",
    loss: str | Callable[[Array], Array] = "linear",
    scale: Scalar = 1.0,
    sigma: Any = None,
    has_aux: bool = False,
) -> Composite:
    r"""The sum of squared residuals as an objective that keeps its structure.

    With `reduction="sum"` it is 1/2 sum w (r / sigma)^2; with "mean" the sum over leaves of
    w mean((r / sigma)^2), as is usual for physics-informed networks: one number for Adam and for
    `hesskit.levenberg_marquardt`. The mean is over the residuals of a leaf that are not dropped; a
    complex one is one residual, |r|^2 (robust losses take its two parts one by one). The unweighted
    value of each leaf comes back as `result.aux["terms"]`.

    Args:
      residual_fn: `residual_fn(params, ...) -> residuals`, any pytree of float or complex arrays,
        or `-> (residuals, aux)`.
      weights: a prefix tree of the residuals with scalars >= 0, which may be traced; None means 1.
        Weights that change from call to call are data: `loss(params, ..., residual_weights=w)`,
        and `residual_sigma=` likewise.
      reduction: "sum" or "mean".
      loss: "linear"; "huber", "soft_l1", "cauchy", "arctan", in which outliers count less; or
        rho(z) itself, elementwise, with rho(0) = 0 and rho'(0) = 1, z = (r / (sigma scale))^2.
      scale: the size of r / sigma at which an outlier begins.
      sigma: standard deviations of the residuals: a prefix tree of scalars or arrays; inf drops a
        residual, also from the number that "mean" divides by.
      has_aux: whether `residual_fn` returns a pair; in `result.aux["aux"]`.

    Returns:
      A function of params and the data of `residual_fn`; adds and scales.

    Raises:
      ValueError: `reduction` or `loss` is none of these, `scale` or `sigma` not positive; when
        called: a prefix that does not fit.
      TypeError: `residual_fn` is no function; when called: residuals are no floats.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> x, y = jnp.arange(4.0), jnp.array([1.0, 3.0, 5.0, 7.0])
      >>> loss = hesskit.least_squares_loss(lambda p: p["a"] + p["b"] * x - y)
      >>> fit = hesskit.minimize(loss, {"a": 0.0, "b": 0.0}, hesskit.levenberg_marquardt())
      >>> print(fit.params["a"].round(3), fit.params["b"].round(3))
      1.0 2.0
    """
    errors.check_callable(residual_fn, name="residual_fn")
    errors.check_choice(reduction, ("sum", "mean"), name="reduction")
    if isinstance(loss, str) or not callable(loss):
        errors.check_choice(loss, tuple(LOSSES), name="loss")
    errors.check_number(scale, name="scale", open_low=True, none=False)
    prefix.check_positive(sigma, name="sigma", hint="inf drops a residual")
    prefix.check_positive(weights, name="weights", hint="0 drops a leaf", zero=True)
    return Composite(Squares(weights, reduction, loss, scale, sigma), residual_fn, has_aux)
