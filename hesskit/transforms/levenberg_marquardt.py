r"""Levenberg-Marquardt: Gauss-Newton steps in a scaled trust region.

For f = l(r(x)), with whitened rows A = F'J and whitened residual b (curvature/gauss_newton.py),
each update takes

    s  =  argmin  |A s + b|^2 / 2   subject to   |D s| <= radius            (1)

from the singular value decomposition of A D^{-1}, never from A'A: the damping lambda of
(A'A + lambda D^2) s = -A'b is the multiplier of (1). D holds the `scaling` powers of the largest
norms of the columns of A so far. The step is kept if f falls by at least eta of what (1) predicts;
the radius follows the ratio of the two. With `geodesic` s bends with the residuals
(curvature/geodesic.py).

Source: More (1978), "The Levenberg-Marquardt algorithm: implementation and theory"; Nocedal &
Wright (2006), section 10.3; Transtrum & Sethna (2012) for `geodesic`.
"""

from typing import Any

from hesskit.linalg.operator import Preconditioner
from hesskit.transforms import _build, _gauss_newton
from hesskit.transforms._build import Transformation
from hesskit.transforms._gauss_newton import Options

SCALING = 0.25
"""The power of column norms in D. 1 (More) never forgives a steep start: on 57 published problems
from 1, 10 and 100 times their starts it solves 55, 42 and 36, and 0 (a round region) 55, 48, 40,
but 0 loses badly scaled fits (NIST's Nelson). 1/4 solves 55, 47, 41 and all of NIST's; 0.2 to 0.4
are alike."""


@_build.memoize
def levenberg_marquardt(
    learning_rate: Any = None,
    *,
    radius: Any = None,
    scaling: float = SCALING,
    linear_solver: str = "auto",
    geodesic: bool = False,
    bounds: Any = None,
    preconditioner: Preconditioner | None = None,
    has_aux: bool = False,
) -> Transformation:
    r"""Gauss-Newton steps in a scaled trust region, by a stable factorization: the way to fit.

    s = argmin |A s + b|^2 / 2 over |D s| <= radius, with A the whitened Jacobian and b the whitened
    residual of a structured objective: the damped system (A'A + lambda D^2) s = -A'b by the
    singular values of A D^{-1}. One trial per update; a rejected one is a zero update, and f never
    increases. Converges quadratically where residuals vanish, linearly (and fast where they are
    small or nearly linear) elsewhere; a Jacobian of deficient rank gives the shortest step.

    Args:
      learning_rate: None for steps that the method accepts or rejects itself. A number or schedule
        multiplies the step, and the radius stays what it was at first.
      radius: the first radius, in the unit of |D params|; a schedule of the count sets it anew at
        each point. None means the largest entry of D params, or the least of D where that is more.
      scaling: the power of the largest norm so far of each column of A that makes D: 0 a round
        region, 1 that of More (1978). 1/4 measured best on published problems.
      linear_solver: "dense" and "sample" find singular values, of m x n and, in room m n, of fewer
        residuals than parameters; "cg" needs products alone, with D = 1. "auto" takes the first
        two while min(m, n) <= 500; in a loop of updates m is not known beforehand, and n counts.
      geodesic: whether half the geodesic acceleration is added to each step for which it is short:
        the second order of the residuals along it, for one second derivative a point. In long
        curved valleys it saves steps (Rosenbrock 15 to 10 evaluations, Meyer 81 to 24), elsewhere
        little, and from far starts it loses a few fits. Not with bounds, nor "cg".
      bounds: `(lower, upper)`, prefix trees of params, or `{"path": (lower, upper)}`; None or inf
        means none. Steps are minimizers on the faces of the box. The start must be inside.
      preconditioner: of "cg", and the norm of its region: a `Preconditioner`, such as
        `hesskit.kronecker_preconditioner()`. None means none; with one "auto" is "cg".
      has_aux: ignored: a structured objective says itself whether it has an aux.

    Returns:
      A `Transformation`. Its `update` needs `value_fn` to be `hesskit.least_squares_loss(...)`,
      `hesskit.composite(...)` or a sum of such.

    Raises:
      ValueError: `radius` is not positive, `scaling` not in [0, 1], `linear_solver` none of these;
        `geodesic` or "cg" with what it excludes.
      TypeError: a number was expected; in `update`, the objective has no structure.

    For mini-batches: no in the accepting form (it compares values); with `learning_rate` and a
    small `radius`, yes.

    Cost of an update: min(m, n) passes for the Jacobian of m residuals by n parameters (2 more if
    `geodesic`), its singular values, and 2 gradients; a rejected one 1 value and gradient. Memory
    m n + n^2.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> x = jnp.arange(5.0)
      >>> y = 2.0 * jnp.exp(-0.5 * x)
      >>> loss = hesskit.least_squares_loss(lambda p: p[0] * jnp.exp(-p[1] * x) - y)
      >>> fit = hesskit.minimize(loss, jnp.ones(2), hesskit.levenberg_marquardt())
      >>> print(fit.params.round(3), fit.success)
      [2.  0.5] True

    References:
      More (1978), "The Levenberg-Marquardt algorithm: implementation and theory", LNM 630.
      Nocedal & Wright (2006), Numerical Optimization, section 10.3.
      Transtrum & Sethna (2012), "Improvements to the Levenberg-Marquardt algorithm for nonlinear
      least-squares minimization", arXiv:1201.5885.
    """
    name = "levenberg_marquardt"
    options = Options(name, radius, None, scaling, linear_solver, bounds, geodesic, preconditioner)
    return _gauss_newton.build(options, learning_rate=learning_rate, has_aux=has_aux)


@_build.memoize
def scale_by_levenberg_marquardt(
    *,
    radius: Any = None,
    scaling: float = SCALING,
    linear_solver: str = "auto",
    geodesic: bool = False,
    preconditioner: Preconditioner | None = None,
    has_aux: bool = False,
) -> Transformation:
    r"""The Levenberg-Marquardt step with its sign changed, for chains.

    Args:
      radius: as in `levenberg_marquardt`; it stays what it was at first.
      scaling: as in `levenberg_marquardt`.
      linear_solver: as in `levenberg_marquardt`.
      geodesic: as in `levenberg_marquardt`.
      preconditioner: as in `levenberg_marquardt`.
      has_aux: ignored: a structured objective says itself whether it has an aux.

    Returns:
      A `Transformation` whose updates point uphill; its `update` needs a structured `value_fn`.

    For mini-batches: yes, with a small `radius`. Cost of an update: one Jacobian and a gradient.

    Example:
      >>> import jax, jax.numpy as jnp, hesskit
      >>> loss = hesskit.least_squares_loss(lambda p: p - 3.0)
      >>> scaled = hesskit.scale_by_levenberg_marquardt(radius=0.5)
      >>> x = jnp.array([1.0])
      >>> updates, _ = scaled.update(jax.grad(loss)(x), scaled.init(x), x, value_fn=loss)
      >>> print(updates)
      [-0.5]

    References:
      More (1978), "The Levenberg-Marquardt algorithm: implementation and theory", LNM 630.
    """
    name = "scale_by_levenberg_marquardt"
    options = Options(name, radius, None, scaling, linear_solver, None, geodesic, preconditioner)
    return _gauss_newton.build(options, learning_rate=1.0, has_aux=has_aux, sign=-1.0)
