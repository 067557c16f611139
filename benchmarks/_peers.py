"""hesskit and its peers behind one call: `prepare(fn, n, dtype)` gives `solve(x0) -> Outcome`.

`prepare` builds and jits once per problem, so that every start after the first reuses the compiled
program. Tolerances are tightened alike (`GTOL`), so that every solver runs to its floor; radii,
memories and line searches stay at each solver's own defaults. A run is limited by its number of
steps (`MAX_STEPS_SECOND`, `MAX_STEPS_LARGE` for dense methods at n > `LARGE`, `MAX_STEPS_FIRST`),
never by the clock.

What is counted: values, gradients, dense Hessians and Hessian products that the solver asked for.
SciPy's are counted at the call. optimistix reports steps only, each of which evaluates the value
and at most one gradient; both are counted. optax's and jaxopt's line searches take value and
gradient at each trial.
"""

import functools
import importlib
import math
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

GTOL = {"float64": 1e-10, "float32": 1e-5}
MAX_STEPS_SECOND = 2000
MAX_STEPS_LARGE = 500
MAX_STEPS_FIRST = 10_000
LARGE = 200
NOT_LARGE = ("scipy.BFGS",)  # multiplies n x n matrices at each step: minutes a run at n = 1000
STUCK = 30  # rejected trials in a row: the radius fell by 4^30 = 1e18, nothing can follow

DENSE_METHODS = ("trust_region", "cubic_newton", "damped_newton", "saddle_free_newton", "newton")


class Outcome(NamedTuple):
    """What one run returned, and what it asked for."""

    x: np.ndarray
    num_values: int
    num_grads: int
    num_hessians: int
    num_products: int
    claims_success: bool
    seconds: float
    status: str

    def cost(self) -> float:
        """Gradient-equivalents: value 1, gradient 2, product 4, dense Hessian 2 n."""
        dense = 2 * self.x.size * self.num_hessians
        return self.num_values + 2 * self.num_grads + 4 * self.num_products + dense


Solve = Callable[[jax.Array], Outcome]
Prepare = Callable[[Callable, int, str], Solve]


def max_steps(n: int, *, first_order: bool = False) -> int:
    """The bound on steps, by size and class, the same for every solver of the class."""
    if first_order:
        return MAX_STEPS_FIRST
    return MAX_STEPS_SECOND if n <= LARGE else MAX_STEPS_LARGE


def _timed(run: Callable, *args):
    begin = time.perf_counter()
    answer = jax.block_until_ready(run(*args))
    return answer, time.perf_counter() - begin


# ---- hesskit ---------------------------------------------------------------------------------


def _hesskit(method: str | None) -> Prepare:
    def prepare(fn, n, dtype):
        hesskit = importlib.import_module("hesskit")
        optimizer = getattr(hesskit, method)() if method else None
        # optimizer=None is run just as a user would: no bound and no tolerance given.
        limit = {"gtol": GTOL[dtype], "max_steps": max_steps(n)} if method else {}

        def own(x):  # its own function: no program is shared with another solver of this table
            return fn(x)

        def solve(x0):
            result, seconds = _timed(lambda: hesskit.minimize(own, x0, optimizer, **limit))
            products, hessians = int(result.num_products), 0
            name = str(result.method)
            if name.split("(")[0] in DENSE_METHODS:  # a dense Hessian is counted as n products
                products, hessians = 0, math.ceil(products / n)
            return Outcome(
                np.asarray(result.params),
                int(result.num_values),
                int(result.num_grads),
                hessians,
                products,
                bool(result.success),
                seconds,
                f"{name}: {_status_name(result.status)}",
            )

        return solve

    return prepare


def _status_name(status) -> str:
    status_module = importlib.import_module("hesskit.core.status")
    return status_module.Status(int(status)).name


# ---- SciPy -----------------------------------------------------------------------------------


class _Stuck(Exception):
    """Raised through SciPy when a trust region has rejected STUCK trials in a row."""


class _Counted:
    """A jitted function of x as SciPy wants it: float64 in and out, and counted."""

    def __init__(self, compiled, dtype):
        self.function, self.dtype, self.calls = compiled, dtype, 0

    def __call__(self, *arrays):
        self.calls += 1
        answer = self.function(*(np.asarray(a, self.dtype) for a in arrays))
        return np.asarray(answer, np.float64) if answer.ndim else float(answer)


class _StuckWatch:
    """Keeps the current iterate and stops a trust region that no longer moves."""

    def __init__(self, x0):
        self.x, self.stays = np.asarray(x0, np.float64), 0

    def __call__(self, xk):
        self.stays = self.stays + 1 if np.array_equal(xk, self.x) else 0
        self.x = np.array(xk)
        if self.stays >= STUCK:
            raise _Stuck


@functools.lru_cache(maxsize=1)
def _compiled_calculus(fn):
    """Value, gradient, dense Hessian and Hessian product, one program each for all methods."""

    def product(x, v):
        return jax.jvp(jax.grad(fn), (x,), (v,))[1]

    return tuple(jax.jit(f) for f in (fn, jax.grad(fn), jax.hessian(fn), product))


_SCIPY = {  # method -> the curvature it takes
    "trust-exact": "hess",
    "trust-ncg": "hessp",
    "trust-krylov": "hessp",
    "Newton-CG": "hessp",
    "BFGS": None,
    "L-BFGS-B": None,
}


