"""Complex params: C^n is R^2n, in both conventions of the gradient that arrives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.contracts.registry import DEFAULTS, GLOBALIZED, SCALED, few
from tests.contracts.support import assert_same, squares

TARGET = np.array([1 + 1j, -1 - 1j, 1 + 1j], np.complex64)


@squares
def parabola(params):
    """The target of optax's alias tests."""
    return params - TARGET


@squares
def rosenbrock(params):
    """Likewise, with a = 1 + i."""
    x, y, a = params[0], params[1], np.complex64(1 + 1j)
    return a - x, 10 * (y - x * x)


def solve(opt, fn, params, num_steps, *, raw):
    """Steps that pass the gradient as `jax.grad` gives it if `raw`, else conjugated."""

    def body(carry, _):
        params, state = carry
        value, grad = jax.value_and_grad(fn)(params)
        grad = jnp.where(raw, grad, jnp.conj(grad))
        updates, state = opt.update(grad, state, params, value=value, grad=grad, value_fn=fn)
        return (optax.apply_updates(params, updates), state), value

    return jax.lax.scan(body, (params, opt.init(params)), length=num_steps)


@pytest.mark.parametrize("case", few(GLOBALIZED))
def test_both_conventions_converge_on_rosenbrock(case):
    run = jax.jit(
        lambda raw: solve(case.make(), case.of(rosenbrock), jnp.zeros(2, "complex64"), 150, raw=raw)
    )
    for raw in (False, True):
        (params, state), values = run(jnp.array(raw))
        np.testing.assert_allclose(params, [1 + 1j, 2j], rtol=3e-2, atol=3e-2)
        assert jnp.all(values[1:] <= values[:-1] * (1 + 1e-5))
    new = jax.grad(rosenbrock)(params)
    np.testing.assert_allclose(state.grad, new, atol=1e-3)  # of jax.grad, at the new params


@pytest.mark.parametrize("case", SCALED)
def test_parabola_without_judgment(case):
    run = jax.jit(
        lambda raw: solve(case.make(), case.of(parabola), jnp.zeros(3, "complex64"), 40, raw=raw)[0]
    )
    # What evaluates nothing must be given the direction of steepest ascent.
    for raw in (False, True) if hasattr(case.make().init(TARGET), "value") else (False,):
        params, _ = run(jnp.array(raw))
        np.testing.assert_allclose(params, TARGET, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("case", few(DEFAULTS))
def test_complex_is_the_real_problem_of_twice_the_size(case):
    opt, z = case.make(), jnp.array([0.3 - 0.2j, 0.1 + 0.4j], jnp.complex64)
    both = jnp.stack([z.real, z.imag])
    fn = squares(lambda parts: rosenbrock.residuals(jax.lax.complex(parts[0], parts[1])))
    grad = jnp.conj(jax.grad(rosenbrock)(z))
    step, _ = opt.update(grad, opt.init(z), z, value_fn=case.of(rosenbrock))
    same, _ = opt.update(jax.grad(fn)(both), opt.init(both), both, value_fn=case.of(fn))
    assert_same(step, jax.lax.complex(same[0], same[1]))
