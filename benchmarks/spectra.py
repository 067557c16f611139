"""What do eigenpairs and spectral densities cost beside the peers, and how right are they?

    python -m benchmarks.spectra

The Hessian of a digits MLP with 17,226 parameters after 200 steps of Adam. Top 20 by at most 100
products beside scipy's eigsh on a jitted product (what ARPACK spends is in the row) and matfree's
Lanczos with full reorthogonalization, where it is installed; stochastic Lanczos quadrature of 10
probes by 50 steps. The truth of the top 20 is eigsh in float64 on a float64 product, and of the
density on a net of 1,210 parameters dense `eigh`. Errors of eigenvalues are relative to the largest
one. Seconds of the products alone, 100 of them in one compiled loop, say what is beyond them. The
top 20 of a net with 405,610 parameters come with residuals |Hv - wv|, relative to the largest
eigenvalue.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.datasets import load_digits

import hesskit
from benchmarks._nets import size
from benchmarks._timing import Target, interleaved, ratio, report
from hesskit.core import tree
from hesskit.core.derivatives import linearized

try:
    from matfree import decomp
except ImportError:
    decomp = None

PRODUCTS, TOP, PROBES, STEPS = 100, 20, 10, 50
MOMENTS = (1, 2, 3, 4)


def digits():
    x, y = load_digits(return_X_y=True)
    return jnp.asarray(x / 16, "float32"), jnp.asarray(y, "int32")


def start(sizes):
    keys = jax.random.split(jax.random.key(0), len(sizes) - 1)
    return [
        {"w": jax.random.normal(k, (m, n), "float32") / m**0.5, "b": jnp.zeros(n, "float32")}
        for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def loss(params, x, y):
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    logits = jax.nn.log_softmax(x @ params[-1]["w"] + params[-1]["b"])
    return -jnp.mean(jnp.take_along_axis(logits, y[:, None], axis=1))


def trained(params, data, steps=200):
    opt = optax.adam(3e-3)

    @jax.jit
    def step(params, state):
        updates, state = opt.update(jax.grad(loss)(params, *data), state, params)
        return optax.apply_updates(params, updates), state

    state = opt.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


def flat_product(params, data):
    """`v -> Hv` of vectors, jitted, and its size; data and params are arguments, as in ours."""

    @jax.jit
    def apply(v, params, data):
        product = linearized(lambda p: loss(p, *data), params).product
        return tree.ravel(product(tree.unravel(v, params)))

    return lambda v: apply(v, params, data), size(params)


def top_by_scipy(params, data, counted, **given):
    product, n = flat_product(params, data)
    dtype = tree.result_dtype(params)

    def multiply(v):
        counted.append(1)
        return np.asarray(product(jnp.asarray(v.reshape(-1), dtype)))

    matrix = LinearOperator((n, n), multiply, dtype=np.dtype(dtype))
    return np.sort(eigsh(matrix, TOP, which="LA", return_eigenvectors=False, **given))


def truth(params, data):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: a.astype("float64"), params)
        return top_by_scipy(wide, (data[0].astype("float64"), data[1]), [], ncv=80, tol=1e-12)


def products_alone(params, data):
    """As many products in a compiled loop as the others spend."""

    @jax.jit
    def run(params, data):
        product = linearized(lambda p: loss(p, *data), params).product
        flat = lambda v: tree.ravel(product(tree.unravel(v, params)))
        body = lambda _, v: flat(v) / jnp.linalg.norm(v)
        return jax.lax.fori_loop(0, PRODUCTS, body, tree.ravel(params))

    return lambda: run(params, data)


def by_matfree(params, data):
    """Lanczos with full reorthogonalization and the eigenvalues of its matrix."""
    n = size(params)
    factor = decomp.tridiag_sym(PRODUCTS, materialize=True, reortho="full")

    @jax.jit
    def run(params, data):
        product = linearized(lambda p: loss(p, *data), params).product
        flat = lambda v: tree.ravel(product(tree.unravel(v, params)))
        found = factor(flat, jnp.ones(n, "float32"))
        return jnp.linalg.eigvalsh(found.J_small)[-TOP:]

    return lambda: run(params, data)


def eigenvalues(params, data):
    """Seconds and errors of the top 20."""
    counted = []
    ours = lambda: hesskit.eigenpairs(
        loss, params, TOP, args=data, tol=0.0, max_products=PRODUCTS, num_rows=PRODUCTS
    )
    settled = lambda: hesskit.eigenpairs(loss, params, TOP, args=data)
    calls = {
        "hesskit, 100 products": ours,
        "hesskit, default": settled,
        "scipy eigsh": lambda: top_by_scipy(params, data, counted),
        "100 products alone": products_alone(params, data),
    }
    if decomp is not None:
        calls["matfree, full reorthogonalization"] = by_matfree(params, data)
    seconds, exact = interleaved(calls, rounds=5), truth(params, data)
    counted.clear()
    answers = {name: call() for name, call in calls.items() if "alone" not in name}
    spent = {"scipy eigsh": len(counted), "matfree, full reorthogonalization": PRODUCTS}
    rows = []
    for name in calls:
        row = {"what": name, "seconds": float(np.median(seconds[name]))}
        found = answers.get(name)
        if found is not None:
            values = np.asarray(getattr(found, "eigenvalues", found), np.float64)
            row["products"] = int(getattr(found, "num_products", spent.get(name, 0)))
            row["error of the top 20"] = float(np.max(np.abs(values - exact)) / exact[-1])
        rows.append(row)
    first = "hesskit, 100 products"
    error = next(row for row in rows if row["what"] == first)["error of the top 20"]
    targets = [
        Target(
            "eigenpairs: seconds over scipy's", ratio(seconds[first], seconds["scipy eigsh"]), 1
        ),
        Target("eigenpairs: relative error of the top 20", error, 1e-6),
        Target(
            "eigenpairs: seconds over those of the products",
            ratio(seconds[first], seconds["100 products alone"]),
            1.25,
        ),
    ]
    return rows, targets


def density(params, data):
    """Seconds of the quadrature of the large net, and its error on a small one."""
    calls = {
        f"hesskit, quadrature, {block} at once": lambda block=block: (
            hesskit.spectral_density(
                loss, params, args=data, num_probes=PROBES, num_steps=STEPS, block_size=block
            ).nodes
        )
        for block in (1, PROBES)
    }
    seconds = interleaved(calls, rounds=3)
    rows = [
        {"what": name, "seconds": float(np.median(taken)), "products": PROBES * STEPS}
        for name, taken in seconds.items()
    ]
    small = trained(start((64, 16, 10)), data)
    w = np.linalg.eigvalsh(np.asarray(hesskit.hessian(loss, small, args=data), np.float64))
    found = hesskit.spectral_density(loss, small, args=data, num_probes=PROBES, num_steps=STEPS)
    width = (w[-1] - w[0]) / 50
    grid, estimate = found.density(width=width)
    bumps = np.exp(-(((np.asarray(grid)[:, None] - w[None, :]) / width) ** 2) / 2)
    exact = bumps.mean(axis=1) / (width * np.sqrt(2 * np.pi))
    error = float(np.sum(np.abs(np.asarray(estimate.value) - exact)) * (grid[1] - grid[0]))
    best = min(float(np.median(taken)) for taken in seconds.values())
    targets = [
        Target("spectral_density: seconds of 10 probes x 50 steps", best, 2.0),
        Target("spectral_density: L1 error of a small net's density", error, 0.01),
    ]
    for k in MOMENTS:
        moment = found.moment(k)
        off = abs(float(moment.value) - np.mean(w**k)) / float(moment.standard_error)
        targets.append(Target(f"spectral_density: moment {k} off by, in standard errors", off, 2))
    return rows, targets


def large(data):
    """The top 20 of a large net, with their residuals."""
    params = trained(start((64, 600, 600, 10)), data)
    call = lambda: hesskit.eigenpairs(loss, params, TOP, args=data)
    seconds = interleaved({"ours": call}, rounds=2)["ours"]
    found = call()
    worst = float(jnp.max(found.residual_norms) / jnp.max(jnp.abs(found.eigenvalues)))
    row = {
        "what": f"hesskit, default, {size(params)} parameters",
        "seconds": float(np.median(seconds)),
        "products": int(found.num_products),
        "largest residual": worst,
    }
    return [row], [Target("eigenpairs of a large net: largest residual", worst, 1e-3)]


def main():
    data = digits()
    params = trained(start((64, 128, 64, 10)), data)
    rows, targets = eigenvalues(params, data)
    more, others = density(params, data)
    last, bounds = large(data)
    report("spectra", __doc__.splitlines()[0], rows + more + last, targets + others + bounds)


if __name__ == "__main__":
    main()
