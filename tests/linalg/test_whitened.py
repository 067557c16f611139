"""One linearization of a structured objective: products and rows against dense J'HJ, both modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from hesskit.core import closed_form, tree
from hesskit.core.categorical import SoftmaxCrossEntropy
from hesskit.core.composite import composite
from hesskit.core.per_example import per_example
from hesskit.core.residuals import least_squares_loss
from hesskit.linalg import whitened
from tests.core.dense import columns
from tests.core.test_derivatives import primitives

RNG = np.random.default_rng(0)
X = RNG.normal(size=(7, 2))
P = {"w": jnp.array([[0.5, -1.0, 0.2], [2.0, 0.3, -0.7]]), "b": jnp.array([0.7, 0.0, -0.1])}


def model(p, x):
    """Logits, (7, 3)."""
    return jnp.tanh(x @ p["w"]) + p["b"][None]


def cast(p, dtype):
    return jax.tree.map(lambda a: a.astype(dtype), p)


OUTER = {
    "squares": (lambda dtype: (jnp.asarray(RNG.normal(size=(7, 3)), dtype),)),
    "softmax": (lambda dtype: (jnp.arange(7) % 3,)),
    "autodiff": (lambda dtype: ()),
}
LOSS = {
    "squares": closed_form.SquaredError(),
    "softmax": SoftmaxCrossEntropy("sum"),
    "autodiff": lambda y: jnp.sum(jnp.cosh(y)) + jnp.sum(y) ** 2,
}


def truth(loss, inner, p):
    """Value, gradient and J'HJ from jax.jacobian and jax.hessian, flat."""
    flat, unravel = ravel_pytree(p)
    out, unpack = ravel_pytree(inner(p))
    outer = lambda r: loss(unpack(r))
    jacobian = jax.jacobian(lambda x: ravel_pytree(inner(unravel(x)))[0])(flat)
    return (
        outer(out),
        jacobian.T @ jax.grad(outer)(out),
        jacobian.T @ jax.hessian(outer)(out) @ jacobian,
    )


def dense(fn, p):
    """An evaluation with its product and rows dense, from one compiled program."""

    @jax.jit
    def at(p):
        found = whitened.evaluate(fn, p)
        return found.value, tree.ravel(found.grad), columns(found.product, p), found.rows()

    return at(p)


@pytest.mark.parametrize("name", LOSS)
def test_value_gradient_product_and_rows(name: str, dtype):
    p, x, data = cast(P, dtype), jnp.asarray(X, dtype), OUTER[name](dtype)
    fn = composite(LOSS[name], model).structure((x, *data), {}, "test").without_aux()
    value, grad, matrix, rows = dense(fn, p)
    expected = jax.jit(lambda p: truth(lambda y: LOSS[name](y, *data), lambda p: model(p, x), p))(p)
    tol = {"rtol": 1e3 * float(jnp.finfo(dtype).eps), "atol": 300 * float(jnp.finfo(dtype).eps)}
    for ours, theirs in zip((value, grad, matrix), expected, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, theirs, **tol)
    a = np.asarray(rows.matrix)
    assert a.shape == (21, 9)
    np.testing.assert_allclose(a.T @ a, expected[2], **tol)
    assert (rows.residual is not None) == (name == "squares")
    if rows.residual is not None:
        np.testing.assert_allclose(a.T @ rows.residual, expected[1], **tol)


# Rows come by columns of J (forward), by rows (reverse), or by examples.


@pytest.mark.parametrize(("m", "n"), [(2, 5), (9, 5), (5, 5)])
def test_rows_take_as_many_passes_as_the_smaller_side(m: int, n: int, float64, monkeypatch):
    passes, real = [], whitened.stacked

    def stacked(linear, like, chunk_size):
        passes.append((linear, tree.size(like)))
        return real(linear, like, chunk_size)

    monkeypatch.setattr(whitened, "stacked", stacked)
    matrix = RNG.normal(size=(m, n))
    fn = least_squares_loss(lambda p: {"r": jnp.sin(matrix @ p)}).structure((), {}, "t")
    p = jnp.linspace(-1, 1, n)
    rows = dense(fn.without_aux(), p)[3]
    assert [size for _, size in passes] == [min(m, n)]
    expected = np.cos(matrix @ p)[:, None] * matrix
    np.testing.assert_allclose(rows.matrix, expected, rtol=1e-12)


