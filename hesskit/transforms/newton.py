r"""Newton's method with a line search, and the textbook step.

At parameters x, with gradient g and dense Hessian H, each update tries

    s  =  alpha p,     B p = -g                                             (1)

where B is H with its eigenvalues replaced by their moduli, or H + E from a modified Cholesky
factorization, or H itself. The trial is kept if f falls by at least eta of

    -(g.s + s.Hs / 2)                                                       (2)

the test of More & Sorensen for steps along negative curvature; where H is positive definite it is
Armijo's to within a factor of two. A kept step sets alpha back to 1; a rejected one multiplies it
by the minimizer of the parabola through what is known, in [0.25, 0.5], and the next update tries
again from the same factorization. With `learning_rate` and B = H this is the textbook step.

Source: Nocedal & Wright (2006), Algorithms 3.1, 3.2; More & Sorensen (1979), "On the use of
directions of negative curvature in a modified Newton method"; Dennis & Schnabel (1983), A6.3.1.
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp

from hesskit.core import acceptance, errors, tree
from hesskit.core.acceptance import Trial
from hesskit.core.derivatives import Evaluation
from hesskit.core.rule import Built, Context, Rule, Step
from hesskit.core.types import Array, Params
from hesskit.curvature import spectral
from hesskit.curvature.spectral import Spectrum
from hesskit.linalg.dense import dense
from hesskit.linalg.positive import modified_cholesky, modified_eigenvalues, solve
from hesskit.transforms import _build
from hesskit.transforms._build import Transformation

MODIFICATIONS = ("auto", "eigenvalue", "cholesky", None)
SHRINK = 0.25  # least factor of alpha; 0.1 took 18 % more steps over 17 published problems
LIFT = 1e-3  # of max|H|, least lifted pivot; eps^(2/3) took 20 to 40 % more steps over these


class NewtonInfo(NamedTuple):
    """What the last update did. For people; the next update never reads it."""

    status: Array  # (), int32, 0 while going on
    accepted: Array  # (), bool
    step_norm: Array  # (), |s| of an accepted step, 0 of a rejected one
    ratio: Array  # (), actual over predicted decrease
    grad_norm: Array  # (), at the kept point
    num_values: Array  # (), int32, evaluations of this update
    num_grads: Array  # (), int32
    num_products: Array  # (), int32, n for a new Hessian
    value_mismatch: Array  # (), |value given - value found|
    step_length: Array  # (), the next alpha
    modified: Array  # (), bool, p is not the pure Newton step


class Line(NamedTuple):
    """The search line at the kept point: all that shorter trials need."""

    direction: Params  # p
    product: Params  # H p
    modified: Array  # (), bool: p is not -H^{-1} g
    stays: Array  # (), bool: a saddle, and the method has no way to leave it


class _Direction(NamedTuple):
    p: Array  # (n,)
    modified: Array  # (), bool
    indefinite: Array  # (), bool
    stays: Array  # (), bool


def _empty(params: Params) -> Line:
    p, hp = tree.zeros_like(params), tree.zeros_like(params)
    return Line(p, hp, jnp.zeros((), bool), jnp.zeros((), bool))


def _spectrum(matrix: Array, b: Array) -> Spectrum:
    w, q = jnp.linalg.eigh(matrix, symmetrize_input=False)
    return Spectrum(w, q, q.T @ b, jnp.ones_like(w))


def _by_eigenvalue(matrix: Array, b: Array, context: Context) -> _Direction:
    """B = Q |diag(w)| Q', with eigenvalues below their rounding error lifted to it."""
    model = _spectrum(matrix, b)
    w, c = model.eigenvalues, spectral.roused(model, context)
    lifted = modified_eigenvalues(w, w.shape[0] * float(jnp.finfo(w.dtype).eps))
    modified = jnp.any(lifted != w) | jnp.any(c != model.coefficients)
    p = -(model.vectors @ (c / lifted))
    return _Direction(p, modified, spectral.is_indefinite(w, context.params), jnp.zeros((), bool))


