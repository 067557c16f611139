"""A model as a flat list of equations: opened where leaves enter, the same numbers, same rules."""

import jax
import jax.numpy as jnp
import numpy as np

from hesskit.core.graph import trace
from hesskit.core.replay import run

W, X = jnp.arange(6.0).reshape(3, 2) / 5, jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)


def _model(w):
    h = jax.checkpoint(lambda h: jnp.sin(h @ w))(X)
    h = jax.nn.relu(jax.jit(lambda a: a @ w.T)(h))
    return {"out": jax.nn.logsumexp(h, axis=1), "leaf": w}


def test_the_graph_computes_what_the_function_does_with_its_slopes():
    graph = trace(_model, W)
    names = [node.name for node in graph.nodes]
    assert names.count("dot_general") == 2  # inside remat and jit
    assert "custom_jvp_call" in names  # relu keeps its rule
    again = jax.jit(lambda w: run(graph, w, {}, ())[0])
    jax.tree.map(np.testing.assert_array_equal, again(W), jax.jit(_model)(W))

    def total(fn):
        return jax.grad(lambda w: jnp.sum(fn(w)["out"] ** 2) + jnp.sum(fn(w)["leaf"]))(W)

    np.testing.assert_allclose(total(again), total(_model), rtol=1e-6)


def test_relu_at_zero_keeps_its_slope():
    graph = trace(lambda w: jax.nn.relu(X @ w), W)
    (slope,) = jax.vjp(lambda w: run(graph, w, {}, ())[0], 0 * W)[1](jnp.ones((4, 2)))
    assert not np.any(slope)


def test_a_rule_of_its_own_is_given_up_only_where_a_leaf_enters_a_product():
    @jax.custom_jvp
    def layer(w, x):
        return x @ w

    @layer.defjvp
    def _(at, moves):
        return layer(*at), 7 * (moves[1] @ at[0]) + at[1] @ moves[0]

    @jax.custom_jvp
    def doubled(w):
        return 2 * w

    doubled.defjvps(lambda move, out, w: 3 * move)
    assert [n.name for n in trace(lambda w: layer(w, X), W).nodes] == ["dot_general"]
    assert [n.name for n in trace(doubled, W).nodes] == ["custom_jvp_call"]


def test_what_no_output_needs_is_left_out():
    assert len(trace(lambda w: (X @ w, jnp.sin(w))[0], W).nodes) == 1
