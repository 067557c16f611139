r"""The answer about a critical point, and how it is found: the second derivative test and beyond.

At x with gradient g = 0 and Hessian H,

    H > 0   minimum,      H < 0   maximum,      H indefinite   saddle       (1)

and where H is semidefinite the test is silent: core/leading_form.py looks at the terms of higher
order along the null space of H, bent so that its complement plays no part.

Source: Munkres (1991), Analysis on Manifolds; Poston & Stewart (1978), chapter 4.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.analysis import _entry, _spectrum
from hesskit.core import answer, errors, objective, tree
from hesskit.core.answer import Kind
from hesskit.core.derivatives import linearized, value_and_grad
from hesskit.core.leading_form import LeadingForm, leading_form
from hesskit.core.types import Array, Params
from hesskit.linalg import inertia as signs
from hesskit.linalg.dense import dense as densely
from hesskit.linalg.inertia import DefiniteKind
from hesskit.linalg.thick_restart import Pairs
from hesskit.solvers import inputs


class CriticalKind(Kind):
    """What a point is; `print` gives the name."""

    INCONCLUSIVE = 0
    MINIMUM = 1
    MAXIMUM = 2
    SADDLE = 3
    DEGENERATE_MINIMUM = 4
    DEGENERATE_MAXIMUM = 5
    DEGENERATE_NEITHER = 6
    NOT_CRITICAL = 7


OF_DEFINITE = {
    DefiniteKind.POSITIVE_DEFINITE: CriticalKind.MINIMUM,
    DefiniteKind.NEGATIVE_DEFINITE: CriticalKind.MAXIMUM,
    DefiniteKind.INDEFINITE: CriticalKind.SADDLE,
}


def _reason(found: "CriticalPoint") -> str:
    """Why it is of its kind, in a sentence."""
    kind, gradient = found.kind, f"{float(found.grad_norm):.2g}"
    if not jnp.isfinite(found.value + found.grad_norm):
        return f"not finite: value {float(found.value):.4g}, gradient norm {gradient}"
    if kind == CriticalKind.NOT_CRITICAL:
        if found.newton_step is not None and found.grad_norm <= found.grad_tolerance:
            return f"gradient norm {gradient} is small, a Newton step is {found.newton_step:.2g}"
        return f"gradient norm {gradient} is above {float(found.grad_tolerance):.2g}"
    if found.inertia is None:
        ends = f"{float(found.eigenvalues[0]):.4g} and {float(found.eigenvalues[1]):.4g}"
        silent = ": they do not decide" if kind == CriticalKind.INCONCLUSIVE else ""
        return f"gradient norm {gradient}; the eigenvalues at the ends are {ends}{silent}"
    positive, zero, negative = (int(count) for count in found.inertia)
    start = f"gradient norm {gradient} and {positive} positive, {zero} zero, {negative} negative "
    start += "eigenvalues"
    if kind in (CriticalKind.MINIMUM, CriticalKind.MAXIMUM, CriticalKind.SADDLE):
        return start
    order = int(found.order)
    if kind == CriticalKind.INCONCLUSIVE:
        if order:
            return f"{start}; where the latter are zero, terms of order {order} do not decide"
        return f"{start}; no term of higher order speaks. Try a larger max_order"
    sign = {CriticalKind.DEGENERATE_MINIMUM: "up", CriticalKind.DEGENERATE_MAXIMUM: "down"}
    way = f"go {sign[kind]}" if kind in sign else "let the function go up and down"
    return f"{start}; where the latter are zero, terms of order {order} {way}"


def _lines(found: "CriticalPoint") -> list[str]:
    """The kind, the point, the eigenvalues, the reason."""
    name = found.kind.name.lower().replace("_", " ")
    size = tree.size(found.params)
    where = f" at {answer.row(tree.ravel(objective.split(found.params)))}" if size <= 6 else ""
    count = "" if found.inertia is not None else " at the ends"
    return [
        f"{name}{where}: value {float(found.value):.7g}",
        f"eigenvalues{count} {answer.row(found.eigenvalues)}",
        found.reason,
        f"an eigenvalue within {float(found.tolerance):.1e} counts as zero",
    ]


@answer.printed("value", _lines)
class CriticalPoint(NamedTuple):
    """What a point of a function is; `print` it.

    Attributes:
      params: the point.
      value: the function there, ().
      grad_norm: the norm of the gradient, ().
      code: of `kind`, (), int32.
      eigenvalues: of the Hessian, ascending: all, (n,), or of a large one the two at the ends.
      eigenvectors: its columns, (n, n), rows in the order of `jax.flatten_util.ravel_pytree`; None
        of a large one.
      inertia: how many eigenvalues are positive, zero, and negative, (3,) int32, or None.
      order: of the terms that speak where the Hessian is silent, (), int32; 0 if none was asked for
        or found.
      tolerance: an eigenvalue within it counts as zero, ().
      grad_tolerance: a gradient within it counts as zero, ().
      newton_step: the largest component of -H^+ g along the eigenvectors, (); None of a large one.
      num_products: Hessian products, (), int32.
    """

    params: Params
    value: Array
    grad_norm: Array
    code: Array
    eigenvalues: Array
    eigenvectors: Array | None
    inertia: Array | None
    order: Array
    tolerance: Array
    grad_tolerance: Array
    newton_step: Array | None
    num_products: Array

    @property
    def kind(self) -> Any:
        """A `hesskit.CriticalKind`, printed by name; inside jit its code."""
        return answer.word(CriticalKind, self.code)

    @property
    def reason(self) -> str:
        """Why it is of its kind, in a sentence; not under jit."""
        unknown = answer.unknown(self.value) or jnp.ndim(self.value) > 0
        return "not known here" if unknown else _reason(self)


def grad_tolerance(given: Any, largest: Array, params: Params) -> Array:
    """What counts as a zero gradient: that of a point to which eps^(2/3) of its digits are missing.

    As for `minimize`: between sqrt(eps), which is easy, and eps, which rounding forbids.

    Args:
      given: the user's, or None.
      largest: the largest |eigenvalue| of the Hessian, ().
      params: the point.

    Returns:
      A number, ().
    """
    if given is not None:
        return jnp.asarray(given, largest.dtype)
    reach = largest * jnp.maximum(1, tree.norm(params)).astype(largest.dtype)
    reach = jnp.where(jnp.isfinite(reach), reach, 0)
    return tree.coarsest_eps(params) ** (2 / 3) * jnp.maximum(1, reach)


def _newton_step(w: Array, q: Array, grad: Params, tol: Array) -> Array:
    """The largest |q_i.g / w_i| of the eigenvalues that are not zero, ()."""
    bent = jnp.abs(w) > tol
    along = jnp.matmul(q.T, tree.ravel(grad).astype(q.dtype), precision=jax.lax.Precision.HIGHEST)
    return jnp.max(jnp.where(bent, jnp.abs(along) / jnp.where(bent, jnp.abs(w), 1), 0))


def _coded(definite: Array, critical: Array) -> Array:
    """The code of (1); INCONCLUSIVE where the test is silent."""
    code = jnp.asarray(int(CriticalKind.INCONCLUSIVE), jnp.int32)
    for kind, means in OF_DEFINITE.items():
        code = jnp.where(definite == int(kind), jnp.int32(means), code)
    return jnp.where(critical, code, jnp.int32(CriticalKind.NOT_CRITICAL))


@functools.partial(jax.jit, static_argnames=("value_fn", "caller"))
def _second_order(
    params: Params, args: Any, tolerance: Any, gtol: Any, *, value_fn: Any, caller: str
) -> CriticalPoint:
    """The second derivative test with the whole Hessian."""
    fn, point = objective.real(value_fn, params, args=args, caller=caller)
    at = linearized(fn, point)
    assert at.product is not None
    w, q = signs.eigen(densely(at.product, point))
    n, largest = w.shape[0], jnp.max(jnp.abs(w))
    tol = _spectrum.tolerance_of(tolerance, largest, n, tree.coarsest_eps(params))
    within, inertia = grad_tolerance(gtol, largest, params), signs.count(w, tol)
    grad_norm, step = tree.norm(at.grad), _newton_step(w, q, at.grad, tol)
    critical = grad_norm <= within
    if gtol is None:
        near = tree.coarsest_eps(params) ** (1 / 3) * jnp.maximum(1, tree.norm(params))
        critical &= step <= near
    return CriticalPoint(
        params=params,
        value=at.value,
        grad_norm=grad_norm,
        code=_coded(signs.kind_of(inertia, n), critical),
        eigenvalues=w,
        eigenvectors=q,
        inertia=inertia,
        order=jnp.zeros((), jnp.int32),
        tolerance=tol,
        grad_tolerance=within,
        newton_step=step,
        num_products=jnp.asarray(n, jnp.int32),
    )


@functools.partial(jax.jit, static_argnames=("value_fn", "caller"))
def _by_ends(
    params: Params,
    args: Any,
    pairs: Pairs,
    tolerance: Any,
    gtol: Any,
    *,
    value_fn: Any,
    caller: str,
) -> CriticalPoint:
    """The second derivative test with the ends of the spectrum."""
    fn, point = objective.real(value_fn, params, args=args, caller=caller)
    at = value_and_grad(fn, point)
    tol = _spectrum.tolerance_of(tolerance, pairs.norm, tree.size(point), tree.coarsest_eps(params))
    within, grad_norm = grad_tolerance(gtol, pairs.norm, params), tree.norm(at.grad)
    definite = signs.kind_of_ends(pairs.values, pairs.residual_norms, tol)
    return CriticalPoint(
        params=params,
        value=at.value,
        grad_norm=grad_norm,
        code=_coded(definite, grad_norm <= within),
        eigenvalues=pairs.values,
        eigenvectors=None,
        inertia=None,
        order=jnp.zeros((), jnp.int32),
        tolerance=tol,
        grad_tolerance=within,
        newton_step=None,
        num_products=pairs.num_products,
    )


@functools.partial(jax.jit, static_argnames=("value_fn", "caller", "max_order"))
def _resolved(
    found: CriticalPoint, args: Any, *, value_fn: Any, caller: str, max_order: int
) -> CriticalPoint:
    """The same, with what terms of higher order say where the test was silent."""
    fn, point = objective.real(value_fn, found.params, args=args, caller=caller)
    vectors = found.eigenvectors
    assert found.inertia is not None
    assert vectors is not None

    def look() -> LeadingForm:
        return leading_form(
            lambda v: fn(tree.unravel(v, point)),
            tree.ravel(point),
            found.eigenvalues,
            vectors,
            found.tolerance,
            max_order=max_order,
        )

    silent = (found.code == int(CriticalKind.INCONCLUSIVE)) & (found.inertia[1] > 0)
    no = jnp.array(False)
    form = tree.while_once(silent, look, LeadingForm(no, no, no, jnp.zeros((), jnp.int32)))
    ascends, descends, definite, order = jax.tree.leaves(form)
    up, down = ascends | (found.inertia[0] > 0), descends | (found.inertia[2] > 0)
    code = jnp.asarray(int(CriticalKind.INCONCLUSIVE), jnp.int32)
    code = jnp.where(definite & ~down, jnp.int32(CriticalKind.DEGENERATE_MINIMUM), code)
    code = jnp.where(definite & ~up, jnp.int32(CriticalKind.DEGENERATE_MAXIMUM), code)
    code = jnp.where(up & down, jnp.int32(CriticalKind.DEGENERATE_NEITHER), code)
    return found._replace(code=jnp.where(silent, code, found.code), order=order)


def classify(
    value_fn: Any,
    params: Params,
    *,
    args: Any,
    tolerance: Any,
    gtol: Any,
    max_order: int,
    dense: bool | None,
    key: Any,
    max_products: int | None,
    caller: str,
) -> CriticalPoint:
    """See `hesskit.classify_critical_point`."""
    errors.check_number(tolerance, name="tolerance")
    errors.check_number(gtol, name="gtol")
    errors.check_count(max_order, name="max_order", low=2)
    params = errors.check_params(params)
    fn = inputs.hashable(errors.check_callable(value_fn, name="value_fn"))
    op = _entry.as_operator(fn, params, args=args, caller=caller)
    if not _entry.takes_dense(op, dense):
        pairs = _spectrum.pairs_at_ends(op, lowest=1, highest=1, key=key, max_products=max_products)
        return _by_ends(params, args, pairs, tolerance, gtol, value_fn=fn, caller=caller)
    found = _second_order(params, args, tolerance, gtol, value_fn=fn, caller=caller)
    decided = not answer.unknown(found.code) and found.kind != CriticalKind.INCONCLUSIVE
    if max_order < 3 or decided:
        return found
    return _resolved(found, args, value_fn=fn, caller=caller, max_order=int(max_order))
