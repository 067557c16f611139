"""The rate of gradient descent against a real run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit


def steps_of(w, step):
    """Gradient descent on a diagonal quadratic until no entry is above 1e-6."""
    run = jax.lax.while_loop(
        lambda carry: jnp.max(jnp.abs(carry[0])) > 1e-6,
        lambda carry: (carry[0] - step * w * carry[0], carry[1] + 1),
        (jnp.ones(2), 0),
    )
    return int(run[1])


@pytest.mark.parametrize("kappa", [5.0, 1000.0])
def test_the_worst_start_takes_the_predicted_steps(float64, kappa):
    """Components along both ends of the spectrum, at the best step and at 1/L."""
    w = jnp.array([1.0, kappa])
    found = hesskit.gradient_descent_rate(jnp.diag(w))
    for step, predicted in (
        (found.best_step, found.iterations),
        (1 / found.smoothness, found.iterations_at_inverse),
    ):
        assert abs(steps_of(w, step) - int(predicted)) <= 1


def test_step_counts_keep_their_digits_in_float32():
    """kappa = 4e5: log(1/r) divided by -log1p(-2/(kappa + 1)) and by -log1p(-1/kappa)."""
    found = hesskit.gradient_descent_rate(jnp.diag(jnp.array([1.0, 4e5])))
    for steps, share in ((found.iterations, 2 / (4e5 + 1)), (found.iterations_at_inverse, 1 / 4e5)):
        np.testing.assert_allclose(steps, np.log(1e-6) / np.log1p(-share), rtol=1e-5)


def test_a_singular_matrix_has_no_rate():
    """1e-7 is what rounding may make of 0 beside 1."""
    found = hesskit.gradient_descent_rate(jnp.diag(jnp.array([1e-7, 1.0])))
    assert np.isnan(float(found.rate))
    assert str(found).startswith("no rate: the smallest eigenvalue")


@pytest.mark.slow
def test_an_indefinite_matrix_has_no_rate_and_the_identity_takes_one_step():
    found = hesskit.gradient_descent_rate(jnp.diag(jnp.array([-1.0, 2.0])))
    assert np.isnan(float(found.rate))
    assert str(found).startswith("no rate")
    assert float(hesskit.gradient_descent_rate(2 * jnp.eye(3)).iterations) == 1
    large = hesskit.gradient_descent_rate(jnp.diag(jnp.linspace(1.0, 10.0, 50)), dense=False)
    np.testing.assert_allclose(large.kappa, 10, rtol=1e-4)
    assert "kappa 10" in str(large)
