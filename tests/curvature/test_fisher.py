"""Fisher matrices against sums over all targets, over examples, and against one another."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hesskit
from hesskit import losses
from hesskit.core import objective
from hesskit.curvature import fisher
from hesskit.linalg import whitened

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 3))
W = {"w": RNG.normal(size=(3, 2)) / 2, "b": RNG.normal(size=(2,)) / 5}
TARGETS = {
    "squared_error": RNG.normal(size=(5, 2)),
    "sigmoid_cross_entropy": RNG.integers(0, 2, (5, 2)),
    "softmax_cross_entropy": RNG.integers(0, 2, 5),
    "poisson": RNG.poisson(2, (5, 2)),
    "gaussian": RNG.normal(size=(5, 2)),
}
each_loss = pytest.mark.parametrize("name", TARGETS)
each_reduction = pytest.mark.parametrize("reduction", ["mean", "sum"])


def model(p, x):
    z = x @ p["w"]
    return jnp.tanh(z + jnp.broadcast_to(p["b"], z.shape))


def problem(name, reduction="sum"):
    """The loss, params and data, in float64."""
    loss = hesskit.composite(getattr(losses, name)(reduction=reduction), model)
    target = jnp.asarray(TARGETS[name])
    if name != "softmax_cross_entropy":
        target = target.astype("float64")
    return loss, jax.tree.map(jnp.asarray, W), (jnp.asarray(X), target)


def share(name, reduction):
    """c of an example."""
    entries = 5 if name == "softmax_cross_entropy" else 10
    return 1.0 if reduction == "sum" else 1 / entries


def score(name, p, x, t):
    """The gradient of the loss of one example."""
    loss, _, _ = problem(name)
    return ravel_pytree(jax.grad(loss)(p, x[None], t[None]))[0]


def dense(*args, **kwargs):
    return np.asarray(hesskit.fisher_operator(*args, **kwargs).dense())


@each_reduction
@each_loss
def test_exact_is_the_gauss_newton_matrix(float64, name, reduction):
    loss, p, args = problem(name, reduction)
    np.testing.assert_allclose(
        dense(loss, p, args=args), hesskit.gauss_newton_operator(loss, p, args=args).dense()
    )


@pytest.mark.parametrize("name", ["sigmoid_cross_entropy", "softmax_cross_entropy"])
def test_exact_is_the_expectation_over_all_targets(float64, name):
    """E[score score'] by summing over every target with its probability."""
    loss, p, args = problem(name)
    total = np.zeros((8, 8))
    for x in args[0]:
        z = model(p, x)
        if name == "softmax_cross_entropy":
            cases = [(k, jax.nn.softmax(z)[k]) for k in range(2)]
        else:
            prob = jax.nn.sigmoid(z)
            cases = [
                (jnp.array(t, float), jnp.prod(jnp.where(jnp.array(t) == 1, prob, 1 - prob)))
                for t in itertools.product([0, 1], repeat=2)
            ]
        for t, weight in cases:
            g = np.asarray(score(name, p, x, jnp.asarray(t)))
            total += float(weight) * np.outer(g, g)
    np.testing.assert_allclose(dense(loss, p, args=args), total, atol=1e-12)


@each_loss
def test_sampled_has_the_exact_one_as_its_mean(float64, name):
    """Within five standard errors, entry by entry."""
    loss, p, args = problem(name, "mean")

    def draw(key):
        return hesskit.fisher_operator(loss, p, args=args, kind="sampled", key=key).dense()

    keys = jax.random.split(jax.random.key(0), 2000)
    draws = np.asarray(jax.jit(lambda k: jax.lax.map(draw, k, batch_size=200))(keys))
    away = np.abs(draws.mean(axis=0) - dense(loss, p, args=args))
    assert np.all(away <= 5 * draws.std(axis=0) / len(draws) ** 0.5 + 1e-12)


@pytest.mark.parametrize("centered", [False, True])
@each_reduction
@each_loss
def test_empirical_is_that_of_the_scores(float64, name, reduction, centered):
    loss, p, (x, t) = problem(name, reduction)
    g = np.stack([score(name, p, a, b) for a, b in zip(x, t, strict=True)])
    g -= centered * g.mean(axis=0)
    found = dense(loss, p, args=(x, t), kind="empirical", centered=centered)
    np.testing.assert_allclose(found, share(name, reduction) * g.T @ g, atol=1e-12)


def test_empirical_is_not_the_fisher_matrix(float64):
    """It vanishes where the model interpolates, and differs elsewhere by more than rounding."""
    loss, p, (x, t) = problem("gaussian")
    perfect = dense(loss, p, args=(x, model(p, x)), kind="empirical")
    np.testing.assert_allclose(perfect, 0, atol=1e-20)
    exact, other = dense(loss, p, args=(x, t)), dense(loss, p, args=(x, t), kind="empirical")
    assert np.linalg.norm(exact - other) > 0.1 * np.linalg.norm(exact)


@pytest.mark.slow
def test_a_mask_drops_examples(float64):
    loss, p, (x, t) = problem("softmax_cross_entropy", "mean")
    where = jnp.array([True, False, True, True, False])
    kept = np.flatnonzero(where)
    for kind in ("exact", "empirical"):
        masked = dense(loss, p, args={"x": x, "targets": t, "where": where}, kind=kind)
        alone = dense(loss, p, args=(x[kept], t[kept]), kind=kind)
        np.testing.assert_allclose(masked, alone, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_least_squares_counts_as_gaussian(float64, reduction):
    x, t = jnp.asarray(X), jnp.asarray(TARGETS["gaussian"])
    p = jax.tree.map(jnp.asarray, W)
    sigma = jnp.asarray(RNG.uniform(0.5, 2.0, (5, 2)))
    loss = hesskit.least_squares_loss(
        lambda p: model(p, x) - t, sigma=sigma, weights=3.0, reduction=reduction
    )
    one = lambda p, a, b, s: jnp.sum(((model(p, a) - b) / s) ** 2)
    g = np.stack(
        [ravel_pytree(jax.grad(one)(p, *example))[0] for example in zip(x, t, sigma, strict=True)]
    )
    scale = 1.5**2 if reduction == "sum" else 3.0**2 / 10
    empirical = dense(loss, p, kind="empirical")
    np.testing.assert_allclose(empirical, scale * g.T @ g, atol=1e-12)
    keys = jax.random.split(jax.random.key(1), 2000)
    draw = lambda key: hesskit.fisher_operator(loss, p, kind="sampled", key=key).dense()
    draws = np.asarray(jax.jit(lambda k: jax.lax.map(draw, k, batch_size=200))(keys))
    away = np.abs(draws.mean(axis=0) - dense(loss, p))
    assert np.all(away <= 5 * draws.std(axis=0) / len(draws) ** 0.5)


@pytest.mark.parametrize("kind", ["exact", "sampled", "empirical"])
def test_a_prior_counts_as_it_is(float64, kind):
    loss, p, args = problem("softmax_cross_entropy")
    key = 0 if kind == "sampled" else None
    whole = dense(2.0 * loss + hesskit.l2(0.3), p, args=args, kind=kind, key=key)
    if kind == "sampled":  # the draws of a sum are others
        assert np.linalg.eigvalsh(whole).min() >= 0.3 - 1e-12
        return
    np.testing.assert_allclose(whole, 2 * dense(loss, p, args=args, kind=kind) + 0.3 * np.eye(8))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sampled", "empirical"])
def test_rows_and_products_agree(float64, kind):
    """The factor has one row for each example."""
    loss, p, args = problem("softmax_cross_entropy")
    fn, start = objective.real(loss, p, args=args, caller="test")
    fn = fisher.with_fisher(fn, kind, jax.random.key(0), centered=False, caller="test")
    at = whitened.evaluate(fn, start)
    rows = at.rows()
    assert rows.matrix.shape == (5, 8)
    unit = lambda e: ravel_pytree(at.product(ravel_pytree(p)[1](e)))[0]
    np.testing.assert_allclose(rows.matrix.T @ rows.matrix, jax.vmap(unit)(jnp.eye(8)), atol=1e-13)
    if kind == "empirical":
        np.testing.assert_allclose(rows.matrix.T @ rows.residual, ravel_pytree(at.grad)[0])


def test_one_program_serves_all_points_and_keys(float64):
    loss, p, args = problem("softmax_cross_entropy")
    traces = []

    def counted(p, x):
        traces.append(None)
        return model(p, x)

    loss = hesskit.composite(losses.softmax_cross_entropy(), counted)
    op = functools.partial(hesskit.fisher_operator, loss, args=args, kind="sampled")
    op(p, key=0) @ p
    before = len(traces)
    op(jax.tree.map(lambda a: 2 * a, p), key=jax.random.key(3)) @ p
    assert len(traces) == before


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda f, **k: f(lambda p: jnp.sum(p**2), **k), TypeError, "a plain function has none"),
        (
            lambda f, **k: f(hesskit.composite(lambda y: jnp.sum(y**4), lambda p: p), **k),
            TypeError,
            "needs the distribution of the outputs, and this loss has none: use",
        ),
        (
            lambda f, **k: f(hesskit.least_squares_loss(lambda p: p, loss="huber"), **k),
            TypeError,
            "softmax_cross_entropy",
        ),
        (
            lambda f, **k: f(hesskit.least_squares_loss(lambda p: p), kind="true", **k),
            ValueError,
            "kind must be one of",
        ),
        (
            lambda f, **k: f(hesskit.least_squares_loss(lambda p: p), kind="sampled", **k),
            ValueError,
            'kind="sampled" needs key=',
        ),
        (
            lambda f, **k: f(hesskit.least_squares_loss(lambda p: p), centered=True, **k),
            ValueError,
            'centered=True goes with kind="empirical"',
        ),
    ],
)
def test_words(make, error, words):
    with pytest.raises(error, match=words):
        make(lambda fn, **k: hesskit.fisher_operator(fn, jnp.ones(2), **k).dense())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["exact", "sampled", "empirical"])
def test_mapped_products_are_those_one_by_one(kind):
    """With 500 examples of 10 classes, as many as XLA of jax 0.10 compiles into one kernel."""
    x, p = jax.random.normal(jax.random.key(0), (500, 3)), jnp.ones((3, 10)) / 3
    loss = hesskit.composite(losses.softmax_cross_entropy(), lambda p, x: x @ p)
    key = 0 if kind == "sampled" else None
    op = hesskit.fisher_operator(loss, p, args=(x, jnp.arange(500) % 10), kind=kind, key=key)
    v = jax.random.normal(jax.random.key(1), (8, 3, 10))
    mapped = jax.jit(jax.vmap(lambda u: op @ u))(v)
    np.testing.assert_allclose(mapped, jnp.stack([op @ u for u in v]), atol=1e-6)
