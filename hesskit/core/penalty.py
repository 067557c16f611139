r"""Penalties on parameters.

    l2(c)(p)  =  c/2  sum |p - center|^2,   gradient  c (p - center)        (1)

is weight decay, a Gaussian prior of precision c, and ridge regression: part of the objective, so
that value, gradient and curvature agree. Decay that is added to the gradient alone, beside a
transform that accepts its own steps, is fought by the objective, which knows nothing of it.

Terms add and scale (core/terms.py): `loss + l2(1e-4)`, `loss + 0.1 * l2(1.0, mask="head")`.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from hesskit.core import errors, objective, per_example, select, tree
from hesskit.core.structured import Outer, Structured
from hesskit.core.terms import ByParts, Term
from hesskit.core.types import Array, Params, Scalar


@dataclasses.dataclass(frozen=True, eq=False)
class L2(ByParts, Term):
    """The penalty (1)."""

    is_squares: ClassVar = True

    strength: Scalar
    center: Params | None
    mask: Any

    def __call__(self, params: Params) -> Array:
        """The penalty at `params`: a () array of at least float32."""
        return self._value(self._away(params))

    def _value(self, away: Params) -> Array:
        square = tree.vdot(away, away)
        return jnp.asarray(self.strength, square.dtype) / 2 * square

    def _away(self, params: Params) -> Params:
        """The penalized leaves less their center, None for the others."""
        if self.mask is not None:
            chosen = select.select(self.mask, params, name="mask")
        else:
            chosen = (True,) * len(jax.tree.leaves(params))
        away = jax.tree.map(jnp.asarray, params)
        if self.center is not None:
            errors.check_like(self.center, params, name="center")
            away = tree.sub(away, jax.tree.map(jnp.asarray, self.center))
        return select.split(away, chosen)[1]

    def structure(self, args: Any, data: Any, caller: str) -> Structured:
        """The penalty as half the square of residuals sqrt(strength) (p - center)."""
        del args, data, caller

        def residuals(params: Params) -> Params:
            return objective.split(self._away(params))

        def rows(params: Params, data: Any) -> list[Params]:
            del data
            return per_example.stack_rows(jax.jacrev(residuals)(params), params)

        def inner(params: Params) -> tuple[Params, None]:
            out = residuals(params)
            per_example.tell(per_example.Call(rows, params, (), out))
            return out, None

        def root(v: Params) -> Params:
            strength = jnp.asarray(self.strength, tree.result_dtype(v))
            return tree.scale(jnp.sqrt(strength), v)

        outer = Outer(
            value=self._value,  # to the bit that of a call
            hessian_product=lambda r, v: root(root(v)),
            whiten=lambda r, v: root(v),
            residual=root,
            report=lambda r, aux: None,
            scored=lambda key, centered: outer,  # a prior has no examples
        )
        return Structured(inner, outer)


def l2(strength: Scalar, *, center: Params | None = None, mask: Any = None) -> L2:
    r"""`strength / 2` times the squared distance of params from `center`: decay, prior, ridge.

    Its gradient is `strength * (params - center)`, so the number is that of `optax.adamw`'s
    `weight_decay`, and a Gaussian prior of variance `1 / strength`. Add it to the objective:
    `loss + hesskit.l2(1e-4)` is called like `loss`. Next to a transform that accepts its own
    steps `optax.add_decayed_weights` does not minimize this sum.

    Args:
      strength: a number >= 0; may be traced.
      center: like params; None means 0.
      mask: the leaves to penalize: a prefix tree of bools, a path or list of paths, or
        `f(path, leaf) -> bool`. None means all.

    Returns:
      A function of params that adds to other objectives and scales by numbers.

    Raises:
      ValueError: `strength` is negative. When called: `center` is not like params, or `mask` fits
        no leaf.
      TypeError: `strength` is no number.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> loss = lambda w, x: jnp.mean((x * w - 6.0) ** 2) / 2
      >>> ridge = loss + hesskit.l2(2.0)
      >>> print(hesskit.minimize(ridge, jnp.array([0.0]), args=(jnp.ones(3),)).params.round(3))
      [2.]
    """
    errors.check_number(strength, name="strength", none=False)
    return L2(strength, center, mask)
