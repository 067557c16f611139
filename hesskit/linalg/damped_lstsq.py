r"""Damped least squares from the rows of a matrix, by whichever side is shorter.

    phi  =  argmin  |A phi - b|^2 / 2 - g.phi + damping |phi - phi_0|^2 / 2                 (1)
         =  phi_0 + (A'A + damping)^{-1} (A'(b - A phi_0) + g)                              (2)

for A (m, n), by the R of [A; sqrt(damping)] = Q R, which is A'A + damping without its square; or,
where m < n, the "kernel trick" of minSR, by Cholesky of K = A A' + damping with

    (A'A + damping)^{-1} A'  =  A' K^{-1}
    (A'A + damping)^{-1} g   =  (g - A' K^{-1} A g) / damping                               (3)

whose second line has a difference of nearly equal numbers: what is in the range of A' is better
given as b.

Source: Chen & Heyl (2024), "Empowering deep neural quantum states through efficient optimization";
Goldshlager, Abrahamsen & Lin (2024), "A Kaczmarz-inspired approach to accelerate the optimization
of neural network wavefunctions", equation 30; Golub & Van Loan (2013), sections 2.1.4 and 6.1.4.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular

from hesskit.core.types import Array, Scalar


def _times(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def damped_lstsq(
    rows: Array,
    damping: Scalar,
    *,
    residual: Array | None = None,
    gradient: Array | None = None,
    start: Array | None = None,
    by_rows: bool | None = None,
) -> Array:
    """The solution phi of (1).

    Args:
      rows: A, (m, n).
      damping: () >= 0; taken for at least max(m, n) eps |A|_F^2, below which K is rounding.
      residual: b, (m,); None means 0.
      gradient: g, (n,); None means 0.
      start: phi_0, (n,); None means 0.
      by_rows: whether K of (3) is factored; None means where m < n.

    Returns:
      phi, (n,), in the dtype of the rows.

    Example:
      >>> import jax.numpy as jnp
      >>> a, b = jnp.array([[2.0, 0.0]]), jnp.array([2.0])
      >>> for known in ({"residual": b}, {"gradient": a.T @ b}):
      ...   print([f"{entry:.4f}" for entry in damped_lstsq(a, 1.0, **known)])
      ['0.8000', '0.0000']
      ['0.8000', '0.0000']
    """
    m, n = rows.shape
    least = max(m, n) * jnp.finfo(rows.dtype).eps * jnp.sum(rows * rows)
    least = jnp.where(least > 0, least, 1)  # no rows, no curvature: any number serves
    damping = jnp.maximum(jnp.asarray(damping, rows.dtype), least)
    left = jnp.zeros((m,), rows.dtype) if residual is None else residual
    if start is not None:
        left = left - _times(rows, start)
    more = jnp.zeros((n,), rows.dtype) if gradient is None else gradient
    by_rows = m < n if by_rows is None else by_rows
    step = (_by_rows if by_rows else _by_columns)(rows, damping, left, more)
    return step if start is None else start + step


def _by_columns(rows: Array, damping: Array, left: Array, more: Array) -> Array:
    root = jnp.sqrt(damping) * jnp.eye(rows.shape[1], dtype=rows.dtype)
    r = jnp.linalg.qr(jnp.concatenate([rows, root]), mode="r")
    right = _times(rows.T, left) + more
    return solve_triangular(r, solve_triangular(r, right, trans=1))


def _by_rows(rows: Array, damping: Array, left: Array, more: Array) -> Array:
    kernel = _times(rows, rows.T) + damping * jnp.eye(rows.shape[0], dtype=rows.dtype)
    factor = cho_factor(kernel)
    pairs = jnp.stack([left, _times(rows, more)], axis=1)
    found, image = cho_solve(factor, pairs).T
    return _times(rows.T, found) + (more - _times(rows.T, image)) / damping
