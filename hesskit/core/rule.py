"""What distinguishes one trial method from another: types alone, the machine is core/trial.py."""

from collections.abc import Callable
from typing import Any, NamedTuple

from hesskit.core.bounds import Bounds
from hesskit.core.derivatives import Evaluation, linearized
from hesskit.core.types import Array, Params, Scalar


class Step(NamedTuple):
    """A proposed step. `step` and `product` (B s, for the model's matrix B) are like params.

    `norm` is the length of the step in the unit of `size`; `penalty` is what the model adds to
    g.s + s.Bs/2 (the cubic term); `on_boundary` whether `size` held the step back.
    """

    step: Params
    product: Params | None
    norm: Array
    on_boundary: Array
    penalty: Scalar = 0.0


class Built(NamedTuple):
    """A model at a kept point.

    `indefinite` says that negative curvature was found there; `at_rest`, of a rule that judges it,
    that nothing is left to gain.
    """

    model: Any
    indefinite: Array
    num_products: Array
    at_rest: Array | bool = False


class Rule(NamedTuple):
    """What distinguishes one trial method from another.

    Attributes:
      info: the method's Info type; its fields begin with `INFO_FIELDS`.
      empty: `params -> model`, shapes of the model.
      build: `(evaluation, rhs, model, context) -> Built`: the only place that spends products.
      solve: `(model, grad, size, context) -> Step`.
      adapt: `(size, step_norm, on_boundary, trial) -> size`.
      first_size: `(model, grad, context) -> size`, from the first model.
      describe: `(model, size) -> dict` of the Info's own fields.
      size: the first size as a number, or a schedule of the count, or None for `first_size`.
      evaluate: `(fn, params, has_aux=...) -> Evaluation` with what `build` needs.
      leaves_saddles: a zero gradient under negative curvature does not end the method.
      looks_at_rest: where the gradient is not zero, negative curvature may be there unseen.
      noise: `model -> ()`, rounding of f beyond that of its own digits, which the model knows.
      judges_rest: `build` says where nothing is left to gain, in place of |grad| <= tolerance.
      bounds: what core/bounds.py parses, in the structure of the machine's params, of a rule whose
        `build` and `solve` heed `context.bounds`.
      evaluate_many: `evaluate` for an eager rule, where that is another.
      eager: `build` runs at every trial and is taken where it is needed: of many problems side by
        side some nearly always need it, and a loop of one trip is a wall inside the program.
    """

    info: type
    empty: Callable[..., Any]
    build: Callable[..., Built]
    solve: Callable[..., Step]
    adapt: Callable[..., Array]
    first_size: Callable[..., Array]
    describe: Callable[..., dict[str, Any]]
    size: Any = None
    evaluate: Callable[..., Evaluation] = linearized
    leaves_saddles: bool = True
    looks_at_rest: bool = False
    noise: Callable[[Any], Array] | None = None
    judges_rest: bool = False
    bounds: Any = None
    evaluate_many: Callable[..., Evaluation] | None = None
    eager: bool = False


class Context(NamedTuple):
    """What a rule may know besides its model: the kept point and when its gradient is zero."""

    params: Params
    size: Array
    at_rest: Array  # () bool
    tolerance: Array | float = 0.0  # () for |grad|
    bounds: Bounds | None = None
