"""What the tests of iterative methods share: R^9 as a pytree, products, random matrices, lanes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import tree
from hesskit.linalg.steihaug import steihaug

N = 9


def as_tree(x, dtype=jnp.float32, other=None):
    """A vector of R^9 as a pytree with a () leaf; `other` is the dtype of one leaf."""
    x = jnp.asarray(x)
    leaves = {"w": x[:6].reshape(3, 2), "b": x[6], "c": x[7:]}
    dtypes = {"w": dtype, "b": dtype, "c": other or dtype}
    return {name: leaf.astype(dtypes[name]) for name, leaf in leaves.items()}


def as_vector(x):
    """The pytree as numpy float64."""
    return np.concatenate([np.ravel(np.asarray(x[k], np.float64)) for k in ("w", "b", "c")])


def as_product(matrix):
    """v -> H v on the pytrees of `as_tree`."""

    def product(v):
        flat = jnp.concatenate([v["w"].reshape(-1), v["b"][None], v["c"]], dtype=matrix.dtype)
        return tree.cast_like(as_tree(matrix @ flat, matrix.dtype), v)

    return product


def counting(calls, matrix):
    """A product that counts how often it runs."""

    def product(v):
        jax.debug.callback(lambda: calls.append(1))
        return as_product(matrix)(v)

    return product


def poisoned(matrix, at, bad):
    """A product multiplied by `bad` in call number `at`, counted from 0; only without jit."""
    count = iter(range(100))

    def product(v):
        hv = as_product(matrix)(v)
        return tree.scale(bad, hv) if next(count) == at else hv

    return product


def num_places(run, *arguments):
    """At how many places `run(product, *arguments)` calls the product."""

    def product(v):
        return jax.tree.map(jax.lax.bessel_i1e, v)  # a primitive that nothing else uses

    jaxpr = jax.make_jaxpr(lambda *arguments: run(product, *arguments))(*arguments)
    return str(jaxpr).count("bessel_i1e")


def problem(seed, *, indefinite=False):
    """A dense matrix and a vector."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(N, N))
    h = (a + a.T) / 2 if indefinite else a @ a.T / 3 + np.eye(N)
    return h, rng.normal(size=N)


def spd(seed):
    """Another positive definite matrix, for M^{-1}."""
    return problem(100 + seed)[0]


def with_spectrum(seed, eigenvalues):
    """A dense matrix and its eigenvectors."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(N, N)))
    return q * np.asarray(eigenvalues) @ q.T, q


def model(h, g, s):
    return g @ s + s @ h @ s / 2


def finite(result):
    return all(bool(tree.all_finite(leaf)) for leaf in jax.tree.leaves(result))


def stacked(problems):
    """Matrices and float64 vectors, a lane each."""
    h, g = (jnp.asarray(np.stack(x)) for x in zip(*problems, strict=True))
    return h, jax.vmap(lambda x: as_tree(x, jnp.float64))(g)


def check_lanes(run, *arguments, rtol, atol):
    """`run` over lanes equals `run` one by one; the answer over lanes."""
    together = jax.vmap(run)(*arguments)
    for i in range(len(jax.tree.leaves(arguments)[0])):
        alone = run(*jax.tree.map(lambda a, i=i: a[i], arguments))
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=rtol, atol=atol)
    return together


@jax.jit
def steihaug_of(
    matrix, gradient, radius, tol, max_products, *, inverse=None, scale=None, needed=True
):
    """One compiled program for every case of one dtype."""
    return steihaug(
        as_product(matrix),
        gradient,
        radius,
        tol=tol,
        max_products=max_products,
        precondition=None if inverse is None else as_product(inverse),
        scale=scale,
        needed=needed,
    )


REGIONS = [
    pytest.param(seed, indefinite, radius, preconditioned, id=f"{seed}-{radius}")
    for seed, (indefinite, radius, preconditioned) in enumerate(
        [
            (False, 0.3, False),
            (False, 1.0, True),
            (False, 50.0, False),
            (False, 50.0, True),
            (True, 0.3, False),
            (True, 2.0, False),
            (True, 2.0, True),
            (True, 50.0, True),
        ]
    )
]
