"""What is found of good and bad objectives, and what is printed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core.check import check_value_fn

X = jnp.array([1.0, -2.0])


def found(capsys, fn, params=X, **data):
    """The findings; what was printed is what they print."""
    out = check_value_fn(fn, params, **data)
    assert capsys.readouterr().out == f"{out}\n"
    return out


def test_a_good_function(capsys, dtype):
    out = found(capsys, lambda p: jnp.sum(p["a"] ** 4), {"a": jnp.ones(3, dtype)})
    flags = (out.repeatable, out.depends_on_params, out.finite, out.twice_differentiable)
    assert (out.value, out.dtype, flags, out.remarks) == (3.0, str(dtype), (True,) * 4, ())
    assert str(out).splitlines()[:2] == [
        f"value               3 ({dtype}, scalar)",
        "repeatable          yes",
    ]


def test_data_in_every_spelling_and_aux(capsys):
    fn = lambda p, x, c: (c * jnp.sum(p * x), x)
    for data in ({"x": X, "c": 2.0}, {"args": (X, 2.0)}, {"args": (X,), "c": 2.0}):
        assert found(capsys, fn, has_aux=True, **data).value == 10.0
    assert found(capsys, fn, has_aux=True, args={"x": X, "c": 2.0}).finite


@pytest.mark.slow
def test_complex_params(capsys):
    out = found(capsys, lambda z: jnp.sum(jnp.abs(z) ** 2), jnp.array([3 + 4j]))
    assert (out.value, out.twice_differentiable) == (25.0, True)


def test_not_repeatable(capsys):
    rng = np.random.default_rng(0)
    out = found(capsys, lambda p: jnp.sum(p**2) + float(rng.normal()))
    assert not out.repeatable
    assert out.remarks[0].startswith("value_fn gave two values at one point: ")


def test_a_function_that_closes_over_the_model(capsys):
    model = jnp.ones(2)
    out = found(capsys, lambda p: jnp.sum(model**2))
    assert not out.depends_on_params
    assert out.remarks == (
        "value_fn does not depend on params: its gradient is zero on every leaf. Did it close "
        "over the model?",
    )


def test_a_critical_point_depends_all_the_same(capsys):
    assert found(capsys, lambda p: jnp.sum(p**4), jnp.zeros(2)).depends_on_params


def test_what_is_not_finite(capsys):
    out = found(capsys, lambda p: jnp.sum(jnp.log(p["a"])), {"a": jnp.array([-1.0])})
    assert (out.finite, out.repeatable, out.depends_on_params) == (False, True, True)
    assert out.remarks == ("the value is nan",)
    out = found(capsys, lambda p: jnp.sum(jnp.sqrt(p["a"])), {"a": jnp.zeros(1)})
    assert out.remarks == ("the gradient is not finite at params['a']",)


def test_second_derivatives_that_are_missing(capsys):
    @jax.custom_vjp
    def hidden(x):
        return jnp.sum(x**2)

    def forward(x):
        return hidden(x), np.asarray(x) if not isinstance(x, jax.core.Tracer) else x

    def backward(x, ct):
        return (jax.pure_callback(lambda a: 2 * a, x, x) * ct,)

    hidden.defvjp(forward, backward)
    out = found(capsys, hidden)
    assert not out.twice_differentiable
    assert out.remarks[0].startswith("no second derivatives: ")
    out = found(capsys, lambda p: jnp.sum(jnp.abs(p) ** 1.5), jnp.zeros(2))
    assert not out.twice_differentiable


def test_misuse_raises():
    with pytest.raises(ValueError, match=r"value_fn returned shape \(2,\)"):
        check_value_fn(lambda p: p, X)
    with pytest.raises(TypeError, match=r"needs `x`; check_value_fn received `X`"):
        check_value_fn(lambda p, x: jnp.sum(p * x), X, X=X)
    with pytest.raises(TypeError, match="has `z`, which value_fn"):
        check_value_fn(lambda p, x=1.0: jnp.sum(p * x), X, z=X)
    with pytest.raises(TypeError, match=r"write 0.0. Derivatives need floats"):
        check_value_fn(jnp.sum, [0, 0])
    with pytest.raises(TypeError, match="runs eagerly and prints: call it outside jit"):
        jax.jit(lambda x: check_value_fn(jnp.sum, x).finite)(X)
