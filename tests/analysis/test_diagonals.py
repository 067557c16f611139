"""The six diagonals at one point against dense and per-example references."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit


def flat(params):
    return np.asarray(jax.flatten_util.ravel_pytree(params)[0])


def model(p, x):
    hidden = jnp.tanh(x @ p["a"])
    return hidden @ p["b"]


def problem(num=10):
    rng = np.random.default_rng(2)
    params = {"a": jnp.asarray(rng.normal(size=(3, 4))), "b": jnp.asarray(rng.normal(size=(4, 3)))}
    data = jnp.asarray(rng.normal(size=(num, 3))), jnp.asarray(rng.integers(0, 3, num))
    return hesskit.composite(hesskit.losses.softmax_cross_entropy(), model), params, data


@pytest.mark.slow
@pytest.mark.parametrize("num", [4, 10])
def test_each_is_what_it_says(float64, num):
    loss, params, data = problem(num)
    found = hesskit.compare_diagonals(loss, params, args=data, num_samples=3000)
    v, unravel = jax.flatten_util.ravel_pytree(params)
    fn = lambda v: loss(unravel(v), *data)
    hessian = np.diag(jax.hessian(fn)(v))
    np.testing.assert_allclose(flat(found.hessian), hessian, atol=1e-12)
    jacobian = jax.jacobian(lambda v: model(unravel(v), data[0]))(v)
    p = jax.nn.softmax(model(params, data[0]))
    inner = jax.vmap(jnp.diag)(p) - p[:, :, None] * p[:, None, :]
    dense = jnp.einsum("bki,bkl,blj->ij", jacobian, inner, jacobian) / num
    np.testing.assert_allclose(flat(found.gauss_newton), np.diag(dense), rtol=1e-10)
    np.testing.assert_array_equal(flat(found.fisher), flat(found.gauss_newton))
    one = lambda x, t: jax.grad(lambda v: loss(unravel(v), x[None], t[None]))(v)
    each = np.asarray(jax.vmap(one)(*data))
    np.testing.assert_allclose(
        flat(found.empirical_fisher), np.mean(each**2, axis=0), rtol=1e-10, atol=1e-14
    )
    np.testing.assert_allclose(flat(found.squared_gradient), np.mean(each, axis=0) ** 2, rtol=1e-9)
    size = np.linalg.norm
    assert size(flat(found.bartlett) - np.diag(dense)) < 0.1 * size(np.diag(dense))
    assert size(flat(found.hutchinson) - hessian) < 0.1 * size(hessian)
    assert size(flat(found.empirical_fisher) - np.diag(dense)) > 0.1 * size(np.diag(dense))
    for entry in found:
        assert jax.tree.map(jnp.shape, entry) == jax.tree.map(jnp.shape, params)


def test_a_plain_function_has_three():
    fn = lambda p: jnp.sum(jnp.array([1.0, -2.0]) * p**2)
    found = hesskit.compare_diagonals(fn, jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(found.hessian, [2.0, -4.0])
    np.testing.assert_allclose(found.hutchinson, [2.0, -4.0])
    assert found._repr_html_() == f"<pre>{found}</pre>"
    np.testing.assert_allclose(found.squared_gradient, [4.0, 144.0])
    rest = ("gauss_newton", "fisher", "bartlett", "empirical_fisher")
    assert [getattr(found, name) for name in rest] == [None] * 4


def test_a_robust_loss_has_no_fisher_matrix():
    loss = hesskit.least_squares_loss(lambda p: p - 3.0, loss="huber")
    found = hesskit.compare_diagonals(loss, jnp.zeros(2))
    assert found.gauss_newton is not None
    assert found.fisher is None
    assert found.bartlett is None
    assert found.empirical_fisher is None


def test_a_quadratic_loss_agrees_with_itself():
    """Linear residuals: Hessian, Gauss-Newton and Fisher are one."""
    x = jnp.linspace(-1.0, 1.0, 9)
    loss = hesskit.least_squares_loss(lambda p: p["a"] + p["b"] * x - x**2)
    found = hesskit.compare_diagonals(loss, {"a": 0.5, "b": 0.0}, num_samples=2000)
    for entry in (found.hessian, found.gauss_newton, found.fisher):
        np.testing.assert_allclose(flat(entry), [9.0, jnp.sum(x**2)], rtol=1e-5)
    np.testing.assert_allclose(flat(found.bartlett), flat(found.fisher), rtol=0.15)


def test_the_exact_hessian_only_where_it_is_asked_for():
    fn = lambda p: jnp.sum(p**4)
    assert hesskit.compare_diagonals(fn, jnp.ones(3), exact=False).hessian is None
    assert hesskit.compare_diagonals(fn, jnp.ones(5001), num_samples=1).hessian is None
    large = hesskit.compare_diagonals(fn, jnp.ones(5001), num_samples=1, exact=True)
    np.testing.assert_allclose(large.hessian, 12.0)


def test_complex_params_hold_two_curvatures():
    fn = lambda z: jnp.sum(jnp.real(z) ** 2 + 3 * jnp.imag(z) ** 2)
    found = hesskit.compare_diagonals(fn, jnp.array([1 + 1j, 2.0 - 1j], jnp.complex64))
    np.testing.assert_allclose(found.hessian, [2 + 6j, 2 + 6j])
    np.testing.assert_allclose(found.squared_gradient, [4 + 36j, 16 + 36j])
    assert found.hutchinson.dtype == jnp.complex64


def test_keys_are_other_draws_and_the_same_key_the_same():
    loss, params, data = problem()
    params = jax.tree.map(lambda a: a.astype("float32"), params)
    run = lambda key: hesskit.compare_diagonals(loss, params, args=data, key=key, num_samples=2)
    first, again, other = run(4), run(jax.random.key(4)), run(5)
    for name in ("hutchinson", "bartlett"):
        a, b, c = (flat(getattr(found, name)) for found in (first, again, other))
        np.testing.assert_array_equal(a, b)
        assert np.any(a != c)


@pytest.mark.slow
def test_the_table_names_what_there_is():
    loss, params, data = problem()
    text = str(hesskit.compare_diagonals(loss, params, args=data)).splitlines()
    assert text[0] == "diagonals of 24 entries, beside hessian"
    names = [line.split()[0] for line in text[2:]]
    assert names == list(hesskit.compare_diagonals(loss, params, args=data)._fields)
    assert text[2].split()[1:] == [text[2].split()[1], text[2].split()[2], "0.00e+00", "1.000"]
    plain = hesskit.compare_diagonals(lambda p: jnp.sum(p**2), jnp.ones(2), exact=False)
    assert repr(plain).splitlines()[0] == "diagonals of 2 entries, beside hutchinson"
    assert len(repr(plain).splitlines()) == 4


def test_it_runs_inside_jit_and_vmap_and_has_no_table_there():
    fn = lambda p, a: a * jnp.sum(p**4)
    seen = []

    def at(a):
        found = hesskit.compare_diagonals(fn, jnp.ones(3), args=(a,))
        seen.append(repr(found))
        return found

    found = jax.vmap(jax.jit(at))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(found.hessian, [[12.0] * 3, [24.0] * 3])
    shapes = jax.eval_shape(at, jnp.ones(()))
    assert {*seen, repr(shapes)} == {"Diagonals: not known inside jit"}


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"num_samples": 0}, ValueError, "num_samples must be an integer"),
        ({"key": 0.5}, TypeError, "key must be an int"),
        ({"args": ("text",)}, TypeError, "data must be arrays"),
    ],
    ids=str,
)
def test_wrong_arguments(given, error, said):
    with pytest.raises(error, match=said):
        hesskit.compare_diagonals(lambda p, *_: jnp.sum(p), jnp.ones(2), **given)
    with pytest.raises(TypeError, match="value_fn must be a function"):
        hesskit.compare_diagonals(1.0, jnp.ones(2))
