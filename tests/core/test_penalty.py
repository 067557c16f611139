"""l2 is decay, prior and ridge, in value, gradient, curvature and as residuals."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from hesskit.core.penalty import l2
from tests.core.dense import check_outer

A = np.random.default_rng(0).normal(size=(8, 3))
Y = np.random.default_rng(1).normal(size=8)
STARTS = ([1.0, 1.0, 1.0], [-2.0, 0.5, 3.0])


def params(dtype="float32"):
    return {"w": jnp.array([1.0, -2.0], dtype), "b": jnp.array(0.5, dtype)}


def fit(w, x, y):
    return jnp.mean((x @ w - y) ** 2) / 2


def data(dtype="float32"):
    return {"x": jnp.asarray(A, dtype), "y": jnp.asarray(Y, dtype)}


@pytest.mark.slow
def test_value_gradient_and_curvature(dtype):
    p, center = params(dtype), jax.tree.map(jnp.ones_like, params(dtype))
    penalty = l2(3.0, center=center)
    value, grad = jax.value_and_grad(penalty)(p)
    assert value == 3.0 / 2 * (0 + 9 + 0.25)
    np.testing.assert_array_equal(grad["w"], 3 * (p["w"] - 1))
    np.testing.assert_array_equal(jax.hessian(penalty)(p)["w"]["w"], 3 * np.eye(2))
    assert value.dtype == dtype


def test_as_residuals_it_has_the_same_matrices(dtype):
    p, center = params(dtype), jax.tree.map(jnp.ones_like, params(dtype))
    penalty = l2(3.0, center=center, mask="w")
    whole = penalty.structure((), {}, "minimize")
    value, aux = whole(p)
    assert (value, aux) == (penalty(p), None)
    found = check_outer(whole.outer, whole.inner(p)[0])
    np.testing.assert_allclose(found.hessian, 3 * np.eye(2))
    np.testing.assert_allclose(found.residual, np.sqrt(3) * np.array([0, -3]), rtol=1e-6)


def test_complex_leaves_are_two_real_residuals():
    whole = l2(2.0).structure((), {}, "minimize")
    z = jnp.array([3 + 4j])
    assert whole(z)[0] == 25.0
    np.testing.assert_array_equal(whole.inner(z)[0], [[3.0], [4.0]])


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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_penalties_are_equal_by_their_parts():
    center, mask = params(), {"w": True, "b": False}
    assert l2(1.0, center=center, mask=mask) == l2(1.0, center=center, mask=mask)
    assert l2(1.0, center=center) != l2(1.0, center=params())
    assert l2(1.0) != l2(2.0)
    assert pickle.loads(pickle.dumps(l2(1.0))) == l2(1.0)


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
