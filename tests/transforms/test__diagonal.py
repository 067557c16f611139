"""What Sophia and AdaHessian share: the period, bad batches, keys, devices, decay, wrappers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from hesskit.core.derivatives import linearized
from hesskit.core.status import Status
from hesskit.curvature import diagonal
from tests.contracts.support import all_finite, assert_same, types
from tests.marks import slow_but
from tests.transforms.separable import START, run, waves

FACTORIES = (hesskit.sophia, hesskit.adahessian)
each = pytest.mark.parametrize("factory", FACTORIES)


def coupled(p, x=None):
    """A loss of a batch whose Hessian is dense."""
    x = jnp.linspace(-1.0, 1.0, 16, dtype=p["w"].dtype) if x is None else x
    features = jnp.stack([jnp.ones_like(x), x, x**2], axis=-1)
    return jnp.mean((jnp.tanh(features @ p["w"]) * p["a"] - jnp.sin(3 * x)) ** 2)


def point(dtype="float32"):
    return {"w": jnp.array([0.3, -0.5, 0.8], dtype), "a": jnp.asarray(1.2, dtype)}


def move(opt, params, state, fn=coupled, **data):
    grad = jax.grad(fn)(params, **data)
    updates, state = opt.update(grad, state, params, value_fn=fn, **data)
    return optax.apply_updates(params, updates), state


@each
@pytest.mark.parametrize("interval", [1, 3])
def test_products_are_spent_once_a_period(factory, interval):
    opt = factory(0.01, update_interval=interval, num_samples=2)
    params, state, spent, kept = point(), opt.init(point()), [], []
    step = jax.jit(functools.partial(move, opt))
    for _ in range(7):
        before = state
        params, state = step(params, state)
        spent.append(tuple(int(n) for n in (*state.info[5:8], state.info.renewed)))
        kept.append(all(jnp.array_equal(a, b) for a, b in _pairs(before, state)))
    due = [t % interval == 0 for t in range(7)]
    assert spent == [(1, 1, 2, 1) if now else (0, 0, 0, 0) for now in due]
    assert kept == [not now for now in due]
    assert state.num_estimates == sum(due)
    assert state.count == 7


def _pairs(before, after):
    parts = ((s.nu, s.key) for s in (before, after))
    return zip(*(jax.tree.leaves(part) for part in parts), strict=True)


@each
def test_between_estimates_the_objective_is_not_called(factory):
    """It prints where it runs: a value is passed to the host once an estimate."""
    seen = []

    def loud(p):
        jax.debug.callback(lambda _: seen.append(1), p["a"])
        return coupled(p)

    opt = factory(0.01, update_interval=4)
    step = jax.jit(lambda p, s: move_given(opt, p, s, loud))
    params, state = point(), opt.init(point())
    for _ in range(8):
        params, state = step(params, state)
    jax.effects_barrier()
    assert len(seen) == 2


def move_given(opt, params, state, fn):
    """A step whose gradient comes from `coupled`, its curvature from `fn`."""
    updates, state = opt.update(jax.grad(coupled)(params), state, params, value_fn=fn)
    return optax.apply_updates(params, updates), state


@each
@pytest.mark.parametrize("late", [False, True])
def test_curvature_that_is_not_finite_is_not_learned(factory, late):
    """Late, the former curvature serves; at first, nothing moves until there is one."""

    def fn(p, bad):
        cusp = jnp.where(bad, 1.2, 0.2)  # where the curvature is infinite
        return coupled(p) + jnp.abs(p["a"] - cusp) ** 1.5

    opt = factory(0.01, update_interval=1)
    params, state = point(), opt.init(point())
    grads = jax.grad(coupled)(params)
    ask = jax.jit(lambda s, bad: opt.update(grads, s, params, value_fn=fn, bad=bad))
    if late:
        _, state = ask(state, False)
    updates, after = ask(state, True)
    assert all_finite((updates, after.mu, after.nu))
    assert_same(after.nu, state.nu)
    assert after.num_estimates == state.num_estimates == int(late)
    assert bool(after.info.accepted) == late
    assert (after.info.status == Status.NONFINITE_START) == (not late)
    assert after.count == 2 * late
    assert np.any(np.asarray(after.key) != np.asarray(state.key))
    moved, _ = ask(after, False)
    assert any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(moved))


@each
@pytest.mark.parametrize("kind", ["updates", "value", "rate"])
def test_what_is_not_finite_moves_and_changes_nothing(factory, kind):
    opt = factory(lambda count: jnp.where(count == 1, jnp.nan, 0.01) if kind == "rate" else 0.01)
    params, state = move(opt, point(), opt.init(point()))
    grads = jax.grad(coupled)(params)
    given = {"value": jnp.float32(jnp.nan)} if kind == "value" else {}
    if kind == "updates":
        grads["a"] = jnp.float32(jnp.inf)
    updates, after = opt.update(grads, state, params, value_fn=coupled, **given)
    assert all(bool(jnp.all(leaf == 0)) for leaf in jax.tree.leaves(updates))
    assert after.info.status == Status.NONFINITE_START
    assert not after.info.accepted
    assert_same((after.count, after.mu), (state.count, state.mu))
    if kind != "rate":
        assert after.info.num_values == 0
        assert_same((after.nu, after.key), (state.nu, state.key))


@each
def test_moments_of_half_precision_are_float32(factory):
    """With b2 = 0.999 a mean in bfloat16 would never move."""
    params = point("bfloat16")
    opt = factory(0.01, update_interval=1)
    state = opt.init(params)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.mu, state.nu))} == {jnp.dtype("float32")}
    grad = jax.tree.map(jnp.ones_like, params)
    same = lambda p: jnp.sum(p["w"] ** 2) + p["a"] ** 2
    for _ in range(3):
        updates, state = opt.update(grad, state, params, value_fn=same)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("bfloat16")}
    decay = {"sophia": 0.99, "adahessian": 0.999}[opt.name]
    square = {"sophia": 2.0, "adahessian": 4.0}[opt.name]
    np.testing.assert_allclose(state.nu["a"], square * (1 - decay**3), rtol=1e-4)


@each
def test_keys(factory):
    begin = lambda key: factory(0.01, key=key).init(point())
    zero = begin(0)
    for key in (np.int64(0), jax.random.key(0), jax.random.PRNGKey(0)):
        assert_same(begin(key), zero)
    assert np.any(np.asarray(begin(1).key) != np.asarray(zero.key))
    given = jax.random.PRNGKey(3)
    assert begin(given).key.unsafe_buffer_pointer() != given.unsafe_buffer_pointer()
    wide = jax.random.key(0, impl="rbg")
    assert begin(wide).key.shape == (4,)
    opt = factory(0.01, update_interval=1, key=wide)
    assert move(opt, point(), begin(wide))[1].num_estimates == 1
    opt = factory(0.01, update_interval=1)
    step = jax.jit(lambda state: move(opt, point(), state)[1])
    first, other = step(zero), step(begin(1))
    assert np.any(np.asarray(first.nu["w"]) != np.asarray(other.nu["w"]))
    assert np.any(np.asarray(first.key) != np.asarray(zero.key))


@pytest.mark.slow
@each
def test_a_loop_of_vmapped_runs_is_the_runs_alone(factory):
    opt = factory(0.02, update_interval=2)

    def train(scale):
        def body(carry, _):
            fn = lambda p: coupled(p) * scale
            return move(opt, *carry, fn), None

        start = point()
        return jax.lax.scan(body, (start, opt.init(start)), length=5)[0]

    many, states = jax.jit(jax.vmap(train))(jnp.array([1.0, jnp.nan, 3.0]))
    for lane in (0, 2):
        alone, state = jax.jit(train)(jnp.array([1.0, jnp.nan, 3.0])[lane])
        for a, b in zip(
            jax.tree.leaves((many, states)), jax.tree.leaves((alone, state)), strict=True
        ):
            np.testing.assert_allclose(a[lane], b, rtol=1e-4, atol=1e-6)
    assert_same(jax.tree.map(lambda a: a[1], many), point())


@pytest.mark.slow
@each
def test_forward_mode_through_steps(factory):
    opt = factory(0.05, gamma=1e3) if factory is hesskit.sophia else factory(0.05)

    def train(shift):
        fn = lambda p: coupled({**p, "a": p["a"] + shift})
        carry = move(opt, point(), opt.init(point()), fn)
        return move(opt, *carry, fn)[0]["w"]

    def slope(shift):
        return jax.jvp(train, (shift,), (jnp.ones_like(shift),))

    shifts = jnp.array([0.09, 0.1, 0.11])
    values, tangents = jax.jit(jax.vmap(slope))(shifts)
    np.testing.assert_allclose(tangents[1], (values[2] - values[0]) / 0.02, rtol=0.05, atol=1e-3)
    assert np.any(np.abs(tangents[1]) > 1e-4)


@each
def test_obj_fn_is_the_objective_as_in_optax(factory):
    opt, params = factory(0.01), point()
    grads = jax.grad(coupled)(params)
    ask = lambda **given: opt.update(grads, opt.init(params), params, **given)
    assert_same(ask(obj_fn=coupled), ask(value_fn=coupled))
    assert_same(ask(value_fn=coupled, obj_fn=None), ask(value_fn=coupled))
    with pytest.raises(TypeError, match=r"needs value_fn=, the objective of this batch"):
        ask()


@each
def test_data_reaches_the_objective_by_name_and_by_args(factory):
    opt, params = factory(0.01), point()
    x = jnp.array([0.1, 0.5, -0.3])
    grads = jax.grad(coupled)(params, x)
    ask = lambda **given: opt.update(grads, opt.init(params), params, value_fn=coupled, **given)
    assert_same(ask(x=x), ask(args=(x,), value=coupled(params, x), grad=grads))
    with pytest.raises(AssertionError):
        assert_same(ask(x=x), ask())
    aux = lambda p, x: (coupled(p, x), x)
    wide = factory(0.01, has_aux=True)
    updates, _ = wide.update(grads, wide.init(params), params, value_fn=aux, x=x)
    assert_same(updates, ask(x=x)[0])


@each
def test_decay_is_beside_the_quotient_and_for_the_leaves_of_the_mask(factory):
    params = point()
    step = lambda **given: move(factory(0.1, **given), params, factory(0.1, **given).init(params))
    plain, whole = step()[0], step(weight_decay=0.5)[0]
    jax.tree.map(
        lambda a, b, p: np.testing.assert_allclose(b - a, -0.05 * p, rtol=1e-4, atol=1e-6),
        plain,
        whole,
        params,
    )
    part = step(weight_decay=0.5, weight_decay_mask="w")[0]
    assert_same(part["w"], whole["w"])
    assert_same(part["a"], plain["a"])
    with pytest.raises(ValueError, match="weight_decay_mask='b' matches no leaf"):
        factory(0.1, weight_decay=0.5, weight_decay_mask="b").init(params)


@each
def test_complex_params_are_the_real_problem_of_twice_the_size(factory):
    z = jnp.array([0.3 - 0.2j, 0.1 + 0.4j], jnp.complex64)
    both = jnp.stack([z.real, z.imag])
    real = lambda x: jnp.sum(x[0] ** 4 + 3 * x[1] ** 2 + x[0] * x[1])
    fn = lambda z: real(jnp.stack([z.real, z.imag]))
    opt = factory(0.1)
    step, _ = opt.update(jnp.conj(jax.grad(fn)(z)), opt.init(z), z, value_fn=fn)
    same, _ = opt.update(jax.grad(real)(both), opt.init(both), both, value_fn=real)
    np.testing.assert_allclose(step, jax.lax.complex(same[0], same[1]), rtol=1e-6)


@each
def test_a_state_of_another_transform_or_other_params(factory):
    opt, params = factory(0.1), point()
    ask = lambda state: opt.update(params, state, params, value_fn=coupled)
    with pytest.raises(TypeError, match=r"update got a State; call its init\(params\)"):
        ask(hesskit.newton_cg().init(params))
    with pytest.raises(ValueError, match=r"state.mu\['w'\] has shape \(2,\), params \(3,\)"):
        ask(opt.init({"w": jnp.ones(2), "a": jnp.ones(())}))


WRAPPERS = {
    "chain": lambda inner: optax.chain(optax.clip_by_global_norm(1e6), inner),
    "apply_if_finite": lambda inner: optax.apply_if_finite(inner, max_consecutive_errors=3),
    "masked": lambda inner: hesskit.masked(inner, lambda path, leaf: True),
    "freeze nothing": lambda inner: hesskit.partition({"all": inner}, "all"),
}


@each
@pytest.mark.parametrize("name", slow_but(WRAPPERS, "masked"))
def test_a_wrapped_transform_takes_the_same_steps(factory, name):
    plain, wrapped = factory(0.02), WRAPPERS[name](factory(0.02))
    (one, infos), (two, others) = (
        run(opt, coupled, point(), 3, jnp.linspace(-1.0, 1.0, 8)) for opt in (plain, wrapped)
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert [int(i.num_products) for i in infos] == [int(i.num_products) for i in others]


@each
@pytest.mark.standard_promotion("MultiSteps is optax's")
def test_inside_multi_steps(factory):
    """Two calls with one gradient are one step of ours."""
    opt = optax.MultiSteps(factory(0.02), every_k_schedule=2).gradient_transformation()
    params, state = point(), opt.init(point())
    before = types(state)
    step = jax.jit(functools.partial(move, opt))
    for _ in range(4):
        params, state = step(params, state)
        assert {k: v.split(" ")[0] for k, v in types(state).items()} == {
            k: v.split(" ")[0] for k, v in before.items()
        }
    ours, _ = run(factory(0.02), coupled, point(), 2)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(ours[-1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert state.inner_opt_state.count == 2


@each
@pytest.mark.standard_promotion("adam is optax's")
def test_beside_adam_in_a_partition(factory):
    """Each sees its own leaves: the block of the Hessian that is w's."""
    opt = hesskit.partition(
        {"ours": factory(0.02), "adam": optax.adam(0.1)}, {"w": "ours", "a": "adam"}
    )
    params, _ = move(opt, point(), opt.init(point()))
    held = lambda p: coupled({**p, "a": point()["a"]})
    start = {"w": point()["w"], "a": None}
    alone, _ = move(factory(0.02), start, factory(0.02).init(start), held)
    np.testing.assert_allclose(params["w"], alone["w"], rtol=1e-5)
    np.testing.assert_allclose(jnp.abs(params["a"] - point()["a"]), 0.1, rtol=1e-3)


