"""Every transform that honors the contract, by kind.

A new transform is one `Case` for each of its forms; the suite then runs it through every clause
that its kind is entitled to. Forms of one factory share nearly all of their code, so `make test`
takes its default and one or two of each other kind; `_more` marks the others `forms`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax
import pytest

import hesskit
from tests.contracts.support import Fn, structured

STRUCTURED = (
    hesskit.gauss_newton,
    hesskit.hessian_free,
    hesskit.kfac,
    hesskit.levenberg_marquardt,
    hesskit.natural_gradient,
    hesskit.scale_by_gauss_newton,
    hesskit.scale_by_hessian_free,
    hesskit.scale_by_kfac,
    hesskit.scale_by_levenberg_marquardt,
    hesskit.scale_by_natural_gradient,
)
"""Factories of transforms that need an objective with its structure."""


class Case(NamedTuple):
    """A factory with its arguments; `make()` calls it, `of(fn)` is `fn` in the form it takes."""

    factory: Callable[..., optax.GradientTransformationExtraArgs]
    kwargs: dict[str, Any]
    name: str

    def make(self, **more: Any) -> optax.GradientTransformationExtraArgs:
        return self.factory(**self.kwargs, **more)

    def of(self, fn: Fn) -> Fn:
        needs = self.factory in STRUCTURED or self.kwargs.get("estimator") == "gnb"
        return structured(fn) if needs else fn


def _case(factory: Callable[..., Any], **kwargs: Any) -> Any:
    options = ",".join(f"{key}={item}" for key, item in kwargs.items())
    name = f"{factory.__name__}({options})" if options else factory.__name__
    return pytest.param(Case(factory, kwargs, name), id=name)


def _more(factory: Callable[..., Any], **kwargs: Any) -> Any:
    """A case for when the code that forms share has changed."""
    case = _case(factory, **kwargs)
    return pytest.param(*case.values, marks=(pytest.mark.slow, pytest.mark.forms), id=case.id)


DEFAULT_TRIALS = [
    _case(hesskit.newton),
    _case(hesskit.damped_newton),
    _case(hesskit.saddle_free_newton),
    _case(hesskit.trust_region),
    _case(hesskit.cubic_newton),
    _case(hesskit.newton_cg),
    _case(hesskit.gauss_newton),
    _case(hesskit.levenberg_marquardt),
    _case(hesskit.hessian_free),
]

DEFAULT_SEARCHES = [
    _case(hesskit.lbfgs),
    _case(hesskit.ssbroyden),
]

DEFAULTS = [*DEFAULT_TRIALS, *DEFAULT_SEARCHES]
"""The accepting form of every factory, with its own choices."""

TRIALS = [
    *DEFAULT_TRIALS,
    _more(hesskit.newton, modification="cholesky"),
    _more(hesskit.damped_newton, damping=1e-2),
    _more(hesskit.saddle_free_newton, num_krylov=3),
    _case(hesskit.trust_region, radius=0.5, scaling="curvature"),
    _more(hesskit.cubic_newton, sigma=0.5),
    _more(hesskit.newton_cg, radius=0.5),
    _case(hesskit.gauss_newton, linear_solver="cg"),
    _more(hesskit.levenberg_marquardt, radius=0.5, scaling=1.0),
    _more(hesskit.levenberg_marquardt, geodesic=True),
]
"""One update is one trial, from a model that may outlive it."""

SEARCHES = [
    *DEFAULT_SEARCHES,
    _case(hesskit.lbfgs, memory_size=3, scale_init_precond=False),
    _more(hesskit.ssbroyden, update="ssbfgs"),
]
"""One update is one line search, of gradients alone."""

GLOBALIZED = [*TRIALS, *SEARCHES]
"""Never an increase of a deterministic objective; a rejected step is exact zeros."""

_SCALED_TRIALS = [
    _more(hesskit.newton, learning_rate=0.5),
    _more(hesskit.damped_newton, learning_rate=0.5),
    _more(hesskit.saddle_free_newton, learning_rate=0.5),
    _more(hesskit.trust_region, learning_rate=0.5),
    _more(hesskit.cubic_newton, learning_rate=0.5),
    _case(hesskit.newton_cg, learning_rate=0.5),
    _more(hesskit.gauss_newton, learning_rate=0.5),
    _more(hesskit.levenberg_marquardt, learning_rate=0.5),
    _more(hesskit.hessian_free, learning_rate=0.5),
    _case(hesskit.natural_gradient, learning_rate=0.5),
    _case(hesskit.kfac, learning_rate=0.5),
    _more(hesskit.natural_gradient, learning_rate=0.5, momentum=0.5, linear_solver="cg"),
    _more(hesskit.kfac, learning_rate=0.5, eigenvalue_correction=True),
    _more(hesskit.kfac, learning_rate=0.5, estimator="exact"),
]

_SCALED_SEARCHES = [
    _case(hesskit.lbfgs, learning_rate=0.5),
    _more(hesskit.ssbroyden, learning_rate=0.5),
]

SCALED = [*_SCALED_TRIALS, *_SCALED_SEARCHES]
"""Nothing is judged; a zero update only where something is not finite."""

PAIRS = [
    (hesskit.scale_by_newton, hesskit.newton),
    (hesskit.scale_by_damped_newton, hesskit.damped_newton),
    (hesskit.scale_by_saddle_free_newton, hesskit.saddle_free_newton),
    (hesskit.scale_by_trust_region, hesskit.trust_region),
    (hesskit.scale_by_cubic_newton, hesskit.cubic_newton),
    (hesskit.scale_by_newton_cg, hesskit.newton_cg),
    (hesskit.scale_by_gauss_newton, hesskit.gauss_newton),
    (hesskit.scale_by_levenberg_marquardt, hesskit.levenberg_marquardt),
    (hesskit.scale_by_hessian_free, hesskit.hessian_free),
    (hesskit.scale_by_natural_gradient, hesskit.natural_gradient),
    (hesskit.scale_by_kfac, hesskit.kfac),
    (hesskit.scale_by_lbfgs, hesskit.lbfgs),
]

_UNNEGATED_TRIALS = [
    _case(hesskit.scale_by_levenberg_marquardt),
    *(_more(f) for f, _ in PAIRS[:-1] if f is not hesskit.scale_by_levenberg_marquardt),
]

UNNEGATED = [*_UNNEGATED_TRIALS, _case(hesskit.scale_by_lbfgs)]
"""The preconditioned gradient u of w - lr u, for chains."""

DIAGONALS = [
    _case(hesskit.sophia, learning_rate=0.1),
    _more(hesskit.sophia, learning_rate=0.1, estimator="gnb"),
    _case(hesskit.adahessian, learning_rate=0.1),
    _more(hesskit.scale_by_sophia),
    _more(hesskit.scale_by_adahessian),
]
"""What divides by an estimated diagonal: the value at a point is never asked for."""

BY_VALUE = [_more(hesskit.kfac), _more(hesskit.kfac, eigenvalue_correction=True)]
"""What judges a step by its value alone: the gradient there is not known to the state."""

LOOKING = [_case(hesskit.curvature_monitor)]
"""What hands updates on as they are, and looks at the objective."""

STEPPING = [*GLOBALIZED, *SCALED, *UNNEGATED, *DIAGONALS, *BY_VALUE]
"""What makes a step of its own."""

ALL = [*STEPPING, *LOOKING]

UNJUDGED = [*_SCALED_TRIALS, *_UNNEGATED_TRIALS]
"""What evaluates the objective and judges nothing."""

EVALUATING = [*GLOBALIZED, *UNJUDGED]
"""All but those that use the gradients they are given and nothing else."""

CALLING = [*EVALUATING, *DIAGONALS, *BY_VALUE, *LOOKING]
"""All whose `update` needs the objective."""

PAIRS += [
    (hesskit.scale_by_sophia, hesskit.sophia),
    (hesskit.scale_by_adahessian, hesskit.adahessian),
]
PARTS = {scale_by.__name__: (_case(scale_by), _case(factory)) for scale_by, factory in PAIRS}
"""Each scale_by_ form with the factory that is it and a learning rate."""

ONE_OF_A_KIND = ("trust_region", "lbfgs")
"""One on the machine of trials, one on that of line searches."""


def few(cases: list[Any]) -> list[Any]:
    """The cases of a clause that takes seconds each: all but one of a kind of machine are slow."""
    return [
        case
        if case.id in ONE_OF_A_KIND
        else pytest.param(*case.values, marks=[*case.marks, pytest.mark.slow], id=case.id)
        for case in cases
    ]
