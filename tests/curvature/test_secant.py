"""The compact product against the dense inverse BFGS matrix of the textbook recursion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import tree
from hesskit.core.pair import between
from hesskit.curvature import secant

N = 7


def as_tree(vector, dtype=jnp.float64, other=None):
    """Seven numbers as a matrix, a vector of one and a () leaf."""
    v = np.asarray(vector, float)
    return {
        "m": jnp.asarray(v[:4].reshape(2, 2), dtype),
        "s": jnp.asarray(v[4], other or dtype),
        "v": jnp.asarray(v[5:], other or dtype),
    }


def as_vector(item):
    return np.concatenate([np.asarray(leaf, float).reshape(-1) for leaf in jax.tree.leaves(item)])


def pair_of(step, change, unit=None):
    """The pair (s, y)."""
    pair = between(tree.zeros_like(change), change, step, length=jnp.ones(()))
    return pair if unit is None else pair._replace(unit=jnp.asarray(unit, pair.unit.dtype))


@jax.jit
def push(history, table, step, change, kept=True, unit=None):
    return secant.push(history, table, pair_of(step, change, unit), jnp.asarray(kept))


multiply = jax.jit(secant.multiply)


def pairs(seed, count, dtype=jnp.float64, other=None):
    """Random steps, and changes by a fixed positive definite matrix that bends a little."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(N, N))
    matrix = root @ root.T + np.eye(N)
    for _ in range(count):
        s = rng.normal(size=N) * 10 ** rng.uniform(-2, 2)
        yield as_tree(s, dtype, other), as_tree(matrix @ s * rng.uniform(0.5, 2), dtype, other)


def fill(num, count, seed=0, dtype=jnp.float64, other=None):
    """History and table after `count` pairs in room for `num`, multiplied once after each."""
    memory = secant.empty(as_tree(np.zeros(N), dtype, other), num)
    kept = list(pairs(seed, count, dtype, other))
    g = as_tree(np.ones(N), dtype, other)
    for step, change in kept:
        history, table = push(*memory, step, change)
        table, _ = multiply(history, table, g)
        memory = history, table
    return memory, [(as_vector(s), as_vector(y)) for s, y in kept]


def textbook(kept, num, scaled=True):
    """Nocedal & Wright (2006), (6.17), from gamma I of (7.20), over the last `num` pairs."""
    kept = kept[-num:]
    s, y = kept[-1]
    h = (s @ y / (y @ y) if scaled else 1.0) * np.eye(N)
    for s, y in kept:
        rho = 1 / (y @ s)
        left = np.eye(N) - rho * np.outer(s, y)
        h = left @ h @ left.T + rho * np.outer(s, s)
    return h


@jax.jit
def products(memory, vectors, scaled):
    """One product for each row."""
    return jax.vmap(lambda v: secant.multiply(*memory, v, scaled=scaled)[1])(vectors)


def dense(memory, scaled=True):
    """All columns of the product."""
    eye = jax.tree.map(lambda *rows: jnp.stack(rows), *map(as_tree, np.eye(N)))
    columns = products(memory, eye, scaled)
    return np.stack([as_vector(jax.tree.map(lambda a, k=k: a[k], columns)) for k in range(N)]).T


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("num", [1, 2, 3, 4, 5, 6])
def test_equals_the_textbook_recursion(num, scaled, float64):
    """Fewer pairs than room, exactly as many, and rings that wrap once and twice."""
    for count in sorted({1, max(num - 1, 1), num, num + 1, 2 * num + 1}):
        memory, kept = fill(num, count)
        assert memory[1].num_pairs == min(count, num)
        h, expected = dense(memory, scaled), textbook(kept, num, scaled)
        np.testing.assert_allclose(h, expected, atol=1e-10 * np.abs(expected).max())
        np.testing.assert_allclose(h, h.T, atol=1e-11 * np.abs(h).max())
        assert np.linalg.eigvalsh((h + h.T) / 2)[0] > 0
        s, y = kept[-1]
        np.testing.assert_allclose(h @ y, s, atol=1e-9 * np.linalg.norm(s))