def _by_cholesky(matrix: Array, b: Array, context: Context) -> _Direction:
    """B = H + E; only where g is zero, or p short, the spectrum is asked for a way down."""
    factored = modified_cholesky(matrix, LIFT)
    p = -solve(factored, b)

    def look() -> tuple[Array, Array]:
        model = _spectrum(matrix, b)
        w, c = model.eigenvalues, spectral.roused(model, context)
        first = jnp.where(c[0] > 0, -1, 1) * jnp.abs(c[0] / w[0])
        down = jnp.where(c[0] != model.coefficients[0], first * model.vectors[:, 0], p)
        return down, spectral.is_indefinite(w, context.params)

    short = tree.norm(p) <= tree.coarsest_eps(context.params) ** 0.25
    needed = context.at_rest | (factored.is_modified & short)
    found = tree.while_once(needed, look, (p, factored.is_modified))
    return _Direction(found[0], factored.is_modified, found[1], jnp.zeros((), bool))


def _plain(matrix: Array, b: Array, context: Context) -> _Direction:
    """B = H. Where g is zero the spectrum says whether this is a saddle."""
    p = jnp.linalg.solve(matrix, -b)
    falls = jnp.all(jnp.isfinite(p)) & (jnp.sum(p * b) < 0)

    def look() -> Array:
        return spectral.is_indefinite(jnp.linalg.eigvalsh(matrix), context.params)

    indefinite = tree.while_once(context.at_rest, look, ~falls)
    return _Direction(p, jnp.zeros((), bool), indefinite, context.at_rest & indefinite)


DIRECTIONS = {"eigenvalue": _by_eigenvalue, "cholesky": _by_cholesky, None: _plain}


def _cauchy(matrix: Array, g: Array, context: Context) -> Array:
    """The minimizer of the quadratic model along -g; of natural length if it has none."""
    norm = tree.norm(g)
    u = g / jnp.where(norm > 0, norm, 1)
    bend = jnp.sum(u * (matrix @ u))
    length = norm / jnp.where(bend > 0, bend, 1)
    return -jnp.where(bend > 0, length, acceptance.first_radius(context.params)) * u


def _build_line(
    evaluation: Evaluation,
    rhs: Params,
    model: Line,
    context: Context,
    *,
    modification: str | None,
    chunk_size: int | None,
) -> Built:
    """The line of an accepting or modified form; it descends, or is zero where g is."""
    del model
    matrix, finite = spectral.finite_hessian(evaluation, context.params, chunk_size)
    g, b = tree.ravel(evaluation.grad), tree.ravel(rhs)
    p, modified, indefinite, stays = DIRECTIONS[modification](matrix, b, context)
    slope, bend = jnp.sum(g * p), jnp.sum(p * (matrix @ p))
    falls = jnp.all(jnp.isfinite(p)) & (slope <= 0) & (slope + bend / 2 < 0)
    p = jnp.where(stays, 0, jnp.where(falls, p, _cauchy(matrix, g, context)))
    p = jnp.where(context.at_rest & ~finite, jnp.nan, p)  # nothing tells a minimum from a saddle
    p, hp = (tree.unravel(x, context.params) for x in (p, matrix @ p))
    line = Line(p, hp, modified | ~falls | ~finite, stays)
    return Built(line, indefinite, jnp.asarray(g.shape[0], jnp.int32))


def _build_textbook(
    evaluation: Evaluation, rhs: Params, model: Line, context: Context, *, chunk_size: int | None
) -> Built:
    """p = -H^{-1} g and nothing else."""
    del model
    assert evaluation.product is not None
    matrix = dense(evaluation.product, context.params, chunk_size=chunk_size)
    p, no = jnp.linalg.solve(matrix, -tree.ravel(rhs)), jnp.zeros((), bool)
    p = jnp.where(context.at_rest & jnp.isfinite(matrix).all() & ~jnp.isfinite(p), 0, p)
    line = Line(tree.unravel(p, context.params), tree.negative(rhs), no, jnp.copy(no))
    return Built(line, jnp.copy(no), jnp.asarray(p.shape[0], jnp.int32))


def _solve(model: Line, grad: Params, size: Array, context: Context) -> Step:
    del grad, context
    return Step(
        step=tree.scale(size, model.direction),
        product=tree.scale(size, model.product),
        norm=jnp.where(model.stays, 0, size),
        on_boundary=size < 1,
    )


def _adapt(size: Array, norm: Array, on_boundary: Array, trial: Trial) -> Array:
    del norm, on_boundary
    return jnp.where(trial.accepted, 1, size * acceptance.interpolated_shrink(trial, SHRINK))


