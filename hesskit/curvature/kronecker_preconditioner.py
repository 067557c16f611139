r"""Kronecker factors of a model as a preconditioner of conjugate gradients.

At each new point one pass back through the model gives factors of every leaf that a product,
convolution or look-up takes (linalg/kronecker_factors.py); their running means M, by eigenvectors,
precondition by

    (M + damping)^{-1},    damping at least 1e-3 of the mean curvature of M         (1)

Of a matrix-free method this takes the scales of layers and inputs; what remains is for CG.

Source: Martens & Grosse (2015), sections 5 and 6.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import blocks, errors, tree
from hesskit.core.blocks import Block
from hesskit.core.keys import as_key
from hesskit.core.structured import Structured
from hesskit.core.types import Array, Params, Product
from hesskit.linalg import kronecker as factors
from hesskit.linalg import kronecker_basis, kronecker_factors, kronecker_reading, whitened
from hesskit.linalg.operator import Preconditioner
from hesskit.linalg.slots import empty_slots, from_trees, in_trees

DECAY = 0.7
"""Of the running means, by point: as in kfac."""
LEAST = 1e-3
"""Damping over the mean curvature of M, at least."""


class KroneckerState(NamedTuple):
    """The state of the preconditioner."""

    means: Params  # factors, as three trees like params
    basis: Params  # their eigenvectors
    curvature: Array  # (), the mean curvature of M
    num: Array  # (), int32, points that the means hold
    seed: Array  # (), uint32, of the random slopes


class _Options(NamedTuple):
    decay: float
    estimator: str
    sharing: str
    shared: str
    max_factor_dim: int


def _blocks(params: Params, max_dim: int) -> tuple[Block, ...]:
    """What stands for each leaf: factors, or a diagonal; biases join no weight."""
    return tuple(
        Block("", shape, "diagonal" if shape.split is None else "kronecker", ())
        for shape in factors.shapes(params, max_dim)
    )


def _init(params: Params, *, options: _Options, key: Any) -> KroneckerState:
    if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(params)):
        raise TypeError("kronecker_preconditioner takes real params; split complex leaves in two")
    structure = jax.tree.structure(params)
    slots = empty_slots(params, factors.shapes(params, options.max_factor_dim))
    return KroneckerState(
        in_trees(slots, structure),
        in_trees(kronecker_basis.empty(slots), structure),
        jnp.zeros((), tree.result_dtype(params)),
        jnp.zeros((), jnp.int32),
        jax.random.bits(as_key(key), (), jnp.uint32),
    )


def _update(
    state: KroneckerState, product: Product, params: Params, *, options: _Options
) -> KroneckerState:
    """The means with one pass more; one that is not finite changes nothing."""
    fn = getattr(product, "objective", None)
    if not isinstance(fn, Structured):
        raise TypeError(whitened.plain("kronecker_preconditioner", of_model=True))
    most, shared = options.max_factor_dim, options.shared
    plan = blocks.plan(
        lambda p: fn.inner(p)[0], params, max_dim=most, shared=shared, joined=False, fixed=True
    )
    structure = jax.tree.structure(params)
    old = from_trees(state.means, structure)
    seed = state.seed + state.num.astype(jnp.uint32)
    new = kronecker_reading.estimate(
        kronecker_reading.read(fn, params, plan),
        seed,
        options.estimator,
        lambda p: kronecker_factors.statistics(plan, p, old, sharing=options.sharing),
        num=kronecker_reading.draws(plan, state.num),
    )
    means = factors.mixed(old, new, factors.weight_of_next(state.num, options.decay))
    found = plan.blocks
    basis = kronecker_basis.turned(factors.normal(means, found), found)
    total = kronecker_basis.trace(basis, found, state.curvature.dtype)
    made = KroneckerState(
        in_trees(means, structure),
        in_trees(basis, structure),
        total / max(tree.size(params), 1),
        state.num + 1,
        state.seed,
    )
    return tree.where(tree.all_finite(made), made, state)


def _apply(state: KroneckerState, vector: Params, damping: Array, *, max_dim: int) -> Params:
    basis = kronecker_basis.basis_from_trees(state.basis, jax.tree.structure(vector))
    known = jnp.where(state.curvature > 0, state.curvature, 1)
    least = LEAST * known
    shift = jnp.maximum(damping.astype(least.dtype), least)
    solved = kronecker_basis.solve(basis, _blocks(vector, max_dim), vector, shift)
    return tree.where(state.num > 0, solved, vector)


@functools.cache
def kronecker_preconditioner(
    *,
    decay: float = DECAY,
    estimator: str = "sampled",
    sharing: str = "expand",
    shared: str = "sum",
    key: int = 0,
    max_factor_dim: int = blocks.MAX_DIM,
) -> Preconditioner:
    r"""Kronecker factors read from the model, from one pass back at each new point.

    For models inside `hesskit.composite(loss, model)`, in any method that takes `preconditioner=`:
    `hessian_free`, `newton_cg`, `natural_gradient`, `gauss_newton` and `levenberg_marquardt`. The
    factors are those of `hesskit.kfac`, but that a bias has a diagonal block of its own.

    Args:
      decay: of the running means over points, in [0, 1).
      estimator: "sampled" or "exact", as in `hesskit.kfac`.
      sharing: "expand" or "reduce", as in `hesskit.kfac`.
      shared: "sum" or "sampled", as in `hesskit.kfac`.
      key: an int, of the random slopes.
      max_factor_dim: a factor of more rows is a diagonal.

    Returns:
      A `Preconditioner`. Its state holds 2 (a^2 + b^2) + a b numbers for an (a, b) leaf.

    Raises:
      ValueError: an argument is out of its range.
      TypeError: a number was expected; in `init`, a leaf is complex; in `update`, the objective has
        no structure.

    Cost: 2.5 gradients and the eigenvectors of the factors at a new point, four products of each
    leaf with a matrix whenever it is applied.

    Example:
      >>> import functools, jax, jax.numpy as jnp, hesskit
      >>> loss = hesskit.composite(hesskit.losses.squared_error(), lambda w, x: x @ w)
      >>> x, w = jnp.array([[1.0, 2.0], [3.0, 5.0]]), jnp.zeros((2, 1))
      >>> args = x, x @ jnp.array([[2.0], [-1.0]])
      >>> factors = hesskit.kronecker_preconditioner()
      >>> opt = hesskit.natural_gradient(damping=0.0, linear_solver="cg", preconditioner=factors)
      >>> update = jax.jit(functools.partial(opt.update, value_fn=loss))
      >>> print(update(jax.grad(loss)(w, *args), opt.init(w), w, args=args)[0].round(2))
      [[ 2.]
       [-1.]]

    References:
      Martens & Grosse (2015), ICML.
    """
    errors.check_number(decay, name="decay", high=1.0, none=False)
    if decay == 1:
        raise ValueError("decay must lie in [0, 1), got 1")
    errors.check_choice(estimator, kronecker_reading.ESTIMATORS, name="estimator")
    errors.check_choice(sharing, kronecker_factors.SHARING, name="sharing")
    errors.check_choice(shared, blocks.SHARED, name="shared")
    errors.check_count(max_factor_dim, name="max_factor_dim")
    as_key(key)
    options = _Options(decay, estimator, sharing, shared, max_factor_dim)
    return Preconditioner(
        init=functools.partial(_init, options=options, key=key),
        update=functools.partial(_update, options=options),
        apply=functools.partial(_apply, max_dim=max_factor_dim),
    )
