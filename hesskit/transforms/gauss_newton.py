r"""Gauss-Newton: the whole step first, shortened only where it fails.

For f = l(r(x)), with whitened rows A = F'J and whitened residual b, each update tries

    s  =  argmin |A s + b|^2 / 2,   the shortest of its minimizers          (1)

and after a rejection the minimizer within a ball whose radius follows the ratio of the decreases
(transforms/_gauss_newton.py). With `learning_rate` it is the textbook step.

Source: Nocedal & Wright (2006), section 10.3; Schraudolph (2002) for other convex losses than
squares.
"""

from typing import Any

from hesskit.linalg.operator import Preconditioner
from hesskit.transforms import _build, _gauss_newton
from hesskit.transforms._build import Transformation
from hesskit.transforms._gauss_newton import Options

WHOLE = float("inf")


@_build.memoize
def gauss_newton(
    learning_rate: Any = None,
    *,
    radius: Any = None,
    linear_solver: str = "auto",
    preconditioner: Preconditioner | None = None,
    has_aux: bool = False,
) -> Transformation:
    r"""The Gauss-Newton step, whole where it can be: for residuals that are nearly linear.

    s = argmin |A s + b|^2 / 2, the shortest of the minimizers, with A the whitened Jacobian and b
    the whitened residual of a structured objective. One trial per update; a rejected one is a zero
    update, after which a ball bounds the step. `hesskit.levenberg_marquardt` bounds the first step
    too and scales its region: the safer choice far from an answer.

    Args:
      learning_rate: None for steps that the method accepts or rejects itself. A number or schedule
        multiplies the whole step, and nothing is rejected.
      radius: the first radius, in the unit of |params|; a schedule of the count sets it anew at
        each point. None means no bound until a step is rejected.
      linear_solver: "auto", "dense", "sample" or "cg", as in `hesskit.levenberg_marquardt`.
      preconditioner: as in `hesskit.levenberg_marquardt`.
      has_aux: ignored: a structured objective says itself whether it has an aux.

    Returns:
      A `Transformation`. Its `update` needs `value_fn` to be `hesskit.least_squares_loss(...)`,
      `hesskit.composite(...)` or a sum of such.

    Raises:
      ValueError: `radius` is not positive, `linear_solver` none of these.
      TypeError: a number was expected; in `update`, the objective has no structure.

    For mini-batches: no in the accepting form; with `learning_rate` and batches of more residuals
    than parameters, yes.

    Cost of an update: as of `hesskit.levenberg_marquardt`.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> x = jnp.arange(4.0)
      >>> line = hesskit.least_squares_loss(lambda p: p["a"] + p["b"] * x - (2.0 + 3.0 * x))
      >>> fit = hesskit.minimize(line, {"a": 0.0, "b": 0.0}, hesskit.gauss_newton())
      >>> print(f"{fit.params['a']:.3f} {fit.params['b']:.3f} {fit.num_steps}")
      2.000 3.000 1

    References:
      Nocedal & Wright (2006), Numerical Optimization, section 10.3.
    """
    options = Options(
        "gauss_newton", radius, WHOLE, 0.0, linear_solver, None, preconditioner=preconditioner
    )
    return _gauss_newton.build(options, learning_rate=learning_rate, has_aux=has_aux)


@_build.memoize
def scale_by_gauss_newton(
    *,
    radius: Any = None,
    linear_solver: str = "auto",
    preconditioner: Preconditioner | None = None,
    has_aux: bool = False,
) -> Transformation:
    r"""The Gauss-Newton step with its sign changed, for chains.

    Args:
      radius: as in `gauss_newton`; it stays what it was at first.
      linear_solver: as in `gauss_newton`.
      preconditioner: as in `gauss_newton`.
      has_aux: ignored: a structured objective says itself whether it has an aux.

    Returns:
      A `Transformation` whose updates point uphill; its `update` needs a structured `value_fn`.

    For mini-batches: yes, as `gauss_newton`. Cost of an update: one Jacobian and a gradient.

    Example:
      >>> import jax, jax.numpy as jnp, hesskit
      >>> loss = hesskit.least_squares_loss(lambda p: 2.0 * p - 6.0)
      >>> scaled = hesskit.scale_by_gauss_newton()
      >>> x = jnp.array([1.0])
      >>> updates, _ = scaled.update(jax.grad(loss)(x), scaled.init(x), x, value_fn=loss)
      >>> print(updates)
      [-2.]

    References:
      Nocedal & Wright (2006), Numerical Optimization, section 10.3.
    """
    name = "scale_by_gauss_newton"
    options = Options(name, radius, WHOLE, 0.0, linear_solver, None, preconditioner=preconditioner)
    return _gauss_newton.build(options, learning_rate=1.0, has_aux=has_aux, sign=-1.0)
