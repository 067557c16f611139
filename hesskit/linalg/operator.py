r"""What a matrix-free algorithm needs of a preconditioner.

A preconditioner approximates (H + damping)^{-1} by a symmetric positive definite map that is
cheap to apply; the method measures its trust region in the norm |s|_M, M the approximation of H.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from hesskit.core.types import Array, Params, Product


class Preconditioner(NamedTuple):
    """Three pure functions; the state's shapes follow from params alone.

    Attributes:
      init: `init(params) -> state`.
      update: `update(state, product, params) -> state`, once at each new point, with the Hessian
        product there; may spend products.
      apply: `apply(state, vector, damping) -> vector`, (M + damping)^{-1} vector, symmetric
        positive definite.
    """

    init: Callable[[Params], Any]
    update: Callable[[Any, Product, Params], Any]
    apply: Callable[[Any, Params, Array], Params]
