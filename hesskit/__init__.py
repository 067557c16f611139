"""hesskit: second-order optimization for JAX."""

from hesskit.curvature.hessian import hessian, hvp
from hesskit.solvers.minimize import minimize
from hesskit.solvers.result import Result
from hesskit.transforms.newton_cg import newton_cg
from hesskit.transforms.trust_region import trust_region

__all__ = ["Result", "hessian", "hvp", "minimize", "newton_cg", "trust_region"]
