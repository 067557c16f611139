"""Degenerate points that the Hessian leaves open (the checklist has those of the texts)."""

import jax.numpy as jnp
import pytest

import hesskit


@pytest.mark.parametrize(
    ("fn", "kind"),
    [
        (lambda p: p[0] ** 2 - 0 * p[1], "INCONCLUSIVE"),
        (lambda p: (p[1] - p[0] ** 2) * (p[1] - 2 * p[0] ** 2), "DEGENERATE_NEITHER"),
        (lambda p: -((p[1] - p[0] ** 2) ** 2) - p[0] ** 4, "DEGENERATE_MAXIMUM"),
        (lambda p: p[1] ** 2 + p[0] ** 3, "DEGENERATE_NEITHER"),
    ],
)
def test_semidefinite(float64, fn, kind):
    assert hesskit.classify_critical_point(fn, jnp.zeros(2)).kind.name == kind


def test_the_order_may_be_raised(float64):
    fn = lambda x: x**6
    found = hesskit.classify_critical_point(fn, jnp.zeros(()))
    assert found.kind == hesskit.CriticalKind.INCONCLUSIVE
    assert found.reason.endswith("Try a larger max_order")
    found = hesskit.classify_critical_point(fn, jnp.zeros(()), max_order=6)
    assert str(found).splitlines()[0] == "degenerate minimum at 0: value 0"
    assert "terms of order 6 go up" in found.reason


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ((lambda x, y: x - y, jnp.zeros(2)), TypeError, "takes all params as one argument"),
        ((lambda x: x, jnp.zeros(2)), ValueError, r"shape \(2,\), expected"),
        ((lambda x: x[0], jnp.array([0, 0])), TypeError, "params is int32; write 0.0"),
        ((1.0, jnp.zeros(2)), TypeError, "value_fn must be a function"),
    ],
)
def test_wrong_arguments(given, error, said):
    with pytest.raises(error, match=said):
        hesskit.classify_critical_point(*given)


def test_a_point_where_nothing_is_finite():
    found = hesskit.classify_critical_point(lambda p: jnp.sum(jnp.log(p)), jnp.array([-1.0, 1.0]))
    assert found.kind == hesskit.CriticalKind.NOT_CRITICAL
    assert found.reason.startswith("not finite: value nan")
