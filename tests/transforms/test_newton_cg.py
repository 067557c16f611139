"""Newton-CG: its step against numpy, its products, its preconditioner, and its memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.linalg.operator import Preconditioner
from tests.transforms.runs import trace, update_once

CURVATURES = np.geomspace(1.0, 1e4, 30)


def ellipse(x):
    return jnp.sum(jnp.asarray(CURVATURES, x.dtype) * (x - 1.0) ** 2) / 2


def jacobi():
    """M = the diagonal of the ellipse."""
    return Preconditioner(
        init=lambda params: jnp.zeros(()),
        update=lambda state, product, params: state,
        apply=lambda state, v, damping: v / jnp.asarray(CURVATURES, v.dtype),
    )


@pytest.mark.slow
def test_one_step_solves_the_system_to_the_forcing_term(float64):
    x = jnp.linspace(-1.0, 2.0, 30)
    g = np.asarray(jax.grad(ellipse)(x))
    updates, info = update_once(hesskit.newton_cg(1.0, radius=1e6), ellipse, x)
    assert np.linalg.norm(g + CURVATURES * updates) <= 0.5 * np.linalg.norm(g)
    assert info.forcing == 0.5
    assert 0 < info.num_products < 30
    short, _ = update_once(hesskit.newton_cg(1.0, radius=0.01), ellipse, x)
    np.testing.assert_allclose(np.linalg.norm(short), 0.01)


@pytest.mark.slow
def test_a_perfect_preconditioner_takes_one_product(float64):
    x = jnp.linspace(-1.0, 2.0, 30)
    optimizer = hesskit.newton_cg(1.0, radius=1e6, preconditioner=jacobi())
    updates, info = update_once(optimizer, ellipse, x)
    np.testing.assert_allclose(x + updates, 1.0, rtol=1e-10)
    assert info.num_products == 1


@pytest.mark.slow
def test_products_keep_to_their_bound():
    x = 1 + 1 / jnp.asarray(CURVATURES, jnp.float32)
    _, info = update_once(hesskit.newton_cg(1.0, radius=1e6, max_products=2), ellipse, x)
    assert info.num_products == 2
    _, info = update_once(hesskit.newton_cg(max_escape_products=1), ellipse, jnp.ones(30))
    assert info.num_products <= 1
    for name in ("max_products", "max_escape_products"):
        with pytest.raises(ValueError, match=name):
            hesskit.newton_cg(**{name: 0})


@pytest.mark.slow
def test_the_forcing_term_falls_with_the_gradient(float64):
    rows = trace("newton_cg", "convex", [1.0, -1.0, 2.0, 0.5], "float64")
    kept = np.flatnonzero(rows.info.accepted & (rows.info.status == 0))
    forcing = rows.info.forcing[kept]
    assert forcing[0] == 0.5
    assert forcing[-1] < 1e-2
    assert np.all(forcing <= 0.5)


def test_state_is_vectors_only():
    n = 3000
    leaves = jax.tree.leaves(hesskit.newton_cg().init(jnp.ones(n)))
    assert max(leaf.size for leaf in leaves) == n


@pytest.mark.slow
def test_a_product_that_is_not_finite_leaves_the_line_of_the_gradient():
    bent = lambda x: jnp.sum(jnp.abs(x) ** 1.5 + (x - 3.0) ** 2)  # g = -6, H = inf 0 = NaN at 0
    result = hesskit.minimize(bent, jnp.zeros(5), hesskit.newton_cg())
    assert result.success
    x = np.asarray(result.params, np.float64)
    np.testing.assert_allclose(1.5 * np.sqrt(x) + 2 * (x - 3), 0, atol=1e-5)


@pytest.mark.slow
def test_a_way_down_is_predicted_in_the_norm_of_the_preconditioner(float64):
    saddle = lambda x: 2 * x[0] ** 2 - x[1] ** 2 + x[1] ** 4
    stiff = Preconditioner(
        init=lambda params: jnp.zeros(()),
        update=lambda state, product, params: state,
        apply=lambda state, v, damping: v / 1e4,
    )
    step, info = update_once(hesskit.newton_cg(preconditioner=stiff), saddle, jnp.zeros(2))
    np.testing.assert_allclose(100 * np.linalg.norm(step), 1.0)  # |s|_M = 1, the first radius
    np.testing.assert_allclose(info.ratio, 1.0, rtol=1e-3)
