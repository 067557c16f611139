"""The fixed vector: always the same, of variance 1, in the dtypes of its model."""

import jax
import jax.numpy as jnp

from hesskit.core import pseudo_random, tree


def test_it_is_fixed_and_standard_normal():
    x = {"a": jnp.zeros((50, 40)), "b": jnp.zeros((2000,))}
    draw = pseudo_random.like(x)
    assert tree.equal(draw, pseudo_random.like(x))
    assert not tree.equal(draw, pseudo_random.like(x, seed=1))
    entries = tree.ravel(draw)
    assert abs(entries.mean()) < 5 / 4000**0.5
    assert abs(entries.std() - 1) < 5 / 4000**0.5
    assert abs(jnp.corrcoef(draw["a"].ravel(), draw["b"])[0, 1]) < 0.1  # leaves are independent


def test_dtypes_are_kept():
    mixed = {"a": jnp.zeros((2, 3)), "b": (jnp.ones((), "bfloat16"),)}
    draw = pseudo_random.like(mixed)
    assert jax.tree.map(jnp.result_type, draw) == jax.tree.map(jnp.result_type, mixed)
