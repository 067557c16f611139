"""Kronecker factors of the Gauss-Newton matrix, against that matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core import blocks, objective
from hesskit.linalg import kronecker as factors
from hesskit.linalg import kronecker_basis, kronecker_factors, kronecker_reading
from hesskit.linalg.dense import dense
from hesskit.linalg.slots import empty_slots

RNG = np.random.default_rng(0)
USER = pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")


def _normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def estimated(loss, params, args, *, exact=True, sharing="expand", shared="sum", max_dim=99):
    """The plan and the factors, from every column of outputs or one draw."""
    fn = objective.drop_aux(objective.bind(loss, args=args, caller="test"))
    plan = blocks.plan(lambda p: fn.inner(p)[0], params, max_dim=max_dim, shared=shared)
    empty = empty_slots(params, tuple(block.shape for block in plan.blocks))

    @jax.jit
    def of(seed):
        at = kronecker_reading.read(fn, params, plan)
        return kronecker_reading.estimate(
            at,
            seed,
            "exact" if exact else "sampled",
            lambda p: kronecker_factors.statistics(plan, p, empty, sharing=sharing),
        )

    return plan, factors.normal(of(jnp.uint32(0)), plan.blocks)


def matrix(plan, slots, params):
    """The dense matrix of the blocks."""
    turned = kronecker_basis.turned(slots, plan.blocks)
    return np.asarray(dense(lambda v: kronecker_basis.apply(turned, plan.blocks, v), params))


@USER
def test_one_example_of_a_linear_layer_is_exact(float64):
    """With one output a random sign has no say, so one draw is all there is."""
    params = {"w": _normal(3, 1), "b": _normal(1)}
    args = _normal(1, 3), jnp.ones((1, 1))
    loss = hesskit.composite(
        hesskit.losses.sigmoid_cross_entropy(), lambda p, x: x @ p["w"] + p["b"]
    )
    plan, slots = estimated(loss, params, args, exact=False)
    exact = hesskit.gauss_newton_operator(loss, params, args=args).dense()
    np.testing.assert_allclose(matrix(plan, slots, params), exact, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(factors.trace(slots, plan.blocks), np.trace(exact), rtol=1e-10)


def _check_blocks(loss, params, args, groups):
    """Blocks by group of leaves are those of the whole matrix."""
    plan, slots = estimated(loss, params, args)
    assert plan.blocks[-1].kind == "kronecker"
    ours = matrix(plan, slots, params)
    whole = np.asarray(hesskit.gauss_newton_operator(loss, params, args=args).dense())
    sizes = {name: params[name].size for name in sorted(params)}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    for names in groups:
        index = np.concatenate([starts[n] + np.arange(sizes[n]) for n in names])
        block = np.ix_(index, index)
        size = np.linalg.norm(whole[block])
        np.testing.assert_allclose(ours[block], whole[block], atol=1e-12 * size, err_msg=names)


@pytest.mark.slow
@USER
def test_one_example_of_a_deep_net_has_the_exact_blocks(float64):
    """x is known, so that the sum of g g' over columns is all of the block."""
    shapes = {"b": (3,), "c": (2,), "v": (3, 2), "w": (4, 3)}
    params = {name: _normal(*shape) for name, shape in shapes.items()}

    def model(p, x):
        return jax.checkpoint(lambda h: jnp.tanh(h @ p["w"] + p["b"]))(x) @ p["v"] + p["c"]

    loss = hesskit.composite(hesskit.losses.softmax_cross_entropy(), model)
    args = _normal(1, 4), jnp.array([1])
    _check_blocks(loss, params, args, [("b", "w"), ("c", "v")])


def test_a_tied_embedding_has_the_trace_of_both_of_its_uses(float64):
    """Each token meets the rows; the last product meets the columns."""
    ids = jnp.array([[0, 2, 1, 1]])
    params = {"e": _normal(9, 3)}
    loss = hesskit.composite(
        hesskit.losses.squared_error(reduction="sum"), lambda p, i: jnp.tanh(p["e"][i]) @ p["e"].T
    )
    plan, slots = estimated(loss, params, (ids, jnp.zeros((1, 4, 9))), max_dim=5)
    rows, columns, _ = slots[0]
    assert (rows.shape, columns.shape) == ((9,), (3, 3))  # never 9 x 9
    h = jnp.tanh(params["e"][ids[0]])
    last = 2 * 9 * jnp.sum(h * h)  # tr of sum x x' times the 9 outputs of curvature 2
    slope = 1 - h**2
    first = 2 * jnp.sum(slope**2 * jnp.sum(params["e"] ** 2, axis=0)[None, :])
    total = factors.trace(slots, plan.blocks)
    np.testing.assert_allclose(total, first + last, rtol=1e-12)