@pytest.mark.slow
@each
def test_injected_hyperparams_can_be_set(factory):
    opt = optax.inject_hyperparams(factory)(learning_rate=0.02, update_interval=2, num_samples=2)
    params, state = point(), opt.init(point())
    step = jax.jit(functools.partial(move, opt))
    plain, _ = run(factory(0.02, update_interval=2, num_samples=2), coupled, params, 3)
    for expected in plain:
        params, state = step(params, state)
        np.testing.assert_allclose(params["w"], expected["w"], rtol=1e-4)
    state.hyperparams["learning_rate"] = jnp.zeros_like(state.hyperparams["learning_rate"])
    assert_same(step(params, state)[0], params)


@each
def test_minimize_runs_it(factory):
    result = hesskit.minimize(waves, jnp.asarray(START, "float32"), factory(0.01), max_steps=60)
    assert result.value < waves(jnp.asarray(START, "float32")) - 0.5
    assert int(result.num_products) == (6 if factory is hesskit.sophia else 60)
    assert result.method == factory.__name__


many = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
BATCH = np.linspace(-1.5, 2.0, 32, dtype="float32")


def residuals(p, x):
    features = jnp.stack([jnp.ones_like(x), x, x**2], axis=-1)
    return jnp.tanh(features @ p["w"]) * p["a"] - jnp.sin(3 * x)


