"""hesskit: second-order optimization for JAX."""

from hesskit.core.check import check_value_fn
from hesskit.core.microbatch import microbatched
from hesskit.core.penalty import l2
from hesskit.core.status import Status
from hesskit.curvature.hessian import hessian, hessian_operator, hvp
from hesskit.linalg.operator import Operator, Preconditioner
from hesskit.solvers.minimize import minimize
from hesskit.solvers.result import Result
from hesskit.transforms.cubic_newton import cubic_newton, scale_by_cubic_newton
from hesskit.transforms.damped_newton import damped_newton, scale_by_damped_newton
from hesskit.transforms.lbfgs import lbfgs, scale_by_lbfgs
from hesskit.transforms.linesearch import scale_by_hager_zhang_linesearch
from hesskit.transforms.masked import freeze, masked
from hesskit.transforms.newton import newton, scale_by_newton
from hesskit.transforms.newton_cg import newton_cg, scale_by_newton_cg
from hesskit.transforms.partition import partition
from hesskit.transforms.recycle import last_info, value_and_grad_from_state
from hesskit.transforms.saddle_free_newton import saddle_free_newton, scale_by_saddle_free_newton
from hesskit.transforms.ssbroyden import ssbroyden
from hesskit.transforms.trust_region import scale_by_trust_region, trust_region

__all__ = [
    "Operator",
    "Preconditioner",
    "Result",
    "Status",
    "check_value_fn",
    "cubic_newton",
    "damped_newton",
    "freeze",
    "hessian",
    "hessian_operator",
    "hvp",
    "l2",
    "last_info",
    "lbfgs",
    "masked",
    "microbatched",
    "minimize",
    "newton",
    "newton_cg",
    "partition",
    "saddle_free_newton",
    "scale_by_cubic_newton",
    "scale_by_damped_newton",
    "scale_by_hager_zhang_linesearch",
    "scale_by_lbfgs",
    "scale_by_newton",
    "scale_by_newton_cg",
    "scale_by_saddle_free_newton",
    "scale_by_trust_region",
    "ssbroyden",
    "trust_region",
    "value_and_grad_from_state",
]
