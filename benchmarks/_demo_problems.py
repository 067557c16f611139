"""The problems of the demo: a function, a start and data each, in the current float dtype."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_breast_cancer, load_digits

L2 = 1e-3
HIDDEN = 16


class Problem(NamedTuple):
    """Minimize `fn(params, *args)` from `start`.

    `goal` is how far above the best value that anyone found counts as arrived; None means
    eps^(2/3) max(1, |best|). `adam_steps` bounds the steps of Adam, `max_steps` all others.
    """

    name: str
    title: str
    fn: Callable[..., Any]
    start: Any
    args: tuple
    max_steps: int
    adam_steps: int
    goal: float | None = None
    note: str = ""
    draws_paths: bool = False

    @property
    def size(self) -> int:
        """The number of entries of the parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.start))


def logistic(params, features, signs):
    """Mean log-loss of a linear classifier, labels +1 or -1, and L2 on the weights."""
    margin = signs * (features @ params["weights"] + params["intercept"])
    penalty = 0.5 * L2 * jnp.vdot(params["weights"], params["weights"])
    return jnp.mean(jax.nn.softplus(-margin)) + penalty


def rosenbrock(x):
    """The chained Rosenbrock function; in 2-D it is the classic one."""
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def _classified(logits, labels, params):
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(loss) + 0.5 * L2 * optax.tree.norm(params, squared=True)


def softmax_regression(params, images, labels):
    """Mean cross entropy of a linear classifier, and L2 on everything."""
    return _classified(images @ params["weights"] + params["bias"], labels, params)


def perceptron(params, images, labels):
    """Mean cross entropy of one hidden layer of tanh units, and L2 on everything."""
    hidden = jnp.tanh(images @ params["in"]["weights"] + params["in"]["bias"])
    return _classified(hidden @ params["out"]["weights"] + params["out"]["bias"], labels, params)


def _layer(rng, fan_in, fan_out, dtype):
    weights = rng.standard_normal((fan_in, fan_out)) / np.sqrt(fan_in)
    return {"weights": jnp.asarray(weights, dtype), "bias": jnp.zeros(fan_out, dtype)}


def breast_cancer() -> Problem:
    """Malignant or benign, from 30 standardized measurements of 569 tumors."""
    features, labels = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    dtype = jnp.result_type(float)
    return Problem(
        name="breast_cancer",
        title="Logistic regression with L2, breast cancer (569 x 30)",
        fn=logistic,
        start={"weights": jnp.zeros(features.shape[1], dtype), "intercept": jnp.zeros((), dtype)},
        args=(jnp.asarray(features, dtype), jnp.asarray(2 * labels - 1, dtype)),
        max_steps=500,
        adam_steps=5000,
    )


def rosenbrock_2d() -> Problem:
    """The banana valley from the classic start."""
    return Problem(
        name="rosenbrock_2d",
        title="Rosenbrock, 2-D, from (-1.2, 1)",
        fn=rosenbrock,
        start=jnp.array([-1.2, 1.0]),
        args=(),
        max_steps=500,
        adam_steps=20_000,
        draws_paths=True,
    )


def rosenbrock_100d() -> Problem:
    """A valley that each coordinate turns into the next."""
    return Problem(
        name="rosenbrock_100d",
        title="Chained Rosenbrock, 100-D, from the origin",
        fn=rosenbrock,
        start=jnp.zeros(100),
        args=(),
        max_steps=1000,
        adam_steps=20_000,
    )


def _digits():
    images, labels = load_digits(return_X_y=True)
    return jnp.asarray(images / 16, jnp.result_type(float)), jnp.asarray(labels)


def digits_softmax() -> Problem:
    """Ten classes of 8 x 8 images by a linear classifier: convex."""
    dtype = jnp.result_type(float)
    return Problem(
        name="digits_softmax",
        title="Softmax regression with L2, digits (1797 x 64)",
        fn=softmax_regression,
        start={"weights": jnp.zeros((64, 10), dtype), "bias": jnp.zeros(10, dtype)},
        args=_digits(),
        max_steps=500,
        adam_steps=1000,
    )


def digits_mlp() -> Problem:
    """The same by a small neural network: not convex."""
    rng, dtype = np.random.default_rng(0), jnp.result_type(float)
    start = {"in": _layer(rng, 64, HIDDEN, dtype), "out": _layer(rng, HIDDEN, 10, dtype)}
    return Problem(
        name="digits_mlp",
        title=f"MLP 64-{HIDDEN}-10 (tanh) with L2, digits (1797 x 64)",
        fn=perceptron,
        start=start,
        args=_digits(),
        max_steps=500,
        adam_steps=1000,
        goal=2e-3,
        note="not convex: methods may end in different minima",
    )


PROBLEMS = (breast_cancer, rosenbrock_2d, rosenbrock_100d, digits_softmax, digits_mlp)
