"""Kronecker factors as a preconditioner: the inverse where they are exact, fewer products of CG."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core.derivatives import ProductOf
from hesskit.core.objective import bind, drop_aux
from hesskit.linalg.dense import dense
from tests.marks import slow_but

RNG = np.random.default_rng(0)
SCALES = 10.0 ** np.linspace(-1.5, 0, 6)
X = jnp.asarray(RNG.normal(size=(40, 6)) * SCALES, jnp.float32)
Y = jnp.asarray(RNG.normal(size=(40, 3)), jnp.float32)
LOSS = hesskit.composite(hesskit.losses.squared_error(), lambda p, x: x @ p["w"])
ZERO = {"w": jnp.zeros((6, 3))}


def test_of_a_linear_layer_it_is_the_inverse(float64):
    params = {"w": jnp.zeros((6, 3))}
    args = X.astype(float), Y.astype(float)
    made = hesskit.kronecker_preconditioner(estimator="exact")
    fn = drop_aux(bind(LOSS, args=args, caller="test"))
    state = made.update(made.init(params), ProductOf(lambda v: v, fn), params)
    matrix = np.asarray(hesskit.gauss_newton_operator(LOSS, params, args=args).dense())
    damping = jnp.asarray(0.05)
    inverse = dense(lambda v: made.apply(state, v, damping), params)
    np.testing.assert_allclose(inverse @ (matrix + 0.05 * np.eye(18)), np.eye(18), atol=1e-10)
    least = dense(lambda v: made.apply(state, v, jnp.zeros(())), params)
    wanted = np.linalg.inv(matrix + 1e-3 * np.trace(matrix) / 18 * np.eye(18))
    np.testing.assert_allclose(least, wanted, rtol=1e-8, atol=1e-8)


def _methods(preconditioner):
    given = {"preconditioner": preconditioner}
    return {
        "natural_gradient": hesskit.natural_gradient(
            damping=1e-5, linear_solver="cg", max_products=100, **given
        ),
        "levenberg_marquardt": hesskit.levenberg_marquardt(radius=1e4, linear_solver="cg", **given),
        "gauss_newton": hesskit.gauss_newton(linear_solver="cg", **given),
        "newton_cg": hesskit.newton_cg(radius=1e4, **given),
        "hessian_free": hesskit.hessian_free(damping=1e-5, **given),
    }


@pytest.mark.parametrize("name", slow_but(_methods(None), "newton_cg"))
def test_methods_solve_with_fewer_products(name):
    best = np.linalg.lstsq(np.asarray(X, float), np.asarray(Y, float), rcond=None)[0]
    least = float(LOSS({"w": jnp.asarray(best, jnp.float32)}, X, Y))
    spent = []
    for made in (None, hesskit.kronecker_preconditioner(estimator="exact")):
        opt = _methods(made)[name]
        params, state = ZERO, opt.init(ZERO)

        @jax.jit
        def step(params, state, opt=opt):
            value, grad = jax.value_and_grad(LOSS)(params, X, Y)
            updates, state = opt.update(
                grad, state, params, value=value, grad=grad, value_fn=LOSS, args=(X, Y)
            )
            return jax.tree.map(jnp.add, params, updates), state

        total = 0
        for _ in range(20):
            params, state = step(params, state)
            total += int(hesskit.last_info(state).num_products)
            if LOSS(params, X, Y) < least * (1 + 1e-4):
                break
        else:
            total = np.inf
        spent.append(total)
    assert spent[1] < np.inf
    assert spent[1] <= spent[0] / 2, spent


@pytest.mark.parametrize("name", ["natural_gradient", "levenberg_marquardt", "gauss_newton"])
def test_with_a_preconditioner_auto_is_cg(name):
    """Also for few parameters: the other solvers have no use for one."""
    opt = getattr(hesskit, name)(preconditioner=hesskit.diagonal_preconditioner())
    grad = jax.grad(LOSS)(ZERO, X, Y)
    update = jax.jit(lambda s: opt.update(grad, s, ZERO, value_fn=LOSS, args=(X, Y))[1])
    assert hesskit.last_info(update(opt.init(ZERO))).linear_solver == "cg"


def test_what_has_no_structure_has_no_factors():
    opt = hesskit.newton_cg(preconditioner=hesskit.kronecker_preconditioner())
    with pytest.raises(TypeError, match=r"kronecker_preconditioner reads the model, .*composite"):
        hesskit.minimize(lambda p: jnp.sum(p["w"] ** 2), ZERO, opt)
    with pytest.raises(TypeError, match=r"preconditioner must be a hesskit.Preconditioner or None"):
        hesskit.levenberg_marquardt(preconditioner="leafwise")
