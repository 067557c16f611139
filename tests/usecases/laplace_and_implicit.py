"""A posterior by Laplace's approximation, its errors, and gradients of its evidence.

    python tests/usecases/laplace_and_implicit.py

Logistic regression with a normal prior of precision exp(log_tau). The prior's precision is then
tuned by the evidence (empirical Bayes), with exact gradients through the solve.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import hesskit


def neg_log_post(theta, log_tau, x, y):
    """A sum over data, not a mean, plus the negative log prior."""
    z = x @ theta["w"] + theta["b"]
    nll = jnp.sum(jax.nn.softplus(z) - y * z)
    return nll + 0.5 * jnp.exp(log_tau) * jnp.sum(theta["w"] ** 2) - 2.5 * log_tau


model = hesskit.composite(
    hesskit.losses.sigmoid_cross_entropy(reduction="sum"), lambda th, x: x @ th["w"] + th["b"]
)
START = {"w": jnp.zeros(5), "b": jnp.zeros(())}


def measure(rng, num=200):
    """Features and labels of a logistic model."""
    x = rng.normal(size=(num, 5))
    chance = 1 / (1 + np.exp(-(x @ [1.5, -1.0, 0.5, 0.0, 0.0] + 0.3)))
    return jnp.asarray(x), jnp.asarray((rng.uniform(size=num) < chance).astype(float))


class Numbers(NamedTuple):
    """What came of it."""

    x: jax.Array
    y: jax.Array
    errors: dict[str, jax.Array]
    neg_evidence: Callable[[jax.Array], jax.Array]
    best: hesskit.Result
    many_errors: dict[str, jax.Array]


def main():
    """Fits, prints, tunes."""
    x, y = measure(np.random.default_rng(0))
    log_tau = jnp.array(0.0)
    fit = hesskit.minimize(neg_log_post, START, args=(log_tau, x, y))
    post = hesskit.laplace(neg_log_post, fit.params, args=(log_tau, x, y))
    print(post)
    draws = post.sample(jax.random.key(0), 4000)
    new = jnp.eye(5)
    chances = jax.vmap(lambda th: jax.nn.sigmoid(model.inner(th, new)))(draws)
    print("chances at new points", jnp.quantile(chances, jnp.array([0.16, 0.5, 0.84]), axis=0))

    # The expected information, and errors that do not trust the model: F^{-1} and H^{-1} J H^{-1}.
    fisher = hesskit.fisher_operator(model, fit.params, args=(x, y), kind="exact").dense()
    scores = hesskit.fisher_operator(
        model, fit.params, args=(x, y), kind="empirical", centered=False
    ).dense()
    inverse = jnp.linalg.inv(hesskit.hessian(neg_log_post, fit.params, args=(log_tau, x, y)))
    errors = {
        "laplace": jnp.sqrt(jnp.diagonal(post.covariance)),
        "fisher": jnp.sqrt(jnp.diagonal(jnp.linalg.inv(fisher))),
        "sandwich": jnp.sqrt(jnp.diagonal(inverse @ scores @ inverse)),
    }
    for name, error in errors.items():
        print(f"{name:10s}", dict(zip(post.names, error.round(3).tolist(), strict=True)))

    def neg_evidence(log_tau):
        """What everyone writes: a closure."""
        f = lambda th: neg_log_post(th, log_tau, x, y)
        return -hesskit.laplace(f, hesskit.minimize(f, START).params).log_evidence

    print("curvature of the evidence", jax.jit(jax.hessian(neg_evidence))(0.0))
    best = hesskit.minimize(neg_evidence, jnp.array(0.0))
    print(f"log_tau = {float(best.params):.4f}:", best.message)

    # A few data sets, features shared, labels and hyperparameters not.
    taus, ys = jnp.array([0.0, 1.0, 2.0]), jnp.stack([y, 1 - y, y])

    def one(tau, y):
        fit = hesskit.minimize(neg_log_post, START, args=(tau, x, y))
        return fit, hesskit.laplace(neg_log_post, fit.params, args=(tau, x, y)).standard_errors

    many, many_errors = jax.vmap(one)(taus, ys)
    print(many.message, many_errors["w"][:, 0])
    return Numbers(x, y, errors, neg_evidence, best, many_errors)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
