"""Gradient of all data, curvature of a part: against dense matrices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit

RNG = np.random.default_rng(0)
LOSS = hesskit.composite(hesskit.losses.squared_error(), lambda p, x: x @ p["w"])


def test_kfac_takes_the_curvature_of_other_data(float64):
    params = {"w": jnp.asarray(RNG.normal(size=(3, 2)))}
    args = jnp.asarray(RNG.normal(size=(9, 3))), jnp.asarray(RNG.normal(size=(9, 2)))
    part = tuple(a[:4] for a in args)
    grad = jax.grad(LOSS)(params, *args)
    matrix = np.asarray(hesskit.gauss_newton_operator(LOSS, params, args=part).dense())
    opt = hesskit.kfac(1.0, damping=0.3, eigenvalue_correction=True, estimator="exact")
    update = jax.jit(functools.partial(opt.update, value_fn=LOSS))
    for given in (part, {"x": part[0], "targets": part[1]}):
        updates, state = update(grad, opt.init(params), params, args=args, curvature_args=given)
        wanted = -np.linalg.solve(matrix + 0.3 * np.eye(6), grad["w"].ravel())
        np.testing.assert_allclose(updates["w"].ravel(), wanted, rtol=1e-9)
        assert hesskit.last_info(state).grad_norm == jnp.linalg.norm(grad["w"])


def test_a_function_without_data_of_its_own_has_no_other_curvature():
    opt, w = hesskit.kfac(1.0), jnp.ones(2, float)
    with pytest.raises(TypeError, match=r"kfac\.update needs the residuals"):
        opt.update(w, opt.init(w), w, value_fn=lambda w: jnp.sum(w**2), curvature_args=())


def test_data_without_a_name_or_a_place_are_refused():
    params, x = {"w": jnp.ones((3, 2))}, jnp.ones((4, 3))
    opt = hesskit.kfac(1.0)
    with pytest.raises(TypeError, match=r"curvature_args must be a tuple.* or a dict"):
        opt.update(params, opt.init(params), params, value_fn=LOSS, curvature_args=x)