def test_without_pairs_the_vector_comes_back(float64):
    memory = secant.empty(as_tree(np.zeros(N)), 3)
    np.testing.assert_array_equal(dense(memory), np.eye(N))


def same(before, after):
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("num", [1, 3])
def test_a_bad_pair_changes_nothing(num, dtype):
    memory, _ = fill(num, 2, dtype=dtype)
    ones = as_tree(np.ones(N), dtype)
    tiny = 0.1 * float(jnp.finfo(dtype).eps)
    across = as_tree([tiny, 1, -1, 1, -1, 1, -1], dtype)
    for step, change, kept in [
        (ones, ones, False),
        (ones, tree.scale(-1.0, ones), True),
        (ones, tree.scale(0.0, ones), True),
        (tree.scale(0.0, ones), ones, True),
        (ones, across, True),
        *((ones, tree.scale(bad, ones), True) for bad in (np.nan, np.inf)),
        *((tree.scale(bad, ones), ones, True) for bad in (np.nan, np.inf)),
        (as_tree([np.nan] + 6 * [1], dtype), ones, True),
    ]:
        same(memory, push(*memory, step, change, kept))
    _, table = push(*memory, ones, ones)
    assert table.newest != memory[1].newest or num == 1


def test_a_forgotten_ring_begins_again(float64):
    """`num_pairs` 0 forgets all pairs, whatever still stands in the rows."""
    (history, table), _ = fill(3, 5)
    table = table._replace(num_pairs=jnp.zeros_like(table.num_pairs))
    np.testing.assert_array_equal(dense((history, table)), np.eye(N))
    kept = []
    for step, change in pairs(9, 2):
        history, table = push(history, table, step, change)
        table, _ = multiply(history, table, step)
        kept.append((as_vector(step), as_vector(change)))
        expected = textbook(kept, 3)
        np.testing.assert_allclose(
            dense((history, table)), expected, atol=1e-10 * np.abs(expected).max()
        )


def test_an_overwritten_pair_that_was_large_leaves_no_trace(dtype):
    """Rows out of use may hold anything: they are masked, not multiplied by zero."""
    (history, table), kept = fill(4, 2, dtype=dtype)
    unused = [3, 2]
    spoiled = jax.tree.map(lambda a: a.at[jnp.array(unused)].set(1e30), history)
    g = as_tree(np.ones(N), dtype)
    clean, dirty = (multiply(h, table, g)[1] for h in (history, spoiled))
    rtol = 1e-10 if dtype == jnp.float64 else 1e-4
    np.testing.assert_allclose(as_vector(dirty), as_vector(clean), rtol=rtol)
    np.testing.assert_allclose(as_vector(clean), textbook(kept, 4) @ np.ones(N), rtol=100 * rtol)


@pytest.mark.parametrize(
    ("length", "slope"), [(1e-25, 1.0), (1e25, 1.0), (1e-25, 1e-3), (1e-30, 1)]
)
def test_tiny_and_huge_steps_in_float32(length, slope):
    """optax issue 1203: s.y is 1e-50, which underflows to 0, and 1 / s.y is infinite."""
    f32 = jnp.float32
    memory = secant.empty(as_tree(np.zeros(N), f32), 3)
    kept = []
    for step, change in pairs(2, 5, f32):
        step, change = tree.scale(length, step), tree.scale(length * slope, change)
        memory = push(*memory, step, change)
        table, product = multiply(*memory, as_tree(np.ones(N), f32))
        memory = memory[0], table
        kept.append((as_vector(step), as_vector(change)))
        expected = textbook(kept, 3) @ np.ones(N)
        assert np.all(np.isfinite(as_vector(product)))
        np.testing.assert_allclose(as_vector(product), expected, atol=2e-4 * np.abs(expected).max())
    assert memory[1].num_pairs == 3


