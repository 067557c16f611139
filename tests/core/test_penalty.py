"""l2 is decay, prior and ridge; objectives add, scale, keep data and aux, hash by their parts."""

import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from hesskit.core.penalty import l2

A = np.random.default_rng(0).normal(size=(8, 3))
Y = np.random.default_rng(1).normal(size=8)
STARTS = ([1.0, 1.0, 1.0], [-2.0, 0.5, 3.0])


def params(dtype="float32"):
    return {"w": jnp.array([1.0, -2.0], dtype), "b": jnp.array(0.5, dtype)}


def fit(w, x, y):
    return jnp.mean((x @ w - y) ** 2) / 2


def data(dtype="float32"):
    return {"x": jnp.asarray(A, dtype), "y": jnp.asarray(Y, dtype)}


def test_value_gradient_and_curvature(dtype):
    p, center = params(dtype), jax.tree.map(jnp.ones_like, params(dtype))
    penalty = l2(3.0, center=center)
    value, grad = jax.value_and_grad(penalty)(p)
    assert value == 3.0 / 2 * (0 + 9 + 0.25)
    np.testing.assert_array_equal(grad["w"], 3 * (p["w"] - 1))
    np.testing.assert_array_equal(jax.hessian(penalty)(p)["w"]["w"], 3 * np.eye(2))
    assert value.dtype == dtype


def test_a_mask_chooses_leaves():
    for mask in ("w", {"w": True, "b": False}, lambda path, leaf: leaf.ndim == 1):
        penalty = l2(2.0, mask=mask)
        assert penalty(params()) == 5.0
        assert jax.grad(penalty)(params())["b"] == 0


def test_complex_and_narrow_leaves_accumulate_wide():
    assert l2(2.0)(jnp.array([3 + 4j])) == 25.0
    small = jnp.full((1000,), 1 + 2**-7, "bfloat16")
    value = l2(2.0)(small)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, 1000 * (1 + 2**-7) ** 2, rtol=1e-6)
    assert jax.grad(l2(2.0))(small).dtype == jnp.bfloat16


def test_ridge_is_the_closed_form(dtype):
    ridge = fit + l2(0.3)
    result = hesskit.minimize(ridge, jnp.zeros(3, dtype), args=data(dtype))
    expected = np.linalg.solve(A.T @ A / 8 + 0.3 * np.eye(3), A.T @ Y / 8)
    np.testing.assert_allclose(result.params, expected, atol=50 * float(jnp.finfo(dtype).eps))


def ends(opt, fn):
    """Where 40 updates lead from both starts."""

    def run(w):
        def body(carry, _):
            w, state = carry
            value, grad = jax.value_and_grad(fn)(w)
            updates, state = opt.update(grad, state, w, value=value, grad=grad, value_fn=fn)
            return (optax.apply_updates(w, updates), state), None

        return jax.lax.scan(body, (w, opt.init(w)), length=40)[0][0]

    return jax.jit(jax.vmap(run))(jnp.array(STARTS))


@pytest.mark.standard_promotion("add_decayed_weights is optax's")
def test_decay_belongs_in_the_objective():
    """There the end is the minimizer from any start; beside an accepting transform it is not."""
    about = data()
    loss = lambda w: fit(w, about["x"], about["y"])
    ridge = np.linalg.solve(A.T @ A / 8 + 0.3 * np.eye(3), A.T @ Y / 8)
    inside = ends(hesskit.newton_cg(), loss + l2(0.3))
    np.testing.assert_allclose(inside, [ridge, ridge], atol=1e-6)
    before = ends(optax.chain(optax.add_decayed_weights(0.3), hesskit.newton_cg()), loss)
    after = ends(optax.chain(hesskit.newton_cg(), optax.add_decayed_weights(-0.3)), loss)
    for beside in (before, after):
        assert np.linalg.norm(beside - ridge, axis=1).min() > 0.1
    assert np.linalg.norm(after[0] - after[1]) > 1e-3


