"""The picture of runs holds their histories."""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from hesskit.plots import convergence
from hesskit.solvers.result import History
from tests.solvers.fits import result_of


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def run(value, num_values=None, method="newton", padding=0):
    """A result that went through these values, by a line search with two evaluations a step."""
    value = np.asarray(value, "float32")
    rows = value.size
    num_values = 1 + 2 * np.arange(rows) if num_values is None else num_values
    full = np.concatenate([value, np.full(padding, np.nan, "float32")])
    history = History(
        value=jnp.asarray(full),
        grad_norm=jnp.asarray(2 * np.abs(full)),
        step_norm=jnp.ones_like(full),
        accepted=jnp.ones(full.shape, bool),
        num_values=jnp.asarray([*num_values, *[0] * padding], jnp.int32),
        params=None,
        length=jnp.asarray(rows, jnp.int32),
    )
    return dataclasses.replace(result_of({"a": 1.0}), history=history, method=method)


DOWN = [100.0, 1.0, 1e-3, 1e-8]


def xs(ax):
    return [line.get_xdata().tolist() for line in ax.lines]


def names(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_values_by_step_and_by_evaluation():
    ax = convergence(run(DOWN))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), DOWN, rtol=1e-6)
    assert xs(ax) == [[0, 1, 2, 3]]
    assert (ax.get_yscale(), ax.get_ylabel(), ax.get_xlabel()) == ("log", "value", "steps")
    assert names(ax) == ["newton"]
    ax = convergence([run(DOWN), run(DOWN[:2])], x="evaluations", y="grad_norm")
    assert xs(ax) == [[1, 3, 5, 7], [1, 3]]
    named = {"first": run(DOWN), "second": run(DOWN[:2])}
    assert names(convergence(named)) == ["first", "second"]
    looks = [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in ax.lines]
    assert looks == [("#D55E00", "o", "-"), ("#0072B2", "s", "-")]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 2 * np.asarray(DOWN), rtol=1e-6)
    assert ax.get_ylabel() == "gradient norm"


def test_rows_past_the_length_are_left_out():
    ax = convergence(run(DOWN, padding=3))
    assert xs(ax) == [[0, 1, 2, 3]]


def test_negative_values_are_shown_above_the_lowest():
    ax = convergence([run([5.0, -1.0, -1.5]), run([5.0, -1.9, -2.0])])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [7.0, 1.0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [7.0, 0.1, 0.0], atol=1e-6)
    assert ax.get_ylabel() == "value above the lowest, -2"
    assert ax.get_yscale() == "log"


@pytest.mark.parametrize("value", [[5.0, 4.5, 4.3], [0.0, 0.0], [np.nan, np.nan], [3.0, 0.0]])
def test_a_linear_axis_where_a_logarithmic_one_shows_nothing(value):
    assert convergence(run(value)).get_yscale() == "linear"


def test_joined_runs():
    runs = [run(DOWN, method="adam"), run(DOWN[1:], method="lbfgs"), run(DOWN[2:], method="lbfgs")]
    ax = convergence(runs, sequential=True)
    assert xs(ax) == [[0, 1, 2, 3], [3, 4, 5], [5, 6]]
    assert names(ax) == ["adam", "lbfgs"]
    colors = [line.get_color() for line in ax.lines]
    assert colors[1] == colors[2] != colors[0]
    ax = convergence(runs, sequential=True, x="evaluations", labels=["a", "b", "c"])
    assert xs(ax) == [[1, 3, 5, 7], [8, 10, 12], [13, 15]]
    assert names(ax) == ["a", "b", "c"]


def test_names_and_axes():
    _, ax = plt.subplots()
    assert convergence([run(DOWN), run(DOWN, method="lbfgs"), run(DOWN)], ax) is ax
    assert names(ax) == ["newton 1", "lbfgs", "newton 2"]


def test_mistakes():
    bare = result_of({"a": 1.0})
    with pytest.raises(ValueError, match="r2 has no history: rerun with history=True"):
        convergence([run(DOWN), bare])
    with pytest.raises(TypeError, match=r"r1 is float; pass what hesskit\.minimize returns"):
        convergence([1.0])
    with pytest.raises(ValueError, match="there is no result to plot"):
        convergence([])
    with pytest.raises(ValueError, match="r1 is a batch; plot one of it"):
        convergence(jax.tree.map(lambda a: jnp.stack([a, a]), run(DOWN)))
    with pytest.raises(ValueError, match="labels must be one name for each of 2 runs, got 'ab'"):
        convergence([run(DOWN), run(DOWN)], labels="ab")
    with pytest.raises(ValueError, match="x must be one of 'steps', 'evaluations'; got 'seconds'"):
        convergence(run(DOWN), x="seconds")
    with pytest.raises(ValueError, match="y must be one of 'value', 'grad_norm'"):
        convergence(run(DOWN), y="step_norm")
