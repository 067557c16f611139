"""`in_axes` means what it means in `jax.vmap`, and its mistakes are told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.solvers.batch import batched

PARAMS = {"a": np.zeros((5, 2)), "b": np.ones(5)}


@pytest.mark.parametrize(
    ("axes", "args"),
    [
        (0, (np.arange(5.0), np.arange(10.0).reshape(5, 2))),
        ((0, (None, 1)), (np.arange(3.0), np.arange(10.0).reshape(2, 5))),
        ((0, (None, -1)), ({"x": np.arange(3.0), "y": 2.0}, np.arange(5.0))),
        ((0, None), (np.arange(3.0),)),
        (({"a": 0, "b": None}, 0), (np.arange(5.0),)),
        ((0, 0), ()),
    ],
)
def test_it_is_that_of_vmap(axes, args):
    expected = jax.vmap(lambda p, a: (p, a), in_axes=axes, axis_size=5)(PARAMS, args)
    batch = batched({"params": PARAMS, "args": args}, axes)
    assert batch.num() == 5
    for i in (0, 4):
        got = batch.whole(jax.tree.map(lambda a, i=i: a[i], batch.mine))
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_array_equal(a, np.asarray(b)[i]), got, expected
        )
    rows = batch.at(jnp.array([4, 4, 1]))
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(rows))


@pytest.mark.parametrize(
    ("axes", "args", "words"),
    [
        (0, (np.zeros(5), np.zeros(100)), r"args\[1\] has leading size 100, params\['a'\] 5; mark"),
        (0, (np.zeros(()),), r"args\[0\] has shape \(\) and no axis 0; mark what is shared"),
        ((0, 2), (np.zeros(5),), r"no axis 2"),
        ((0, 1), (np.zeros((2, 9)),), r"args\[0\] has size 9 along axis 1, params\['a'\] 5; mark"),
        (None, (), "marks nothing as batched"),
        ((0, 0, 0), (), r"does not fit \(params, args\): it has 3 entries\. It is what jax.vmap"),
        ((0, (0, 0)), (np.zeros(5),), r"does not fit .*: in_axes for args\[1\] has no counterpart"),
        (
            (0, [0]),
            (np.zeros(5),),
            r"does not fit .*: in_axes for args is no prefix of args: their containers differ",
        ),
        (({}, 0), (np.zeros(5),), r"does not fit .*: nothing in it is for params\['a'\]"),
        ({"a": 0}, (), r"does not fit .*: it is a dict, expected an int or a tuple of one entry"),
    ],
)
def test_the_words_of_mistakes(axes, args, words):
    with pytest.raises(ValueError, match=words):
        batched({"params": PARAMS, "args": args}, axes)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (0, r"ydata has leading size 7, xdata 20.*=\(None, 0, None\) for \(xdata, ydata, params\)"),
        ((0, 0), r"does not fit \(xdata, ydata, params, sigma\).*=\(None, 0, None\) for"),
        (None, r"nothing as batched.*=\(None, 0, None\) for \(xdata, ydata, params\)"),
    ],
)
def test_the_advice_is_for_the_trees_of_the_call(axes, words):
    trees = {"xdata": np.zeros((20, 3)), "ydata": np.zeros((7, 20)), "params": (), "sigma": None}
    with pytest.raises(ValueError, match=words):
        batched(trees, axes)


def test_a_number_for_sigma_is_shared():
    trees = {"ydata": np.zeros((5, 2)), "sigma": {"a": 0.1, "b": np.ones((5, 2))}}
    for axes in (0, (0, 0)):
        batch = batched(trees, axes)
        assert batch.num() == 5
        assert batch.shared[1] == {"a": 0.1, "b": None}


def test_an_axis_is_an_int():
    with pytest.raises(TypeError, match="expected an int or None"):
        batched({"params": PARAMS, "args": ()}, (True, None))


def test_no_problems():
    with pytest.raises(ValueError, match="no problems"):
        batched({"params": np.zeros((0, 2)), "args": ()}, 0)
