"""Where leaves enter, and that inputs and slopes there make up the gradient: W' = sum x g'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core.graph import trace
from hesskit.core.replay import run
from hesskit.core.uses import uses

RNG = np.random.default_rng(0)


def _normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


X, IMAGES, IDS = _normal(2, 5, 3), _normal(2, 6, 5, 3), jnp.array([[0, 2, 2], [1, 0, 3]])


def _conv(x, w, order, stride=(1, 1)):
    return jax.lax.conv_general_dilated(x, w, stride, "SAME", dimension_numbers=order)


CASES = {
    "dense": (lambda w: X @ w, (3, 4), "dense"),
    "columns": (lambda w: X @ w.T, (4, 3), "dense"),
    "from the left": (lambda w: jax.vmap(lambda x: w @ x)(X[0]), (4, 3), "dense"),
    "heads": (lambda w: jnp.einsum("btd,dhk->bhtk", X, w), (3, 2, 2), "dense"),
    "heads together": (
        lambda w: jnp.einsum("bhk,hkd->bd", X.reshape(2, 5, 3), w),
        (5, 3, 2),
        "dense",
    ),
    "HWIO": (lambda w: _conv(IMAGES, w, ("NHWC", "HWIO", "NHWC"), (2, 1)), (3, 2, 3, 4), "conv"),
    "OIHW": (
        lambda w: _conv(IMAGES.transpose(0, 3, 1, 2), w, ("NCHW", "OIHW", "NCHW")),
        (4, 3, 2, 3),
        "conv",
    ),
    "embedding": (lambda w: w[IDS], (4, 3), "embedding"),
    "take": (lambda w: jnp.take(w, IDS, axis=0), (4, 3), "embedding"),
}


@pytest.mark.parametrize("case", CASES)
def test_inputs_and_slopes_make_up_the_gradient(case):
    model, shape, kind = CASES[case]
    w = _normal(*shape)
    graph = trace(model, w)
    (use,) = uses(graph)
    assert use.kind == kind

    def through(tap):
        return run(graph, w, {use.output: tap}, (use.source,))

    tap = jnp.zeros(graph.shapes[use.output])
    out, pull, kept = jax.vjp(through, tap, has_aux=True)
    weight = _normal(*out.shape)
    x, g = use.inputs(kept[use.source]), use.slopes(pull(weight)[0])
    assert x.shape[: g.ndim - 1] == g.shape[:-1]
    g = g.reshape(-1, g.shape[-1])
    x = jax.nn.one_hot(x.reshape(-1), 4) if kind == "embedding" else x.reshape(-1, x.shape[-1])
    found = (x.T @ g).reshape([shape[i] for i in (*use.taken, *use.given)])
    wanted = jax.vjp(model, w)[1](weight)[0].transpose(*use.taken, *use.given)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")
def test_a_bias_joins_the_product_it_is_added_to():
    def model(p):
        h = jax.vmap(lambda x: p["w"].T @ x + p["b"])(X[0]).astype(jnp.float32)
        return _conv(IMAGES, p["k"], ("NHWC", "HWIO", "NHWC")) + p["c"], h * p["s"] + p["d"]

    shapes = {"w": (3, 2), "b": (2,), "k": (2, 2, 3, 2), "c": (2,), "s": (2,), "d": (2,)}
    params = {name: _normal(*shape) for name, shape in shapes.items()}
    names = sorted(params)
    found = {names[use.leaf]: use for use in uses(trace(model, params))}
    assert {name: use.kind for name, use in found.items()} == {
        "w": "dense",
        "k": "conv",
        "s": "scale",
        "d": "bias",
    }
    assert names[found["w"].bias.leaf] == "b"
    assert names[found["k"].bias.leaf] == "c"


@pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")
@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda w: X[0] @ jnp.sin(w), "enters sin"),
        (lambda w: w.T @ w, "enters dot_general"),
        (
            lambda w: jnp.einsum("sbd,bde->sbe", X.reshape(5, 2, 3), w[None] * jnp.ones((2, 1, 1))),
            "",
        ),
    ],
)
def test_what_else_happens_to_a_leaf_is_named(model, why):
    found = uses(trace(model, _normal(3, 2)))
    assert {use.kind for use in found} <= {"other", "scale"}
    assert why in {use.why for use in found}


@pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")
def test_uses_in_loops_know_them():
    """A bias joins the product of its own loops alone."""

    def model(p):
        layer = lambda h, own: (h @ own["w"] + p["c"] + own["b"], own["v"][None])
        more, returned = jax.lax.scan(layer, X[0], {name: p[name] for name in "bvw"})
        parts = jax.lax.map(lambda x: x @ p["u"] + p["d"], X)
        return more, returned, parts

    shapes = {"b": (4, 3), "c": (3,), "d": (2,), "u": (3, 2), "v": (4, 2), "w": (4, 3, 3)}
    params = {name: _normal(*shape) for name, shape in shapes.items()}
    found = uses(trace(model, params))
    told = {(sorted(params)[use.leaf], use.kind, use.loops[0], use.layers) for use in found}
    assert told == {
        ("b", "bias", (4, "layers"), 4),
        ("c", "bias", (4, "steps"), None),
        ("u", "dense", (2, "parts"), None),
        ("v", "other", (4, "layers"), 4),
        ("w", "dense", (4, "layers"), 4),
    }
    assert [use.why for use in found if use.kind == "other"] == ["is returned by scan"]
    assert [use.bias.leaf for use in found if use.bias is not None] == [2]  # d
