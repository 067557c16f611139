"""The leafwise preconditioner against dense Kronecker products; what it does with bad products."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core import pseudo_random

RNG = np.random.default_rng(0)
LIKE = {"w": np.ones((4, 3)), "b": np.ones(()), "long": np.ones(12), "deep": np.ones((2, 2, 3))}
SHAPES = {"w": (4, 3), "b": (1, 1), "long": (12, 1), "deep": (4, 3)}
DIAGONAL = {"long"}  # longer than so few columns know
DECAY = 0.9


def spd(n, low=1e-2):
    q, _ = np.linalg.qr(RNG.normal(size=(n, n)))
    return (q * np.geomspace(low, 1, n)) @ q.T


BLOCKS = {name: spd(np.size(a)) for name, a in LIKE.items()}


def params(dtype):
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), LIKE)


def image(blocks, v):
    """A block times each leaf."""
    return {
        name: (blocks[name].astype(a.dtype) @ a.reshape(-1)).reshape(a.shape)
        for name, a in v.items()
    }


@functools.partial(jax.jit, static_argnames=("preconditioner", "num"))
def updated(preconditioner, blocks, like, num, state=None):
    """The state after `num` points."""
    step = lambda state, _: (
        preconditioner.update(state, functools.partial(image, blocks), like),
        None,
    )
    state = preconditioner.init(like) if state is None else state
    return jax.lax.scan(step, state, None, length=num)[0]


@functools.partial(jax.jit, static_argnames="preconditioner")
def matrix(preconditioner, state, like, damping):
    """The matrix of `apply`, in the order of `ravel_pytree`."""
    flat, unravel = jax.flatten_util.ravel_pytree(like)
    apply = lambda v: jax.flatten_util.ravel_pytree(
        preconditioner.apply(state, unravel(v), jnp.asarray(damping, v.dtype))
    )[0]
    return jax.vmap(apply, out_axes=1)(jnp.eye(flat.size, dtype=flat.dtype))


def blocks_of(found, like):
    """The block of each leaf; the rest is zero."""
    blocks, start, rest = {}, 0, np.array(found)
    for name in sorted(like):
        here = slice(start, start + like[name].size)
        blocks[name] = rest[here, here].copy()
        rest[here, here] = 0
        start += like[name].size
    assert not np.any(rest)
    return blocks


def root(mean, dense):
    """The root of a mean of M M', of its diagonal if that is all that is kept."""
    values, vectors = np.linalg.eigh(mean if dense else np.diag(np.diag(mean)))
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def reference(name, num, damping):
    """Formulas (1) and (2) of the module, from the same random vectors."""
    a, b = SHAPES[name]
    rows, columns = np.zeros((a, a)), np.zeros((b, b))
    for i in range(num):
        w = np.asarray(pseudo_random.like(params("float64"), i)[name]).ravel()
        m = (BLOCKS[name] @ w).reshape(a, b)
        share = max(1 / (i + 1), 1 - DECAY)
        rows = (1 - share) * rows + share * m @ m.T
        columns = (1 - share) * columns + share * m.T @ m
    unit = np.trace(rows) ** 0.25
    left, right = root(rows, name not in DIAGONAL) / unit, root(columns, True) / unit
    pi = np.sqrt((np.trace(left) / a) / (np.trace(right) / b))
    left = left + pi * np.sqrt(damping) * np.eye(a)
    right = right + np.sqrt(damping) / pi * np.eye(b)
    return np.linalg.inv(np.kron(left, right))


@pytest.mark.slow
def test_it_is_the_damped_kronecker_product(float64):
    preconditioner, like = hesskit.leafwise_preconditioner(decay=DECAY), params("float64")
    state = updated(preconditioner, BLOCKS, like, 24)
    for name, found in blocks_of(matrix(preconditioner, state, like, 0.01), like).items():
        expected = reference(name, 24, 0.01)
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())


