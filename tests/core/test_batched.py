"""The structure of a mean over parts: products, rows and scores are those of the whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core import derivatives, objective, per_example
from hesskit.core.microbatch import microbatched
from hesskit.linalg import whitened
from tests.core.test_microbatch import close, world


def residual(w, x, y):
    return jnp.tanh(x @ w["a"]) @ w["b"] - y


def losses(reduction):
    """Objectives with a structure, each a mean or a sum over examples."""
    model = lambda w, x: jnp.tanh(x @ w["a"]) @ w["b"]
    coupled = lambda r, y: jnp.sum((r - y) ** 4) / (12 if reduction == "mean" else 1)
    return {
        "squares": hesskit.least_squares_loss(residual, reduction=reduction),
        "robust": hesskit.least_squares_loss(
            lambda w, x, y: {"r": residual(w, x, y), "x": x @ w["a"]},
            reduction=reduction,
            loss="cauchy",
            weights={"r": 2.0, "x": 0.1},
        ),
        "sigmoid": hesskit.composite(
            hesskit.losses.sigmoid_cross_entropy(reduction=reduction),
            lambda w, x: jnp.stack([model(w, x), x[:, 0]], axis=1),
        ),
        "sum": hesskit.least_squares_loss(residual, reduction=reduction) / 2 + hesskit.l2(0.3),
    } | ({} if reduction == "mean" else {"autodiff": hesskit.composite(coupled, model)})


def structured(fn, w, x, y, named=False):
    """Everything that Gauss-Newton methods ask for."""
    targets = jnp.stack([jnp.abs(jnp.sin(y)), jnp.ones_like(y)], axis=1) if named else y
    whole = objective.bind(fn, args=(x, targets))
    at = whitened.evaluate(whole, w)
    matrix, residual, *_ = at.rows()
    product = at.product(jax.tree.map(jnp.cos, w))
    rhs = None if residual is None else matrix.T @ residual
    return at.value, at.grad, product, matrix.T @ matrix, rhs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reduction"),
    [*((n, "mean") for n in losses("mean")), *((n, "sum") for n in losses("sum"))],
)
def test_structure_is_that_of_the_mean(name, reduction, float64):
    """Value, gradient, products, A'A and A'b: those of the whole batch, a sum's over num."""
    w, x, y = world(dtype="float64")
    loss = losses(reduction)[name]
    found = jax.jit(functools.partial(structured, microbatched(loss, 3), named=name == "sigmoid"))(
        w, x, y
    )
    scale = 1 if reduction == "mean" else 3
    whole = loss
    if name == "sum":  # what takes no data is no part of the mean
        squares = hesskit.least_squares_loss(residual, reduction=reduction)
        whole, scale = squares / (2 * scale) + hesskit.l2(0.3), 1
    expected = structured(whole, w, x, y, named=name == "sigmoid")
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b / scale, atol=1e-13 * float(jnp.max(jnp.abs(b))))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squares", "sum"])
def test_levenberg_marquardt_takes_the_same_steps(name, float64):
    w, x, y = world(dtype="float64")
    opt = hesskit.levenberg_marquardt()
    fits = [
        hesskit.minimize(fn, w, opt, args={"x": x, "y": y}, max_steps=4)
        for fn in (losses("mean")[name], microbatched(losses("mean")[name], 3))
    ]
    close(fits[1].params, fits[0].params, "float32")
    np.testing.assert_allclose(fits[1].value, fits[0].value, rtol=1e-10)
    terms = fits[1].aux["terms"]
    np.testing.assert_allclose(jnp.mean(terms), fits[0].aux["terms"], rtol=1e-8)
    assert terms.shape == (3,)
    updates, _ = opt.update(
        jax.grad(losses("mean")[name])(w, x, y),
        opt.init(w),
        w,
        value_fn=microbatched(losses("mean")[name], 3),
        x=x,
        y=y,
    )
    assert jnp.all(jnp.isfinite(updates["b"]))


