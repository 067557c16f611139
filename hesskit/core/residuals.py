r"""Sums of squared residuals, robust or not: the outer loss of least squares.

With residuals r, standard deviations sigma, a coefficient c for each leaf and u = r / sigma,

    l(r)  =  sum_leaf c sum_i  scale^2 rho(u_i^2 / scale^2)                 (1)

    "sum":   c = w / 2,   half the sum of squares
    "mean":  c = w / size of the leaf, the sum over leaves of w mean(r^2)

and rho(z) = z unless the loss is robust. Its Hessian is diagonal, with entries and floor

    2 c / sigma^2  max(rho' + 2 z rho'', FLOOR rho')                        (2)

since rho' + 2 z rho'' is zero or negative for outliers, which the rows of least squares cannot be.

Source: Nocedal & Wright (2006), chapter 10; robust: Triggs, McLauchlan, Hartley & Fitzgibbon
(2000), "Bundle adjustment", section 4.3; the losses: scipy.optimize.least_squares.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from hesskit.core import errors, tree
from hesskit.core.composite import Composite
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


def _prefix(prefix: Any, outputs: Any, name: str) -> list[Any]:
    """The entry of a prefix tree for each leaf of `outputs`; an array in it broadcasts."""
    if not isinstance(prefix, (dict, list, tuple)):
        return [prefix] * len(jax.tree.leaves(outputs))
    try:
        full = jax.tree.map(lambda item, sub: jax.tree.map(lambda _: item, sub), prefix, outputs)
    except ValueError as error:
        raise ValueError(
            f"{name} is no prefix of the residuals {errors.describe(outputs)}: {error}"
        ) from error
    return jax.tree.leaves(full)


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

    def _leaves(self, outputs: Any) -> list[tuple[Array, Array, Array]]:
        """For each leaf: r in at least float32, its coefficient c, and 1 / sigma."""
        leaves = jax.tree.leaves(tree.widen(outputs))
        weights = [1.0] * len(leaves)
        sigmas = list(weights)
        if self.weights is not None:
            weights = _prefix(self.weights, outputs, "weights")
        if self.sigma is not None:
            sigmas = _prefix(self.sigma, outputs, "sigma")
        return [self._leaf(*leaf) for leaf in zip(leaves, weights, sigmas, strict=True)]

    def _leaf(self, r: Array, weight: Any, sigma: Any) -> tuple[Array, Array, Array]:
        """r, c and 1 / sigma, in one dtype; r is 0 where sigma is infinite."""
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
        share = 0.5 if self.reduction == "sum" else 1 / max(r.size, 1)
        return jnp.where(jnp.isinf(sigma), 0, r), share * c, 1 / sigma

    def _each(self, outputs: Any, fn: Callable[..., Array], *more: Any) -> Any:
        """`fn(r, c, 1/sigma, ...)` by leaf, in the structure of outputs."""
        rest = [jax.tree.leaves(tree_) for tree_ in more]
        found = [
            fn(*leaf, *extra) for leaf, *extra in zip(self._leaves(outputs), *rest, strict=True)
        ]
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

    def _part(self, r: Array, c: Array, inverse: Array) -> Array:
        """The term of one leaf in (1)."""
        if self.loss == "linear":
            u = r * inverse
            return c * jnp.sum(u * u)
        scale = jnp.asarray(self.scale, r.dtype)
        return c * scale**2 * jnp.sum(self._rho((r * inverse / scale) ** 2))

    def __call__(
        self, outputs: Any, *, residual_weights: Any = None, residual_sigma: Any = None
    ) -> Array:
        """The loss, () of at least float32; weights and sigma given here replace its own."""
        loss = self._given(residual_weights, residual_sigma)
        parts = [loss._part(*leaf) for leaf in loss._leaves(outputs)]
        dtype = tree.widest(*(p.dtype for p in parts))
        return sum((p.astype(dtype) for p in parts), start=jnp.zeros((), dtype))

    def hessian_product(self, outputs: Any, v: Any, **given: Any) -> Any:
        """H v, diagonal: (2)."""

        def part(r: Array, c: Array, inverse: Array, v: Array) -> Array:
            _, curvature = self._slopes(r * inverse)
            return (2 * c * inverse**2 * curvature * v.astype(r.dtype)).astype(v.dtype)

        return self._given(**given)._each(outputs, part, v)

    def whiten(self, outputs: Any, v: Any, **given: Any) -> Any:
        """The square root of (2) times v."""

        def part(r: Array, c: Array, inverse: Array, v: Array) -> Array:
            _, curvature = self._slopes(r * inverse)
            return jnp.sqrt(2 * c * curvature) * inverse * v.astype(r.dtype)

        return self._given(**given)._each(outputs, part, v)

    def residual(self, outputs: Any, **given: Any) -> Any:
        """b with F b = grad l: r itself, scaled."""

        def part(r: Array, c: Array, inverse: Array) -> Array:
            u = r * inverse
            slope, curvature = self._slopes(u)
            some = curvature > 0
            root = jnp.sqrt(jnp.where(some, curvature, 1))
            return jnp.sqrt(2 * c) * jnp.where(some, slope / root, 0) * u

        return self._given(**given)._each(outputs, part)

    def report(self, outputs: Any, aux: Any, **given: Any) -> dict[str, Any]:
        """`terms`, the unweighted value of each leaf, and the `aux` of the residuals if any."""
        plain = dataclasses.replace(self._given(**given), weights=None)
        terms = plain._each(outputs, plain._part)
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
    `hesskit.levenberg_marquardt`. In `hesskit.minimize` the unweighted value of each leaf comes
    back as `result.aux["terms"]`.

    Args:
      residual_fn: `residual_fn(params, ...) -> residuals`, any pytree of float or complex arrays
        (a complex number counts as two real ones), or `-> (residuals, aux)`.
      weights: a prefix tree of the residuals with scalars >= 0, which may be traced; None means 1.
        Weights that change from call to call are data: `loss(params, ..., residual_weights=w)`,
        and `residual_sigma=` likewise.
      reduction: "sum" or "mean".
      loss: "linear"; "huber", "soft_l1", "cauchy", "arctan", in which outliers count less; or
        rho(z) itself, elementwise, with rho(0) = 0 and rho'(0) = 1, z = (r / (sigma scale))^2.
      scale: the size of r / sigma at which an outlier begins.
      sigma: standard deviations of the residuals: a prefix tree of scalars or arrays; inf drops a
        residual.
      has_aux: whether `residual_fn` returns a pair; in `result.aux["aux"]`.

    Returns:
      A function of params and the data of `residual_fn`; adds and scales.

    Raises:
      ValueError: `reduction` or `loss` is none of these, `scale` not positive; when called: a
        prefix that does not fit.
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
    return Composite(Squares(weights, reduction, loss, scale, sigma), residual_fn, has_aux)
