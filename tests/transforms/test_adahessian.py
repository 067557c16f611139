"""AdaHessian against a plain transcription of algorithm 1, its averages, its invariance."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from tests.transforms.separable import START, curvature, run, slope, waves


def transcription(x, num, *, rate, b1, b2, eps, power, decay=0.0, interval=1):
    """Yao et al. (2021), algorithm 1, with sums in place of recursions."""
    grads, squares, points = [], [], []
    for t in range(num):
        grads.append(slope(x))
        if t % interval == 0:
            squares.append(curvature(x) ** 2)
        ages, old = np.arange(t, -1, -1), np.arange(len(squares) - 1, -1, -1)
        m = (1 - b1) * np.sum(b1 ** ages[:, None] * grads, axis=0) / (1 - b1 ** (t + 1))
        v = (1 - b2) * np.sum(b2 ** old[:, None] * squares, axis=0) / (1 - b2 ** len(squares))
        x = x - rate * (m / (np.sqrt(v) ** power + eps) + decay * x)
        points.append(x)
    return np.array(points)


@pytest.mark.parametrize(
    ("power", "interval", "decay"), [(1.0, 1, 0.0), (0.5, 1, 0.1), (1.0, 4, 0.0), (0.0, 2, 0.0)]
)
def test_steps_are_those_of_the_published_algorithm(float64, power, interval, decay):
    given = {"b1": 0.8, "b2": 0.9, "eps": 1e-4}
    opt = hesskit.adahessian(
        0.1, hessian_power=power, update_interval=interval, weight_decay=decay, **given
    )
    points, infos = run(opt, waves, jnp.asarray(START), 20)
    expected = transcription(
        START, 20, rate=0.1, power=power, interval=interval, decay=decay, **given
    )
    np.testing.assert_allclose(np.array(points), expected, rtol=1e-9)
    assert sum(int(info.num_products) for info in infos) == len(range(0, 20, interval))


def test_defaults_are_the_published_ones(float64):
    points, _ = run(hesskit.adahessian(0.15), waves, jnp.asarray(START), 20)
    expected = transcription(START, 20, rate=0.15, b1=0.9, b2=0.999, eps=1e-4, power=1.0)
    np.testing.assert_allclose(np.array(points), expected, rtol=1e-9)


@pytest.mark.slow
def test_samples_are_averaged_before_they_are_squared(float64):
    """Of a dense matrix: with many samples the root of v is |diag H|, with one the row norms."""
    matrix = jnp.array([[2.0, 1.0], [1.0, -3.0]])
    fn = lambda x: x @ matrix @ x / 2
    x = jnp.ones(2)

    def root(num, key):
        opt = hesskit.adahessian(0.1, num_samples=num, key=key)
        state = opt.update(x, opt.init(x), x, value_fn=fn)[1]
        return state.nu / 1e-3

    many = root(4000, 0)
    np.testing.assert_allclose(many, np.diag(matrix) ** 2, rtol=0.1)
    ones = jax.vmap(lambda key: root(1, key))(jax.random.split(jax.random.key(0), 2000))
    np.testing.assert_allclose(
        np.mean(ones, axis=0), np.sum(np.asarray(matrix) ** 2, axis=1), rtol=0.15
    )


@pytest.mark.slow
def test_steps_do_not_depend_on_the_units_of_loss_or_params(float64):
    plain, _ = run(hesskit.adahessian(0.1, eps=1e-15), waves, jnp.asarray(START), 10)
    units = jnp.array([1e-3, 1.0, 1e3, 10.0, 0.1])
    scaled = lambda y: 1e4 * waves(y / units)
    points, _ = run(hesskit.adahessian(0.1, eps=1e-15), scaled, units * START, 10)
    np.testing.assert_allclose(np.array(points) / np.asarray(units), np.array(plain), rtol=1e-6)


@pytest.mark.slow
def test_curvature_is_averaged_over_the_axes_of_a_filter(float64):
    weights = {"conv1/kernel": np.arange(1.0, 13).reshape(2, 3, 2), "bias": np.array([1.0, -2.0])}
    fn = lambda p: sum(jnp.sum(jnp.asarray(w) * p[k] ** 2) / 2 for k, w in weights.items())
    params = jax.tree.map(lambda w: jnp.ones(w.shape), weights)
    opt = hesskit.adahessian(1.0, eps=1e-15, spatial_axes={"conv*/kernel": (0, 1)})
    nested = {"conv1": {"kernel": params["conv1/kernel"]}, "bias": params["bias"]}
    flat = lambda p: fn({"conv1/kernel": p["conv1"]["kernel"], "bias": p["bias"]})
    updates, _ = opt.update(jax.grad(flat)(nested), opt.init(nested), nested, value_fn=flat)
    kernel = weights["conv1/kernel"]
    mean = np.abs(kernel).mean(axis=(0, 1), keepdims=True)
    np.testing.assert_allclose(updates["conv1"]["kernel"], -kernel / mean, rtol=1e-10)
    np.testing.assert_allclose(updates["bias"], [-1.0, 1.0], rtol=1e-10)


def test_a_path_that_fits_nothing_lists_the_paths():
    opt = hesskit.adahessian(0.1, spatial_axes={"conv": (0,)})
    x = {"a": jnp.ones(2)}
    fn = lambda p: jnp.sum(p["a"] ** 2)
    with pytest.raises(ValueError, match="spatial_axes='conv' matches no leaf; the paths are a"):
        opt.update(x, opt.init(x), x, value_fn=fn)


def test_scale_by_adahessian_is_for_chains(float64):
    given = {"b1": 0.8, "key": 3, "update_interval": 2}
    chain = optax.chain(hesskit.scale_by_adahessian(**given), optax.scale_by_learning_rate(0.05))
    one, _ = run(chain, waves, jnp.asarray(START), 5)
    whole, _ = run(hesskit.adahessian(0.05, **given), waves, jnp.asarray(START), 5)
    np.testing.assert_allclose(np.array(one), np.array(whole), rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"learning_rate": None}, TypeError, r"pass learning_rate, .* adahessian\(1e-3\)"),
        ({"hessian_power": 1.5}, ValueError, r"hessian_power must lie in \[0, 1\]"),
        ({"b2": 1.5}, ValueError, r"b2 must lie in \[0, 1\]"),
        ({"eps": 0.0}, ValueError, r"eps must lie in \(0, inf\)"),
        ({"spatial_axes": (0, 1)}, TypeError, "spatial_axes must map paths to axes"),
    ],
    ids=str,
)
def test_wrong_arguments(given, error, said):
    with pytest.raises(error, match=said):
        hesskit.adahessian(**{"learning_rate": 0.1, **given})
