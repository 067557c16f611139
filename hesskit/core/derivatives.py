r"""Value, gradient and Hessian products of one function from one site.

    (g, v -> H v), f  =  linearize(x -> (grad f(x), f(x)))                  (1)

One trace of f gives everything: the primal pass is shared by all products, and the compiled
program holds one copy of f. Forward over reverse; where forward mode is missing even so
(some `custom_vjp` rules), reverse over reverse, since H is symmetric: H v is the pullback of v.

Source: Pearlmutter (1994), Fast exact multiplication by the Hessian; Griewank & Walther (2008).
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from hesskit.core.types import Array, Params, Product


@dataclasses.dataclass(frozen=True)
class ProductOf:
    """The map v -> H v, with the objective of params that it is of.

    Attributes:
      apply: the map.
      objective: `params -> ()`, as the method was given it.
    """

    apply: Product
    objective: Callable[[Params], Any]

    def __call__(self, v: Params) -> Params:
        """H v."""
        return self.apply(v)


class Evaluation(NamedTuple):
    """The objective at one point.

    `value` is (), `grad` has the structure of `params`, `product(v)` is H v or G v (None where the
    method asked for no curvature), `aux` is what the objective returned beside its value, `rows()`
    the whitened Jacobian of a structured objective (curvature/gauss_newton.py).
    """

    value: Array
    grad: Params
    product: Product | None = None
    aux: Any = None
    rows: Callable[[], Any] | None = None


def value_and_grad(
    fn: Callable[[Params], Any], params: Params, *, has_aux: bool = False
) -> Evaluation:
    """Value and gradient of `fn` at `params`, no curvature; `fn` as in `linearized`."""
    out, grad = jax.value_and_grad(fn, has_aux=has_aux)(params)
    value, aux = out if has_aux else (out, None)
    return Evaluation(value, grad, aux=aux)


def linearized(fn: Callable[[Params], Any], params: Params, *, has_aux: bool = False) -> Evaluation:
    """Value, gradient and Hessian product (1) of `fn` at `params`.

    Args:
      fn: `fn(params) -> ()`, or -> ((), aux) with `has_aux`.
      params: a pytree of real arrays.
      has_aux: whether `fn` returns a pair.

    Returns:
      An `Evaluation` whose `product` shares the primal pass.

    Example:
      >>> import jax.numpy as jnp
      >>> at = linearized(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0]))
      >>> print(at.value, at.product(jnp.ones(2)))
      9.0 [ 6. 12.]
    """

    def grad_and_value(point: Params) -> tuple[Params, tuple[Array, Any]]:
        out, grad = jax.value_and_grad(fn, has_aux=has_aux)(point)
        return grad, out if has_aux else (out, None)

    try:
        grad, product, (value, aux) = jax.linearize(grad_and_value, params, has_aux=True)
    except TypeError:  # no forward-mode rule; an error of the user's own raises again below
        pass
    else:
        return Evaluation(value, grad, ProductOf(_forward(product, params), fn), aux)
    grad, pullback, (value, aux) = jax.vjp(grad_and_value, params, has_aux=True)
    return Evaluation(value, grad, ProductOf(lambda v: pullback(v)[0], fn), aux)


def _forward(product: Product, params: Params) -> Product:
    """The product itself, or its transpose (the same, by symmetry) where forward mode stops."""
    if applies(product, params):
        return product
    transpose = jax.linear_transpose(product, params)
    return lambda v: transpose(v)[0]


def along(fn: Callable[..., Any], at: tuple[Any, ...], moves: tuple[Any, ...]) -> Any:
    """The derivative of `fn` at a point along a direction, by reverse mode alone where it must.

    Args:
      fn: `fn(*at)`, floats out.
      at: the point.
      moves: the direction, like `at`.

    Returns:
      A tree like `fn(*at)`.

    Example:
      >>> print(along(lambda x, y: x * y, (2.0, 3.0), (1.0, 10.0)))
      23.0
    """
    with contextlib.suppress(TypeError):  # no forward-mode rule; a user's own error comes again
        _, push = jax.linearize(fn, *at)
        if applies(lambda given: push(*given), moves):
            return push(*moves)
    out, pull = jax.vjp(fn, *at)
    return jax.linear_transpose(pull, out)(moves)[0]


def applies(linear: Callable[[Params], Any], params: Params) -> bool:
    """Whether what `jax.linearize` gave can be applied, and not only transposed.

    Args:
      linear: the linear map.
      params: an argument.

    Returns:
      False where a `custom_vjp` function is in it: its primitive raises when it is applied.
    """
    return not _has_primitive(jax.make_jaxpr(linear)(params), "custom_lin")


def _has_primitive(node: Any, name: str) -> bool:
    """Whether a primitive of that name occurs in a jaxpr or in those inside it."""
    if isinstance(node, (tuple, list)):
        return any(_has_primitive(item, name) for item in node)
    jaxpr = getattr(node, "jaxpr", node)
    return any(
        equation.primitive.name == name or _has_primitive(list(equation.params.values()), name)
        for equation in getattr(jaxpr, "eqns", ())
    )
