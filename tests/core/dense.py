"""What the tests of outer losses share: their matrices, column by column, and what must hold."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hesskit.core import tree
from hesskit.core.structured import Outer


class Matrices(NamedTuple):
    """An outer loss at its outputs, dense, in numpy."""

    hessian: np.ndarray  # (m, m), from products
    factor: np.ndarray  # (m, m), F
    residual: np.ndarray | None  # (m,), b
    gradient: np.ndarray  # (m,), by automatic differentiation
    truth: np.ndarray  # (m, m), the Hessian by automatic differentiation


def filled(loss, *data, **named) -> Outer:
    """A loss with its data behind its arguments, filled in."""
    fill = lambda method: lambda *given: method(*given, *data, **named)
    methods = (loss, loss.hessian_product, loss.whiten, loss.residual, loss.report)
    return Outer(*map(fill, methods))


def columns(linear, like) -> jax.Array:
    """The matrix of a linear map on pytrees like `like`."""
    units = jnp.eye(tree.size(like), dtype=tree.result_dtype(like))
    image = lambda e: tree.ravel(linear(tree.unravel(e, like)))
    return jax.vmap(image, out_axes=1)(units)


def matrices(outer: Outer, outputs) -> Matrices:
    """All matrices of `outer` at `outputs`, from one compiled program."""

    def at(outputs) -> Matrices:
        flat = lambda x: outer.value(tree.unravel(x, outputs))
        residual = outer.residual(outputs)
        return Matrices(
            hessian=columns(lambda v: outer.hessian_product(outputs, v), outputs),
            factor=columns(lambda v: outer.whiten(outputs, v), outputs).T,
            residual=None if residual is None else tree.ravel(residual),
            gradient=jax.grad(flat)(tree.ravel(outputs)),
            truth=jax.hessian(flat)(tree.ravel(outputs)),
        )

    return Matrices(*(None if a is None else np.asarray(a) for a in jax.jit(at)(outputs)))


def check_outer(outer: Outer, outputs, *, exact: bool = True) -> Matrices:
    """H symmetric, semidefinite and that of AD (if `exact`); F F' = H; F b = grad l."""
    found = matrices(outer, outputs)
    tol = 100 * float(jnp.finfo(tree.result_dtype(outputs)).eps)
    scale = max(1.0, np.abs(found.truth).max())
    if exact:
        np.testing.assert_allclose(found.hessian, found.truth, atol=tol * scale)
    np.testing.assert_allclose(found.hessian, found.hessian.T, atol=tol * scale)
    np.testing.assert_allclose(found.factor @ found.factor.T, found.hessian, atol=tol * scale)
    assert np.linalg.eigvalsh(found.hessian).min() >= -tol * scale
    if found.residual is not None:
        ours = found.factor @ found.residual
        size = max(1.0, np.abs(found.gradient).max())
        np.testing.assert_allclose(ours, found.gradient, atol=tol * size)
    return found
