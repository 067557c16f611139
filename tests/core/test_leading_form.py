"""Terms beyond the quadratic against functions whose local behavior is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core.leading_form import coefficients, leading_form

CASES = {  # f, n, and what is known: up, down, definite, order
    "x^4 + y^4": (lambda p: p[0] ** 4 + p[1] ** 4, 2, (True, False, True, 4)),
    "x^4 - y^4": (lambda p: p[0] ** 4 - p[1] ** 4, 2, (True, True, False, 4)),
    "monkey": (lambda p: p[0] ** 3 - 3 * p[0] * p[1] ** 2, 2, (True, True, False, 3)),
    "Peano": (lambda p: (p[1] - p[0] ** 2) * (p[1] - 2 * p[0] ** 2), 2, (False, True, True, 4)),
    "bent": (lambda p: (p[1] - p[0] ** 2) ** 2 + p[0] ** 4, 2, (True, False, True, 4)),
    "valley": (lambda p: p[0] ** 2, 2, (False, False, False, 0)),
    "mixed": (lambda p: p[0] ** 4 + p[0] ** 2 * p[1] ** 2, 2, (True, False, False, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_goes_up_and_down(float64, name):
    fn, n, known = CASES[name]
    x = jnp.zeros(n)
    w, q = jnp.linalg.eigh(jax.hessian(fn)(x))
    found = jax.jit(lambda x: leading_form(fn, x, w, q, jnp.asarray(1e-9), max_order=4))(x)
    assert tuple(np.asarray(a).item() for a in found) == known


@pytest.mark.parametrize("c", [0.0, 1.0])
def test_a_small_cubic_term_before_a_large_quartic_one_is_in_doubt(c):
    """In float32 1 is under sqrt(eps) of 1e4, and beyond rounding."""
    fn = lambda p: c * p[0] ** 3 + 1e4 * p[0] ** 4
    w, q = jnp.zeros(1), jnp.eye(1)
    found = leading_form(fn, jnp.zeros(1), w, q, jnp.asarray(1e-6), max_order=4)
    assert tuple(np.asarray(a).item() for a in found) == (True, False, c == 0, 4)


def test_taylor_coefficients_of_the_exponential(float64):
    found = coefficients(jnp.exp, jnp.zeros(()), 5)
    np.testing.assert_allclose(found, [1, 1, 1 / 2, 1 / 6, 1 / 24, 1 / 120], rtol=1e-14)
