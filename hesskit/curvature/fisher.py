r"""The Fisher matrix of a model of outputs: exact, sampled, empirical.

With p(t | z) the distribution whose negative log-likelihood is l, z_i(p) the outputs for example i,
J_i their Jacobian and c_i the share of the example in the loss,

    "exact"       sum_i c_i J_i' E[u u'] J_i,    u = grad l_i at t drawn from p(t | z_i)     (1)
    "sampled"     sum_i c_i J_i' u_i u_i' J_i,   one such draw for each example
    "empirical"   sum_i c_i J_i' g_i g_i' J_i,   g_i = grad l_i at the targets of the data

For the losses of `hesskit.losses` (1) is the Gauss-Newton matrix: their curvature does not depend
on the targets. The sampled matrix has it as its mean. The empirical one has not: it is neither the
Fisher matrix nor the Hessian unless the model fits, and vanishes where it interpolates.

Source: Amari (1998), "Natural gradient works efficiently in learning"; Martens (2020), "New
insights and perspectives on the natural gradient method", sections 5, 9 and 11; Kunstner, Balles &
Hennig (2019), "Limitations of the empirical Fisher approximation".
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from hesskit.core import errors, objective
from hesskit.core.keys import as_key
from hesskit.core.structured import Structured
from hesskit.core.types import Params, Product
from hesskit.linalg import whitened
from hesskit.linalg.operator import Operator, operator
from hesskit.linalg.streamed import of_data

KINDS = ("exact", "sampled", "empirical")

NO_DISTRIBUTION = (
    "{caller} needs the distribution of the outputs, and {got} has none: use "
    "hesskit.composite(outer, inner) with an outer of hesskit.losses (squared_error, gaussian, "
    "sigmoid_cross_entropy, softmax_cross_entropy, poisson), least_squares_loss(residual) with "
    'loss="linear", or score_objective(log_prob_fn). For the curvature of any convex loss: '
    "gauss_newton_operator."
)


def with_fisher(fn: Any, kind: str, key: Any, *, centered: bool, caller: str) -> Structured:
    """The objective with the Fisher matrix of its outputs in place of their Hessian.

    Args:
      fn: a `Structured` objective.
      kind: one of `KINDS`.
      key: of the draws, where `kind` is "sampled".
      centered: of "empirical", whether the mean score is taken out.
      caller: who asks, for messages.

    Returns:
      The objective; value and gradient stay.

    Raises:
      TypeError: the objective has no structure, or its loss no distribution.
    """
    if not isinstance(fn, Structured):
        raise TypeError(NO_DISTRIBUTION.format(caller=caller, got="a plain function"))
    scored = fn.outer.scored
    if scored is None:
        raise TypeError(NO_DISTRIBUTION.format(caller=caller, got="this loss"))
    if kind == "exact":
        return fn
    outer = scored(key if kind == "sampled" else None, centered)
    return dataclasses.replace(fn, outer=outer)


@dataclasses.dataclass(frozen=True)
class _Fisher:
    """The curvature of `value_fn`; equal for equal arguments, so that programs are shared."""

    value_fn: Callable[..., Any]
    kind: str
    centered: bool

    def __call__(self, params: Params, args: Any) -> Product:
        data, key = args
        caller = "fisher_operator"
        fn, start = objective.real(self.value_fn, params, args=data, caller=caller)
        fn = with_fisher(fn, self.kind, key, centered=self.centered, caller=caller)
        return whitened.evaluate(fn, start, caller=caller).product


def fisher_operator(
    value_fn: Callable[..., Any],
    params: Params,
    *,
    args: Any = (),
    kind: str = "exact",
    key: Any = None,
    centered: bool = False,
    batches: Any = None,
) -> Operator:
    r"""The Fisher matrix of a model at `params`, as an operator, in the scale of the loss.

    A loss that is a mean over examples gives the mean of their matrices, a sum their sum. An
    example is an entry of the first axis of the outputs, of class probabilities an entry of all
    axes but the last.

    Args:
      value_fn: `hesskit.composite(outer, inner)` with an outer of `hesskit.losses`,
        `hesskit.least_squares_loss(...)`, `hesskit.score_objective(...)`, or a sum of such and
        `hesskit.l2`, which counts as it is.
      params: a pytree of real or complex float arrays.
      args: data: a tuple, positional after params, or a dict, by name.
      kind: "exact", the Gauss-Newton matrix of these losses; "sampled", with targets drawn once
        from the model's distribution, whose mean is the exact one; "empirical", with the targets
        of the data, which is not the Fisher matrix and has another limit.
      key: an int or a key, for "sampled".
      centered: of "empirical", whether it is the covariance of the scores, less the product of the
        mean gradient with itself.
      batches: as in `hesskit.hessian_operator`.

    Returns:
      An `Operator` on vectors like params, positive semidefinite.

    Raises:
      ValueError: `kind` is none of these, a key is missing, or `centered` does not go with `kind`.
      TypeError: the loss has no distribution; a leaf or an entry of `args` is no array of numbers.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> loss = hesskit.composite(hesskit.losses.sigmoid_cross_entropy(), lambda w, x: x @ w)
      >>> x, t = jnp.array([[1.0, 0.0], [1.0, 2.0]]), jnp.array([0, 1])
      >>> print(hesskit.fisher_operator(loss, jnp.zeros(2), args=(x, t)).dense())
      [[0.25 0.25]
       [0.25 0.5 ]]

    References:
      Martens (2020), JMLR 21, 146. Kunstner, Balles & Hennig (2019), NeurIPS.
    """
    errors.check_callable(value_fn, name="value_fn")
    errors.check_data(args)
    errors.check_choice(kind, KINDS, name="kind")
    if kind == "sampled" and key is None:
        raise ValueError('kind="sampled" needs key=: an int or a key of jax.random')
    if centered and kind != "empirical":
        raise ValueError(
            f'centered=True goes with kind="empirical", got "{kind}": scores at targets of the '
            "model's own distribution have mean zero"
        )
    key = as_key(key) if kind == "sampled" else None
    params = errors.check_params(params)

    def make(fn: Callable[..., Any], data: Any, index: int) -> Operator:
        own = None if key is None else jax.random.fold_in(key, index)
        return operator(_Fisher(fn, kind, centered), params, (data, own))

    return of_data(make, value_fn, args, batches)