def test_a_convolution_at_one_place_is_a_dense_layer(float64):
    """A kernel that covers the whole picture has one position, and then the block is exact."""
    x, params = _normal(1, 2, 2, 2), {"k": _normal(2, 2, 2, 4)}

    def model(p, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, p["k"], (1, 1), "VALID", dimension_numbers=numbers)

    loss = hesskit.composite(hesskit.losses.squared_error(), model)
    _check_blocks(loss, params, (x, jnp.zeros((1, 1, 1, 4))), [("k",)])


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_weight_sharing_is_exact_where_it_is_meant_to_be(float64, sharing):
    """Of linear nets: "expand" where each place has a loss, "reduce" where their mean has one."""
    x, params = _normal(1, 4, 3), {"w": _normal(3, 1)}
    reduce = sharing == "reduce"
    x = x if reduce else x[:, :1] * jnp.ones((1, 4, 1))  # the same input everywhere

    def model(p, x):
        return jnp.mean(x @ p["w"], axis=1) if reduce else x @ p["w"]

    loss = hesskit.composite(hesskit.losses.squared_error(reduction="sum"), model)
    args = x, jnp.zeros((1, 1) if reduce else (1, 4, 1))
    plan, slots = estimated(loss, params, args, exact=False, sharing=sharing)
    exact = hesskit.gauss_newton_operator(loss, params, args=args).dense()
    np.testing.assert_allclose(matrix(plan, slots, params), exact, rtol=1e-10, atol=1e-14)


@USER
@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_steps_of_a_recurrent_net_are_positions_of_one_weight(float64, sharing):
    """With one output of each example a random sign has no say; slopes are of a loop in Python."""
    params = {"b": _normal(3), "w": _normal(3, 3)}
    x, last = _normal(4, 2, 3), _normal(3, 1)  # times, examples, entries

    def model(p):
        step = lambda h, x: (jnp.tanh(h @ p["w"] + p["b"] + x), None)
        return jax.lax.scan(step, jnp.zeros((2, 3)), x)[0] @ last

    def by_hand(taps):
        h, inputs = jnp.zeros((2, 3)), []
        for t in range(4):
            inputs.append(jnp.concatenate([h, jnp.ones((2, 1))], axis=1))
            h = jnp.tanh(h @ params["w"] + params["b"] + x[t] + taps[t])
        return h @ last, jnp.stack(inputs)

    _, pull, a = jax.vjp(by_hand, jnp.zeros((4, 2, 3)), has_aux=True)
    (g,) = pull(jnp.full((2, 1), 2**0.5))  # F of a square
    loss = hesskit.composite(hesskit.losses.squared_error(reduction="sum"), model)
    targets = {"targets": jnp.zeros((2, 1))}
    _, slots = estimated(loss, params, targets, exact=False, sharing=sharing)
    a, g = (jnp.mean(a, axis=0)[None], jnp.sum(g, axis=0)[None]) if sharing == "reduce" else (a, g)
    rows, columns, _ = slots[1]
    examples = a.shape[0] * a.shape[1]
    np.testing.assert_allclose(rows, jnp.einsum("tni,tnj->ij", a, a) / examples, rtol=1e-12)
    np.testing.assert_allclose(columns, jnp.einsum("tni,tnj->ij", g, g), rtol=1e-12)


def test_a_penalty_is_a_multiple_of_one_in_the_block_of_its_leaf(float64):
    params = {"w": _normal(3, 1), "v": _normal(4)}
    loss = hesskit.composite(
        hesskit.losses.squared_error(), lambda p, x: x @ p["w"] + jnp.sum(p["v"])
    )
    plan, slots = estimated(loss + hesskit.l2(0.7), params, (_normal(2, 3), jnp.zeros((2, 1))))
    np.testing.assert_allclose(slots[1][2], 0.7, rtol=1e-12)
    inverses = factors.inverses(slots, plan.blocks, jnp.zeros(()))
    inverse = dense(lambda v: factors.apply(inverses, plan.blocks, v), params)
    assert np.linalg.eigvalsh(inverse)[0] > 0


def test_slopes_of_a_leaf_in_no_product_have_its_exact_mean(float64):
    """tr E[V V'] is that of the block; for one row E[V'V] is the block itself, up to its trace."""
    params = {"m": _normal(1, 3)}
    loss = hesskit.composite(
        hesskit.losses.squared_error(reduction="sum"), lambda p: jnp.cumsum(jnp.sin(p["m"]), axis=1)
    )
    args = {"targets": jnp.zeros((1, 3))}
    plan, slots = estimated(loss, params, args)
    whole = np.asarray(hesskit.gauss_newton_operator(loss, params, args=args).dense())
    assert plan.blocks[0].kind == "sampled"
    np.testing.assert_allclose(matrix(plan, slots, params), whole, rtol=1e-12)
