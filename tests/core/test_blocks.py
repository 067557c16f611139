"""Which leaf has which block."""

import jax
import jax.numpy as jnp
import pytest

from hesskit.core.blocks import groups, plan, shape_of

X, IDS = jnp.ones((5, 3)), jnp.array([0, 2, 1])


@pytest.mark.parametrize(
    ("leaf", "rows", "columns"),
    [
        ((3, 4), 3, 4),
        ((3, 3, 3, 8), 27, 8),
        ((32, 16, 3, 3), 32, 144),
        ((64, 4, 16), 64, 64),
        ((4, 16, 64), 64, 64),
    ],
)
def test_kernels_are_cut_where_they_are_meant(leaf, rows, columns):
    shape = shape_of(leaf, 100)
    assert (shape.rows, shape.columns) == (rows, columns)
    assert shape.dense == (rows <= 100, columns <= 100)


def _kinds(model, params, **more):
    found = plan(model, params, **{"max_dim": 100, "shared": "sum", **more})
    return found, {block.path.strip("[]'"): block.kind for block in found.blocks}


@pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")
def test_kinds_of_blocks():
    def model(p):
        h = p["e"][IDS]
        return (h @ p["w"] + p["b"]) @ p["e"].T, p["s"] * X, jnp.cumsum(p["v"], axis=0), p["v"]

    shapes = {"e": (6, 3), "w": (3, 3), "b": (3,), "s": (3,), "v": (2, 2)}
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    found, kinds = _kinds(model, params)
    assert kinds == {
        "b": "joined",
        "e": "kronecker",
        "s": "diagonal",
        "v": "sampled",
        "w": "kronecker",
    }
    blocks = dict(zip("besvw", found.blocks, strict=True))
    assert blocks["e"].swapped == (False, True)  # rows look up, columns enter the last product
    assert blocks["v"].alone == (3,)
    assert blocks["w"].bias == 0
    assert {k: len(members) for k, members in groups(found.blocks).items()} == {
        6: 1,
        4: 1,
        3: 2,
        2: 2,
    }
    assert _kinds(model, params, shared="sampled")[1]["e"] == "sampled"
    # never a factor of a side that is too long
    assert 6 not in groups(_kinds(model, params, max_dim=5)[0].blocks)


@pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")
def test_a_bias_whose_weight_has_no_factors_of_inputs_has_a_block_of_its_own():
    params = {"b": jnp.ones(2), "w": jnp.ones((2, 3, 3, 2))}
    model = lambda p: jnp.einsum("nab,iabo->nio", jnp.ones((4, 3, 3)), p["w"]) + p["b"]
    found, kinds = _kinds(model, params)
    assert kinds == {"b": "diagonal", "w": "sampled"}
    assert "sums over axes (1, 2)" in found.blocks[1].why


@pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")
def test_layers_have_blocks_of_their_own_only_where_that_was_known():
    params = {"b": jnp.ones((4, 3)), "s": jnp.ones((4,)), "w": jnp.ones((4, 3, 3))}

    def model(p):
        layer = lambda h, p: (p["s"] * (h @ p["w"] + p["b"]), None)
        return jax.lax.scan(layer, X, p)[0]

    found, kinds = _kinds(model, params)
    assert kinds == {"b": "joined", "s": "diagonal", "w": "kronecker"}
    assert [block.shape.layers for block in found.blocks] == [4, 4, 4]
    assert [block.shape.leaf for block in found.blocks] == [(3,), (), (3, 3)]
    found, kinds = _kinds(model, params, fixed=True)
    assert kinds == {"b": "sampled", "s": "diagonal", "w": "sampled"}
    for block in found.blocks:
        assert block.why == "inside scan: pass objective= and example= for factors by layer"
        assert block.shape == shape_of(params[block.path.strip("[]'")].shape, 100)
    _, kinds = _kinds(lambda p: (model(p), p["w"][0] @ X.T), params)
    assert kinds["w"] == "kronecker"  # what else happens is not counted
    _, kinds = _kinds(lambda p: (model(p), jnp.einsum("lij,ki->klj", p["w"], X)), params)
    assert kinds == {"b": "diagonal", "s": "diagonal", "w": "sampled"}  # products of either kind


def test_a_kernel_of_few_channels_is_cut_where_the_model_has_it():
    numbers = ("NHWC", "HWIO", "NHWC")
    conv = lambda w: jax.lax.conv_general_dilated(
        jnp.ones((2, 5, 5, 2)), w, (1, 1), "SAME", dimension_numbers=numbers
    )
    kernel = {"w": jnp.ones((9, 3, 2, 2))}
    found, kinds = _kinds(lambda p: conv(p["w"]), kernel)
    assert kinds == {"w": "kronecker"}
    assert found.blocks[0].lengths == (54, 2)
    assert _kinds(lambda p: conv(p["w"]), kernel, fixed=True)[1] == {"w": "sampled"}
