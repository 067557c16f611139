# The public names and where they are: for type checkers, and for __init__.py, which reads it.

from hesskit import plots as plots
from hesskit.analysis._critical import CriticalKind, CriticalPoint
from hesskit.analysis.check_hessian import HessianCheck, check_hessian
from hesskit.analysis.classify_critical_point import classify_critical_point
from hesskit.analysis.condition_number import ConditionNumber, condition_number
from hesskit.analysis.convexity import Convexity, ConvexityKind, convexity
from hesskit.analysis.definiteness import Definiteness, definiteness
from hesskit.analysis.diagonal import Diagonal, diagonal
from hesskit.analysis.diagonals import Diagonals, compare_diagonals
from hesskit.analysis.effective_dimension import EffectiveDimension, effective_dimension
from hesskit.analysis.eigenpairs import Eigenpairs, eigenpairs
from hesskit.analysis.find_critical_point import find_critical_point, find_critical_points
from hesskit.analysis.gradient_descent_rate import (
    GradientDescentRate,
    gradient_descent_rate,
)
from hesskit.analysis.logdet import LogDet, logdet
from hesskit.analysis.principal_curvatures import PrincipalCurvatures, principal_curvatures
from hesskit.analysis.spectral_density import SpectralDensity, spectral_density
from hesskit.analysis.taylor import RemainderOrder, TaylorModel, taylor
from hesskit.analysis.trace import Trace, trace
from hesskit.core import losses
from hesskit.core.check import check_value_fn
from hesskit.core.composite import composite
from hesskit.core.microbatch import microbatched
from hesskit.core.penalty import l2
from hesskit.core.per_example import per_example
from hesskit.core.residuals import least_squares_loss
from hesskit.core.score import score_objective
from hesskit.core.status import Status
from hesskit.curvature.diagonal import diagonal_preconditioner
from hesskit.curvature.fisher import fisher_operator
from hesskit.curvature.gauss_newton import gauss_newton_operator
from hesskit.curvature.hessian import hessian, hessian_operator, hvp
from hesskit.curvature.kronecker import KroneckerOperator, kronecker_operator
from hesskit.curvature.kronecker_preconditioner import kronecker_preconditioner
from hesskit.curvature.kronecker_table import KroneckerRow, KroneckerTable, kronecker_table
from hesskit.curvature.leafwise import leafwise_preconditioner
from hesskit.linalg.inertia import DefiniteKind
from hesskit.linalg.operator import Operator, Preconditioner
from hesskit.solvers.band import Band
from hesskit.solvers.curve_fit import curve_fit
from hesskit.solvers.curve_fit_many import curve_fit_many
from hesskit.solvers.fit_result import FitResult
from hesskit.solvers.laplace import Laplace, laplace
from hesskit.solvers.least_squares import least_squares
from hesskit.solvers.least_squares_many import least_squares_many
from hesskit.solvers.many import minimize_many
from hesskit.solvers.many_result import ManyFits, ManyResult
from hesskit.solvers.minimize import minimize
from hesskit.solvers.multistart import Multistart, multistart
from hesskit.solvers.result import Result
from hesskit.solvers.spread import Derived
from hesskit.transforms.adahessian import adahessian, scale_by_adahessian
from hesskit.transforms.cubic_newton import cubic_newton, scale_by_cubic_newton
from hesskit.transforms.curvature_monitor import CurvatureMonitorState, curvature_monitor
from hesskit.transforms.damped_newton import damped_newton, scale_by_damped_newton
from hesskit.transforms.gauss_newton import gauss_newton, scale_by_gauss_newton
from hesskit.transforms.hessian_free import hessian_free, scale_by_hessian_free
from hesskit.transforms.kfac import kfac, scale_by_kfac
from hesskit.transforms.lbfgs import lbfgs, scale_by_lbfgs
from hesskit.transforms.levenberg_marquardt import (
    levenberg_marquardt,
    scale_by_levenberg_marquardt,
)
from hesskit.transforms.linesearch import scale_by_hager_zhang_linesearch
from hesskit.transforms.masked import freeze, masked
from hesskit.transforms.natural_gradient import natural_gradient, scale_by_natural_gradient
from hesskit.transforms.newton import newton, scale_by_newton
from hesskit.transforms.newton_cg import newton_cg, scale_by_newton_cg
from hesskit.transforms.partition import partition
from hesskit.transforms.recycle import last_info, value_and_grad_from_state
from hesskit.transforms.saddle_free_newton import saddle_free_newton, scale_by_saddle_free_newton
from hesskit.transforms.sophia import scale_by_sophia, sophia
from hesskit.transforms.ssbroyden import ssbroyden
from hesskit.transforms.trust_region import scale_by_trust_region, trust_region

__version__: str

__all__ = [
    "Band",
    "ConditionNumber",
    "Convexity",
    "ConvexityKind",
    "CriticalKind",
    "CriticalPoint",
    "CurvatureMonitorState",
    "DefiniteKind",
    "Definiteness",
    "Derived",
    "Diagonal",
    "Diagonals",
    "EffectiveDimension",
    "Eigenpairs",
    "FitResult",
    "GradientDescentRate",
    "HessianCheck",
    "KroneckerOperator",
    "KroneckerRow",
    "KroneckerTable",
    "Laplace",
    "LogDet",
    "ManyFits",
    "ManyResult",
    "Multistart",
    "Operator",
    "Preconditioner",
    "PrincipalCurvatures",
    "RemainderOrder",
    "Result",
    "SpectralDensity",
    "Status",
    "TaylorModel",
    "Trace",
    "adahessian",
    "check_hessian",
    "check_value_fn",
    "classify_critical_point",
    "compare_diagonals",
    "composite",
    "condition_number",
    "convexity",
    "cubic_newton",
    "curvature_monitor",
    "curve_fit",
    "curve_fit_many",
    "damped_newton",
    "definiteness",
    "diagonal",
    "diagonal_preconditioner",
    "effective_dimension",
    "eigenpairs",
    "find_critical_point",
    "find_critical_points",
    "fisher_operator",
    "freeze",
    "gauss_newton",
    "gauss_newton_operator",
    "gradient_descent_rate",
    "hessian",
    "hessian_free",
    "hessian_operator",
    "hvp",
    "kfac",
    "kronecker_operator",
    "kronecker_preconditioner",
    "kronecker_table",
    "l2",
    "laplace",
    "last_info",
    "lbfgs",
    "leafwise_preconditioner",
    "least_squares",
    "least_squares_loss",
    "least_squares_many",
    "levenberg_marquardt",
    "logdet",
    "losses",
    "masked",
    "microbatched",
    "minimize",
    "minimize_many",
    "multistart",
    "natural_gradient",
    "newton",
    "newton_cg",
    "partition",
    "per_example",
    "principal_curvatures",
    "saddle_free_newton",
    "scale_by_adahessian",
    "scale_by_cubic_newton",
    "scale_by_damped_newton",
    "scale_by_gauss_newton",
    "scale_by_hager_zhang_linesearch",
    "scale_by_hessian_free",
    "scale_by_kfac",
    "scale_by_lbfgs",
    "scale_by_levenberg_marquardt",
    "scale_by_natural_gradient",
    "scale_by_newton",
    "scale_by_newton_cg",
    "scale_by_saddle_free_newton",
    "scale_by_sophia",
    "scale_by_trust_region",
    "score_objective",
    "sophia",
    "spectral_density",
    "ssbroyden",
    "taylor",
    "trace",
    "trust_region",
    "value_and_grad_from_state",
]
