"""Kinds of definiteness: of functions, operators, matrices; dense and by Lanczos."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit import DefiniteKind

W = jnp.linspace(1.0, 3.0, 30)


def quadratic(p, w):
    return jnp.sum(w * p["a"] ** 2) / 2


@pytest.mark.parametrize(
    ("w", "kind"),
    [
        (W, "POSITIVE_DEFINITE"),
        (-W, "NEGATIVE_DEFINITE"),
        (W - 2, "INDEFINITE"),
        (W.at[3].set(0.0), "POSITIVE_SEMIDEFINITE"),
        (0 * W, "ZERO"),
    ],
)
def test_large_and_small_agree(w, kind):
    at = {"a": jnp.ones(30)}
    small = hesskit.definiteness(quadratic, at, args=(w,))
    large = hesskit.definiteness(quadratic, at, args=(w,), dense=False)
    assert small.kind.name == large.kind.name == kind
    assert int(small.num_products) == 30
    ends = np.array([np.min(w), np.max(w)])
    np.testing.assert_allclose(large.eigenvalues, ends, atol=1e-5)
    for found in (small, large):
        low, high = found.smallest, found.largest
        assert low[0] - 1e-5 <= ends[0] <= low[1] + 1e-5
        assert high[0] - 1e-5 <= ends[1] <= high[1] + 1e-5


def test_an_operator_and_its_matrix():
    op = hesskit.hessian_operator(quadratic, {"a": jnp.ones(30)}, args=(W,)).shift(-2.0)
    assert hesskit.definiteness(op).kind == DefiniteKind.INDEFINITE
    assert hesskit.definiteness(op.dense()).kind == DefiniteKind.INDEFINITE
    kinds = jax.jit(jax.vmap(lambda w: hesskit.definiteness(jnp.diag(w)).code))
    np.testing.assert_array_equal(kinds(jnp.stack([W, -W])), [1, 5])


@pytest.mark.slow
def test_batches_visited_from_python():
    batches = [(W,), (3 * W,)]
    op = hesskit.hessian_operator(quadratic, {"a": jnp.ones(30)}, batches=batches)
    found = hesskit.definiteness(op, dense=False)
    assert found.kind == DefiniteKind.POSITIVE_DEFINITE
    np.testing.assert_allclose(found.eigenvalues, [2.0, 6.0], rtol=1e-4)


@pytest.mark.slow
def test_the_text_has_the_numbers():
    text = str(hesskit.definiteness(jnp.array([[6.0, 2.0], [2.0, 2.0]]))).splitlines()
    assert text[:4] == [
        "positive definite",
        "eigenvalues 1.1716, 6.8284",
        "2 positive, 0 zero, 0 negative",
        "leading minors 6, 8",
    ]
    large = str(hesskit.definiteness(jnp.diag(W), dense=False)).splitlines()
    assert large[1].startswith("smallest eigenvalue in [")
