r"""The Laplace approximation: the normal distribution that touches a density at its peak.

For f(p) = -log of an unnormalized density of p in R^n, with gradient g and Hessian H at p*,

    p  ~  N(p*, H^{-1}),     log integral exp(-f)  ~  -f(p*) + n/2 log(2 pi) - 1/2 log det H  (1)

By H = D L L' D with a unit diagonal inside, so that units of parameters matter to nothing; the
distance of p* from the peak of the quadratic model is |L^{-1} D^{-1} g| standard deviations.

Source: MacKay (2003), Information Theory, Inference, and Learning Algorithms, chapter 27; Tierney
& Kadane (1986).
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hesskit.core import errors, objective, tree
from hesskit.core.derivatives import value_and_grad
from hesskit.core.types import Array, Params, Scalar
from hesskit.curvature.gauss_newton import gauss_newton_operator
from hesskit.curvature.hessian import hessian_operator
from hesskit.linalg.gram_inverse import NOISE
from hesskit.linalg.operator import Operator
from hesskit.solvers import fit_table, inputs
from hesskit.solvers.spread import NAN, Spread
from hesskit.solvers.uncertainty import Uncertain

FAR = 0.1
"""Standard deviations from the peak of the quadratic model at which params are not stationary: it
changes the log evidence by 0.005."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Laplace(Uncertain):
    """A normal distribution about `mean`; `print` it.

    Attributes:
      mean: the params given.
      spread: the distribution about them, a `Spread`; NaN where the Hessian is not positive
        definite.
      log_evidence: (1), (); NaN likewise.
      value: f there, ().
      grad_norm: |g|, ().
      distance: from the peak of the quadratic model, in its standard deviations, ().
      eigenvalues: of H, ascending, (n,).
      inertia: how many eigenvalues are positive, zero to rounding, and negative, (3,) int32.
      direction: a unit vector of least curvature, (n,).
      curvature: H along it, ().
    """

    mean: Params
    spread: Spread
    log_evidence: Array
    value: Array
    grad_norm: Array
    distance: Array
    eigenvalues: Array
    inertia: Array
    direction: Array
    curvature: Array

    def _estimate(self) -> tuple[Params, Spread]:
        return self.mean, self.spread

    @property
    def message(self) -> str:
        """One sentence: whether the approximation holds here, and what to do if not. Not in jit."""
        if isinstance(self.value, Tracer) or jnp.ndim(self.value) > 0:
            return _of_batch(self)
        return _sentence(self)

    def __str__(self) -> str:
        """A table of the mean and its standard errors, the evidence, and the message."""
        if isinstance(self.value, Tracer) or jnp.ndim(self.value) > 0:
            return f"Laplace: {self.message}"
        none = [""] * len(self.names)
        return "\n".join(
            [
                f"Laplace: value {float(self.value):.7g}, log evidence "
                f"{float(self.log_evidence):.7g}",
                *fit_table.entries(
                    self.names,
                    fit_table.flat(self.mean),
                    fit_table.flat(self.standard_errors),
                    none,
                ),
                self.message,
                *fit_table.correlations(self.names, self.correlation),
            ]
        )


def _of_batch(post: Laplace) -> str:
    if isinstance(post.value, Tracer):
        return "not known inside jit"
    good = int(jnp.sum(jnp.isfinite(post.log_evidence)))
    return f"{good} of {post.log_evidence.size} have a positive definite Hessian"


def _along(post: Laplace) -> str:
    """The direction of least curvature in words: its largest entries."""
    pairs = zip(jax.device_get(post.direction).tolist(), post.names, strict=True)
    largest = sorted(pairs, key=lambda pair: -abs(pair[0]))[:4]
    terms = [f"{c:+.2f} {name}" for c, name in largest if abs(c) > 0.01]
    return " ".join(terms).removeprefix("+").removeprefix("1.00 ")


def _is_far(post: Laplace) -> bool:
    return float(post.distance) > FAR


def _sentence(post: Laplace) -> str:
    """What a person should know of the approximation."""
    gradient = f"gradient norm {float(post.grad_norm):.1e}"
    _, flat, negative = (int(count) for count in post.inertia)
    if not (math.isfinite(post.value) and math.isfinite(post.grad_norm)):
        return "neg_log_posterior or its gradient is not finite at params"
    if not bool(jnp.all(jnp.isfinite(post.eigenvalues))):
        return "the Hessian of neg_log_posterior is not finite at params"
    if negative == len(post.names):
        return (
            "the Hessian of neg_log_posterior at params is negative definite: this is a maximum. "
            "laplace expects the negative log posterior; pass lambda *a: -logp(*a)."
        )
    if flat or negative:
        return (
            f"the covariance is undefined: {negative} of {len(post.names)} eigenvalues of the "
            f"Hessian negative, {flat} zero; its curvature is {float(post.curvature):.2g} along "
            f"{_along(post)}. {gradient[0].upper()}{gradient[1:]}: run minimize first if that is "
            "large; else add a prior, or take out what the data do not determine."
        )
    if _is_far(post):
        return (
            f"{gradient}: not stationary, {float(post.distance):.2g} standard deviations from the "
            "peak; Laplace is centered on params as given; run minimize first"
        )
    return (
        f"{gradient}, {float(post.distance):.1e} standard deviations from the peak; the Hessian "
        "is positive definite"
    )


