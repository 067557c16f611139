r"""The answer of a fit: parameters, their errors, bands of the model, and a table for people.

With J the Jacobian of the residuals over sigma at the answer, without the columns of fixed entries
and of entries at a bound,

    C  =  s^2 (J'J)^{-1},     s^2 = 1, or chi2 / dof where sigma is only relative       (1)

as the product of two factors (linalg/gram_inverse.py), with the null space of J beside it. With u
the residuals over sigma, the sandwich

    C  =  (J'J)^{-1} J' diag(u^2) J (J'J)^{-1}                              (2)

asks neither for equal variances nor for sigma at all. For a robust loss J and u are the whitened
rows and residual, so that J'u is the gradient.

Source: Bates & Watts (1988), Nonlinear Regression Analysis, section 2.3; scipy.optimize.curve_fit;
(2): Huber (1967), "The behavior of maximum likelihood estimates under nonstandard conditions";
White (1980), Econometrica 48, 817-838 (HC0).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hesskit.core import errors, objective, select, tree
from hesskit.core.bounds import Bounds
from hesskit.core.entries import per_entry
from hesskit.core.types import Array, Params, Scalar
from hesskit.linalg.gram_inverse import gram_inverse
from hesskit.solvers import fit_table
from hesskit.solvers.band import Band, Data, band, noise
from hesskit.solvers.result import Result
from hesskit.solvers.spread import HIGHEST, NAN, Spread, unformed
from hesskit.solvers.uncertainty import Uncertain


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
      held: which leaves were fixed.
      absolute_sigma: whether sigma is in the unit of the data; else it is scaled by
        sqrt(chi2 / dof).
      sandwich: whether the covariance is (2), which no scale of sigma changes.
      model: the model of `curve_fit`, or None.
    """

    spread: Spread
    chi2: Array
    dof: Array
    total: Array
    bounds: Bounds | None
    data: Data | None
    held: tuple[bool, ...] = dataclasses.field(metadata={"static": True})
    absolute_sigma: bool = dataclasses.field(metadata={"static": True})
    sandwich: bool = dataclasses.field(metadata={"static": True})
    model: Callable[..., Any] | None = dataclasses.field(metadata={"static": True})

    def _estimate(self) -> tuple[Params, Spread]:
        return self.params, self.spread

    def _held(self) -> tuple[bool, ...]:
        return self.held

    def _data_axes(self) -> Any:
        """The axis of `data` in the last axis of a batch, for `jax.vmap`."""
        return 0

    @property
    def fixed(self) -> tuple[bool, ...]:
        """Which entries were held, n bools in the order of `names`."""
        return per_entry(self.held, self._one())

    def _whole(self, flags: Array) -> Array:
        """Flags of the entries fitted, (k,), as flags of all, (n,)."""
        fixed = self.fixed
        places = jnp.array([i for i, held in enumerate(fixed) if not held], jnp.int32)
        return jnp.zeros((*flags.shape[:-1], len(fixed)), bool).at[..., places].set(flags)

    @property
    def at_bound(self) -> Array:
        """Which entries ended at a bound, (n,) bool."""
        return self._whole(self.spread.at_bound)

    @property
    def undetermined(self) -> Array:
        """Which entries the data do not determine, or ended at a bound, (n,) bool."""
        return self._whole(self.spread.open())

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
        """What sigma was multiplied by, (): 1, or sqrt(chi2 / dof)."""
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
          `Band(value, lower, upper)`, each like the model's output; of a complex one the limits
          are those of its real part + i times those of its imaginary part.

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
                fixed=self.held,
                sigma=new,
                scale=scale,
                dof=None if self.absolute_sigma else dof,
            )

        for axis in range(self._num_axes()):
            of_data = self._data_axes() if axis == 0 else 0
            one = jax.vmap(one, in_axes=(0, (0, 0, 0, of_data)))
        return one(self.params, (self.spread, self.scale, self.dof, self.data))

    def __str__(self) -> str:
        """The table: values, errors, the quality of the fit, what was strange, correlations."""
        return fit_table.table(self)


def _positive(dof: Array, dtype: jnp.dtype) -> Array:
    """`dof` as a float, NaN unless positive."""
    return jnp.where(dof > 0, dof.astype(dtype), NAN)


def _spread(rows: Array, at_bound: Array, residual: Array | None, scale: Array) -> Spread:
    """(1) with s = `scale`, or (2) if there is a residual; NaN where `scale` is."""
    found = gram_inverse(rows, ~at_bound)
    factor = found.factor
    if residual is not None:
        robust = _sandwich(rows.astype(factor.dtype), residual.astype(factor.dtype), factor)
        known = ~jnp.isnan(scale)
        factor, scale = jnp.where(known, robust, factor), jnp.where(known, 1, scale)
    factor = jnp.where(factor == 0, 0, scale.astype(factor.dtype) * factor)
    return Spread(factor, found.null, at_bound)


def _sandwich(rows: Array, residual: Array, factor: Array) -> Array:
    """A factor of (2), (k, k): F R' with diag(u) J F = Q R."""
    k = factor.shape[0]
    scores = residual[:, None] * jnp.matmul(rows, factor, precision=HIGHEST)
    padded = jnp.pad(scores, ((0, max(0, k - scores.shape[0])), (0, 0)))
    triangle = jnp.linalg.qr(padded, mode="r")
    return jnp.matmul(factor, triangle.T, precision=HIGHEST)


def fit_result(
    result: Result,
    rows: Array | None,
    *,
    chi2: Array,
    num_residuals: Any,
    held: tuple[bool, ...] | None = None,
    at_bound: Array | None = None,
    bounds: Bounds | None = None,
    absolute_sigma: bool = False,
    residual: Array | None = None,
) -> FitResult:
    """A `Result` of least squares with errors, from the Jacobian at its answer.

    Nothing here raises; it is made for the inside of `jit` and `vmap`.

    Args:
      result: the answer.
      rows: the Jacobian of the residuals over sigma there, (m, k), columns in the order of the
        entries that are not held; those at a bound are not looked at. None means too many.
      chi2: the sum of squared residuals over sigma, ().
      num_residuals: how many of them count, (): those with finite sigma.
      held: which leaves were fixed, from `select.select`; None means none.
      at_bound: which of the k entries ended at a bound, bool; None means none.
      bounds: the box, for the table.
      absolute_sigma: whether sigma is in the unit of the data.
      residual: u of (2), (m,); None means the covariance (1).

    Returns:
      A `FitResult` without a model.
    """
    if held is None:
        held = (False,) * len(jax.tree.leaves(result.params))
    k = tree.size(select.split(objective.split(result.params), held)[0])
    touching = jnp.zeros((k,), bool) if at_bound is None else at_bound
    chi2 = jnp.asarray(chi2)
    dof = jnp.asarray(num_residuals, jnp.int32) - jnp.sum(~touching, dtype=jnp.int32)
    scale = jnp.sqrt(chi2 / _positive(dof, chi2.dtype))
    if absolute_sigma and residual is None:
        scale = jnp.ones_like(chi2)
    if rows is None:
        spread = unformed(touching, tree.result_dtype(result.params))
    else:
        spread = _spread(rows, touching, residual, scale)
    return FitResult(
        **{field.name: getattr(result, field.name) for field in dataclasses.fields(Result)},
        spread=spread,
        chi2=chi2,
        dof=dof,
        total=jnp.full_like(chi2, NAN),
        bounds=bounds,
        data=None,
        held=held,
        absolute_sigma=absolute_sigma,
        sandwich=residual is not None,
        model=None,
    )
