"""hesskit: second-order optimization for JAX."""

from hesskit.core.status import Status
from hesskit.curvature.hessian import hessian, hessian_operator, hvp
from hesskit.linalg.operator import Operator, Preconditioner
from hesskit.solvers.minimize import minimize
from hesskit.solvers.result import Result
from hesskit.transforms.cubic_newton import cubic_newton, scale_by_cubic_newton
from hesskit.transforms.damped_newton import damped_newton, scale_by_damped_newton
from hesskit.transforms.newton import newton, scale_by_newton
from hesskit.transforms.newton_cg import newton_cg, scale_by_newton_cg
from hesskit.transforms.saddle_free_newton import saddle_free_newton, scale_by_saddle_free_newton
from hesskit.transforms.trust_region import scale_by_trust_region, trust_region

__all__ = [
    "Operator",
    "Preconditioner",
    "Result",
    "Status",
    "cubic_newton",
    "damped_newton",
    "hessian",
    "hessian_operator",
    "hvp",
    "minimize",
    "newton",
    "newton_cg",
    "saddle_free_newton",
    "scale_by_cubic_newton",
    "scale_by_damped_newton",
    "scale_by_newton",
    "scale_by_newton_cg",
    "scale_by_saddle_free_newton",
    "scale_by_trust_region",
    "trust_region",
]
