"""An objective of params alone with its structure: sums side by side, changes of variables, aux."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from hesskit.core import tree
from hesskit.core.closed_form import Poisson, SquaredError
from hesskit.core.structured import Structured, total
from tests.core.dense import check_outer, filled, matrices

P = {"a": jnp.array([0.5, -1.0, 2.0]), "b": jnp.array([[0.3, 0.7]])}
COUNTS = jnp.array([1.0, 0.0, 3.0])


def squares(aux=None, report=None) -> Structured:
    outer = filled(SquaredError("sum"), 1.0)
    outer = outer if report is None else outer._replace(report=report)
    return Structured(lambda p: (jnp.sin(p["b"]), aux), outer)


def counts(aux=None) -> Structured:
    return Structured(lambda p: (p["a"] ** 2, aux), filled(Poisson("sum"), COUNTS))


def test_a_call_is_the_pair_of_value_and_aux():
    fn = squares(aux={"seen": 3})
    value, aux = fn(P)
    np.testing.assert_allclose(value, np.sum((np.sin([0.3, 0.7]) - 1) ** 2), rtol=1e-6)
    assert aux == {"seen": 3}
    assert fn.without_aux()(P) == value
    assert fn.without_aux().structure((), {}, "minimize") == fn


def test_a_change_of_variables_keeps_the_structure():
    fn = squares().precomposed(lambda p: {"b": 2 * p["half"]})
    assert isinstance(fn, Structured)
    assert fn({"half": P["b"] / 2})[0] == squares()(P)[0]


@pytest.mark.parametrize("coefficients", [(0.5, 3.0), (0.0, 1.0)])
def test_a_sum_is_side_by_side(coefficients: tuple[float, float], float64):
    p = tree.cast_like(P, {"a": jnp.zeros(3), "b": jnp.zeros((1, 2))})
    parts = [squares(), squares().precomposed(lambda p: {"b": 1 + p["b"] ** 2})]
    whole = total(list(zip(coefficients, parts, strict=True)))
    outputs, _ = whole.inner(p)
    found = check_outer(whole.outer, outputs)
    each = [matrices(part.outer, out) for part, out in zip(parts, outputs, strict=True)]
    for name, power in (("hessian", 1), ("factor", 0.5)):
        blocks = [c**power * getattr(m, name) for c, m in zip(coefficients, each, strict=True)]
        expected = scipy.linalg.block_diag(*blocks)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-12)
    values = [part(p)[0] for part in parts]
    np.testing.assert_allclose(whole(p)[0], np.dot(coefficients, values), rtol=1e-12)
    assert found.residual is not None


def test_one_term_without_a_residual_leaves_none():
    whole = total([(1.0, squares()), (2.0, counts())])
    outputs, _ = whole.inner(P)
    assert whole.outer.residual(outputs) is None
    assert matrices(whole.outer, outputs).residual is None


def test_aux_is_that_of_the_terms_that_have_some():
    told = squares(report=lambda outputs, aux: {"size": jnp.size(outputs), "aux": aux})
    silent = squares(report=lambda outputs, aux: None)
    one = {"size": 2, "aux": None}
    assert total([(1.0, silent), (2.0, told)])(P)[1] == one
    assert total([(1.0, told), (2.0, silent), (1.0, told)])(P)[1] == (one, one)
    assert total([(1.0, silent), (1.0, silent)])(P)[1] is None


def test_coefficients_may_be_traced_and_the_widest_value_counts(float64):
    narrow = Structured(
        lambda p: (p["b"].astype("float16"), None), filled(SquaredError("sum"), 0.0)
    )

    @jax.jit
    def value(c):
        whole = total([(c, narrow), (1.0, squares())])
        outputs, _ = whole.inner(tree.cast_like(P, {"a": jnp.zeros(3), "b": jnp.zeros((1, 2))}))
        return whole.outer.value(outputs), whole.outer.hessian_product(outputs, outputs)

    at, product = value(2.0)
    assert at.dtype == "float64"
    assert [leaf.dtype for leaf in product] == ["float16", "float64"]
    np.testing.assert_allclose(product[0], 4 * P["b"], rtol=1e-3)
    slope = jax.jit(jax.grad(lambda c: value(c)[0]))(2.0)
    np.testing.assert_allclose(slope, np.sum(np.square([0.3, 0.7])), rtol=1e-3)
