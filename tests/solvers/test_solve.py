"""The compiled solve: boxes and shapes on their way to a machine, and the last look at curvature.

What a user sees of it is in test_minimize.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core.bounds import Bounds, parse
from hesskit.core.status import Status
from hesskit.solvers.solve import ESCAPE_PRODUCTS, _negative_curvature, real_box
from hesskit.transforms._build import Transformation


def test_a_box_for_real_free_parameters():
    """A complex leaf is two real ones without bounds; what is held is gone."""
    params = {"a": jnp.ones(2), "held": jnp.zeros(()), "z": jnp.ones(1, "complex64")}
    box = parse({"a": (0.0, [2.0, np.inf])}, params)
    fixed = (False, True, False)
    free = {**params, "held": None}
    tree = real_box(box, fixed, free, flat=False)
    assert tree.upper["held"] is None
    assert tree.upper["z"].shape == (2, 1)
    flat = real_box(box, fixed, free, flat=True)
    np.testing.assert_array_equal(flat.lower, [0, 0, -np.inf, -np.inf])
    np.testing.assert_array_equal(flat.upper, [2, np.inf, np.inf, np.inf])
    assert real_box(None, fixed, free, flat=True) is None


@pytest.mark.parametrize(
    ("fn", "bounds", "told"),
    [
        (hesskit.least_squares_loss(lambda p: {"a": p, "b": p[0]}), None, (False, 3)),
        (hesskit.least_squares_loss(lambda p: {"a": p, "b": p[0]}), (-1.0, 9.0), (True, 3)),
        (lambda p: jnp.sum(p**2), (-1.0, 9.0), (True, None)),
        (lambda p: jnp.sum(p**2), None, None),
    ],
    ids=["residuals", "residuals in a box", "a box", "neither"],
)
def test_a_machine_is_made_for_the_box_and_the_number_of_outputs(fn, bounds, told):
    kept, asked = hesskit.trust_region(), []

    def special(box, num_outputs):
        asked.append((isinstance(box, Bounds), num_outputs))
        return kept.method

    spy = Transformation(kept.init, kept.update, method=kept.method, name="spy", special=special)
    jax.eval_shape(lambda p: hesskit.minimize(fn, p, spy, bounds=bounds).params, jnp.ones(2))
    assert asked == ([] if told is None else [told])


def test_the_last_look_keeps_to_the_face():
    """x^2 - y^2 is a saddle inside, and a minimum where the box shuts the way down."""
    fn = lambda p: (p[0] ** 2 - p[1] ** 2, None)
    box = Bounds(jnp.full(2, -1.0), jnp.full(2, 1.0))

    @jax.jit
    def look(point, wanted):
        inside, *_ = _negative_curvature(fn, point, None, wanted)
        on_face, _, spent = _negative_curvature(fn, point, box, wanted)
        return inside, on_face, spent

    for point, expected in (([0.0, 0.5], (True, True)), ([0.0, 1.0], (True, False))):
        *found, spent = look(jnp.array(point), jnp.array(True))
        assert tuple(map(bool, found)) == expected
        assert 0 < spent <= 2
    *found, spent = look(jnp.zeros(2), jnp.array(False))
    assert not any(found)
    assert spent == 0


@pytest.mark.parametrize("n", [1, ESCAPE_PRODUCTS, ESCAPE_PRODUCTS + 1])
def test_the_last_look_is_at_all_eigenvalues_or_by_lanczos(n):
    """Rounding of a zero eigenvalue is no negative curvature."""
    look = jax.jit(
        lambda w: _negative_curvature(
            lambda p: (jnp.sum(w * p**2) / 2, None), jnp.ones(n), None, jnp.array(True)
        )
    )
    rest = np.linspace(1.0, 2.0, n - 1)
    for lowest, expected in ((-1.0, True), (-1e-8, n == 1), (1.0, False)):
        found, finite, spent = look(jnp.asarray([*rest, lowest], "float32"))
        assert bool(found) is expected
        assert finite
        assert 0 < spent <= ESCAPE_PRODUCTS
        assert n > ESCAPE_PRODUCTS or spent == n


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, ESCAPE_PRODUCTS + 5])
def test_a_hessian_that_is_not_finite_at_a_zero_gradient_is_no_success(n):
    """The second derivative of |x|^1.5 at 0 is not a number of floats."""
    result = hesskit.minimize(
        lambda p: jnp.sum(jnp.abs(p) ** 1.5 + 0 * p), jnp.zeros(n), hesskit.lbfgs()
    )
    assert Status(int(result.status)) == Status.SINGULAR
    assert not result.success


@pytest.mark.slow
def test_least_squares_on_a_saddle_says_so():
    """The Gauss-Newton matrix of (x y - 1)^2 at 0 is zero; its Hessian is not."""
    loss = hesskit.least_squares_loss(lambda p: p[0] * p[1] - 1)
    result = hesskit.minimize(loss, jnp.zeros(2))
    assert result.method == "levenberg_marquardt"
    assert Status(int(result.status)) == Status.SADDLE
    assert not result.success
    assert result.num_products > 2
    first_order = hesskit.minimize(loss, jnp.zeros(2), check="first_order")
    assert Status(int(first_order.status)) == Status.GRADIENT_TOL
    assert first_order.success