@functools.partial(jax.jit, static_argnums=0)
def _laplace(
    fn: Callable[..., Any], op: Operator, params: Params, args: Any, num_data: Array
) -> Laplace:
    bound = objective.drop_aux(
        objective.bind(fn, args=args, name="neg_log_posterior", caller="laplace")
    )
    here = value_and_grad(bound, params)
    dtype = tree.result_dtype(params)
    factor = num_data.astype(dtype)
    value = here.value.astype(dtype) * factor
    gradient = tree.ravel(here.grad).astype(dtype) * factor
    matrix = op.dense() * factor
    n = matrix.shape[0]
    diagonal = jax.lax.stop_gradient(jnp.abs(jnp.diagonal(matrix)))
    unit = 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
    scaled = matrix * unit[:, None] * unit[None, :]
    size, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(scaled))
    noise = NOISE * jnp.finfo(dtype).eps * n**0.5 * jnp.max(jnp.abs(size))
    definite = size[0] > noise
    lower = jnp.linalg.cholesky(jnp.where(definite, scaled, jnp.eye(n, dtype=dtype)))
    inverse = jax.scipy.linalg.solve_triangular(lower, jnp.diag(unit), lower=True)
    spread = jnp.where(definite, inverse.T, NAN)
    log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(lower))) - 2 * jnp.sum(jnp.log(unit))
    evidence = -value + n / 2 * math.log(2 * math.pi) - log_det / 2
    direction = unit * vectors[:, 0]
    largest = direction[jnp.argmax(jnp.abs(direction))]
    direction *= jnp.sign(largest) / jnp.sqrt(jnp.sum(direction**2))
    product = jnp.matmul(matrix, direction, precision=jax.lax.Precision.HIGHEST)
    flags = (size > noise, jnp.abs(size) <= noise, size < -noise)
    return Laplace(
        mean=params,
        spread=Spread(spread, jnp.zeros((n, n), dtype), jnp.zeros((n,), bool)),
        log_evidence=jnp.where(definite, evidence, NAN),
        value=value,
        grad_norm=tree.norm(gradient),
        distance=tree.norm(jnp.matmul(inverse, gradient, precision=jax.lax.Precision.HIGHEST)),
        eigenvalues=jnp.linalg.eigvalsh(matrix),
        inertia=jnp.stack([jnp.sum(flag, dtype=jnp.int32) for flag in flags]),
        direction=direction,
        curvature=jnp.sum(direction * product),
    )


def _point(params: Params, args: Any) -> Params:
    inputs.warn_float64((params, args))
    params = errors.check_params(params)
    if objective.is_complex(params):
        raise TypeError("laplace needs real params; make real and imaginary parts two leaves")
    return params


def _operator(
    curvature: Any, neg_log_posterior: Callable[..., Any], params: Params, args: Any
) -> Operator:
    if isinstance(curvature, Operator):
        errors.check_like(curvature.like, params, name="the curvature's params")
        return curvature
    errors.check_choice(curvature, ("hessian", "gauss_newton"), name="curvature (or an Operator)")
    make = hessian_operator if curvature == "hessian" else gauss_newton_operator
    return make(neg_log_posterior, params, args=args)


def laplace(
    neg_log_posterior: Callable[..., Any],
    params: Params,
    *,
    args: Any = (),
    curvature: Any = "hessian",
    num_data: Scalar | None = None,
) -> Laplace:
    r"""The Laplace approximation about a minimum of a sum over data, not of a mean.

    The negative log posterior is a sum over data plus the negative log prior. Of a mean over N
    data, whose covariance would be N times too large, say `num_data=N`; it multiplies the value,
    its curvature, and whatever prior is in it.

        covariance = H^{-1},   log_evidence = -value + n/2 log(2 pi) - 1/2 log det H

    Works under `jit` and `vmap`, and may be differentiated with respect to params and args
    (empirical Bayes). The evidence is that of the density as given, constants included.

    Args:
      neg_log_posterior: `neg_log_posterior(params, ...) -> ()`.
      params: its minimum, a pytree of real float arrays, from `hesskit.minimize`.
      args: data: a tuple, positional after params, or a dict, by name.
      curvature: "hessian"; "gauss_newton" for an objective with a structure, which is never
        negative; or any `hesskit.Operator` on params in the unit of `neg_log_posterior`.
      num_data: multiplies a mean over data; None means 1.

    Returns:
      A `Laplace`: `mean`, `names`, `covariance`, `standard_errors`, `log_evidence`, `sample(key,
      num)`, `derived(fn)`. Inside `jit` and `vmap` it is NaN where undefined, and `message` says
      why. With a warning where params are not stationary.

    Raises:
      TypeError: params is complex, an argument of the wrong kind.
      ValueError: outside `jit`: the Hessian is not positive definite, or something is not finite.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> x = jnp.array([1.0, 3.0, 2.0, 2.0])
      >>> neg_log_posterior = lambda m: 0.5 * jnp.sum((x - m) ** 2)
      >>> post = hesskit.laplace(neg_log_posterior, jnp.array(2.0))
      >>> print(f"{post.mean} +- {post.standard_errors}, {post.log_evidence:.4f}")
      2.0 +- 0.5, -0.7742

    References:
      MacKay (2003), chapter 27; Tierney & Kadane (1986), JASA 81, 82-86.
    """
    errors.check_callable(neg_log_posterior, name="neg_log_posterior")
    params = _point(params, args)
    errors.check_data(args)
    errors.check_number(num_data, name="num_data", open_low=True)
    fn = inputs.hashable(neg_log_posterior)
    factor = jnp.asarray(1.0 if num_data is None else num_data, tree.result_dtype(params))
    post = _laplace(fn, _operator(curvature, fn, params, args), params, args, factor)
    if isinstance(post.value, Tracer):
        return post
    if not bool(jnp.isfinite(post.log_evidence)):
        raise ValueError(post.message)
    if _is_far(post):
        warnings.warn(post.message, stacklevel=2)
    return post
