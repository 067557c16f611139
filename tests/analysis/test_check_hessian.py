"""The check of a Hessian: smooth functions pass, a rule of differentiation that lies does not."""

import jax
import jax.numpy as jnp

import hesskit


def test_a_smooth_function_passes_in_both_precisions(dtype):
    fn = lambda p, c: jnp.sum(jnp.sin(p["a"]) * c) + p["a"][0] ** 2 * p["b"]
    point = {"a": jnp.arange(1.0, 100.0) / 50, "b": jnp.array(0.5)}
    found = hesskit.check_hessian(fn, point, args=(2.0,))
    assert bool(found.symmetric)
    assert bool(found.is_jacobian)
    assert (found.num_entries, found.num_distinct) == (10000, 5050)
    assert str(found).splitlines()[2] == "10000 second derivatives, 5050 of them distinct"


def test_a_fast_wave_passes_with_a_short_difference():
    """|x| = 1 asks for half a unit of the phase; 50000^2 entries are more than int32 holds."""
    fn = lambda p: jnp.sum(jnp.cos(100 * p))
    found = hesskit.check_hessian(fn, jnp.full(4, 0.5), key=1)
    assert bool(found.is_jacobian)
    large = jax.jit(lambda x: hesskit.check_hessian(fn, x, num_probes=1))(jnp.zeros(50000))
    assert (large.num_entries, large.num_distinct) == (2_500_000_000, 1_250_025_000)


def test_a_gradient_that_is_none_is_seen():
    """A field with a curl has no potential: its Jacobian is not symmetric."""

    @jax.custom_jvp
    def lie(p):
        return p[0] * p[1]

    @lie.defjvp
    def _rule(primals, tangents):
        (p,), (t,) = primals, tangents
        return lie(p), p[1] * t[0] * 3 + p[0] * t[1]

    found = hesskit.check_hessian(lie, jnp.array([1.0, 2.0]))
    assert not bool(found.symmetric)


def test_a_second_derivative_that_jumps_is_seen():
    kink = lambda x: jnp.where(x > 0, x**2, -(x**2))
    assert not bool(hesskit.check_hessian(kink, jnp.array(0.0)).is_jacobian)
