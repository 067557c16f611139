"""Pytrees as vectors: the axioms of an inner product, in every dtype, and what keeps dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hesskit.core import tree

MIXED = {"a": jnp.arange(6, dtype="float32").reshape(2, 3) - 2.5, "b": (jnp.ones((), "bfloat16"),)}


def complex_tree(seed: int) -> dict:
    x = np.random.default_rng(seed).normal(size=(2, 5))
    return {"z": jnp.asarray(x[0] + 1j * x[1]), "r": [jnp.asarray(x[1, :2])]}


def as_real(x: dict) -> np.ndarray:
    leaves = [np.asarray(a) for a in jax.tree.leaves(x)]
    return np.concatenate([np.r_[a.real.ravel(), a.imag.ravel()] for a in leaves])


def test_inner_product_is_that_of_r_2n(float64):
    x, y = complex_tree(0), complex_tree(1)
    np.testing.assert_allclose(tree.vdot(x, y), as_real(x) @ as_real(y), rtol=1e-14)
    assert tree.vdot(x, y) == tree.vdot(y, x)
    assert tree.vdot(x, y).dtype == "float64"
    np.testing.assert_allclose(tree.norm(x), np.linalg.norm(as_real(x)), rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_sums_in_float32(dtype: str):
    x = {"w": jnp.full((4096,), 0.25, dtype)}
    assert tree.vdot(x, x).dtype == "float32"
    assert tree.vdot(x, x) == 256.0  # float16 itself loses this: 0.0625 summed 4096 times


@pytest.mark.parametrize("repeats", [1, 20], ids=["few entries", "more"])
@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e-12, 1e12, 1e15, 1e30, 1e37])
def test_norm_neither_overflows_nor_underflows(scale: float, repeats: int):
    x = {"a": jnp.asarray([3.0, 4.0] * repeats) * scale, "b": jnp.zeros(3)}
    expected = 5 * repeats**0.5 * scale
    np.testing.assert_allclose(tree.norm(x), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(tree.norm)(x), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(tree.norm)(x["a"][0]), 3 * scale, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e-12, 1.0, 1e12, 1e30, 1e37])
def test_norm_on_a_mesh(scale: float):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    x = jax.device_put(jnp.asarray([3.0, 4.0] * 20) * scale, jax.NamedSharding(mesh, jax.P("d")))
    with jax.set_mesh(mesh):
        found = jax.jit(tree.norm)(x)
    np.testing.assert_allclose(found, 5 * 20**0.5 * scale, rtol=1e-6)


@pytest.mark.parametrize("zeros", [1, 20])
@pytest.mark.parametrize("entry", [0.0, np.inf, np.nan])
def test_norm_of_zero_infinity_and_nan(entry: float, zeros: int):
    for x in (jnp.array([entry] + [0.0] * zeros), jnp.array(entry)):
        np.testing.assert_equal(np.asarray(tree.norm(x)), np.float32(entry))
        np.testing.assert_equal(np.asarray(jax.jit(tree.norm)(x)), np.float32(entry))


@pytest.mark.parametrize("num", [3, 30])
@pytest.mark.parametrize("entry", [0.0, 1e-30, 1e30])
def test_norm_of_what_the_compiler_knows(entry: float, num: int):
    """A constant gradient: XLA folds it, and must not multiply the scales of a square first."""
    found = jax.jit(lambda x: tree.norm(jnp.full(num, entry)) + 0 * x)(jnp.ones(()))
    np.testing.assert_allclose(found, num**0.5 * entry, rtol=1e-6)


def test_max_abs():
    assert tree.max_abs(MIXED) == 2.5
    assert tree.max_abs(jnp.array([3 + 4j])) == 5.0
    assert jnp.isnan(tree.max_abs({"a": jnp.array([1.0, jnp.nan]), "b": jnp.zeros(2)}))


def test_arithmetic_keeps_dtypes():
    double = tree.scale(2.0, MIXED)
    for result in (
        double,
        tree.add(MIXED, double),
        tree.sub(MIXED, double),
        tree.axpy(jnp.float32(0.5), MIXED, double),
        tree.negative(MIXED),
        tree.zeros_like(MIXED),
        tree.where(jnp.array(True), MIXED, double),
        tree.cast_like(double, MIXED),
    ):
        assert jax.tree.map(jnp.result_type, result) == jax.tree.map(jnp.result_type, MIXED)
    np.testing.assert_array_equal(tree.axpy(3.0, MIXED, MIXED)["a"], 4 * MIXED["a"])
    np.testing.assert_array_equal(tree.sub(double, MIXED)["a"], MIXED["a"])


def test_the_first_argument_gives_the_dtype_of_a_sum():
    half, full = jnp.ones(2, "bfloat16"), jnp.ones(2)
    assert tree.add(half, full).dtype == "bfloat16"
    assert tree.axpy(1.0, half, full).dtype == "float32"


def test_dtypes_of_a_tree():
    assert tree.result_dtype(MIXED) == "float32"
    assert tree.result_dtype(jnp.ones(1, "bfloat16")) == "float32"
    assert tree.result_dtype(jnp.ones(1, "complex64"), {}) == "float32"
    assert tree.coarsest_eps(MIXED) == float(jnp.finfo("bfloat16").eps)
    assert tree.coarsest_eps(()) == float(jnp.finfo("float32").eps)
    assert tree.size(MIXED) == 7
    assert tree.size({}) == 0


def test_dtypes_of_a_wide_tree(float64):
    assert tree.result_dtype(jnp.ones(1, "bfloat16"), jnp.ones(1, "complex128")) == "float64"


def test_predicates():
    nan = {"a": jnp.array([0.0, jnp.nan]), "b": jnp.zeros(2)}
    assert tree.all_finite(MIXED)
    assert not tree.all_finite(nan)
    assert tree.all_finite({})
    assert tree.equal(MIXED, MIXED)
    assert not tree.equal(MIXED, tree.scale(2.0, MIXED))
    assert not tree.equal(nan, nan)


def test_ravel_is_that_of_jax_and_unravel_its_inverse():
    x = {"b": jnp.arange(4.0).reshape(2, 2), "a": jnp.array(7.0), "none": None}
    vector = tree.ravel(x)
    np.testing.assert_array_equal(vector, jax.flatten_util.ravel_pytree(x)[0])
    assert tree.equal(tree.unravel(vector, x), x)
    back = tree.unravel(tree.ravel(MIXED), MIXED)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), back) == jax.tree.map(
        lambda a: (a.shape, a.dtype), MIXED
    )
    assert tree.ravel({}).shape == (0,)


def test_the_gradient_of_the_norm(float64):
    """Also of so many entries that the norm is found by a loop, in reverse mode and twice."""
    for n in (3, 12):
        x = jnp.linspace(1.0, 2.0, n)
        size = np.linalg.norm(x)
        unit = np.asarray(x) / size
        np.testing.assert_allclose(jax.grad(tree.norm)(x), unit, rtol=1e-14)
        np.testing.assert_allclose(
            jax.hessian(tree.norm)(x), (np.eye(n) - np.outer(unit, unit)) / size, atol=1e-14
        )
        np.testing.assert_array_equal(jax.grad(tree.norm)(0 * x), 0)
        np.testing.assert_allclose(jax.grad(tree.norm)(1e-200 * x), unit, rtol=1e-14)


def test_while_once_computes_only_if_needed():
    calls = []

    def compute() -> dict:
        jax.debug.callback(lambda: calls.append(1))
        return {"x": jnp.full(2, 5.0)}

    def choose(needed: jax.Array) -> dict:
        return tree.while_once(needed, compute, {"x": jnp.zeros(2)})

    np.testing.assert_array_equal(choose(jnp.array(False))["x"], np.zeros(2))
    jax.effects_barrier()
    assert calls == []
    np.testing.assert_array_equal(choose(jnp.array(True))["x"], np.full(2, 5.0))
    jax.effects_barrier()
    assert calls == [1]
    both = jax.vmap(choose)(jnp.array([True, False]))["x"]
    np.testing.assert_array_equal(both, [[5.0, 5.0], [0.0, 0.0]])
    given = lambda needed, x: tree.while_once(needed, lambda y: 2 * y, x, x)
    doubled = jax.vmap(given)(jnp.array([True, False]), jnp.array([3.0, 4.0]))
    np.testing.assert_array_equal(doubled, [6.0, 4.0])


def test_rows_like_stacks_zeros():
    rows = tree.rows_like(MIXED, 4)
    assert rows["a"].shape == (4, 2, 3)
    assert rows["b"][0].dtype == "bfloat16"
    assert tree.equal(rows, tree.zeros_like(rows))


def test_widest_is_at_least_float32():
    assert tree.widest() == "float32"
    assert tree.widest(jnp.dtype("float16"), jnp.dtype("float64")) == "float64"
    assert tree.widest(jnp.dtype("complex128")) == "float64"


def test_power_of_two():
    x = jnp.array([3.0, 4.0, 0.0, jnp.inf, jnp.nan, -1.0, 3e38, 1e-30])
    unit = np.asarray(jax.vmap(tree.power_of_two)(x))
    np.testing.assert_array_equal(unit[:6], [2, 4, 1, 1, 1, 1])
    assert np.all(np.isfinite(1 / unit))
    assert np.all(np.frexp(unit)[0] == 0.5)


def test_widen():
    x = {
        "half": jnp.ones(2, jnp.bfloat16),
        "single": jnp.ones(()),
        "complex": jnp.ones(1, jnp.complex64),
    }
    dtypes = jax.tree.map(jnp.result_type, tree.widen(x))
    assert dtypes == {"half": jnp.float32, "single": jnp.float32, "complex": jnp.complex64}


def test_a_step_is_negligible_entry_by_entry():
    eps = float(jnp.finfo("float32").eps)
    x = {"frequency": jnp.array(1e8), "phase": jnp.array(0.1)}
    step = {"frequency": jnp.array(4.0), "phase": jnp.array(0.05 * eps)}
    assert tree.negligible(step, x)
    assert not tree.negligible({**step, "phase": jnp.array(1e-3)}, x)
    assert not tree.negligible({**step, "phase": jnp.array(jnp.nan)}, x)
