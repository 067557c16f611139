"""The table of blocks, and its words."""

import jax
import jax.numpy as jnp
import pytest

import hesskit

X, IDS = jnp.ones((5, 3)), jnp.array([[0, 2], [1, 1]])


@pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")
def test_every_leaf_has_a_line_that_says_why():
    def model(p):
        h = p["e"][IDS] @ p["w"] + p["b"]
        return h @ p["e"].T, jnp.cumsum(p["m"], axis=0), jnp.sum(jnp.sin(p["v"])), p["s"] * X

    shapes = {"b": 3, "e": (70, 3), "m": (2, 2), "s": 3, "unused": (2, 2), "v": 4, "w": (3, 3)}
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    loss = hesskit.composite(lambda out: sum(jnp.sum(o**2) for o in out), model)
    table = hesskit.kronecker_table(loss, params, max_factor_dim=50)
    rows = {row.path.strip("[]'"): (row.kind, row.factors, row.why) for row in table.rows}
    assert rows == {
        "b": ("joined", (), "bias of ['w']"),
        "e": ("kronecker", ((70,), (3, 3)), "embedding + dense"),
        "m": ("sampled", ((2, 2), (2, 2)), "enters cumsum"),
        "s": ("diagonal", ((3,),), "scale"),
        "unused": ("sampled", ((2, 2), (2, 2)), "not used"),
        "v": ("diagonal", ((4,),), "enters sin"),
        "w": ("kronecker", ((4, 4), (3, 3)), "dense, with ['b']"),
    }
    assert "70, 3x3" in str(table)
    assert str(table) in table._repr_html_().replace("&#x27;", "'")


@pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")
def test_layers_of_a_scan_are_told_from_leaves_that_its_steps_share():
    def model(p):
        def layer(h, own):
            h = jnp.tanh(h @ own["w"] + own["b"] + X @ p["shared"])
            return h, own["s"] + 0 * jnp.sum(p["shared"])

        carry, more = jax.lax.scan(layer, jnp.zeros((5, 2)), p["stack"])
        last = jax.lax.scan(lambda c, _: (c @ p["m"], None), p["c"], length=3)[0]
        return carry, more, last, jnp.einsum("nabc,abcd->nd", jnp.ones((1, 3, 3, 2)), p["k"])

    params = {
        "c": jnp.ones((2, 2)),
        "k": jnp.ones((3, 3, 2, 2)),
        "m": jnp.ones((2, 2)),
        "shared": jnp.ones((3, 2)),
        "stack": {"b": jnp.ones((4, 2)), "s": jnp.ones((4, 3)), "w": jnp.ones((4, 2, 2))},
    }
    loss = hesskit.composite(lambda out: sum(jnp.sum(o**2) for o in out), model)
    rows = hesskit.kronecker_table(loss, params).rows
    found = {row.path.strip("[]'"): (row.kind, row.factors, row.why) for row in rows}
    known = "in kfac with objective= and example="
    hint = "; by layer, " + known
    assert found == {
        "c": ("sampled", ((2, 2), (2, 2)), "enters scan"),
        "k": ("kronecker", ((18, 18), (2, 2)), "dense; " + known),
        "m": ("kronecker", ((2, 2), (2, 2)), "dense"),
        "shared": ("kronecker", ((3, 3), (2, 2)), "dense; not counted: enters reduce_sum"),
        "stack']['b": ("joined", (), "bias of ['stack']['w']"),
        "stack']['s": ("diagonal", ((4, 3),), "bias" + hint),
        "stack']['w": ("kronecker", ((4, 3, 3), (4, 2, 2)), "dense, with ['stack']['b']" + hint),
    }
    assert rows[-1].leaf == (4, 2, 2)


def test_a_plain_function_has_no_table():
    with pytest.raises(TypeError, match=r"kronecker_table reads the model, .*composite"):
        hesskit.kronecker_table(lambda w: jnp.sum(w**2), jnp.ones(2))
