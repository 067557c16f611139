"""Bands of any model: trees, what is not determined, models without a forward rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from hesskit.solvers.band import Data, band, noise
from hesskit.solvers.uncertainty import Spread
from tests.core.test_derivatives import reverse_only

PARAMS = {"a": jnp.array(2.0), "b": jnp.array(0.5)}
FACTOR = np.array([[0.3, 0.0], [0.1, 0.2]])


def spread_of(*, null=0.0, at_bound=(False, False)):
    rows = jnp.asarray([[null, 0.0], [-null, 0.0]], "float32")
    return Spread(jnp.asarray(FACTOR, "float32"), rows, jnp.array(at_bound))


def of(model, x, spread=None, **kwargs):
    options = {"sigma": None, "scale": jnp.array(1.0), "dof": None, **kwargs}
    spread = spread_of() if spread is None else spread
    return band(PARAMS, spread, x, 0.683, model=model, fixed=(False,) * len(PARAMS), **options)


Z = scipy.stats.norm.ppf((1 + 0.683) / 2)


def test_a_tree_of_outputs():
    model = lambda p, x: {"u": p["a"] * x["t"], "v": p["a"] * p["b"]}
    found = of(model, {"t": jnp.arange(3.0)}, sigma={"u": 0.1, "v": 0.2}, scale=jnp.array(2.0))
    size = np.hypot(0.3 * np.arange(3), 0.2)
    np.testing.assert_allclose(found.upper["u"] - found.value["u"], Z * size, rtol=1e-5)
    gradient = np.array([0.5, 2.0]) @ FACTOR
    size = np.hypot(np.linalg.norm(gradient), 0.4)
    np.testing.assert_allclose(found.value["v"] - found.lower["v"], Z * size, rtol=1e-5)


def test_a_complex_output_has_a_band_for_each_part():
    """That of its real part + i times that of its imaginary part."""
    x = jnp.arange(1.0, 4.0)
    parts = lambda p, x: {"re": p["a"] * x, "im": p["b"] + p["a"] * x}
    whole = lambda p, x: [jax.lax.complex(*(parts(p, x)[key] for key in ("re", "im")))]
    sigma = jnp.array([0.1, 0.2, 0.3])
    for new in (None, 0.1, [sigma]):
        apart = of(parts, x, sigma=sigma if isinstance(new, list) else new)
        found = of(whole, x, sigma=new)
        for both, one in zip(found, apart, strict=True):
            np.testing.assert_allclose(both[0].real, one["re"], rtol=1e-5)
            np.testing.assert_allclose(both[0].imag, one["im"], rtol=1e-5)


def test_it_is_open_where_the_model_depends_on_what_is_not_known():
    model = lambda p, x: p["a"] + p["b"] * x
    x = jnp.array([0.0, 1.0, 2.0])
    at_bound = of(model, x, spread_of(at_bound=(False, True)))
    np.testing.assert_array_equal(np.isnan(at_bound.upper), [False, True, True])
    np.testing.assert_array_equal(at_bound.value, model(PARAMS, x))
    total = of(model, x, spread_of(null=1.0))  # a + b alone is determined
    np.testing.assert_array_equal(np.isnan(total.lower), [True, False, True])


def test_a_model_without_a_forward_rule():
    model = lambda p, x: reverse_only(jnp.stack([p["a"], p["b"], p["a"]])) * x
    found = of(model, jnp.array([1.0, 2.0]))
    gradient = jax.grad(lambda p: model(p, 1.0))(PARAMS)
    size = np.linalg.norm(np.array([gradient["a"], gradient["b"]]) @ FACTOR)
    np.testing.assert_allclose(found.upper - found.value, Z * size * np.array([1, 2]), rtol=1e-5)


def test_an_error_inside_the_model_says_who_called():
    with pytest.raises(KeyError) as caught:
        of(lambda p, x: p["c"] * x, jnp.ones(2))
    assert "model was called by hesskit.band with params" in caught.value.__notes__[0]


def test_the_noise_of_new_points():
    y = jnp.ones(3)
    each = jnp.array([1.0, 2.0, 3.0])
    assert noise(Data(y, y, None), None, at_data=False) == 1.0
    assert noise(Data(y, y, jnp.array(0.3)), None, at_data=False) == jnp.array(0.3)
    assert noise(Data(y, y, each), 0.7, at_data=False) == 0.7
    np.testing.assert_array_equal(noise(Data(y, y, each), None, at_data=True), each)
    matrix = jnp.diag(each**2) + 0.1
    found = noise(Data(y, y, matrix), None, at_data=True)
    np.testing.assert_allclose(found, jnp.sqrt(each**2 + 0.1), rtol=1e-6)
    for sigma in (each, matrix):
        with pytest.raises(ValueError, match="that of the new points must be given"):
            noise(Data(y, y, sigma), None, at_data=False)
    both = jnp.ones((3, 3))
    assert not Data(both, both, both).correlated