def local(opt, fn, with_value, params, state, x):
    """One step of a device that holds a part of the batch; the gradient is averaged."""
    mine = jax.tree.map(lambda a: a + 0 * jax.lax.axis_index("d").astype(a.dtype), params)
    grads = jax.lax.pmean(jax.grad(fn)(mine, jnp.where(with_value, 1.0, x)), "d")
    given = {"value": fn(params, x)} if with_value else {}
    updates, state = opt.update(grads, state, params, value_fn=fn, x=x, **given)
    return optax.apply_updates(params, updates), state


def mesh(kind="Auto"):
    return jax.make_mesh((8,), ("d",), axis_types=(getattr(jax.sharding.AxisType, kind),))


def over(mapping, opt, fn, *, with_value=False):
    """`local` on eight devices: `(params, state, batch) -> (params, state)` of all devices."""
    step = functools.partial(local, opt, fn, with_value)
    if mapping == "shard_map":
        return jax.jit(
            jax.shard_map(
                step, mesh=mesh(), in_specs=(jax.P(), jax.P(), jax.P("d")), out_specs=jax.P()
            )
        )
    copies = lambda tree: jax.tree.map(lambda a: jnp.broadcast_to(a, (8, *a.shape)), tree)
    mapped = {"pmap": jax.pmap, "vmap": jax.vmap}[mapping](step, axis_name="d")

    def call(params, state, x):
        out = mapped(copies(params), copies(state), x.reshape(8, -1))
        for leaf in jax.tree.leaves(out):
            np.testing.assert_array_equal(leaf, copies(leaf[0]))  # all devices agree
        return jax.tree.map(lambda a: a[0], out)

    return call


