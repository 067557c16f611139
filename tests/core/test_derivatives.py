"""Value, gradient and product from one site, on every kind of function that users write."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.ode import odeint

from hesskit.core.derivatives import along, linearized, value_and_grad

X = jnp.array([0.3, -0.7, 1.1])


def cubic(x: jax.Array) -> jax.Array:
    return jnp.sum(x**3) + x[0] * x[1] * x[2]


def hessian_of_cubic(x: jax.Array) -> np.ndarray:
    a, b, c = np.asarray(x)
    return np.array([[6 * a, c, b], [c, 6 * b, a], [b, a, 6 * c]])


def columns(product, dtype: jnp.dtype) -> np.ndarray:
    return np.stack([product(e) for e in jnp.eye(3, dtype=dtype)], axis=1)


@jax.custom_vjp
def reverse_only(x: jax.Array) -> jax.Array:
    """The cubic with a reverse rule alone, whose reverse pass has one alone again."""
    return cubic(x)


@jax.custom_vjp
def gradient_reverse_only(x: jax.Array) -> jax.Array:
    return jax.grad(cubic)(x)


gradient_reverse_only.defvjp(
    lambda x: (jax.grad(cubic)(x), x), lambda x, v: (jax.hessian(cubic)(x) @ v,)
)
reverse_only.defvjp(lambda x: (cubic(x), x), lambda x, v: (v * gradient_reverse_only(x),))


@jax.custom_vjp
def simple_reverse(x: jax.Array) -> jax.Array:
    return cubic(x)


simple_reverse.defvjp(lambda x: (cubic(x), x), lambda x, v: (v * jax.grad(cubic)(x),))


def checkpointed(x: jax.Array) -> jax.Array:
    return jax.checkpoint(cubic)(x)


def scanned(x: jax.Array) -> jax.Array:
    """x[0] x[1] x[2] as a product along a scan."""
    last, _ = jax.lax.scan(lambda c, a: (c * a, None), jnp.ones((), x.dtype), x)
    return jnp.sum(x**3) + last


@pytest.mark.parametrize("fn", [cubic, reverse_only, simple_reverse, checkpointed, scanned])
def test_value_gradient_and_product_are_the_analytic_ones(fn, float64):
    x = X.astype("float64")
    at = jax.jit(lambda x: linearized(fn, x)._replace(product=columns_of(fn, x)))(x)
    np.testing.assert_allclose(at.value, cubic(x), rtol=1e-14)
    np.testing.assert_allclose(at.grad, jax.grad(cubic)(x), rtol=1e-14)
    np.testing.assert_allclose(at.product, hessian_of_cubic(x), rtol=1e-13, atol=1e-15)


def columns_of(fn, x: jax.Array) -> jax.Array:
    return jax.vmap(linearized(fn, x).product, out_axes=1)(jnp.eye(3, dtype=x.dtype))


def test_forward_mode_is_missing_where_the_fallback_is_tested():
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(jax.grad(reverse_only), (X,), (X,))


@pytest.mark.slow
@pytest.mark.standard_promotion("odeint of jax promotes")
def test_ordinary_differential_equation():
    # y' = -k y, y(0) = a: f = y(1) = a exp(-k); odeint has a reverse rule and no forward one.
    def fn(p: jax.Array) -> jax.Array:
        solution = odeint(lambda y, t, k: -k * y, p[0], jnp.array([0.0, 1.0]), p[1], rtol=1e-6)
        return solution[-1]

    a, k = 1.5, 0.4
    at = linearized(fn, jnp.array([a, k]))
    matrix = np.stack([at.product(e) for e in jnp.eye(2)])
    decay = np.exp(-k)
    np.testing.assert_allclose(at.grad, [decay, -a * decay], rtol=1e-4)
    np.testing.assert_allclose(matrix, [[0, -decay], [-decay, a * decay]], atol=1e-4)


@pytest.mark.parametrize("call", [linearized, value_and_grad])
def test_aux_comes_along(call):
    at = call(lambda x: (cubic(x), {"twice": 2 * x}), X, has_aux=True)
    np.testing.assert_array_equal(at.aux["twice"], 2 * X)
    np.testing.assert_allclose(at.grad, jax.grad(cubic)(X), rtol=1e-6)
    assert call(cubic, X).aux is None
    assert value_and_grad(cubic, X).product is None


def test_a_type_error_of_the_user_is_raised_once_and_unmasked():
    calls = []

    def broken(x: jax.Array) -> jax.Array:
        calls.append(x)
        return x + "a"

    with pytest.raises(TypeError, match="str") as caught:
        linearized(broken, X)
    assert caught.value.__context__ is None or "custom_vjp" not in str(caught.value.__context__)
    assert len(calls) == 2  # the fallback tried once more; it is the same error


def test_the_product_is_linear_and_symmetric(dtype):
    x = X.astype(dtype)
    product = linearized(cubic, x).product
    matrix = columns(product, dtype)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(matrix, matrix.T, atol=20 * eps)
    u, v = jnp.array([1, -2, 0.5], dtype), jnp.array([0, 3, 1], dtype)
    np.testing.assert_allclose(product(2 * u + v), 2 * product(u) + product(v), atol=100 * eps)


def primitives(jaxpr, name: str) -> int:
    """How often a primitive occurs in a jaxpr and all those inside it."""
    count = 0
    for equation in jaxpr.eqns:
        count += equation.primitive.name == name
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            count += primitives(inner, name) if hasattr(inner, "eqns") else 0
    return count


def test_one_trace_gives_everything():
    marked = lambda x: jnp.sum(jax.lax.lgamma(x))

    def everything(x: jax.Array) -> tuple:
        at = linearized(marked, x)
        return at.value, at.grad, at.product(x), at.product(2 * x)

    assert primitives(jax.make_jaxpr(everything)(jnp.ones(2)).jaxpr, "lgamma") == 1


def test_along_a_direction_by_reverse_mode_alone():
    """A custom_vjp inside a scan has no forward mode."""

    @jax.custom_vjp
    def cube(x):
        return x**3

    cube.defvjp(lambda x: (x**3, x), lambda x, g: (3 * x**2 * g,))

    def fn(power, x, t):
        return jax.lax.scan(lambda c, a: (c + power(t * a), c), jnp.zeros(()), x)

    at, moves = (jnp.array([1.0, 2.0]), jnp.array(0.5)), (jnp.array([1.0, -1.0]), jnp.array(2.0))
    found = along(lambda *a: fn(cube, *a), at, moves)
    _, expected = jax.jvp(lambda *a: fn(lambda x: x**3, *a), at, moves)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
