"""Every transform that honors the contract, by kind.

A new transform is one `Case` for each of its forms; the suite then runs it through every clause
that its kind is entitled to.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax
import pytest

import hesskit


class Case(NamedTuple):
    """A factory with its arguments; `make()` calls it."""

    factory: Callable[..., optax.GradientTransformationExtraArgs]
    kwargs: dict[str, Any]
    name: str

    def make(self, **more: Any) -> optax.GradientTransformationExtraArgs:
        return self.factory(**self.kwargs, **more)


def _case(factory: Callable[..., Any], **kwargs: Any) -> Any:
    options = ",".join(f"{key}={item}" for key, item in kwargs.items())
    name = f"{factory.__name__}({options})" if options else factory.__name__
    return pytest.param(Case(factory, kwargs, name), id=name)


DEFAULTS = [
    _case(hesskit.newton),
    _case(hesskit.damped_newton),
    _case(hesskit.saddle_free_newton),
    _case(hesskit.trust_region),
    _case(hesskit.cubic_newton),
    _case(hesskit.newton_cg),
]
"""The accepting form of every factory, with its own choices."""

GLOBALIZED = [
    *DEFAULTS,
    _case(hesskit.newton, modification="cholesky"),
    _case(hesskit.damped_newton, damping=1e-2),
    _case(hesskit.saddle_free_newton, num_krylov=3),
    _case(hesskit.trust_region, radius=0.5, scaling="curvature"),
    _case(hesskit.cubic_newton, sigma=0.5),
    _case(hesskit.newton_cg, radius=0.5),
]
"""Never an increase of a deterministic objective; a rejected step is exact zeros."""

SCALED = [
    _case(hesskit.newton, learning_rate=0.5),
    _case(hesskit.damped_newton, learning_rate=0.5),
    _case(hesskit.saddle_free_newton, learning_rate=0.5),
    _case(hesskit.trust_region, learning_rate=0.5),
    _case(hesskit.cubic_newton, learning_rate=0.5),
    _case(hesskit.newton_cg, learning_rate=0.5),
]
"""Nothing is judged; a zero update only where something is not finite."""

PAIRS = [
    (hesskit.scale_by_newton, hesskit.newton),
    (hesskit.scale_by_damped_newton, hesskit.damped_newton),
    (hesskit.scale_by_saddle_free_newton, hesskit.saddle_free_newton),
    (hesskit.scale_by_trust_region, hesskit.trust_region),
    (hesskit.scale_by_cubic_newton, hesskit.cubic_newton),
    (hesskit.scale_by_newton_cg, hesskit.newton_cg),
]

UNNEGATED = [_case(scale_by) for scale_by, _ in PAIRS]
"""The preconditioned gradient u of w - lr u, for chains."""

ALL = [*GLOBALIZED, *SCALED, *UNNEGATED]

PARTS = {_case(scale_by).id: (scale_by, factory) for scale_by, factory in PAIRS}
"""Each scale_by_ form with the factory that is it and a learning rate."""