def apart(p, x):
    """Of a diagonal Hessian, which differs from device to device."""
    return jnp.mean(x**2) * jnp.sum(p["w"] ** 4) + jnp.mean(x) * p["a"] ** 2


@pytest.mark.slow
@many
@pytest.mark.parametrize("mapping", ["shard_map", "pmap", "vmap"])
@each
def test_devices_use_the_curvature_of_the_whole_batch(factory, mapping):
    opt, batch = factory(0.01, axis_name="d"), jnp.asarray(BATCH)
    params, state = over(mapping, opt, apart)(point(), opt.init(point()), batch)
    alone = factory(0.01)
    expected, other = move(alone, point(), alone.init(point()), apart, x=batch)
    for a, b in zip(
        jax.tree.leaves((params, state.nu)), jax.tree.leaves((expected, other.nu)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    single = alone.init(point())
    first = move(alone, point(), single, apart, x=batch[:4])[1]
    assert abs(first.nu["a"] / other.nu["a"] - 1) > 0.1  # one part says another thing


@pytest.mark.slow
@many
@pytest.mark.parametrize("mapping", ["shard_map", "pmap", "vmap"])
def test_devices_draw_signs_of_their_own(mapping):
    opt, batch = hesskit.adahessian(0.01, axis_name="d"), jnp.asarray(BATCH)
    start = opt.init(point())
    _, state = over(mapping, opt, coupled)(point(), start, batch)
    now = jax.random.split(jax.random.wrap_key_data(start.key))[1]

    def own(i, x):
        product = linearized(lambda p: coupled(p, x), point()).product
        return diagonal.hutchinson(product, point(), jax.random.fold_in(now, i))

    parts = jax.vmap(own)(jnp.arange(8), batch.reshape(8, -1))
    mean = jax.tree.map(lambda a: jnp.mean(a, axis=0), parts)
    for a, b in zip(jax.tree.leaves(state.nu), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(a / 1e-3, b**2, rtol=1e-3)


@many
@pytest.mark.parametrize("mapping", ["shard_map", "pmap"])
def test_devices_agree_where_one_value_is_not_finite(mapping):
    """All skip the batch: none waits for the others in the loop of the estimate."""
    opt = hesskit.adahessian(0.01, axis_name="d")
    batch = jnp.asarray(BATCH).at[0].set(jnp.inf)
    params, state = over(mapping, opt, apart, with_value=True)(point(), opt.init(point()), batch)
    assert_same(params, point())
    assert state.num_estimates == 0


@pytest.mark.slow
@many
@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
@pytest.mark.parametrize("estimator", ["hutchinson", "gnb"])
def test_sharded_data_under_jit_needs_no_axis(kind, estimator):
    loss = hesskit.least_squares_loss(residuals, reduction="mean")
    opt = hesskit.sophia(0.01, estimator=estimator, update_interval=1)
    batch = jnp.asarray(BATCH)
    there = jax.NamedSharding(mesh(kind), jax.P("d"))
    step = jax.jit(functools.partial(move, opt, fn=loss))
    alone = step(point(), opt.init(point()), x=batch)
    with jax.set_mesh(mesh(kind)):
        whole = jax.device_put((point(), opt.init(point())), jax.NamedSharding(mesh(kind), jax.P()))
        spread = step(*whole, x=jax.device_put(batch, there))
    for a, b in zip(jax.tree.leaves(spread), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-4, atol=1e-6)