def test_sums_and_multiples():
    p = params()
    plain = lambda p: jnp.sum(p["w"])
    for total, expected in (
        (l2(2.0) + l2(2.0, mask="w"), 5.25 + 5),
        (plain + l2(2.0), -1 + 5.25),
        (l2(2.0) + plain, 5.25 - 1),
        (0.5 * (plain + l2(2.0)) + l2(4.0) * 2, 0.5 * 4.25 + 21),
        (np.float64(0.5) * l2(2.0), 2.625),
        (jnp.float32(-1.0) * l2(2.0), -5.25),
    ):
        np.testing.assert_allclose(total(p), expected, rtol=1e-6)
        assert total(p).dtype == jnp.float32


def test_data_and_signature_are_those_of_the_term_that_takes_them():
    w, about = jnp.ones(3), data()
    ridge = 2 * (l2(1.0) + fit)
    assert inspect.signature(ridge) == inspect.signature(fit)
    expected = 2 * (1.5 + fit(w, **about))
    np.testing.assert_allclose(ridge(w, **about), expected, rtol=1e-6)
    np.testing.assert_allclose(ridge(w, about["x"], y=about["y"]), expected, rtol=1e-6)
    assert callable(l2(1.0) + min)  # a function without a signature may take data


def test_aux_is_kept():
    pair = lambda w, x: (jnp.sum(w * x), {"aux": x})
    total, aux = (l2(2.0) + pair)(jnp.ones(2), jnp.ones(2))
    assert (float(total), sorted(aux)) == (4.0, ["aux"])
    result = hesskit.minimize(
        pair + l2(1.0), jnp.ones(2), args=(jnp.array([1.0, 2.0]),), has_aux=True
    )
    np.testing.assert_allclose(result.params, [-1, -2], atol=1e-5)


def test_the_widest_value_gives_the_dtype(float64):
    narrow = lambda p: jnp.sum(p["w"]).astype("float16")
    assert (narrow + l2(1.0))(params()).dtype == "float32"
    assert (narrow + l2(1.0))(params("float64")).dtype == "float64"


def test_equal_parts_are_one_compiled_program():
    center, mask = params(), {"w": True, "b": False}
    make = lambda c, about: 0.5 * (fit + l2(c, center=about, mask=mask))
    assert make(1.0, center) == make(1.0, center)
    assert hash(make(1.0, center)) == hash(make(1.0, center))
    assert make(1.0, center) != make(2.0, center)
    assert make(1.0, center) != make(1.0, params())
    assert l2(1.0) != fit + l2(1.0)
    traces = []

    def counted(w):
        traces.append(w)
        return jnp.sum(w)

    value = jax.jit(lambda fn, w: fn(w), static_argnums=0)
    for _ in range(2):
        value(counted + l2(0.1, mask=True), jnp.ones(2))
    assert len(traces) == 1
    assert pickle.loads(pickle.dumps(fit + l2(1.0))) == fit + l2(1.0)


def test_a_traced_strength_has_a_derivative():
    slope = jax.jit(jax.grad(lambda c: (0.5 * l2(c))(params())))(2.0)
    np.testing.assert_allclose(slope, 5.25 / 4)


def test_what_is_said_when_it_does_not_fit():
    with pytest.raises(ValueError, match=r"strength must lie in \[0, inf\), got -1"):
        l2(-1.0)
    with pytest.raises(TypeError, match="strength must be a number, got None"):
        l2(None)
    with pytest.raises(ValueError, match="mask='x' matches no leaf"):
        l2(1.0, mask="x")(params())
    with pytest.raises(ValueError, match="center must have the structure of params"):
        l2(1.0, center=jnp.zeros(2))(params())
    with pytest.raises(TypeError, match="fit and fit both take data"):
        fit + l2(1.0) + fit
    pair = lambda w: (jnp.sum(w), None)
    with pytest.raises(TypeError, match="2 terms of a sum return"):
        (pair + l2(1.0) + pair)(jnp.ones(2))
    with pytest.raises(ValueError, match=r"<lambda> returned shape \(2,\), expected \(\)"):
        ((lambda w: w) + l2(1.0))(jnp.ones(2))
    for other in (1.0, {"loss": 1.0}, None):
        with pytest.raises(TypeError, match="unsupported operand"):
            l2(1.0) + other
        with pytest.raises(TypeError, match="unsupported operand"):
            other + l2(1.0)
    for factor in (None, True, jnp.ones(2)):
        with pytest.raises(TypeError, match="unsupported operand"):
            l2(1.0) * factor