def _rule(modification: str | None, chunk_size: int | None, *, judged: bool) -> Rule:
    errors.check_choice(modification, MODIFICATIONS, name="modification")
    errors.check_count(chunk_size, name="chunk_size")
    if modification == "auto":
        modification = "eigenvalue" if judged else None
    if modification is None and not judged:
        build = functools.partial(_build_textbook, chunk_size=chunk_size)
    else:
        build = functools.partial(_build_line, modification=modification, chunk_size=chunk_size)
    return Rule(
        info=NewtonInfo,
        empty=_empty,
        build=build,
        solve=_solve,
        adapt=_adapt,
        first_size=lambda model, grad, context: jnp.ones((), context.size.dtype),
        describe=lambda model, size: {"step_length": size, "modified": model.modified},
        size=1.0,
    )


@_build.memoize
def newton(
    learning_rate: Any = None,
    *,
    modification: str | None = "auto",
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> Transformation:
    r"""Newton's method: a line search along -B^{-1} g, or the textbook step -H^{-1} g.

    s = -alpha B^{-1} g, where B is the Hessian made positive definite and alpha comes from a
    backtracking line search of one trial per update, starting at 1. A rejected trial is a zero
    update; f never increases.

    With `learning_rate=1.0` it is the textbook step, never judged, which converges quadratically to
    whatever critical point is near, saddles and maxima too.

    Args:
      learning_rate: None for the safeguarded method. A number or schedule multiplies the step,
        which is then taken as it is (alpha = 1); 1.0 is Newton's own.
      modification: what makes B positive definite. "eigenvalue": the moduli of the eigenvalues
        (Greenstadt 1967), not below n eps of the largest, their rounding error. "cholesky": H + E
        (Schnabel & Eskow 1999), about ten times cheaper at large n. None: B = H; where that does
        not descend, the minimizer along -g serves. "auto": "eigenvalue" without learning rate,
        None with one.
      chunk_size: Hessian columns found at once; None: by memory.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation`. Its `update` needs `value_fn`. A singular H gives a zero update and
      status SINGULAR in the textbook form. At a saddle or a maximum the two modifications leave
      along the lowest eigenvector, by the largest entry of params, or 1; B = H stays, with
      status SADDLE.

    Raises:
      ValueError: `modification` or `chunk_size` is none of the above.
      TypeError: a number was expected.

    For mini-batches: no (the line search compares values; the Hessian of a batch is noisy).

    Cost of an update in gradients: 2n for the Hessian, and 2; a rejected one 1.5 with `value`
    passed on. Memory n^2, but 2n in the state.

    Example:
      >>> import jax.numpy as jnp
      >>> import hesskit
      >>> rosenbrock = lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
      >>> result = hesskit.minimize(rosenbrock, jnp.array([-1.2, 1.0]), hesskit.newton())
      >>> print(result.params.round(3), result.success)
      [1. 1.] True

    References:
      Nocedal & Wright (2006), Numerical Optimization, Algorithms 3.1, 3.2.
      More & Sorensen (1979), Mathematical Programming 16, 1-20.
    """
    rule = _rule(modification, chunk_size, judged=learning_rate is None)
    return _build.build(rule, name="newton", learning_rate=learning_rate, has_aux=has_aux)


@_build.memoize
def scale_by_newton(
    *, modification: str | None = "auto", chunk_size: int | None = None, has_aux: bool = False
) -> Transformation:
    r"""The gradient preconditioned by the Hessian, B^{-1} g, for chains.

    `newton(learning_rate=lr)` is `optax.chain(scale_by_newton(), scale_by_learning_rate(lr))`.

    Args:
      modification: as in `newton`; "auto" means None, B = H.
      chunk_size: Hessian columns found at once; None: by memory.
      has_aux: whether `value_fn` returns (value, aux).

    Returns:
      A `Transformation` whose updates point uphill; its `update` needs `value_fn`.

    For mini-batches: no. Cost of an update in gradients: 2n + 1.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> import hesskit
      >>> f = lambda x: jnp.sum((x - 3.0) ** 2)
      >>> chain = optax.chain(hesskit.scale_by_newton(), optax.scale_by_learning_rate(0.5))
      >>> x = jnp.array([1.0, 2.0])
      >>> updates, _ = chain.update(jax.grad(f)(x), chain.init(x), x, value_fn=f)
      >>> print(updates)
      [1.  0.5]

    References:
      Nocedal & Wright (2006), Numerical Optimization, section 3.3.
    """
    rule = _rule(modification, chunk_size, judged=False)
    return _build.build(rule, name="scale_by_newton", learning_rate=1.0, has_aux=has_aux, sign=-1.0)
