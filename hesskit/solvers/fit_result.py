r"""The answer of a fit: parameters, their errors, bands of the model, and a table for people.

With J the Jacobian of the residuals over sigma at the answer, without the columns of fixed entries
and of entries at a bound,

    C  =  s^2 (J'J)^{-1},     s^2 = 1, or chi2 / dof where sigma is only relative       (1)

as the product of two factors (linalg/gram_inverse.py), with the null space of J beside it.

Source: Bates & Watts (1988), Nonlinear Regression Analysis, section 2.3; scipy.optimize.curve_fit.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import errors
from hesskit.core.bounds import Bounds
from hesskit.core.entries import entry_names, per_entry
from hesskit.core.types import Array, Params, Scalar
from hesskit.linalg.gram_inverse import gram_inverse
from hesskit.solvers import fit_table
from hesskit.solvers.band import Band, Data, band, noise
from hesskit.solvers.result import Result
from hesskit.solvers.uncertainty import NAN, Spread, Uncertain


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FitResult(Uncertain, Result):
    """The answer of `least_squares` and `curve_fit`: a `Result` with errors; `print` it.

    Attributes:
      spread: the distribution about `params`, a `Spread`.
      chi2: twice `value`, (): the sum of squared residuals over sigma where loss="linear".
      dof: residuals with finite sigma less the entries fitted, () int32.
      total: the weighted sum of squares of the data about their mean, (); NaN where unknown.
      bounds: the box of the fit, a `Bounds`, or None.
      data: what the model was fitted to, a `Data`, or None.
      names: the path of each entry of params, the order of rows everywhere.
      fixed: which entries were held.
      absolute_sigma: whether sigma is in the unit of the data; else errors are scaled by
        sqrt(chi2 / dof).
      model: the model of `curve_fit`, or None.
    """

    spread: Spread
    chi2: Array
    dof: Array
    total: Array
    bounds: Bounds | None
    data: Data | None
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    fixed: tuple[bool, ...] = dataclasses.field(metadata={"static": True})
    absolute_sigma: bool = dataclasses.field(metadata={"static": True})
    model: Callable[..., Any] | None = dataclasses.field(metadata={"static": True})

    def _estimate(self) -> tuple[Params, Spread]:
        return self.params, self.spread

    def _held(self) -> tuple[bool, ...]:
        return self.fixed

    @property
    def at_bound(self) -> Array:
        """Which entries ended at a bound, (n,) bool."""
        return self.spread.at_bound

    @property
    def reduced_chi2(self) -> Array:
        """The ratio chi2 / dof, (): near 1 where model and sigma are right; NaN unless dof > 0."""
        return self.chi2 / _positive(self.dof, self.chi2.dtype)

    @property
    def r_squared(self) -> Array:
        """The share 1 - chi2 / total of the variance of the data that the model explains, ()."""
        return 1 - self.chi2 / jnp.where(self.total > 0, self.total, NAN)

    @property
    def p_value(self) -> Array:
        """P(a chi-squared variable of `dof` degrees > chi2), (): small where the model is wrong.

        NaN where absolute_sigma=False: the size of sigma was then estimated from chi2 itself,
        which leaves nothing to test.
        """
        if not self.absolute_sigma:
            return jnp.full_like(self.chi2, NAN)
        return jax.scipy.special.gammaincc(_positive(self.dof, self.chi2.dtype) / 2, self.chi2 / 2)

    @property
    def scale(self) -> Array:
        """What the errors were multiplied by, (): 1, or sqrt(chi2 / dof)."""
        return jnp.ones_like(self.chi2) if self.absolute_sigma else jnp.sqrt(self.reduced_chi2)

    def band(
        self, x: Any = None, level: Scalar = 0.683, kind: str = "confidence", *, sigma: Any = None
    ) -> Band:
        r"""The fitted model at `x`, with the interval that holds it at this level.

        At each point, with g the gradient of the model there and q the quantile of Student's t
        (of the normal distribution where absolute_sigma=True),

            model +- q sqrt(g'C g)              "confidence": where the curve lies
            model +- q sqrt(g'C g + sigma^2)    "prediction": where a new observation would

        It is NaN where the model depends on entries at a bound or undetermined by the data;
        a fit with `fixed=` holds them.

        Args:
          x: where, as the model takes it; None means the data's.
          level: the share of such intervals that hold the truth.
          kind: "confidence" or "prediction".
          sigma: of the new observation, in the unit of that of the fit: a number, or like the
            model's output; None means that of the fit, which must be one number unless x is None.

        Returns:
          `Band(value, lower, upper)`, each like the model's output.

        Raises:
          ValueError: there is no model (a result of `least_squares`), `kind` or `level` is out of
            range, sigma of the new points is unknown.
        """
        if self.model is None or self.data is None:
            raise ValueError(
                "band needs a model of x, and least_squares knows residuals only; use "
                "hesskit.curve_fit, or result.derived(fn) with fn(params) -> curve"
            )
        errors.check_choice(kind, ("confidence", "prediction"), name="kind")
        errors.check_number(level, name="level", high=1.0, open_low=True, none=False)
        if sigma is not None and kind == "confidence":
            raise ValueError('sigma is for kind="prediction"; a confidence band has none')

        def one(params: Params, known: Any) -> Band:
            spread, scale, dof, data = known
            new = noise(data, sigma, at_data=x is None) if kind == "prediction" else None
            return band(
                params,
                spread,
                data.x if x is None else x,
                level,
                model=self.model,
                sigma=new,
                scale=scale,
                dof=None if self.absolute_sigma else dof,
            )

        for _ in range(self._num_axes()):
            one = jax.vmap(one)
        return one(self.params, (self.spread, self.scale, self.dof, self.data))

    def __str__(self) -> str:
        """The table: values, errors, the quality of the fit, what was strange, correlations."""
        return fit_table.table(self)


def _positive(dof: Array, dtype: jnp.dtype) -> Array:
    """`dof` as a float, NaN unless positive."""
    return jnp.where(dof > 0, dof.astype(dtype), NAN)


def _scaled(spread: Spread, chi2: Array, dof: Array) -> Spread:
    """`spread` times sqrt(chi2 / dof); NaN unless dof > 0."""
    scale = jnp.sqrt(chi2 / _positive(dof, chi2.dtype)).astype(spread.factor.dtype)
    factor = spread.factor
    return spread._replace(factor=jnp.where(factor == 0, 0, scale * factor))


def fit_result(
    result: Result,
    rows: Array,
    *,
    chi2: Array,
    num_residuals: Any,
    fixed: tuple[bool, ...] | None = None,
    at_bound: Array | None = None,
    bounds: Bounds | None = None,
    absolute_sigma: bool = False,
) -> FitResult:
    """A `Result` of least squares with errors, from the Jacobian at its answer.

    Nothing here raises; it is made for the inside of `jit` and `vmap`.

    Args:
      result: the answer.
      rows: the Jacobian of the residuals over sigma there, (m, n), columns in the order of
        `entry_names(result.params)`; those of fixed entries and of entries at a bound
        are not looked at.
      chi2: the sum of squared residuals over sigma, ().
      num_residuals: how many of them count, (): those with finite sigma.
      fixed: which leaves were held, from `select.select`; None means none.
      at_bound: which entries ended at a bound, (n,) bool; None means none.
      bounds: the box, for the table.
      absolute_sigma: whether sigma is in the unit of the data.

    Returns:
      A `FitResult` without a model.
    """
    names = entry_names(result.params)
    n = len(names)
    held = (False,) * n if fixed is None else per_entry(fixed, result.params)
    touching = jnp.zeros((n,), bool) if at_bound is None else at_bound & ~jnp.array(held)
    active = ~(jnp.array(held) | touching)
    chi2 = jnp.asarray(chi2)
    count = jnp.asarray(num_residuals, jnp.int32) - jnp.sum(active, dtype=jnp.int32)
    found = gram_inverse(rows, active)
    spread = Spread(found.factor, found.null, touching)
    return FitResult(
        **{field.name: getattr(result, field.name) for field in dataclasses.fields(Result)},
        spread=spread if absolute_sigma else _scaled(spread, chi2, count),
        chi2=chi2,
        dof=count,
        total=jnp.full_like(chi2, NAN),
        bounds=bounds,
        data=None,
        names=names,
        fixed=held,
        absolute_sigma=absolute_sigma,
        model=None,
    )
