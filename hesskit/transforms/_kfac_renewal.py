r"""When K-FAC renews its factors, and what it keeps of them.

Every few updates, each of the first ones, and after a rejected step (then the inverses alone),

    M <- decay M + (1 - decay) M_new,    lambda <- turn lambda,    (M + lambda)^{-1}     (1)

with M_new of one random vector of the outputs' curvature or of every column, and with a turn that
follows the ratio of what f fell by to what was promised. In place of inverses it may keep the
eigenvectors of the factors and the diagonal of the curvature in them, a mean likewise; then any
lambda serves.

Source: Martens & Grosse (2015), sections 5, 6.5 and 8; George et al. (2018), section 3.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import blocks, errors, tree
from hesskit.core.keys import as_key
from hesskit.core.method import State
from hesskit.core.types import Array, Params
from hesskit.linalg import kronecker as factors
from hesskit.linalg import kronecker_basis, kronecker_factors, kronecker_reading
from hesskit.linalg.kronecker_reading import Known, Passed, Reading
from hesskit.linalg.slots import Slots, empty_slots, from_trees, in_trees

PERIOD = 5
"""Updates between renewals: Martens & Grosse (2015), section 6.5, adapt lambda so often."""
LONGEST, SETTLING = 20, 20
"""Where steps are judged, renewals come one update later each 20, to every 20 (T3 there): factors
of a run that settles change less and less."""
DECAY = 0.7
"""Of the means of factors, by renewal: on a digits autoencoder better than 0.95 and 0.5."""
FIRST = 0.03
"""The first damping over the mean curvature."""
TURN = 0.8
"""What a good or bad ratio makes of the damping at a renewal."""


class Memory(NamedTuple):
    """What passes from update to update."""

    means: Params  # factors, as three trees like params
    inverses: Params  # of factors, or their eigenvectors and the means of S
    num: Array  # (), int32, samples in the means
    step: Params  # s_0
    good: Array  # (), the ratio of the last step taken
    stale: Array  # (), bool: the last step was rejected
    seed: Array  # (), uint32, of the random slopes to come


class Options(NamedTuple):
    """The arguments of a factory; see `kfac`."""

    name: str
    damping: Any
    momentum: Any
    norm_constraint: Any
    period: Any  # None means PERIOD, or what `_period` makes of it
    decay: Any
    estimator: str
    eigenvalue_correction: bool
    sharing: str
    shared: str
    key: Any
    inverses: str
    max_factor_dim: Any  # None means blocks.MAX_DIM
    weight_decay: Any = None
    objective: Any = None
    example: Any = None


def check(options: Options, *, accepting: bool) -> None:
    """Raises where an argument is out of its range, or has no meaning beside the others."""
    errors.check_number(options.damping, name="damping", open_low=True, schedule=True)
    idle = {
        "momentum": options.momentum is not None,
        "norm_constraint": options.norm_constraint is not None,
        "a schedule of damping": callable(options.damping),
    }
    for name in (name for name, given in idle.items() if given and accepting):
        raise ValueError(
            f"{options.name} takes {name} only with a learning_rate: without one it finds length, "
            "momentum and damping itself"
        )
    errors.check_number(options.momentum, name="momentum", high=1.0)
    errors.check_number(options.norm_constraint, name="norm_constraint", open_low=True)
    errors.check_count(options.period, name="period")
    errors.check_number(options.decay, name="decay", high=1.0, none=False)
    errors.check_choice(options.estimator, kronecker_reading.ESTIMATORS, name="estimator")
    corrected = options.eigenvalue_correction
    errors.check_choice(corrected, (False, True), name="eigenvalue_correction")
    errors.check_choice(options.sharing, kronecker_factors.SHARING, name="sharing")
    errors.check_choice(options.shared, blocks.SHARED, name="shared")
    errors.check_choice(options.inverses, factors.PLACES, name="inverses")
    errors.check_count(options.max_factor_dim, name="max_factor_dim")
    errors.check_number(options.weight_decay, name="weight_decay")
    as_key(options.key)


def empty(options: Options, point: Params, layout: tuple[blocks.Shape, ...]) -> Memory:
    """The memory before the first update."""
    structure, slots = jax.tree.structure(point), empty_slots(point, layout)
    empty = kronecker_basis.empty if options.eigenvalue_correction else tree.zeros_like
    return Memory(
        means=in_trees(slots, structure),
        inverses=in_trees(empty(slots), structure),
        num=jnp.zeros((), jnp.int32),
        step=tree.zeros_like(point),
        good=jnp.ones((), tree.result_dtype(point)),
        stale=jnp.array(False),
        seed=jax.random.bits(as_key(options.key), (), jnp.uint32),
    )


def inverses_of(options: Options, memory: Memory, structure: Any) -> Slots:
    """The inverses in the memory, or the eigenvectors."""
    read = kronecker_basis.basis_from_trees if options.eigenvalue_correction else from_trees
    return read(memory.inverses, structure)


def _period(options: Options, count: Array, accepting: bool) -> Any:
    """Updates from one renewal to the next."""
    if options.period is not None or not accepting:
        return PERIOD if options.period is None else options.period
    return jnp.clip(PERIOD + count // SETTLING, PERIOD, LONGEST)


def renewed(
    options: Options, state: State, at: Known, plan: blocks.Plan, accepting: bool, finite: Array
) -> tuple[Memory, Array, Array]:
    """Factors and inverses in the memory, lambda, and whether they are new."""
    memory: Memory = state.model
    period = _period(options, state.count, accepting)
    early = memory.num < jnp.minimum(period, PERIOD)
    due = early | (state.count % period == 0) | memory.stale
    due &= finite
    structure = jax.tree.structure(state.grad)
    old, held = from_trees(memory.means, structure), inverses_of(options, memory, structure)

    fresh = due & ~memory.stale
    seed = memory.seed + memory.num.astype(jnp.uint32)

    def estimate(seed: Array) -> tuple[Slots, Slots | None, Array]:
        return _estimated(options, plan, at.read(seed), seed, memory.num, (old, held))

    corrected = options.eigenvalue_correction
    before = (old, held if corrected else None, memory.num)
    means, turned, num = tree.while_once(fresh, estimate, before, seed)
    slots = factors.normal(means, plan.blocks)
    curvature = factors.trace(slots, plan.blocks) / max(tree.size(state.params), 1)
    damping = _damping(options, state, curvature.astype(state.size.dtype), due, accepting)

    def invert() -> Slots:
        new = factors.inverses(slots, plan.blocks, damping, place=options.inverses)
        return tree.where(factors.is_finite(new, plan.blocks), new, held)

    inverses = turned if corrected else tree.while_once(due, invert, held)
    made = memory._replace(
        means=in_trees(means, structure),
        inverses=in_trees(inverses, structure),
        num=num,
    )
    return made, damping, due


def _estimated(
    options: Options,
    plan: blocks.Plan,
    at: Reading,
    seed: Array,
    num: Array,
    before: tuple[Slots, Slots],
) -> tuple[Slots, Slots | None, Array]:
    """The means of factors, the eigenvectors where these are asked for, and how many samples."""
    old, held = before
    weight = factors.weight_of_next(num, options.decay)

    def estimate(of_pass: Callable[[Passed], Any]) -> Any:
        passes = kronecker_reading.draws(plan, num)
        return kronecker_reading.estimate(at, seed, options.estimator, of_pass, num=passes)

    new = estimate(lambda p: kronecker_factors.statistics(plan, p, old, sharing=options.sharing))
    mixed = factors.mixed(old, new, weight)
    fine = factors.is_finite(mixed, plan.blocks)
    means, num = tree.where(fine, mixed, old), num + fine.astype(num.dtype)
    if not options.eigenvalue_correction:
        return means, None, num
    basis = kronecker_basis.turned(
        factors.normal(means, plan.blocks), plan.blocks, place=options.inverses
    )
    fresh = estimate(lambda p: kronecker_factors.squares(plan, p, basis, sharing=options.sharing))
    turned = kronecker_basis.corrected(held, basis, fresh, weight)
    return means, tree.where(tree.all_finite(turned), turned, held), num


def _damping(
    options: Options, state: State, curvature: Array, due: Array, accepting: bool
) -> Array:
    """lambda: what was asked, or part of the mean curvature, moved by ratios if there are some."""
    memory: Memory = state.model
    eps = jnp.finfo(curvature.dtype).eps
    known = jnp.where(curvature > 0, curvature, 1)
    first = FIRST * known
    if options.damping is not None:
        asked = options.damping
        first = jnp.asarray(asked(state.count) if callable(asked) else asked, curvature.dtype)
    if not accepting:
        return jnp.where(due, first, state.size)
    turn = jnp.where(memory.good >= 0.75, TURN, jnp.where(memory.good >= 0.25, 1, 1 / TURN))
    moved = jnp.where(due & ~memory.stale, state.size * turn, state.size)
    most = known * tree.size(state.params) / eps
    moved = jnp.clip(moved, eps * known, most)
    return jnp.where((state.size > 0) & jnp.isfinite(state.size), moved, first)
