"""Why a run stopped: one code, one sentence, one piece of advice each.

A failed computation is a value with a sentence, never an exception: inside `jit` nothing can
raise. Codes are int32 in every Info and Result; 0 means that the run goes on.
"""

from enum import IntEnum


class Status(IntEnum):
    """Why a run stopped; `success` of a result says whether that is an answer.

    Attributes:
      RUNNING: 0, an update of a run that goes on.
      GRADIENT_TOL: the gradient is zero to gtol.
      VALUE_TOL: the value changed by less than ftol.
      STEP_TOL: the step was shorter than xtol.
      MAX_STEPS: `max_steps` are done; `state=result.state` goes on.
      NONFINITE_START: value or gradient at the start are NaN or infinite.
      NONFINITE_TRIALS: and so they are at every trial, however short the step.
      LINE_SEARCH_FAILED: no step, however short, lowers the value.
      ROUNDOFF_LIMITED: the dtype resolves no further descent.
      UNBOUNDED: the value falls without end.
      SADDLE: the gradient is zero, and the Hessian has a negative eigenvalue.
      SINGULAR: the curvature is singular or not finite, and gives no step.
      USER_STOP: the callback said so.
    """

    RUNNING = 0
    GRADIENT_TOL = 1
    VALUE_TOL = 2
    STEP_TOL = 3
    MAX_STEPS = 4
    NONFINITE_START = 5
    NONFINITE_TRIALS = 6
    LINE_SEARCH_FAILED = 7
    ROUNDOFF_LIMITED = 8
    UNBOUNDED = 9
    SADDLE = 10
    SINGULAR = 11
    USER_STOP = 12


TOLERANCES = (Status.GRADIENT_TOL, Status.VALUE_TOL, Status.STEP_TOL, Status.ROUNDOFF_LIMITED)
"""The statuses that are a success at a stationary point; no other status ever is."""

SENTENCES = {
    Status.RUNNING: "still running after {num_steps} steps; gradient norm {grad_norm:.1e}",
    Status.GRADIENT_TOL: "gradient norm {grad_norm:.1e} is zero to gtol, and no negative curvature "
    "is known",
    Status.VALUE_TOL: "the value changed by less than ftol; gradient norm {grad_norm:.1e}",
    Status.STEP_TOL: "the step was shorter than xtol; gradient norm {grad_norm:.1e}",
    Status.MAX_STEPS: "stopped after max_steps={num_steps} as asked; gradient norm "
    "{grad_norm:.1e}. Continue with state=result.state.",
    Status.NONFINITE_START: "value_fn or its gradient is not finite at the start; start where "
    "both are finite",
    Status.NONFINITE_TRIALS: "every trial step, however short, met a value or gradient that is "
    "not finite; the best finite point is returned. Check value_fn near it for log, sqrt or "
    "division at the edge of their domain.",
    Status.LINE_SEARCH_FAILED: "no trial step, however short, lowered the value although the "
    "gradient norm is {grad_norm:.1e}; is value_fn deterministic, its gradient right, and its "
    "scale within {dtype}?",
    Status.ROUNDOFF_LIMITED: "reached the rounding floor of {dtype} at value {value:.3g}, "
    "gradient norm {grad_norm:.1e}; {advice}",
    Status.UNBOUNDED: "the value fell to {value:.1e} without end: value_fn looks unbounded below; "
    "if this is a log-density, minimize its negative",
    Status.SADDLE: "gradient is zero but the Hessian has a negative eigenvalue: this is a saddle "
    "or a maximum. trust_region, cubic_newton, newton_cg and saddle_free_newton leave such points.",
    Status.SINGULAR: "the curvature is singular or not finite here, and no step could be made of "
    "it; start elsewhere or rescale the parameters; with plain newton use trust_region instead",
    Status.USER_STOP: "stopped by the callback after {num_steps} steps; gradient norm "
    "{grad_norm:.1e}",
}

AT_REST = (
    "to gtol the residual is zero or orthogonal to the Jacobian (gradient norm {grad_norm:.1e}, in "
    "its unit), and no negative curvature is known"
)
"""The sentence of GRADIENT_TOL where least squares ended by tests without a unit."""


def sentence(
    status: Status,
    *,
    value: float,
    grad_norm: float,
    num_steps: int,
    dtype: str = "float32",
    relative: bool = False,
) -> str:
    """The sentence of `status`, with the numbers of the run in it.

    Args:
      status: the code.
      value: the objective at the answer.
      grad_norm: the Euclidean norm of the gradient there.
      num_steps: trials judged.
      dtype: the dtype whose rounding limits the answer.
      relative: the gradient counts as zero although its norm is above the tolerance.

    Returns:
      One sentence and, where there is something to try, what to try.

    Example:
      >>> sentence(Status.MAX_STEPS, value=1.0, grad_norm=3.1e-2, num_steps=30)[:40]
      'stopped after max_steps=30 as asked; gra'
    """
    advice = {
        "float64": "rescale or reformulate value_fn for more digits",
        "complex128": "rescale or reformulate value_fn for more digits",
    }.get(dtype, "more digits need float64")
    by_offset = relative and status == Status.GRADIENT_TOL
    return (AT_REST if by_offset else SENTENCES[Status(status)]).format(
        value=value, grad_norm=grad_norm, num_steps=num_steps, dtype=dtype, advice=advice
    )