@pytest.mark.parametrize("other", [jnp.bfloat16, jnp.float32])
def test_dtypes_of_the_leaves_are_kept(other):
    memory, kept = fill(2, 3, dtype=jnp.bfloat16, other=other)
    for rows in memory[0]:
        assert rows["m"].dtype == jnp.bfloat16
        assert rows["v"].dtype == rows["s"].dtype == other
        assert rows["s"].shape == (2,)
        assert rows["m"].shape == (2, 2, 2)
    assert {leaf.dtype for leaf in memory[1][:2]} == {jnp.dtype("float32")}
    _, product = multiply(*memory, as_tree(np.ones(N), jnp.bfloat16, other))
    assert {leaf.dtype for leaf in jax.tree.leaves(product)} == {jnp.dtype("float32")}
    expected = textbook(kept, 2) @ np.ones(N)  # of the pairs as they were rounded
    np.testing.assert_allclose(as_vector(product), expected, atol=1e-2 * np.abs(expected).max())


@pytest.mark.slow
def test_the_unit_is_free(float64):
    """The product does not depend on the power of two by which pairs are stored."""
    memories = [secant.empty(as_tree(np.zeros(N)), 2)] * 2
    for step, change in pairs(4, 3):
        memories = [
            push(*m, step, change, True, u) for m, u in zip(memories, (1e-3, 700.0), strict=True)
        ]
        memories = [(h, multiply(h, t, step)[0]) for h, t in memories]
    one, two = map(dense, memories)
    np.testing.assert_allclose(one, two, rtol=1e-12)


@pytest.mark.slow
def test_lanes_equal_one_by_one(float64):
    """A lane may be without pairs, or leave its pair out."""
    g, memory = as_tree(np.arange(1.0, N + 1)), secant.empty(as_tree(np.zeros(N)), 2)
    lanes = [list(pairs(seed, 3)) for seed in range(3)]
    kept = [(True, True, True), (False, False, False), (True, False, True)]

    def run(steps, changes, kept):
        def body(memory, pair):
            history, table = push(*memory, *pair)
            table, product = secant.multiply(history, table, g)
            return (history, table), product

        return jax.lax.scan(body, memory, (steps, changes, kept))

    stack = lambda items: jax.tree.map(lambda *rows: jnp.stack(rows), *items)
    rows = [map(stack, zip(*lane, strict=True)) for lane in lanes]
    inputs = [(*row, jnp.array(k)) for row, k in zip(rows, kept, strict=True)]
    together = jax.vmap(run)(*stack(inputs))
    compiled = jax.jit(run)
    for lane, one in enumerate(inputs):
        alone = compiled(*one)
        mine = jax.tree.map(lambda a, k=lane: a[k], together)
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(mine), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    assert list(together[0][1].num_pairs) == [2, 0, 2]
    np.testing.assert_array_equal(
        as_vector(jax.tree.map(lambda a: a[1, -1], together[1])), as_vector(g)
    )


@pytest.mark.slow
def test_any_sign_takes_pairs_of_negative_curvature(float64):
    """The bare formula: (1) is still the textbook recursion, no longer positive definite."""
    taken, left = (secant.empty(as_tree(np.zeros(N)), 3) for _ in range(2))
    kept = []
    for k, (step, change) in enumerate(pairs(5, 3)):
        change = tree.scale(-1.0 if k == 1 else 1.0, change)
        pair, yes = pair_of(step, change), jnp.array(True)
        left = secant.push(*left, pair, yes)
        history, table = secant.push(*taken, pair, yes, any_sign=True)
        taken = history, multiply(history, table, step)[0]
        kept.append((as_vector(step), as_vector(change)))
    assert (int(taken[1].num_pairs), int(left[1].num_pairs)) == (3, 2)
    expected = textbook(kept, 3)
    np.testing.assert_allclose(dense(taken), expected, atol=1e-10 * np.abs(expected).max())
    assert np.linalg.eigvalsh(expected)[0] < 0
    step, change = next(pairs(6, 1))
    broken = tree.scale(jnp.nan, change)
    same(taken, secant.push(*taken, pair_of(step, broken), yes, any_sign=True))


