r"""The paraboloid that touches a function: its second-order Taylor model.

    m(a + h)  =  f(a) + g.h + h.Hh / 2,     f(a + h) - m(a + h)  =  o(|h|^2)              (1)

with g and H the gradient and Hessian at a. Along a direction d the remainder is r(t) = f(a + t d) -
m(a + t d), which for a smooth f shrinks as the power of the first term left out, 3 or more: the
slope of log |r| over log t, measured where r is above the rounding of f.

Source: Munkres (1991), Analysis on Manifolds, chapter 3; Nocedal & Wright (2006), theorem 2.1.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import answer, errors, objective, pseudo_random, tree
from hesskit.core.derivatives import value_and_grad
from hesskit.core.types import Array, Params
from hesskit.curvature.hessian import hessian_operator
from hesskit.linalg.operator import Operator
from hesskit.solvers import inputs

HALVINGS = 24
"""Lengths t = 1, 1/2, 1/4, ... at which the remainder is measured."""
VISIBLE = 100
"""A remainder of so many eps of the terms of (1) is more than rounding."""
FITTED = 4
"""The slope is that of the shortest so many visible remainders: the limit is t -> 0."""


def _order_lines(found: "RemainderOrder") -> list[str]:
    if int(found.num_visible) < 2:
        return ["the remainder is below the rounding of the function: no order is seen"]
    shortest = float(found.lengths[max(int(found.num_visible) - FITTED, 0)])
    return [
        f"the remainder shrinks as the length to the power {float(found.order):.4g}",
        f"measured at lengths up to {shortest:.2g}; o(|h|^2) asks for more than 2",
    ]


@answer.printed("order", _order_lines)
class RemainderOrder(NamedTuple):
    """The answer of `TaylorModel.remainder_order`; `float()` of it is the order.

    Attributes:
      order: the slope of log |r| over log t, (); inf where no remainder is seen.
      lengths: t, (24,), halved from one to the next.
      remainders: r(t), (24,).
      num_visible: the place after the last of them that is above rounding, (), int32.
    """

    order: Array
    lengths: Array
    remainders: Array
    num_visible: Array

    def __float__(self) -> float:
        """The order."""
        return float(self.order)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "value", "grad", "operator", "args"],
    meta_fields=["value_fn"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class TaylorModel:
    """The model (1): `model(x)` at a point, `model.displaced(h)` at a displacement; `print` it.

    Attributes:
      params: a.
      value: f(a), ().
      grad: g, like params, in the convention of `jax.grad`.
      operator: H, an `Operator`; `operator.dense()` is the matrix.
      args: the data of f.
      value_fn: f.
    """

    params: Params
    value: Array
    grad: Params
    operator: Operator
    args: Any
    value_fn: Callable[..., Any]

    def __call__(self, x: Params) -> Array:
        """m(x), (), for x like params."""
        x = errors.check_like(errors.check_params(x, name="x"), self.params, name="x", dtypes=True)
        return _model(self, tree.sub(x, self.params))

    def displaced(self, h: Params) -> Array:
        """m(a + h), (), for h like params."""
        h = errors.check_like(errors.check_params(h, name="h"), self.params, name="h", dtypes=True)
        return _model(self, h)

    def error(self, h: Params) -> Array:
        """The remainder f(a + h) - m(a + h), (), for h like params."""
        h = errors.check_like(errors.check_params(h, name="h"), self.params, name="h", dtypes=True)
        return _error(self, h)

    def remainder_order(self, direction: Params = None, *, length: Any = 1.0) -> RemainderOrder:
        """The power with which the remainder shrinks along `direction`.

        Args:
          direction: like params; None means a fixed pseudo-random one of length 1.
          length: the longest displacement, in units of `direction`; shorter where f is not finite
            so far out.

        Returns:
          A `RemainderOrder`.
        """
        errors.check_number(length, name="length", open_low=True)
        if direction is None:
            direction = pseudo_random.like(self.params)
            direction = tree.scale(1 / tree.norm(direction), direction)
        d = errors.check_params(direction, name="direction")
        d = errors.check_like(d, self.params, name="direction", dtypes=True)
        return _order(self, d, jnp.asarray(length, tree.result_dtype(self.params)))

    def __repr__(self) -> str:
        """The model in words, or in numbers where it is small."""
        if answer.unknown(self.value) or jnp.ndim(self.value) > 0:
            return "TaylorModel: not known inside jit and vmap"
        n = self.operator.shape[0]
        lines = [
            f"second-order Taylor model of {n} parameters",
            f"value {float(self.value):.7g}, gradient norm {float(tree.norm(self.grad)):.5g}",
        ]
        if n <= answer.MOST and not objective.is_complex(self.params):
            lines.append(f"gradient {answer.row(tree.ravel(self.grad))}")
            lines += [f"Hessian  {answer.row(row)}" for row in self.operator.dense()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return answer.preformatted(repr(self))


def _quadratic(model: TaylorModel, h: Params) -> tuple[Array, Array, Array]:
    """The three terms of the model."""
    real, slope = objective.split(h), objective.split(objective.conjugate(model.grad))
    product = model.operator.product()(real)
    value = model.value.astype(tree.result_dtype(h))
    return value, tree.vdot(slope, real), tree.vdot(real, product) / 2


@jax.jit
def _model(model: TaylorModel, h: Params) -> Array:
    return sum(_quadratic(model, h), start=jnp.zeros((), tree.result_dtype(h)))


def _fn(model: TaylorModel) -> tuple[Any, Params]:
    return objective.real(model.value_fn, model.params, args=model.args, caller="taylor")


@jax.jit
def _error(model: TaylorModel, h: Params) -> Array:
    fn, point = _fn(model)
    value, slope, bend = _quadratic(model, h)
    far = fn(tree.add(point, objective.split(h))).astype(value.dtype)
    return (far - value) - slope - bend


@jax.jit
def _order(model: TaylorModel, d: Params, length: Array) -> RemainderOrder:
    fn, point = _fn(model)
    value, slope, bend = _quadratic(model, d)
    t = length * 0.5 ** jnp.arange(HALVINGS, dtype=value.dtype)

    def far(t: Array) -> Array:
        return fn(tree.axpy(t, objective.split(d), point)).astype(value.dtype)

    values = jax.lax.map(far, t)
    r = (values - value) - t * slope - t * t * bend
    size = jnp.abs(values) + jnp.abs(value) + jnp.abs(t * slope) + jnp.abs(t * t * bend)
    seen = jnp.abs(r) > VISIBLE * tree.coarsest_eps(model.params) * size
    index = jnp.arange(HALVINGS, dtype=jnp.int32)
    num = jnp.max(jnp.where(seen, index + 1, 0))
    used = seen & (index >= num - FITTED)
    x, y = jnp.log(t), jnp.log(jnp.where(used, jnp.abs(r), 1))
    count = jnp.maximum(jnp.sum(used), 1).astype(t.dtype)
    x = jnp.where(used, x - jnp.sum(jnp.where(used, x, 0)) / count, 0)
    squares = jnp.sum(x * x)
    order = jnp.where(squares > 0, jnp.sum(x * y) / jnp.where(squares > 0, squares, 1), jnp.inf)
    return RemainderOrder(order=order, lengths=t, remainders=r, num_visible=num)


def taylor(value_fn: Callable[..., Any], params: Params, *, args: Any = ()) -> TaylorModel:
    r"""The second-order Taylor model of `value_fn` at `params`.

    Args:
      value_fn: `value_fn(params, ...) -> ()`.
      params: a, a pytree of float or complex arrays.
      args: data for `value_fn`: a tuple, positional after params, or a dict, by name.

    Returns:
      A `TaylorModel`, in at least float32: call it at a point, or `displaced(h)`, `error(h)`,
      `remainder_order(direction)`. It may be closed over or passed to `jit`.

    Raises:
      TypeError: a leaf or the value is no float, `value_fn` no function.
      ValueError: the value is not a scalar, params is empty.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> model = hesskit.taylor(lambda p: jnp.exp(p[0] + p[1]), jnp.zeros(2))
      >>> print(model(jnp.array([0.1, 0.2])).round(3))
      1.345
      >>> print(model)
      second-order Taylor model of 2 parameters
      value 1, gradient norm 1.4142
      gradient 1, 1
      Hessian  1, 1
      Hessian  1, 1
      >>> print(2.8 < float(model.remainder_order(jnp.array([1.0, 1.0]))) < 3.3)
      True

    References:
      Nocedal & Wright (2006), Numerical Optimization, theorem 2.1.
    """
    fn = inputs.hashable(errors.check_callable(value_fn, name="value_fn"))
    params = errors.check_params(params)
    op = hessian_operator(fn, params, args=args)
    value, grad = _start(params, args, value_fn=fn)
    return TaylorModel(params, value, grad, op, args, fn)


@functools.partial(jax.jit, static_argnames=("value_fn",))
def _start(params: Params, args: Any, *, value_fn: Any) -> tuple[Array, Params]:
    fn, point = objective.real(value_fn, params, args=args, caller="taylor")
    at = value_and_grad(fn, point)
    return at.value, objective.conjugate(objective.join(at.grad, params))
