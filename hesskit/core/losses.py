r"""Losses of a model's outputs: the outer functions of `hesskit.composite` that know their Hessian.

    squared_error             (z - t)^2
    sigmoid_cross_entropy     -t log p - (1 - t) log(1 - p),    p = sigmoid(z)
    softmax_cross_entropy     -sum_k t_k log p_k,               p = softmax(z)
    poisson                   exp(z) - t z
    gaussian                  ((z - t)/sigma)^2 / 2 + log sigma + log(2 pi) / 2

of outputs z and targets t, the last but one without log t!. Each is convex in z, so Gauss-Newton
matrices are positive semidefinite.

Source: McCullagh & Nelder (1989), "Generalized Linear Models", chapter 2.
"""

from typing import Any

from hesskit.core.categorical import SoftmaxCrossEntropy
from hesskit.core.closed_form import (
    Gaussian,
    Poisson,
    SigmoidCrossEntropy,
    SquaredError,
)


def squared_error(*, reduction: str = "mean", where: Any = None) -> SquaredError:
    r"""(z - t)^2 for outputs z and targets t, as `optax.squared_error`.

    Args:
      reduction: "mean" over entries, or "sum".
      where: a mask of the entries, or of their leading axes, that count; None means all. A mask
        that changes from call to call is data: `loss(params, ..., where=mask)`.

    Returns:
      `loss(outputs, targets) -> ()`, for `hesskit.composite`.

    Raises:
      ValueError: `reduction` is neither; when called: shapes differ.
      TypeError: `where` is no mask of bools; when called: an argument is no real array.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> loss = hesskit.composite(hesskit.losses.squared_error(), lambda p, x: p[0] + p[1] * x)
      >>> x = jnp.arange(3.0)
      >>> fit = hesskit.minimize(loss, jnp.zeros(2), args=(x, 1.0 + 2.0 * x))
      >>> print(fit.params.round(3))
      [1. 2.]
    """
    return SquaredError(reduction, where)


def sigmoid_cross_entropy(*, reduction: str = "mean", where: Any = None) -> SigmoidCrossEntropy:
    r"""-t log p - (1 - t) log(1 - p), p = sigmoid(z), as `optax.sigmoid_binary_cross_entropy`.

    Args:
      reduction: "mean" over entries, or "sum".
      where: a mask of the entries, or of their leading axes, that count; None means all. A mask
        that changes from call to call is data: `loss(params, ..., where=mask)`.

    Returns:
      `loss(logits, targets) -> ()`, for `hesskit.composite`; targets are 0 or 1, of any dtype, or
      probabilities.

    Raises:
      ValueError: `reduction` is neither; when called: shapes differ.
      TypeError: `where` is no mask of bools; when called: an argument is no real array.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> loss = hesskit.losses.sigmoid_cross_entropy()
      >>> print(loss(jnp.array([0.0, 50.0]), jnp.array([0, 1])).round(4))
      0.3466
    """
    return SigmoidCrossEntropy(reduction, where)


def softmax_cross_entropy(*, reduction: str = "mean", where: Any = None) -> SoftmaxCrossEntropy:
    r"""-sum_k t_k log p_k, p = softmax(z) over the last axis, as `optax.softmax_cross_entropy`.

    Args:
      reduction: "mean" over examples, all axes but the last, or "sum".
      where: a mask of the examples, or of their leading axes, that count; None means all. A mask
        that changes from call to call is data: `loss(params, ..., where=mask)`.

    Returns:
      `loss(logits, targets) -> ()`, for `hesskit.composite`; targets are class numbers without the
      last axis, integers (one that is no class makes the loss NaN), or labels >= 0 like the logits.

    Raises:
      ValueError: `reduction` is neither; when called: shapes do not fit.
      TypeError: `where` is no mask of bools; when called: an argument is no real array, or class
        numbers are no integers.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> loss = hesskit.losses.softmax_cross_entropy()
      >>> print(loss(jnp.zeros((2, 4)), jnp.array([0, 3])).round(4))
      1.3863
    """
    return SoftmaxCrossEntropy(reduction, where)


def poisson(*, reduction: str = "mean", where: Any = None) -> Poisson:
    r"""exp(z) - t z: minus the log-likelihood of counts t at log rates z, less log t!.

    Args:
      reduction: "mean" over entries, or "sum".
      where: a mask of the entries, or of their leading axes, that count; None means all. A mask
        that changes from call to call is data: `loss(params, ..., where=mask)`.

    Returns:
      `loss(log_rates, counts) -> ()`, for `hesskit.composite`.

    Raises:
      ValueError: `reduction` is neither; when called: shapes differ.
      TypeError: `where` is no mask of bools; when called: an argument is no real array.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> counts = jnp.array([2, 3, 7])
      >>> loss = hesskit.composite(hesskit.losses.poisson(), lambda p: jnp.full(3, p))
      >>> fit = hesskit.minimize(loss, 0.0, args={"targets": counts})
      >>> print(jnp.exp(fit.params).round(3))
      4.0
    """
    return Poisson(reduction, where)


def gaussian(*, reduction: str = "mean", where: Any = None) -> Gaussian:
    r"""((z - t)/sigma)^2 / 2 + log sigma + log(2 pi) / 2, with known standard deviations sigma.

    Args:
      reduction: "mean" over entries, or "sum".
      where: a mask of the entries, or of their leading axes, that count; None means all. A mask
        that changes from call to call is data: `loss(params, ..., where=mask)`.

    Returns:
      `loss(outputs, targets, sigma=1.0) -> ()`, for `hesskit.composite`; sigma is a number or like
      the outputs, and inf drops an entry.

    Raises:
      ValueError: `reduction` is neither; when called: shapes differ.
      TypeError: `where` is no mask of bools; when called: an argument is no real array.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> loss = hesskit.losses.gaussian(reduction="sum")
      >>> print(loss(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0]), sigma=2.0).round(4))
      3.7242
    """
    return Gaussian(reduction, where)
