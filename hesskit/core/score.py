r"""The expectation of a quantity over a distribution with parameters, from samples of it.

    E(p)  =  sum_x exp(log_prob(p, x)) f(x)                                 (1)
    grad E  =  mean over samples of (f_i - mean f) grad log_prob(p, x_i)

where grad f has mean zero, as that of a local energy has. Its metric is the covariance of the
scores grad log_prob: natural gradient is then stochastic reconfiguration.

Source: Williams (1992), "Simple statistical gradient-following algorithms"; Sorella (1998), "Green
function Monte Carlo with stochastic reconfiguration".
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from hesskit.core import errors, tree
from hesskit.core.composite import Composite
from hesskit.core.structured import Scores
from hesskit.core.terms import ByParts
from hesskit.core.types import Array


@dataclasses.dataclass(frozen=True, eq=False)
class Expectation(ByParts):
    """The sample mean of f with the gradient of (1), as a loss of log-probabilities.

    Attributes:
      centered: whether means are taken out, of f in the gradient and of the scores in the metric.
    """

    names: ClassVar = ("score_objective", "log_prob_fn")
    is_likelihood: ClassVar = True

    centered: bool = True

    def _at(self, log_probs: Any, local_values: Any) -> tuple[Array, Array]:
        """The log-probabilities and f, (N,), in one dtype."""
        z = jnp.asarray(log_probs) if jax.tree_util.all_leaves([log_probs]) else None
        if z is None or z.ndim != 1:
            raise ValueError(
                f"log_prob_fn returned {errors.describe(log_probs)}, expected shape (num_samples,)"
            )
        f = jnp.asarray(local_values)
        if jnp.iscomplexobj(f):
            raise TypeError(f"local_values is {f.dtype}; their mean is real: pass the real part")
        if f.shape != z.shape:
            raise ValueError(f"local_values has shape {f.shape}, the log-probabilities {z.shape}")
        z = tree.widen(z)
        return z, jax.lax.stop_gradient(f.astype(z.dtype))

    def _center(self, v: Array) -> Array:
        return v - jnp.mean(v) if self.centered else v

    def __call__(self, log_probs: Any, local_values: Any) -> Array:
        """The mean of f, ()."""
        z, f = self._at(log_probs, local_values)
        score = jnp.mean(self._center(f) * z)
        return jnp.mean(f) + score - jax.lax.stop_gradient(score)

    def hessian_product(self, log_probs: Any, v: Any, local_values: Any) -> Array:
        """The covariance in place of a Hessian."""
        z, _ = self._at(log_probs, local_values)
        return (self._center(v.astype(z.dtype)) / z.size).astype(v.dtype)

    def whiten(self, log_probs: Any, v: Any, local_values: Any) -> Array:
        """Its root."""
        z, _ = self._at(log_probs, local_values)
        return self._center(v.astype(z.dtype)) / jnp.sqrt(jnp.asarray(z.size, z.dtype))

    def residual(self, log_probs: Any, local_values: Any) -> Array:
        """(f - mean f) / sqrt(N)."""
        z, f = self._at(log_probs, local_values)
        return self._center(f) / jnp.sqrt(jnp.asarray(z.size, z.dtype))

    def scores(self, log_probs: Any, local_values: Any, *, key: Any = None) -> Scores:
        """1 / sqrt(N): the samples are of the model's distribution already."""
        del key
        z, _ = self._at(log_probs, local_values)
        root = jnp.full(z.shape, 1 / z.size**0.5, z.dtype)
        return Scores(root, root)

    def report(self, log_probs: Any, aux: Any, local_values: Any) -> Any:
        """The aux of the log-probability."""
        del log_probs, local_values
        return aux


def score_objective(
    log_prob_fn: Callable[..., Any], *, centered: bool = True, has_aux: bool = False
) -> Composite:
    r"""The expectation of local values over samples of a model, for variational Monte Carlo.

    `loss(params, samples, local_values)` is their mean, and its gradient that of the expectation by
    the score function, mean (f - mean f) grad log_prob; its Gauss-Newton and Fisher matrix is the
    covariance of the scores. Natural gradient with it is stochastic reconfiguration; of an
    amplitude psi, log_prob_fn is 2 log |psi|, whose metric is 4 times that of log |psi| and whose
    gradient 2 times, so steps are half as long.

    The value does not move with params until samples and local values are drawn anew: use
    `hesskit.natural_gradient`, and no method that compares values.

    Args:
      log_prob_fn: `log_prob_fn(params, samples) -> (num_samples,)`, not normalized if `centered`;
        with `hesskit.per_example` its gradients are found in one reverse pass.
      centered: whether the mean is taken out of the local values and of the scores.
      has_aux: whether `log_prob_fn` returns a pair.

    Returns:
      A function `(params, samples, local_values) -> ()`.

    Raises:
      TypeError: `log_prob_fn` is no function; when called: local values are complex.
      ValueError: when called: shapes differ.

    Example:
      >>> import jax, jax.numpy as jnp, hesskit
      >>> loss = hesskit.score_objective(lambda p, x: -((x - p) ** 2) / 2)
      >>> x = jnp.array([-1.0, 0.0, 2.0])
      >>> print(*jax.value_and_grad(loss)(0.5, x, x**2))
      1.6666667 1.7777779
    """
    errors.check_callable(log_prob_fn, name="log_prob_fn")
    return Composite(Expectation(centered), log_prob_fn, has_aux)
