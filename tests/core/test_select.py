"""Every spelling of "these leaves", and what is said where it fits none."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import select


class Peak(NamedTuple):
    mu: float
    width: float


PARAMS = {"bg": {"a": 1.0, "b": 2.0}, "peak": [Peak(0.0, 1.0), Peak(5.0, 2.0)], "none": None}
NAMES = ("bg/a", "bg/b", "peak/0/mu", "peak/0/width", "peak/1/mu", "peak/1/width")


def test_names_are_paths_in_the_order_of_the_leaves():
    assert select.names(PARAMS) == NAMES
    assert select.names(jnp.ones(3)) == ("params",)
    assert select.names((1.0, {"x": 2.0})) == ("0", "1/x")


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ("bg", "bg/a bg/b"),
        ("bg/b", "bg/b"),
        ("peak/*/mu", "peak/0/mu peak/1/mu"),
        (["bg/a", "peak/1"], "bg/a peak/1/mu peak/1/width"),
        (("peak/0/w*",), "peak/0/width"),
        ([], ""),
        (lambda path, leaf: leaf > 1.5, "bg/b peak/1/mu peak/1/width"),
        (lambda path, leaf: path.endswith("mu"), "peak/0/mu peak/1/mu"),
        ({"bg": True, "peak": False, "none": False}, "bg/a bg/b"),
        (
            {"bg": {"a": False, "b": np.True_}, "peak": [True, Peak(False, True)], "none": None},
            "bg/b peak/0/mu peak/0/width peak/1/width",
        ),
        (True, " ".join(NAMES)),
        (False, ""),
    ],
)
def test_selectors(selector, chosen: str):
    flags = select.select(selector, PARAMS, name="fixed")
    assert [n for n, flag in zip(NAMES, flags, strict=True) if flag] == chosen.split()


def test_only_the_star_is_special():
    params = {"w[0]": 1.0, "w?": 2.0, "w0": 3.0}
    names = select.names(params)
    for key in params:
        flags = select.select(key, params, name="fixed")
        assert [n for n, flag in zip(names, flags, strict=True) if flag] == [key]


@pytest.mark.parametrize("selector", ["bg/c", ["bg/a", "peak/mu"], "a", "bg/a/x"])
def test_a_path_that_matches_nothing_lists_the_paths(selector):
    with pytest.raises(ValueError, match=r"fixed=.* matches no leaf; the paths are bg/a, bg/b, "):
        select.select(selector, PARAMS, name="fixed")


def test_a_function_that_matches_nothing_lists_the_paths():
    with pytest.raises(ValueError, match=r"fixed selects no leaf; the paths are bg/a"):
        select.select(lambda path, leaf: False, PARAMS, name="fixed")


@pytest.mark.parametrize("selector", [{"bg": True}, {"bg": True, "peaks": False}, (True, False)])
def test_a_tree_that_is_no_prefix(selector):
    with pytest.raises(ValueError, match="fixed is no prefix of params"):
        select.select(selector, PARAMS, name="fixed")


@pytest.mark.parametrize("selector", [3, 0.5, {"bg": 1, "peak": 0, "none": 0}, jnp.ones(2, bool)])
def test_what_is_no_selector(selector):
    with pytest.raises(TypeError, match="fixed must be a prefix tree of bools, a path"):
        select.select(selector, PARAMS, name="fixed")


def test_merge_undoes_split():
    params = {"a": jnp.ones(2), "b": [jnp.zeros(3), None, jnp.full((), 7.0)]}
    rest, chosen = select.split(params, (True, False, True))
    assert jax.tree.leaves(rest)[0].shape == (3,)
    assert len(jax.tree.leaves(chosen)) == 2
    merged = select.merge(rest, chosen)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (merged, params)), strict=True))