def gradients(seed, count, moved):
    """Gradients of a bending quadratic, each `moved` times the first away from the one before."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(N, N))
    matrix = root @ root.T / N + np.eye(N)
    g = rng.normal(size=N)
    for _ in range(count):
        s = moved * rng.normal(size=N)
        y = matrix @ s * rng.uniform(0.5, 2)
        yield s, g, g + y
        g = g + y


@jax.jit
def follow(history, table, before, after, step, kept=True):
    pair = between(before, after, step, length=jnp.ones(()))
    return secant.follow(history, table, pair, jnp.asarray(kept), after)


@pytest.mark.parametrize("moved", [1.0, 0.03])
@pytest.mark.parametrize("num", [1, 3, 6])
def test_following_equals_reading_the_history_again(num, moved, float64):
    """By differences of products where gradients change much, else by reading."""
    memory, told = (secant.empty(as_tree(np.zeros(N)), num, follows=f) for f in (False, True))
    kept = []
    for k, (step, before, after) in enumerate(gradients(7, 2 * num + 2, moved)):
        s, g, new = map(as_tree, (step, before, after))
        if k == 0:  # a first call, which has no pair
            *told, product = follow(*told, as_tree(np.zeros(N)), g, as_tree(np.zeros(N)), False)
            np.testing.assert_array_equal(as_vector(product), before)
        kept.append((step, after - before))
        history, table = push(*memory, s, tree.sub(new, g))
        table, expected = multiply(history, table, new)
        memory = history, table
        *told, product = follow(*told, g, new, s)
        assert told[1].num_pairs == table.num_pairs
        scale = np.abs(as_vector(expected)).max()
        np.testing.assert_allclose(as_vector(product), as_vector(expected), atol=1e-9 * scale)
        independent = textbook(kept, num) @ after
        np.testing.assert_allclose(as_vector(product), independent, atol=1e-8 * scale)


def test_following_leaves_out_a_pair_of_negative_curvature(float64):
    """The differences go on from the vector that came with it."""
    told = secant.empty(as_tree(np.zeros(N)), 3, follows=True)
    kept = []
    for k, (step, before, after) in enumerate(gradients(8, 7, 1.0)):
        s, g, new = map(as_tree, (step, before, after))
        if k == 0:
            *told, _ = follow(*told, as_tree(np.zeros(N)), g, as_tree(np.zeros(N)), False)
        if k in (2, 5):
            s = tree.negative(s)
        else:
            kept.append((step, after - before))
        *told, product = follow(*told, g, new, s)
        np.testing.assert_allclose(as_vector(product), textbook(kept, 3) @ after, rtol=1e-8)
    assert told[1].num_pairs == 3


def test_following_loses_no_digits_to_the_differences():
    """In float32 beside float64, with gradients that hardly change and ones that change much."""
    for moved in (1e-3, 0.02, 0.2, 5.0):
        told = secant.empty(as_tree(np.zeros(N), jnp.float32), 4, follows=True)
        first = True
        kept = []
        for step, before, after in gradients(9, 9, moved):
            s, g, new = (as_tree(v, jnp.float32) for v in (step, before, after))
            if first:
                *told, _ = follow(*told, tree.zeros_like(g), g, tree.zeros_like(g), False)
                first = False
            *told, product = follow(*told, g, new, s)
            kept.append((as_vector(s), as_vector(tree.sub(new, g))))
        expected = textbook(kept, 4) @ as_vector(new)
        error = np.abs(as_vector(product) - expected).max() / np.abs(expected).max()
        assert error < 1e-4, (moved, error)
