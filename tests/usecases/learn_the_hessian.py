"""Following a text on the Hessian: critical points, condition numbers, Taylor models, pictures.

python tests/usecases/learn_the_hessian.py [FOLDER]      pictures go to FOLDER
"""

import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import hesskit
import hesskit.plots as hp


def quartic(p):
    """Nine critical points: a maximum, four saddles, four minima."""
    return p[0] ** 4 + p[1] ** 4 - 2 * p[0] ** 2 - 2 * p[1] ** 2 + 1


def rosenbrock(p):
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


def make_quadratic(matrix):
    return lambda p: 0.5 * p @ matrix @ p


def net_loss(params, x, y):
    """Mean squared error of a small net."""
    out = jnp.tanh(x @ params["inner"]) @ params["outer"]
    return jnp.mean((out - y) ** 2)


def train_net(num_batches=4):
    """A net after training, and its data with an axis of batches first, which a product scans."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num_batches, 32, 3))
    y = np.sin(2 * x[..., 0]) + x[..., 1]
    start = {
        "inner": jnp.asarray(rng.normal(size=(3, 8))),
        "outer": jnp.asarray(rng.normal(size=8) / 3),
    }
    whole = (jnp.asarray(x.reshape(-1, 3)), jnp.asarray(y.reshape(-1)))
    trained = hesskit.minimize(net_loss, start, hesskit.lbfgs(), args=whole, max_steps=60)
    return trained.params, (jnp.asarray(x), jnp.asarray(y))


class Numbers(NamedTuple):
    kinds: list[str]
    kappa: float
    order: float
    gd: str
    at_saddle: str


def main(folder):
    """Asks, prints, draws."""
    folder = Path(folder)
    ans = hesskit.classify_critical_point(quartic, jnp.array([0.0, 0.0]))
    print(ans)
    print(ans.kind, ans.eigenvalues, ans.reason)
    print(hesskit.classify_critical_point(quartic, jnp.array([0.3, 0.0])).kind)
    points = hesskit.find_critical_points(quartic, jnp.array([[-2.0, 2.0], [-2.0, 2.0]]))
    for point in points:
        print(point.params.round(6) + 0.0, point.kind, float(point.value))
    matrix = hesskit.hessian(quartic, jnp.array([1.0, 1.0]))
    print(hesskit.definiteness(matrix), hesskit.condition_number(matrix), sep="\n")

    # Indefinite here: the ratio of the last eigenvalue to the first is no condition number.
    trap = hesskit.condition_number(rosenbrock, jnp.array([0.5, 0.5]))
    print(trap)

    model = hesskit.taylor(lambda p: jnp.exp(p[0] + p[1]), jnp.zeros(2))
    order = model.remainder_order(jnp.array([1.0, 1.0]))
    print(model(jnp.array([0.1, 0.2])), order, sep="\n")

    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    q, start = make_quadratic(jnp.diag(jnp.array([15.0, 1.0]))), jnp.array([80.0, 90.0])
    gd = hesskit.minimize(q, start, optax.sgd(0.1), max_steps=30, history="params")
    nt = hesskit.minimize(q, start, hesskit.newton(learning_rate=1.0), history="params")
    print(gd.message)
    limits = (-100, 100)
    hp.contours(q, axes[0], xlim=limits, ylim=limits, paths={"GD": gd, "Newton": nt})
    hp.gradient_field(quartic, axes[1], unit=True)
    hp.taylor(model, axes[2], direction=jnp.array([1.0, 1.0]))
    figure.savefig(folder / "quadratic.png", dpi=80)

    figure = plt.figure(figsize=(10, 4.5), layout="constrained")
    hp.surface(quartic, figure.add_subplot(1, 2, 1, projection="3d"), xlim=(-1.6, 1.6))
    hp.eigen_ellipse(ans, figure.add_subplot(1, 2, 2))
    figure.savefig(folder / "surface.png", dpi=80)

    params, batches = train_net()
    density = hesskit.spectral_density(net_loss, params, key=jax.random.key(0), batches=batches)
    print(density)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    hp.spectrum(density, axes[0])
    hp.landscape(net_loss, axes[1], params=params, args=(batches[0][0], batches[1][0]))
    figure.savefig(folder / "net.png", dpi=80)
    plt.close("all")

    # Pure Newton from the line x = 0 goes to the saddle at (0, 0).
    saddle = hesskit.minimize(
        lambda p: p[0] ** 4 - p[0] ** 2 + p[1] ** 2,
        jnp.array([0.0, 1.0]),
        hesskit.newton(learning_rate=1.0),
    )
    print(saddle.message)
    kinds = [str(point.kind) for point in points]
    return Numbers(kinds, float(trap), float(order), gd.message, saddle.message)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(sys.argv[1] if len(sys.argv) > 1 else ".")
