"""Equations run again: values added to and kept, in loops at every step."""

import jax
import jax.numpy as jnp
import numpy as np

from hesskit.core.graph import every, trace
from hesskit.core.replay import run

W, X = jnp.arange(6.0).reshape(3, 2) / 5, jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)


def test_changed_and_kept_values():
    graph = trace(lambda w: jnp.tanh(X @ w), W)
    product = graph.nodes[0].outputs[0]
    out, kept = run(graph, W, {product: jnp.ones((4, 2))}, (product,))
    np.testing.assert_allclose(out, jnp.tanh(X @ W + 1), rtol=1e-6)
    np.testing.assert_allclose(kept[product], X @ W + 1, rtol=1e-6)


def test_loops_in_loops_are_changed_and_kept_at_every_step():
    """Layers in reverse, each used at two times: sums written out by hand."""
    w, h0 = jnp.arange(12.0).reshape(3, 2, 2) / 10, jnp.ones(2)

    def model(p):
        def layer(h, w):
            def time(h, t):
                h = jnp.sin(h @ w) + t
                return h, h[0]

            return jax.lax.scan(time, h, jnp.arange(2.0))

        return jax.lax.scan(jax.checkpoint(layer), h0, p, reverse=True)

    graph = trace(model, w)
    (product,) = (node.outputs[0] for node in every(graph.nodes) if node.name == "dot_general")
    tap = jnp.arange(12.0).reshape(3, 2, 2) / 7
    out, kept = jax.jit(lambda w: run(graph, w, {product: tap}, (product,)))(w)
    h, firsts, products = h0, np.zeros((3, 2)), np.zeros((3, 2, 2))
    for i in reversed(range(3)):
        for t in range(2):
            products[i, t] = h @ w[i] + tap[i, t]
            h = jnp.sin(products[i, t]) + t
            firsts[i, t] = h[0]
    np.testing.assert_allclose(kept[product], products, rtol=1e-5)
    np.testing.assert_allclose(out[0], h, rtol=1e-5)
    np.testing.assert_allclose(out[1], firsts, rtol=1e-5)
    text = str(jax.make_jaxpr(lambda w: run(graph, w, {}, ())[0])(w))
    assert "remat" in text or "checkpoint" in text  # values inside a step are found again, as asked
