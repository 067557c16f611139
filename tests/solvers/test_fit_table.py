"""What `print(fit)` shows, word for word."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core.bounds import parse
from hesskit.core.status import Status
from hesskit.solvers import fit_table
from hesskit.solvers.fit_result import fit_result
from tests.solvers.fits import result_of, straight_line

X = jnp.linspace(0.0, 1.0, 10)


@pytest.mark.slow
def test_the_whole_table():
    fit = straight_line()
    assert str(fit).splitlines() == [
        "levenberg_marquardt: success, 7 steps, 8 values, 8 gradients",
        "     value  std. error  relative",
        "  a  1.520       0.024     1.6 %",
        "  b  0.785       0.030     3.8 %",
        "chi2 = 1.23, dof = 10, chi2/dof = 0.123, R^2 = 0.985622",
        "errors scaled by sqrt(chi2/dof) = 0.351 (absolute_sigma=False)",
        "GRADIENT_TOL: gradient norm 1.0e-07 is zero to gtol, and no negative curvature is known",
        "correlations: b ~ a -0.72",
    ]


def test_absolute_errors_have_a_p_value_and_no_scale():
    text = str(straight_line(absolute_sigma=True))
    assert ", p = 1" in text
    assert "scaled" not in text


def strange(**kwargs):
    """Four entries: one fixed, one at a bound, two of which only the sum is known."""
    rows = np.random.default_rng(0).normal(size=(9, 4))
    rows[:, 3] = rows[:, 2]
    params = {"bg": 1.0, "edge": 0.0, "w": jnp.array([2.0, 3.0])}
    options = {
        "chi2": jnp.array(5.0),
        "num_residuals": 9,
        "held": (True, False, False),
        "at_bound": jnp.array([True, False, False]),
        **kwargs,
    }
    return fit_result(result_of(params, 2.5), jnp.asarray(rows[:, 1:], "float32"), **options)


@pytest.mark.slow
def test_notes_and_sentences():
    box = parse({"edge": (0.0, None)}, strange().params)
    text = str(strange(bounds=box))
    rows = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert rows["bg"].endswith("fixed")
    assert rows["edge"].endswith("at bound [0, inf]")
    assert rows["w[0]"].endswith("singular")
    assert rows["w[1]"].endswith("singular")
    assert "edge: no standard error at a bound; the errors of the others hold it there." in text
    assert "refit with fixed='edge' to hold it in these, too." in text
    assert "w[0], w[1]: no standard error, since the data do not determine" in text
    assert "at bound\n" in str(strange())


def test_no_degrees_of_freedom():
    text = str(strange(num_residuals=2))
    assert "no standard errors: dof = 0 leaves nothing to estimate the size of sigma from" in text
    assert "chi2/dof" not in text


def test_the_sandwich_is_told():
    text = str(strange(residual=jnp.ones(9)))
    assert 'errors of covariance="sandwich", which no scale of sigma changes' in text
    assert "scaled by" not in text


def test_too_many_entries_for_errors():
    params = {"w": jnp.zeros(5000), "bg": 1.0}
    chi2, held = jnp.array(5.0), (False, True)
    text = str(fit_result(result_of(params), None, chi2=chi2, num_residuals=9000, held=held[::-1]))
    assert "no standard errors, for there is no covariance: it is formed for at most 4000" in text
    assert "and 5000 were fitted. Hold leaves with fixed=" in text
    assert "correlations" not in text
    assert "singular" not in text


def test_a_failure_is_seen():
    fit = dataclasses.replace(straight_line(), status=jnp.array(Status.MAX_STEPS, jnp.int32))
    assert str(fit).startswith("levenberg_marquardt: no success")
    assert "MAX_STEPS: stopped after max_steps=7 as asked" in str(fit)


def test_numbers_that_are_not_finite_are_printed():
    fit = dataclasses.replace(straight_line(), params={"a": jnp.nan, "b": jnp.array(jnp.inf)})
    fit = jax.tree.map(jnp.asarray, fit)
    assert "nan" in str(fit)


def test_inside_jit_and_for_a_batch():
    texts = []

    def look(fit):
        texts.append(str(fit))
        return fit

    fit = straight_line()
    jax.jit(look)(fit)
    assert texts == ["FitResult of levenberg_marquardt"]
    many = jax.tree.map(lambda a: jnp.stack([a, a]), fit)
    assert str(many) == "levenberg_marquardt: 2 of 2 succeeded: 2 GRADIENT_TOL"


def test_long_tables_and_many_correlations_are_cut():
    n = 60
    names = tuple(f"w[{i}]" for i in range(n))
    lines = fit_table.entries(names, [1.0] * n, [0.1] * n, [""] * n)
    assert len(lines) == fit_table.MOST_ENTRIES + 2
    assert lines[-1] == f"  ... and {n - fit_table.MOST_ENTRIES} more"
    matrix = jnp.full((5, 5), 0.9).at[0, 1].set(-0.99).at[1, 0].set(-0.99)
    (line,) = fit_table.correlations(names[:5], matrix)
    assert line.startswith("correlations: w[1] ~ w[0] -0.99, ")
    assert line.endswith("(of 10)")
    assert fit_table.correlations(names[:2], jnp.eye(2)) == []


def test_relative_errors():
    assert fit_table.relative(2.0, 0.01) == "0.50 %"
    assert fit_table.relative(-2.0, 0.34) == "17 %"
    assert fit_table.relative(1.0, 3.1) == "310 %"
    assert fit_table.relative(1e-3, 1.0) == "> 1000 %"
    assert fit_table.relative(0.0, 1.0) == fit_table.relative(1.0, float("nan")) == ""


def test_a_fit_that_never_started_says_nothing_of_errors():
    fit = hesskit.curve_fit(lambda p, x: p["a"] * x / p["t"], X, X, {"a": 1.0, "t": 0.0})
    assert fit.status == Status.NONFINITE_START
    text = str(fit)
    assert "NONFINITE_START" in text
    assert "determine" not in text
    assert "singular" not in text
    assert "errors scaled" not in text