@pytest.mark.slow
def test_rows_by_example_are_found_part_by_part(monkeypatch, float64):
    """Also beside a penalty, for complex data, and through a change of variables."""
    w, x, y = world(dtype="float64")

    def one(w, x, y):
        hidden = jnp.tanh(x @ w["a"]) @ w["b"] - y
        return {"first": hidden, "second": jnp.stack([hidden**2, x[0] * w["b"][0]])}

    loss = hesskit.least_squares_loss(hesskit.per_example(one), reduction="mean")
    taken = []
    rows = per_example.rows
    monkeypatch.setattr(
        per_example, "rows", lambda *args: taken.append(rows(*args) is not None) or rows(*args)
    )
    for extra in (0.0, 0.5):
        fn = microbatched(loss, 3) + extra * hesskit.l2(1.0)
        expected = jax.jit(functools.partial(structured, loss + extra * hesskit.l2(1.0)))(w, x, y)
        taken.clear()
        close(jax.jit(functools.partial(structured, fn))(w, x, y), expected, "float64")
        assert all(taken)
        assert taken
    plain = hesskit.least_squares_loss(
        lambda w, x, y: 2 * hesskit.per_example(one)(w, x, y)["first"]
    )
    taken.clear()
    jax.jit(functools.partial(structured, microbatched(plain, 3)))(w, x, y)
    assert not any(taken)
    with per_example.tap() as calls:
        microbatched(loss, 3).structure((x, y), {}, "test").inner(w)
    assert len(calls) == 1
    at = microbatched(loss, 3).structure((x, y), {}, "test").inner
    flat, unravel = jax.flatten_util.ravel_pytree(w)
    moved = lambda v: at(unravel(2 * v))
    dense = jax.jacobian(lambda v: jax.flatten_util.ravel_pytree(moved(v)[0])[0])(flat)
    np.testing.assert_allclose(rows(moved, flat), dense, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_a_function_of_some_leaves_and_of_filled_in_data(float64):
    w, x, y = world(dtype="float64")
    loss = losses("mean")["squares"]
    inner = functools.partial(loss, residual_sigma=jnp.array(2.0))
    held = hesskit.minimize(
        microbatched(inner, 3), w, hesskit.gauss_newton(), args=(x, y), fixed="a", max_steps=2
    )
    hidden = np.tanh(x @ w["a"])
    np.testing.assert_allclose(held.params["b"], np.linalg.lstsq(hidden, y)[0], rtol=1e-8)
    np.testing.assert_allclose(
        held.value, np.mean((hidden @ np.asarray(held.params["b"]) - y) ** 2) / 4, rtol=1e-10
    )


@pytest.mark.slow
def test_scores_are_those_of_the_parts(float64):
    w, x, y = world(dtype="float64")
    fn, loss = microbatched(losses("mean")["squares"], 3), losses("mean")["squares"]
    matrix = lambda fn, **kwargs: hesskit.fisher_operator(fn, w, args=(x, y), **kwargs).dense()
    close(matrix(fn, kind="empirical"), matrix(loss, kind="empirical"), "float64")
    close(matrix(fn, kind="exact"), matrix(loss, kind="exact"), "float64")
    drawn = [matrix(fn, kind="sampled", key=k) for k in range(200)]
    np.testing.assert_allclose(np.mean(drawn, axis=0), matrix(loss), atol=0.3 * np.max(drawn[0]))
    with pytest.raises(ValueError, match="centered=True needs the scores of all examples at once"):
        matrix(fn, kind="empirical", centered=True)


@pytest.mark.parametrize(
    "ask", ["call", "hessian", "product"], ids=["gradient", "Hessian product", "Gauss-Newton"]
)
def test_memory_of_a_structured_objective(ask):
    """Of 8 parts: the inner values of one, and for Gauss-Newton products the outputs of all."""
    w = {"a": jnp.ones((4, 256)), "b": jnp.ones(256)}
    x, y = jnp.ones((2048, 4)), jnp.ones(2048)

    def used(fn):
        def products(w, x, y):
            bound = objective.drop_aux(objective.bind(fn, args=(x, y)))
            if ask == "call":
                return jax.grad(bound)(w)
            evaluate = whitened.evaluate if ask == "product" else derivatives.linearized
            at = evaluate(bound, w)
            return jax.lax.fori_loop(0, 3, lambda _, v: at.product(v), at.grad)

        lowered = jax.jit(products).lower(w, x, y)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    whole = hesskit.least_squares_loss(residual, reduction="mean")
    assert used(microbatched(whole, 8)) < used(whole) / 4