def test_it_tends_to_the_inverse_of_a_kronecker_product(float64):
    """Also where the curvature is indefinite: then of its modulus; and is of use from the first."""
    q, _ = np.linalg.qr(RNG.normal(size=(9, 9)))
    w = np.geomspace(1e-2, 1, 9) * np.resize([1, -1], 9)
    like = {"v": jnp.ones(9), "w": jnp.ones((6, 5))}
    blocks = {"v": (q * w) @ q.T, "w": np.kron(spd(6), spd(5))}
    true = {"v": (q * np.abs(w)) @ q.T, "w": blocks["w"]}
    preconditioner = hesskit.leafwise_preconditioner(decay=0.998)
    for num, least in ((1, 0.9), (500, 20)):
        state = updated(preconditioner, blocks, like, num)
        for name, found in blocks_of(matrix(preconditioner, state, like, 0.0), like).items():
            values = np.linalg.eigvals(found @ true[name]).real
            assert values.min() > 0
            assert np.linalg.cond(true[name]) > least * values.max() / values.min()
            if num > 1:
                assert 0.6 < values.min() < values.max() < 1.6


def test_it_is_positive_definite_whatever_the_products():
    """In float32, with damping and without."""
    preconditioner, like = hesskit.leafwise_preconditioner(decay=DECAY), params("float32")
    for kind in (
        lambda n: np.diag(np.resize([1.0, -2.0], n)),
        lambda n: np.zeros((n, n)),
        lambda n: np.diag(np.arange(n) == 1).astype(float),
        lambda n: 1e30 * np.eye(n),
        lambda n: 1e-30 * np.eye(n),
    ):
        blocks = {name: kind(a.size).astype("float32") for name, a in LIKE.items()}
        state = updated(preconditioner, blocks, like, 3)
        for damping in (0.0, 0.1):
            found = matrix(preconditioner, state, like, damping)
            wide = np.asarray(found, np.float64)
            for block in blocks_of(wide, like).values():
                np.testing.assert_allclose(block, block.T, atol=1e-5 * np.abs(block).max())
                assert np.linalg.eigvalsh((block + block.T) / 2).min() > 0


def test_a_product_that_is_not_finite_changes_nothing():
    preconditioner, like = hesskit.leafwise_preconditioner(decay=DECAY), params("float32")
    blocks = {name: block.astype("float32") for name, block in BLOCKS.items()}
    state = updated(preconditioner, blocks, like, 3)
    for bad in (np.nan, np.inf, 1e30):
        spoiled = blocks | {"b": np.full((1, 1), bad, "float32")}
        after = updated(preconditioner, spoiled, like, 3, state)
        for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_sharded_leaves_stay_where_they_are(kind):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(getattr(jax.sharding.AxisType, kind),))
    preconditioner = hesskit.leafwise_preconditioner()
    scale = np.geomspace(1, 100, 16 * 3).reshape(16, 3)

    @jax.jit
    def run(x):
        image = lambda v: v * jnp.asarray(scale, "float32")
        state = preconditioner.update(preconditioner.init(x), image, x)
        return preconditioner.apply(state, x, jnp.float32(0.1))

    x = jnp.asarray(RNG.normal(size=(16, 3)), "float32")
    expected = run(x)
    with jax.set_mesh(mesh):
        split = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.P("x", None)))
        found = run(split)
    if kind == "Explicit":
        assert found.sharding == split.sharding
    np.testing.assert_allclose(np.asarray(found), expected, rtol=2e-4, atol=1e-6)


@pytest.mark.slow
def test_newton_cg_spends_fewer_products_with_it(float64):
    """Rows and columns of unlike scales, which a diagonal does not see."""
    a, b, target = spd(12, 1e-3), spd(10, 1e-3), RNG.normal(size=(12, 10))

    def loss(w):
        off = w - target
        return jnp.sum(off * (jnp.asarray(a) @ off @ b)) + 1e-4 * jnp.sum(off**4)

    spent = []
    for chosen in (None, hesskit.leafwise_preconditioner()):
        opt = hesskit.newton_cg(preconditioner=chosen)
        found = hesskit.minimize(loss, jnp.zeros((12, 10)), opt, gtol=1e-8)
        assert found.success
        spent.append(int(found.num_products))
    assert 5 * spent[1] < spent[0]


@pytest.mark.parametrize(
    ("kwargs", "error", "words"),
    [
        ({"decay": 1.0}, ValueError, r"decay must lie in \[0, 1\)"),
        ({"decay": "a"}, TypeError, "decay must be a number"),
        ({"max_dim": 0}, ValueError, "max_dim must"),
    ],
)
def test_words(kwargs, error, words):
    with pytest.raises(error, match=words):
        hesskit.leafwise_preconditioner(**kwargs)


def test_complex_leaves_are_refused_by_path():
    with pytest.raises(TypeError, match=r"params\['z'\] complex64"):
        hesskit.leafwise_preconditioner().init({"z": jnp.ones(2, "complex64")})