@pytest.mark.slow
def test_rows_by_example_are_the_rows(float64):
    one = lambda p, x, t: jnp.tanh(x @ p["w"]) + p["b"] - t
    p, x, t = cast(P, "float64"), jnp.asarray(X), jnp.asarray(RNG.normal(size=(7, 3)))
    mapped = least_squares_loss(per_example(one)).structure((x, t), {}, "t").without_aux()
    plain = least_squares_loss(lambda p, x, t: model(p, x) - t)
    plain = plain.structure((x, t), {}, "t").without_aux()
    found = whitened._by_example(mapped.inner, mapped.outer, mapped.inner(p)[0], p)
    assert found is not None
    np.testing.assert_allclose(found, dense(plain, p)[3].matrix, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(dense(mapped, p)[3].matrix, found, rtol=1e-14)
    assert whitened._by_example(plain.inner, plain.outer, plain.inner(p)[0], p) is None


# A residual with a reverse rule alone.


@jax.custom_vjp
def reverse_only(x):
    return jnp.sin(x) * x[0]


reverse_only.defvjp(
    lambda x: (reverse_only(x), x),
    lambda x, u: ((jnp.cos(x) * x[0] * u).at[0].add(jnp.sum(jnp.sin(x) * u)),),
)


@pytest.mark.parametrize("in_scan", [False, True])
def test_the_fallback_to_reverse_mode_is_taken_and_right(in_scan: bool, float64, monkeypatch):
    def inner(x):
        if not in_scan:
            return reverse_only(x)
        return jax.lax.scan(lambda c, a: (c, a * reverse_only(c)), x, jnp.array([1.0, -2.0]))[1]

    plain = lambda x: jnp.sin(x) * x[0]
    forward = plain if not in_scan else lambda x: jnp.stack([plain(x), -2 * plain(x)])
    x = jnp.array([0.3, -0.7, 1.1])
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(inner, (x,), (x,))
    taken = []
    real_vjp = jax.vjp

    def vjp(*args, **kwargs):
        taken.append(kwargs.get("has_aux", False))
        return real_vjp(*args, **kwargs)

    monkeypatch.setattr(whitened.jax, "vjp", vjp)
    quartic = lambda y: jnp.sum(y**4) / 4 + jnp.sum(y) ** 2
    fn = composite(quartic, inner).structure((), {}, "t").without_aux()
    value, grad, matrix, rows = dense(fn, x)
    assert True in taken
    expected = jax.jit(lambda x: truth(quartic, forward, x))(x)
    for ours, theirs in zip((value, grad, matrix), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(rows.matrix.T @ rows.matrix, expected[2], rtol=1e-11, atol=1e-13)
    taken.clear()
    whitened.evaluate(composite(quartic, forward).structure((), {}, "t").without_aux(), x)
    assert True not in taken


def test_an_error_of_the_user_is_raised_unmasked():
    fn = least_squares_loss(lambda p: p + "a").structure((), {}, "minimize").without_aux()
    with pytest.raises(TypeError, match="str") as caught:
        whitened.evaluate(fn, jnp.ones(2))
    assert any("residual_fn was called by hesskit.minimize" in s for s in caught.value.__notes__)


def test_one_trace_gives_everything():
    fn = least_squares_loss(jax.lax.lgamma).structure((), {}, "t")

    def everything(x):
        at = whitened.evaluate(fn, x, has_aux=True)
        return at.value, at.grad, at.aux, at.product(x), at.rows()

    assert primitives(jax.make_jaxpr(everything)(jnp.ones(2)).jaxpr, "lgamma") == 1


def test_aux_only_on_demand():
    fn = least_squares_loss(lambda p: (p, {"seen": 1}), has_aux=True).structure((), {}, "t")
    assert whitened.evaluate(fn, jnp.ones(2)).aux is None
    aux = whitened.evaluate(fn, jnp.ones(2), has_aux=True).aux
    assert aux == {"terms": 1.0, "aux": {"seen": 1}}


@pytest.mark.slow
def test_rows_found_at_once_give_the_gradient_too(float64):
    """R'c of [A | b] = Q [R | c], on lanes and alone, is that of the reverse pass."""
    t, y = jnp.asarray(X[:, 0]), jnp.asarray(X[:, 1])
    loss = least_squares_loss(lambda p: p[0] * jnp.exp(p[1] * t) - y, loss="cauchy")
    fn = loss.structure((), {}, "t").without_aux()
    points = jnp.asarray(RNG.normal(size=(5, 2)))
    many = jax.jit(jax.vmap(lambda p: whitened.evaluate_rows(fn, p).grad))(points)
    np.testing.assert_allclose(many, jax.vmap(jax.grad(fn))(points), rtol=1e-12, atol=1e-12)
    at = whitened.evaluate_rows(fn, points[0])
    np.testing.assert_allclose(at.grad, many[0], rtol=1e-12, atol=1e-12)
    matrix, residual, (triangle, inside, size) = at.rows()
    np.testing.assert_allclose(triangle.T @ inside, matrix.T @ residual, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(size**2, residual @ residual, rtol=1e-12)
    assert matrix.shape == (7, 2)
