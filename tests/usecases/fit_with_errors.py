"""A nested model fitted to data with errors, as users of scipy.curve_fit and lmfit do.

python tests/usecases/fit_with_errors.py [FOLDER]      pictures go to FOLDER
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import hesskit
import hesskit.plots

TRUE = {"peak": {"height": 8.0, "mu": 0.42, "width": 0.15}, "bg": {"a": 1.2, "b": 0.0}}


def model(params, x):
    """A Gaussian peak on a sloping background."""
    peak, bg = params["peak"], params["bg"]
    bell = jnp.exp(-0.5 * ((x - peak["mu"]) / peak["width"]) ** 2)
    return peak["height"] * bell + bg["a"] + bg["b"] * x


def measure(rng, num=120, err=0.3):
    """A spectrum with known errors; one bad point has an infinite one."""
    x = np.linspace(0.0, 1.0, num)
    errors = np.full(num, err)
    y = np.asarray(model(TRUE, x)) + errors * rng.normal(size=num)
    y[17], errors[17] = 40.0, np.inf
    return x, y, errors


def main(folder):
    """Fits, prints, draws."""
    rng = np.random.default_rng(0)
    x, y, err = measure(rng)
    start = {"peak": {"height": 10.0, "mu": 0.5, "width": 0.1}, "bg": {"a": 1.0, "b": 0.0}}
    lower = {"peak": {"height": 0.0, "mu": -jnp.inf, "width": 1e-3}, "bg": -jnp.inf}
    upper = {"peak": {"height": jnp.inf, "mu": jnp.inf, "width": 1.0}, "bg": jnp.inf}
    fit = hesskit.curve_fit(
        model,
        x,
        y,
        start,
        sigma=err,
        absolute_sigma=True,
        bounds=(lower, upper),
        fixed="bg/b",
    )
    if not fit.success:
        print(fit.message)
    print(fit)
    print(fit.params["peak"]["mu"], fit.standard_errors["peak"]["mu"], fit.names)
    print(fit.correlation_between("peak/height", "peak/width"), fit.block("peak").shape)
    band = fit.band(x, level=0.683)
    chain = fit.sample(jax.random.key(0), 5000)
    inside = (band.lower <= band.value) & (band.value <= band.upper)
    print(
        f"band around {int(jnp.sum(inside))} points; mu of draws {jnp.std(chain['peak']['mu']):.4f}"
    )
    area = fit.derived(lambda p: p["peak"]["height"] * p["peak"]["width"])
    print(f"area {float(area.value):.3f} +- {float(area.standard_error):.3f}")

    # Two spectra share mu: a joint fit of residuals.
    x2, y2, err2 = measure(rng)

    def both(params):
        first = {"peak": params["peak"], "bg": params["bg"]}
        second = {"peak": {**params["peak"], "height": params["height2"]}, "bg": params["bg"]}
        return {"one": model(first, x) - y, "two": model(second, x2) - y2}

    joint = hesskit.least_squares(
        both,
        {**fit.params, "height2": 5.0},
        sigma={"one": err, "two": err2},
        absolute_sigma=True,
        fixed="bg/b",
    )
    print(joint)

    # Who minimizes a likelihood: the same errors.
    def nll(params):
        mean = model(params, x)
        return 0.5 * jnp.sum(jnp.where(jnp.isfinite(err), ((y - mean) / err) ** 2, 0.0))

    best = hesskit.minimize(nll, fit.params, bounds=(lower, upper))
    posterior = hesskit.laplace(nll, best.params)
    print(posterior)

    folder = Path(folder)
    figure, ax = plt.subplots()
    hesskit.plots.fit(fit, ax=ax)
    figure.savefig(folder / "fit.png", dpi=110)
    hesskit.plots.corner(fit)[0, 0].figure.savefig(folder / "corner.png", dpi=110)
    figure, ax = plt.subplots()
    hesskit.plots.correlation(fit, ax=ax).figure.savefig(
        folder / "correlation.png", dpi=110, bbox_inches="tight"
    )
    plt.close("all")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(sys.argv[1] if len(sys.argv) > 1 else ".")
