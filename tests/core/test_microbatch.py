"""The mean over micro-batches is the mean over the batch, in every derivative, in less memory."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core.microbatch import microbatched
from hesskit.core.terms import Sum


def loss(w, x, y, *, scale=1.0):
    hidden = jnp.tanh(x @ w["a"])
    return scale * jnp.mean((hidden @ w["b"] - y) ** 2)


def world(rows=12, dtype="float32"):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    return {"a": draw(4, 5), "b": draw(5)}, draw(rows, 4), draw(rows)


def close(x, y, dtype):
    tolerance = 30 * float(jnp.finfo(dtype).eps)
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def hvp(fn, w, v, *args, **data):
    return jax.jvp(lambda w: jax.grad(fn)(w, *args, **data), (w,), (v,))[1]


@pytest.mark.parametrize("num", [1, 3])
def test_value_gradient_and_product(num, dtype):
    w, x, y = world(dtype=dtype)
    v = jax.tree.map(jnp.cos, w)
    parts = microbatched(loss, num)

    @jax.jit
    def everything(w):
        given = functools.partial(parts, x=x, y=y, scale=2.0)
        return parts(w, x, y, scale=2.0), jax.grad(given)(w), hvp(given, w, v)

    whole = loss(w, x, y, scale=2.0), jax.grad(loss)(w, x, y, scale=2.0)
    close(everything(w), (*whole, hvp(loss, w, v, x, y, scale=2.0)), dtype)


def test_another_axis_and_trees_of_data():
    w, x, y = world()
    turned = lambda w, batch: loss(w, batch["x"].T, batch["y"][0])
    for axis in (1, -1):
        value = microbatched(turned, 4, axis=axis)(w, {"x": x.T, "y": y[None]})
        close(value, loss(w, x, y), "float32")


def test_scalars_and_keys_are_shared_and_parts_are_strided():
    def shape(w, x, key, number, *, mode):
        assert mode == "train"
        assert (x.shape, key.shape, number) == ((2,), (), 3)
        return w * jnp.sum(x) + jax.random.uniform(key), {"x": x}

    x, key = jnp.arange(6.0), jax.random.key(0)
    value, aux = microbatched(shape, 3)(jnp.ones(()), x, key, 3, mode="train")
    np.testing.assert_array_equal(aux["x"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_allclose(value, 5 + jax.random.uniform(key), rtol=1e-6)


def test_signature_equality_and_hash():
    parts = microbatched(loss, 3)
    assert inspect.signature(parts) == inspect.signature(loss)
    assert parts == microbatched(loss, 3)
    assert hash(parts) == hash(microbatched(loss, 3))
    assert parts != microbatched(loss, 4)
    assert not hasattr(microbatched(min, 2), "__signature__")


@pytest.mark.slow
def test_newton_cg_over_it():
    """It takes the step of the whole batch, with data by name and an unknown keyword."""
    w, x, y = world()
    opt = hesskit.newton_cg()
    ends = []
    for fn in (loss, microbatched(loss, 3)):
        step = jax.jit(functools.partial(opt.update, value_fn=fn, x=x, y=y, other=0))
        updates, state = step(jax.grad(fn)(w, x, y), opt.init(w), w)
        assert bool(state.info.accepted)
        ends.append(updates)
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("product", [False, True], ids=["gradient", "linearized product"])
def test_memory_is_that_of_one_part(product):
    """Temporaries of the compiled program: an eighth of the batch at a time."""
    w = {"a": jnp.ones((4, 256)), "b": jnp.ones(256)}
    x, y = jnp.ones((2048, 4)), jnp.ones(2048)

    def used(fn):
        def products(w, x, y):
            grad, product = jax.linearize(lambda w: jax.grad(fn)(w, x, y), w)
            return jax.lax.fori_loop(0, 3, lambda _, v: product(v), grad)

        run = products if product else jax.grad(fn)
        return jax.jit(run).lower(w, x, y).compile().memory_analysis().temp_size_in_bytes

    assert used(microbatched(loss, 8)) < used(loss) / 4


@pytest.mark.slow
def test_vmap_and_sharded_data():
    w, x, y = world(rows=16)
    parts = microbatched(loss, 2)
    scales = jnp.array([1.0, 2.0])
    many = jax.vmap(lambda c: parts(w, x, y, scale=c))(scales)
    np.testing.assert_allclose(many, scales * loss(w, x, y), rtol=1e-6)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        spread = [jax.device_put(a, jax.P("data")) for a in (x, y)]
        value = jax.jit(parts)(w, *spread)
    np.testing.assert_allclose(value, loss(w, x, y), rtol=1e-6)


# Structure.


def test_sums_split_the_term_that_takes_data():
    w, x, y = world()
    counted = []

    def once(w):
        counted.append(w)
        return jnp.sum(w["b"] ** 2)

    whole = microbatched(0.5 * (loss + hesskit.l2(1.0)) + hesskit.l2(2.0), 4)
    assert isinstance(whole, Sum)
    close(whole(w, x, y=y), 0.5 * (loss(w, x, y) + hesskit.l2(5.0)(w)), "float32")
    close(
        (2 * microbatched(loss, 4) - hesskit.l2(1.0))(w, x, y),
        2 * loss(w, x, y) - hesskit.l2(1.0)(w),
        "float32",
    )
    microbatched(hesskit.l2(1.0) + loss + once, 4)(w, x, y)
    assert len(counted) == 1
    with pytest.raises(ValueError, match="no array to split"):
        microbatched(hesskit.l2(1.0) + once, 4)(w)
    plain = microbatched(hesskit.l2(1.0) + loss, 4)
    with pytest.raises(TypeError, match="gauss_newton_operator needs the residuals"):
        hesskit.gauss_newton_operator(plain, w, args=(x, y)).dense()


@pytest.mark.parametrize(
    ("num", "data", "words"),
    [
        (5, {}, r"x has 12 entries along axis 0, which num=5 does not divide"),
        (2, {"x": {"a": jnp.ones(3)}}, r"x\['a'\] has 3 entries along axis 0, which num=2"),
        (2, {"y": jnp.ones(6)}, "x has 12 entries along axis 0, y has 6; .*functools.partial"),
    ],
)
def test_data_that_does_not_split(num, data, words):
    w, x, y = world()
    given = {"x": x, "y": y, **data}
    with pytest.raises(ValueError, match=words):
        microbatched(loss, num)(w, given["x"], y=given["y"])


def test_what_is_said_of_other_misuse():
    w, x, y = world()
    with pytest.raises(ValueError, match=r"y has shape \(12,\) and no axis 1"):
        microbatched(loss, 2, axis=1)(w, x, y)
    with pytest.raises(ValueError, match="no array to split"):
        microbatched(lambda w: jnp.sum(w), 2)(jnp.ones(3))
    with pytest.raises(ValueError, match=r"value_fn returned shape \(6,\)"):
        microbatched(lambda w, x: w * x, 2)(1.0, y)
    with pytest.raises(ValueError, match="num must be an integer of at least 1, got 0"):
        microbatched(loss, 0)
    with pytest.raises(TypeError, match="value_fn must be a function of params"):
        microbatched(x, 2)
    with pytest.raises(ValueError, match=r"args\[3\] has 5 entries"):
        microbatched(lambda w, *data: jnp.sum(w), 2)(w, 1.0, 2.0, 3.0, jnp.ones(5))
