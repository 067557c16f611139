"""The operator of Kronecker factors: inverse and determinant against its own dense matrix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit

RNG = np.random.default_rng(0)


def _normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


@pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")
@pytest.mark.parametrize("max_factor_dim", [99, 2])
def test_inverse_and_determinant_are_those_of_the_dense_matrix(float64, max_factor_dim):
    shapes = {"b": (2,), "m": (2, 2), "s": (2,), "w": (3, 2)}
    params = {name: _normal(*shape) for name, shape in shapes.items()}

    def model(p, x):
        return jnp.tanh(x @ p["w"] + p["b"]) * p["s"] @ jnp.sin(p["m"])

    loss = hesskit.composite(hesskit.losses.softmax_cross_entropy(), model) + hesskit.l2(0.1)
    args = _normal(7, 3), jnp.arange(7) % 2
    op = hesskit.kronecker_operator(
        loss, params, args=args, num_samples=5, max_factor_dim=max_factor_dim
    )
    matrix = np.asarray(op.dense())
    assert np.linalg.eigvalsh(matrix)[0] > 0
    v = {name: _normal(*shape) for name, shape in shapes.items()}
    flat = jax.flatten_util.ravel_pytree
    wanted = np.linalg.solve(matrix + 0.3 * np.eye(len(matrix)), flat(v)[0])
    np.testing.assert_allclose(flat(op.solve(v, 0.3))[0], wanted, rtol=1e-9)
    np.testing.assert_allclose(flat(op.shift(0.3).solve(v))[0], wanted, rtol=1e-9)
    np.testing.assert_allclose(op.logdet(), np.linalg.slogdet(matrix)[1], rtol=1e-9)
    np.testing.assert_allclose((2 * op).dense(), 2 * matrix, rtol=1e-12)
    w = {**dict.fromkeys(shapes), "w": v["w"]}
    block = matrix[-6:, -6:]
    found = op.block("w").solve(w, 0.3)["w"].ravel()
    wanted = np.linalg.solve(block + 0.3 * np.eye(6), v["w"].ravel())
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")
@pytest.mark.parametrize("max_factor_dim", [99, 3])
def test_corrected_eigenvalues_are_the_diagonal_of_the_curvature(float64, max_factor_dim):
    """In the eigenvectors of the factors: no other values there are nearer to the matrix."""
    params = {"b": _normal(2), "e": _normal(4, 3), "m": _normal(2, 2), "w": _normal(3, 2)}

    def model(p, ids):
        return jnp.tanh(p["e"][ids] @ p["w"] + p["b"]) @ jnp.sin(p["m"])

    loss = hesskit.composite(hesskit.losses.softmax_cross_entropy(), model)
    args = jnp.array([0, 2, 1, 3, 1, 2]), jnp.arange(6) % 2
    make = functools.partial(hesskit.kronecker_operator, loss, params, args=args, estimator="exact")
    plain = make(max_factor_dim=max_factor_dim)
    op = make(max_factor_dim=max_factor_dim, eigenvalue_correction=True)
    whole = np.asarray(hesskit.gauss_newton_operator(loss, params, args=args).dense())
    ends = np.cumsum([0, 2, 12, 4, 6])
    order = {"e": np.arange(ends[1], ends[2]), "b, w": [*range(ends[3], ends[4]), *range(2)]}
    (term,) = op.terms
    for leaf, index in ((1, order["e"]), (3, order["b, w"])):
        block, slot = term.curvature.blocks[leaf], term.args[leaf]
        a, b = block.lengths
        u, v = (
            side[:n, :n] if side.ndim == 2 else jnp.eye(n)
            for side, n in zip(slot[:2], (a, b), strict=True)
        )
        turn, inner = np.kron(u, v), whole[np.ix_(index, index)]
        nearest = turn @ np.diag(np.diag(turn.T @ inner @ turn)) @ turn.T
        ours = np.asarray(op.dense())[np.ix_(index, index)]
        np.testing.assert_allclose(ours, nearest, atol=1e-13)
        away = [
            np.linalg.norm(np.asarray(x.dense())[np.ix_(index, index)] - inner) for x in (op, plain)
        ]
        assert away[0] < away[1]


@pytest.mark.slow
@pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")
def test_layers_of_a_scan_have_the_blocks_of_a_net_written_out(float64):
    shapes = {"b": (2,), "m": (2, 2), "s": (2,), "w": (2, 2)}
    layers = [{name: _normal(*shape) for name, shape in shapes.items()} for _ in range(2)]
    x, last = _normal(1, 5, 2), _normal(2, 1)  # one output: a random sign has no say
    stack = jax.tree.map(lambda *each: jnp.stack(each), *layers), last
    layers = layers, last

    @jax.checkpoint
    def layer(h, p):
        return p["s"] * jnp.tanh(h @ p["w"] + p["b"]) @ jnp.sin(p["m"]), None

    def scanned(p, x):
        return jnp.mean(jax.lax.scan(layer, x, p[0], reverse=True)[0] @ p[1], axis=1)

    def written(p, x):
        for own in reversed(p[0]):
            x = layer(x, own)[0]
        return jnp.mean(x @ p[1], axis=1)

    @functools.partial(jax.jit, static_argnums=0)
    def operator(model, params):
        loss = hesskit.composite(hesskit.losses.squared_error(), model)
        loss += hesskit.l2(0.1, mask=lambda path, leaf: "w" in path)
        args = x, jnp.zeros((1, 1))
        op = hesskit.kronecker_operator(
            loss, params, args=args, max_factor_dim=2, eigenvalue_correction=True
        )
        return op.dense(), op.logdet(0.3), op.solve(params, 0.3) if model is scanned else None

    (ours, logdet, solved), (wanted, *_) = operator(scanned, stack), operator(written, layers)
    n = len(ours)
    flat, unravel = jax.flatten_util.ravel_pytree(stack)
    of_stack, of_last = unravel(jnp.arange(float(n)))
    of_layers = [jax.tree.map(lambda a, i=i: a[i], of_stack) for i in range(2)]
    order = jax.flatten_util.ravel_pytree((of_layers, of_last))[0].astype(int)
    np.testing.assert_allclose(ours[jnp.ix_(order, order)], wanted, atol=1e-12)
    shifted = ours + 0.3 * jnp.eye(n)
    np.testing.assert_allclose(logdet, np.linalg.slogdet(shifted)[1], rtol=1e-12)
    solved = jax.flatten_util.ravel_pytree(solved)[0]
    np.testing.assert_allclose(solved, np.linalg.solve(shifted, flat), rtol=1e-9)


def test_parts_of_a_batch_are_examples(float64):
    """The factors of micro-batches, which a scan goes through, are those of the whole batch."""
    loss = hesskit.composite(
        hesskit.losses.squared_error(), lambda p, x: jnp.mean(jnp.tanh(x @ p), axis=1)
    )
    params, args = _normal(3, 1), (_normal(6, 2, 3), _normal(6, 1))
    make = lambda fn: hesskit.kronecker_operator(fn, params, args=args, sharing="reduce").dense()
    np.testing.assert_allclose(make(hesskit.microbatched(loss, 2)), make(loss), rtol=1e-12)


def test_a_plain_function_has_no_factors():
    with pytest.raises(TypeError, match=r"kronecker_operator reads the model, .*composite"):
        hesskit.kronecker_operator(lambda w: jnp.sum(w**2), jnp.ones(2))


def test_a_leaf_that_is_returned_in_another_shape_has_curvature():
    loss = hesskit.least_squares_loss(lambda p: p.reshape(3, 1))
    found = hesskit.kronecker_operator(loss, jnp.ones(3)).dense()
    np.testing.assert_allclose(found, np.eye(3), atol=1e-6)


@pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")
@pytest.mark.parametrize(
    ("equation", "shape"), [("ni,i->n", (3,)), ("ni,io->no", (3, 1)), ("nij,ij->n", (3, 2))]
)
def test_a_product_to_one_output_has_the_exact_block(float64, equation, shape):
    """Of least squares each output has curvature 1: the block is X'X, the bias in it."""
    x, params = _normal(9, *shape[: len(equation.split(",")[0]) - 1]), {"w": _normal(*shape)}

    def residual(p, x):
        return jnp.einsum(equation, x, p["w"]).reshape(-1) + p["b"]

    loss = hesskit.least_squares_loss(residual)
    params["b"] = jnp.zeros(())
    columns = np.concatenate([np.ones((9, 1)), np.asarray(x).reshape(9, -1)], axis=1)
    op = hesskit.kronecker_operator(loss, params, args=(x,))
    np.testing.assert_allclose(op.dense(), columns.T @ columns, rtol=1e-12)