def _scipy_options(method: str, n: int, dtype: str) -> dict:
    steps = max_steps(n, first_order=_SCIPY[method] is None)
    if method == "Newton-CG":  # its only tolerance: the mean step per coordinate
        return {"xtol": {"float64": 1e-12, "float32": 1e-7}[dtype], "maxiter": steps}
    if method == "L-BFGS-B":
        bounds = {"maxiter": steps, "maxfun": 2 * steps}
        return {"gtol": GTOL[dtype], "ftol": 0.0, **bounds}
    return {"gtol": GTOL[dtype], "maxiter": steps}


def _scipy(method: str) -> Prepare:
    def prepare(fn, n, dtype):
        optimize = importlib.import_module("scipy.optimize")
        counters = tuple(_Counted(f, dtype) for f in _compiled_calculus(fn))
        value, grad, hessian, product = counters
        curvature = {"hess": {"hess": hessian}, "hessp": {"hessp": product}}.get(_SCIPY[method], {})
        options = _scipy_options(method, n, dtype)

        def solve(x0):
            for counter in counters:
                counter.calls = 0
            watch = _StuckWatch(x0)
            more = {**curvature, "callback": watch} if method.startswith("trust") else curvature
            begin = time.perf_counter()
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                try:
                    start = np.asarray(x0, np.float64)
                    answer = optimize.minimize(
                        value, start, jac=grad, method=method, options=options, **more
                    )
                    x, success, status = answer.x, bool(answer.success), answer.message
                except _Stuck:
                    x, success, status = watch.x, False, "radius fell to nothing"
                except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
                    x, success, status = watch.x, False, f"raised {type(error).__name__}: {error}"
            counts = [counter.calls for counter in counters]
            seconds = time.perf_counter() - begin
            return Outcome(np.asarray(x, dtype), *counts, success, seconds, str(status))

        return solve

    return prepare


# ---- optimistix, optax, jaxopt ---------------------------------------------------------------


def _compiled(run: Callable) -> Solve:
    """A solve from a jitted `run(x0) -> x, num_values, num_grads, success`."""
    run = jax.jit(run)

    def solve(x0):
        (x, num_values, num_grads, success), seconds = _timed(run, x0)
        counts = (int(num_values), int(num_grads), 0, 0)
        return Outcome(np.asarray(x), *counts, bool(success), seconds, "")

    return solve


def _optimistix(name: str) -> Prepare:
    def prepare(fn, n, dtype):
        optx = importlib.import_module("optimistix")
        solver = getattr(optx, name)(rtol=GTOL[dtype], atol=GTOL[dtype])
        steps = max_steps(n, first_order=True)

        def run(x0):
            answer = optx.minimise(lambda y, args: fn(y), solver, x0, max_steps=steps, throw=False)
            count = answer.stats["num_steps"]
            return answer.value, count, count, answer.result == optx.RESULTS.successful

        return _compiled(run)

    return prepare


def _optax_lbfgs(fn, n, dtype):
    optax = importlib.import_module("optax")
    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(fn)
    steps, gtol = max_steps(n, first_order=True), GTOL[dtype]

    def body(carry):
        x, state, step, count, _ = carry
        value, grad = value_and_grad(x, state=state)
        updates, state = optimizer.update(grad, state, x, value=value, grad=grad, value_fn=fn)
        trials = optax.tree_utils.tree_get(state, "num_linesearch_steps")
        grad_norm = jnp.linalg.norm(optax.tree_utils.tree_get(state, "grad"))
        count = count + trials.astype(count.dtype)
        return optax.apply_updates(x, updates), state, step + 1, count, grad_norm

    def going(carry):
        _, _, step, _, grad_norm = carry
        return (step < steps) & (grad_norm > gtol)  # also false once the gradient is NaN

    def run(x0):
        zero = jnp.zeros((), jnp.int32)
        begin = (x0, optimizer.init(x0), zero, zero, jnp.full((), jnp.inf, x0.dtype))
        x, _, _, count, grad_norm = jax.lax.while_loop(going, body, begin)
        return x, count + 1, count + 1, grad_norm <= gtol

    return _compiled(run)


def _jaxopt(name: str) -> Prepare:
    def prepare(fn, n, dtype):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            jaxopt = importlib.import_module("jaxopt")
        steps = max_steps(n, first_order=True)
        solver = getattr(jaxopt, name)(fun=fn, maxiter=steps, tol=GTOL[dtype])

        def run(x0):
            answer = solver.run(x0)
            state = answer.state
            counts = (state.num_fun_eval, state.num_grad_eval)
            return answer.params, *counts, state.error <= GTOL[dtype]

        return _compiled(run)

    return prepare


SOLVERS: dict[str, Prepare] = {
    "hesskit": _hesskit(None),
    **{
        f"hesskit.{name}": _hesskit(name)
        for name in (
            "trust_region",
            "newton_cg",
            "cubic_newton",
            "damped_newton",
            "saddle_free_newton",
            "newton",
            "lbfgs",
        )
    },
    **{f"scipy.{method}": _scipy(method) for method in _SCIPY},
    **{f"optimistix.{name}": _optimistix(name) for name in ("BFGS", "LBFGS", "NonlinearCG")},
    "optax.lbfgs": _optax_lbfgs,
    **{f"jaxopt.{name}": _jaxopt(name) for name in ("LBFGS", "BFGS")},
}
