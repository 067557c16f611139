"""Paths as a solver kept them, and their lines."""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from hesskit.plots._paths import draw, paths_of
from hesskit.solvers.result import History
from tests.solvers.fits import result_of

POINTS = np.array([[3.0, 1.0], [2.0, 0.5], [0.0, 0.25]], "float32")


def run(points=POINTS, padding=0, method="newton"):
    """A result that went through these points, {"a": (), "b": (n - 1,)}."""
    rows, columns = points.shape
    full = jnp.asarray(np.concatenate([points, np.full((padding, columns), np.nan, "float32")]))
    column = jnp.ones(rows + padding)
    history = History(
        value=column,
        grad_norm=column,
        step_norm=column,
        accepted=column > 0,
        num_values=column.astype("int32"),
        params={"a": full[:, 0], "b": full[:, 1:]},
        length=jnp.asarray(rows, jnp.int32),
    )
    last = {"a": full[rows - 1, 0], "b": full[rows - 1, 1:]}
    return dataclasses.replace(result_of(last), history=history, method=method)


def test_one_run_several_and_a_dict():
    (path,) = paths_of(run(padding=2))
    assert (path.label, path.names) == ("newton", ("a", "b[0]"))
    np.testing.assert_array_equal(path.points, POINTS)
    assert [path.label for path in paths_of([run(), POINTS])] == ["newton", "r2"]
    assert [path.label for path in paths_of({"GD": run(), "mine": POINTS})] == ["GD", "mine"]
    np.testing.assert_array_equal(paths_of(POINTS)[0].points, POINTS)


def test_lines():
    _, ax = plt.subplots()
    draw(ax, paths_of({"GD": run(), "Newton": run(POINTS[::2])}))
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), POINTS)
    np.testing.assert_array_equal(ax.lines[1].get_xydata(), POINTS[:1])
    assert ax.lines[0].get_color() != ax.lines[2].get_color()
    assert ax.lines[0].get_marker() != ax.lines[2].get_marker()
    assert ax.get_legend_handles_labels()[1] == ["GD", "Newton"]
    plt.close("all")


def test_mistakes():
    bare = result_of({"a": 1.0})
    with pytest.raises(ValueError, match=r"^r1 has no path: rerun with history='params'$"):
        paths_of(bare)
    without = dataclasses.replace(run(), history=run().history._replace(params=None))
    said = r"r2 has no path: rerun with history='params' \(r2 is 'GD'\)"
    with pytest.raises(ValueError, match=said):
        paths_of({"Newton": run(), "GD": without})
    with pytest.raises(ValueError, match="r1 is a batch; plot one of it"):
        paths_of(jax.tree.map(lambda a: jnp.stack([a, a]), run()))
    with pytest.raises(TypeError, match=r"r1 is float; pass what hesskit\.minimize returns"):
        paths_of([1.0])
    with pytest.raises(ValueError, match="there is no path to draw"):
        paths_of([])
