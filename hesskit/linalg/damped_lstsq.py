r"""Damped least squares from the rows of a matrix, by whichever side is shorter.

    phi  =  argmin  |A phi - b|^2 / 2 - g.phi + damping |phi - phi_0|^2 / 2                 (1)
         =  phi_0 + (A'A + damping)^{-1} (A'(b - A phi_0) + g)                              (2)

for A (m, n), by the R of [A; sqrt(damping)] = Q R, which is A'A + damping without its square; or,
where m < n, the "kernel trick" of minSR, by Cholesky of K = A A' + damping with

    (A'A + damping)^{-1} A'  =  A' K^{-1}
    (A'A + damping)^{-1} g   =  (g - A' K^{-1} A g) / damping                               (3)

whose second line has a difference of nearly equal numbers: what is in the range of A' is better
given as b. K is known to about eps |A|^2, so that a damping far below may leave it indefinite: one
that cannot be factored is damped ten times more.

Source: Chen & Heyl (2024), "Empowering deep neural quantum states through efficient optimization";
Goldshlager, Abrahamsen & Lin (2024), "A Kaczmarz-inspired approach to accelerate the optimization
of neural network wavefunctions", equation 30; Golub & Van Loan (2013), sections 2.1.4 and 6.1.4.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

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
      damping: () >= 0; taken for at least eps |A|_F^2, near which K is rounding, and for max(m, n)
        times that where g is not zero, of which (3) would else leave rounding alone.
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
    left = jnp.zeros((m,), rows.dtype) if residual is None else residual
    if start is not None:
        left = left - _times(rows, start)
    more = jnp.zeros((n,), rows.dtype) if gradient is None else gradient
    least = jnp.finfo(rows.dtype).eps * jnp.sum(rows * rows)
    least = jnp.where(jnp.any(more != 0), max(m, n), 1) * jnp.where(least > 0, least, 1)
    damping = jnp.maximum(jnp.asarray(damping, rows.dtype), least)  # no rows: any number serves
    by_rows = m < n if by_rows is None else by_rows
    step = (_by_rows if by_rows else _by_columns)(rows, damping, left, more)
    return step if start is None else start + step


def _by_columns(rows: Array, damping: Array, left: Array, more: Array) -> Array:
    n = rows.shape[1]
    root = jnp.sqrt(damping) * jnp.eye(n, n + 1, dtype=rows.dtype)
    stacked = jnp.concatenate([jnp.concatenate([rows, left[:, None]], axis=1), root])
    found = jnp.linalg.qr(stacked, mode="r")
    r, image = found[:n, :n], found[:n, n]  # Q'b without Q
    return solve_triangular(r, image + solve_triangular(r, more, trans=1))


def _by_rows(rows: Array, damping: Array, left: Array, more: Array) -> Array:
    factor, damping = _factored(_times(rows, rows.T), damping)
    pairs = jnp.stack([left, _times(rows, more)], axis=1)
    found, image = cho_solve((factor, True), pairs).T
    return _times(rows.T, found) + (more - _times(rows.T, image)) / damping


def _factored(kernel: Array, damping: Array) -> tuple[Array, Array]:
    """The lower factor of `kernel` + damping, and the damping with which it is finite."""
    unit = jnp.eye(kernel.shape[0], dtype=kernel.dtype)
    enough = jnp.trace(kernel)  # there rounding is nothing; more does not help against NaN

    def body(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        _, damping, following = carry
        damping = jnp.where(following > 0, following, damping)
        factor = jnp.linalg.cholesky(kernel + damping * unit, symmetrize_input=False)
        again = ~jnp.all(jnp.isfinite(factor)) & (damping < enough)
        return factor, damping, jnp.where(again, 10 * damping, 0)

    start = (jnp.zeros_like(kernel), damping, damping)
    factor, damping, _ = jax.lax.while_loop(lambda carry: carry[2] > 0, body, start)
    return factor, damping
