"""Newton's method: the textbook's figures, the safeguards, and what it says where there is none."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core.status import Status
from hesskit.transforms.newton import LIFT, MODIFICATIONS
from tests.problems import by_name
from tests.transforms.runs import trace, update_once

wells = lambda p: jnp.sum(p**4 - 2 * p**2) + 1.0


def bent(x):
    """Indefinite at BENT, with no symmetry."""
    return x[0] ** 4 - 3 * x[0] * x[1] ** 2 + x[1] ** 4 + x[0] * x[2] + x[2] ** 2 - x[1]


BENT = np.array([0.4, 0.7, -0.3])


@pytest.mark.slow
def test_rosenbrock_takes_the_textbook_number_of_steps(float64):
    fn, pure = by_name("rosenbrock").fn, hesskit.newton(learning_rate=1.0)
    for start, steps in (([-1.2, 1.0], 7), ([0.5, 0.5], 6)):
        result = hesskit.minimize(fn, jnp.array(start), pure, gtol=1e-10, history=True)
        assert np.flatnonzero(result.history.grad_norm < 1e-10)[0] == steps
        assert result.status == Status.GRADIENT_TOL
        np.testing.assert_allclose(result.params, 1.0, atol=1e-10)


@pytest.mark.slow
def test_textbook_form_converges_to_a_saddle_and_minimize_says_so(float64):
    result = hesskit.minimize(wells, jnp.array([0.1, 0.9]), hesskit.newton(learning_rate=1.0))
    np.testing.assert_allclose(result.params, [0.0, 1.0], atol=1e-8)
    assert result.status == Status.SADDLE
    assert not result.success


@pytest.mark.slow
def test_plain_form_stays_at_a_saddle_and_says_so(float64):
    solve = functools.partial(hesskit.minimize, wells, optimizer=hesskit.newton(modification=None))
    for start in ([0.0, 0.0], [0.0, 1.0]):
        result = solve(jnp.array(start))
        assert result.status == Status.SADDLE
        assert result.num_steps == 0


@pytest.mark.slow
@pytest.mark.parametrize("modification", [None, "eigenvalue", "cholesky"])
def test_one_step_is_that_of_the_dense_reference(modification, float64):
    x = jnp.asarray(BENT)
    g, h = np.asarray(jax.grad(bent)(x)), np.asarray(jax.hessian(bent)(x))
    w, q = np.linalg.eigh(h)
    assert w[0] < 0 < w[-1]
    updates, info = update_once(hesskit.newton(1.0, modification=modification), bent, x)
    if modification is None:
        expected = -np.linalg.solve(h, g)
    elif modification == "eigenvalue":
        expected = -q @ ((q.T @ g) / np.abs(w))
    else:
        added = -(g + h @ np.asarray(updates)) / np.asarray(updates)  # (H + diag(E)) s = -g
        assert np.all(added >= -1e-12)
        assert np.linalg.eigvalsh(h + np.diag(added))[0] >= 0.1 * LIFT * np.abs(h).max()
        expected = updates
    np.testing.assert_allclose(updates, expected, rtol=1e-10)
    assert bool(info.modified) == (modification is not None)
    assert info.num_products == 3


def test_a_singular_hessian_gives_no_step_and_says_so():
    fn = lambda x: jnp.sum(x) ** 2 + x[0]
    updates, info = update_once(hesskit.newton(1.0), fn, jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(updates, 0.0)
    assert info.status == Status.SINGULAR
    assert not info.accepted


@pytest.mark.slow
def test_plain_form_falls_back_on_the_minimizer_along_the_gradient(float64):
    """At BENT the pure Newton step climbs; the trial of the accepting form does not."""
    x = jnp.asarray(BENT)
    g, h = np.asarray(jax.grad(bent)(x)), np.asarray(jax.hessian(bent)(x))
    assert g @ np.linalg.solve(h, g) < 0
    updates, info = update_once(hesskit.newton(modification=None), bent, x)
    u = g / np.linalg.norm(g)
    length = np.linalg.norm(g) / (u @ h @ u) if u @ h @ u > 0 else max(1, np.linalg.norm(BENT))
    assert info.modified
    if info.accepted:
        np.testing.assert_allclose(updates, -length * u, rtol=1e-10)
    else:
        assert info.step_length < 1


@pytest.mark.slow
def test_backtracking_is_one_trial_an_update_along_one_line(float64):
    rows = trace("newton", "rosenbrock", [-1.2, 1.0, 1.0, 0.5], "float64")
    lengths = np.concatenate([[1.0], rows.info.step_length[:-1]])
    for k in np.flatnonzero(rows.info.status == 0):
        if rows.info.accepted[k]:
            assert rows.info.step_length[k] == 1.0
        else:
            assert 0.25 <= rows.info.step_length[k] / lengths[k] <= 0.5
    k = np.flatnonzero(~rows.info.accepted[:-1] & rows.info.accepted[1:])[0] + 1
    h = np.asarray(jax.hessian(by_name("rosenbrock").fn)(jnp.asarray(rows.x[k][:2])))
    w, q = np.linalg.eigh(h)
    newton = -q @ ((q.T @ rows.grad[k][:2]) / np.abs(w))
    np.testing.assert_allclose(rows.updates[k][:2], lengths[k] * newton, rtol=1e-6)


@pytest.mark.slow
def test_quadratic_in_one_step_from_anywhere(float64):
    for method in ("newton", "newton cholesky", "newton plain"):
        rows = trace(method, "quadratic", [1e6, -3e5, 7.0, 2e6], "float64")
        np.testing.assert_allclose(rows.x[1], 1.0, atol=1e-6)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"modification must be one of .*'cholesky'.* got 'abs'"):
        hesskit.newton(modification="abs")
    with pytest.raises(ValueError, match="chunk_size"):
        hesskit.newton(chunk_size=0)
    assert hesskit.newton() is hesskit.newton()  # one object, one compilation
    assert None in MODIFICATIONS
