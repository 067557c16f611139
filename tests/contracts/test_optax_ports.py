"""optax's tests of every optimizer, run on ours with `value`, `grad` and `value_fn` added.

Names, targets and tolerances are those of optax 0.2.8: AliasTest, ContribTest and ShardingTest for
every factory, the wrapper suites for `lbfgs` and `newton_cg`. What other files of this folder
assert alike is not repeated:

    AliasTest.test_explicit_dtype                                  not applicable: no state dtype
    ConditionalityTest.test_apply_if_finite_pmap                   pmap is shard_map by now
    ExtraArgsTest.test_extra_args, _chaining                       test_calls, test_wrappers
    NamedChainTest.test_named_chain                                test_wrappers (WRAPPERS)
    InjectHyperparamsTest.test_overriding_hyperparam               test_wrappers
    InjectHyperparamsTest.test_prng_key_not_hyperparameter         not applicable: no key yet
    MaskedTest.test_masked, PartitionTest with values              test_wrappers
    MaskedTest.test_empty, _mask_compatible_callable_pytree        test_bad_calls, usecases
    StateUtilsTest.test_tree_get_all_with_path                     test_state
    StateUtilsTest.test_map_params_to_none, ...                    test_state (test_map_params)
    _schedule_free_test.test_buffer_donation of a plain transform  test_state
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from tests.contracts.registry import DEFAULTS, Case
from tests.contracts.support import assert_same, bowl, squares, start, types

pytestmark = pytest.mark.slow  # five minutes of one core with nothing compiled yet


def param(factory, **kwargs):
    return pytest.param(Case(factory, kwargs, factory.__name__), id=factory.__name__)


def with_lbfgs(cases):
    names = {case.id for case in cases}
    more = [param(hesskit.lbfgs), param(hesskit.scale_by_lbfgs)]
    return [*cases, *(case for case in more if case.id not in names)]


CASES = with_lbfgs(DEFAULTS)
FACTORIES = [
    case
    for case in CASES
    if "learning_rate" in inspect.signature(case.values[0].factory).parameters
]
each = pytest.mark.parametrize("case", CASES)
each_factory = pytest.mark.parametrize("case", FACTORIES)
two = pytest.mark.parametrize("make", [hesskit.lbfgs, hesskit.newton_cg])


def complete(case):
    """A transform that steps downhill: `scale_by_` gets a sign and a length."""
    if case.name.startswith("scale_by_"):
        return optax.chain(case.make(), optax.scale_by_learning_rate(0.1))
    return case.make()


def ask(opt, fn, params, state, **more):
    """One update as optax's tests write it: the gradient conjugated, then everything by name."""
    value, grad = jax.value_and_grad(fn)(params)
    grad = jax.tree.map(jnp.conj, grad)
    return opt.update(grad, state, params, value=value, grad=grad, value_fn=fn, **more)


def move(opt, fn, params, state, **more):
    updates, state = ask(opt, fn, params, state, **more)
    return optax.apply_updates(params, updates), state


def parabola(dtype):
    final = jnp.array([1.0, -1.0, 1.0], dtype)
    final *= jnp.array(1 + 1j if jnp.iscomplexobj(final) else 1, dtype)
    fn = squares(lambda params: params - final)
    return jnp.array([-1.0, 10.0, 1.0], dtype), final, fn


def rosenbrock(dtype):
    a = jnp.array(1 + 1j if jnp.issubdtype(dtype, jnp.complexfloating) else 1, dtype)
    fn = squares(lambda params: (a - params[0], 10 * (params[1] - params[0] ** 2)))
    return jnp.zeros(2, dtype), jnp.stack([a, a**2]), fn


def matrix_parabola(dtype):
    final = jnp.array([[3.0, -2.0], [1.0, 4.0]], dtype)
    return jnp.zeros((2, 2), dtype), final, squares(lambda params: params - final)


def mixed_tensor_target(dtype):
    final = (jnp.array([1.0, -1.0, 2.0], dtype), jnp.array([[1.0, 0.0], [-1.0, 1.0]], dtype))
    fn = squares(lambda params: [a - b for a, b in zip(params, final, strict=True)])
    return jax.tree.map(jnp.zeros_like, final), final, fn


def assert_reaches(case, target, dtype, num_steps):
    """`tree.map_params` passes, steps arrive, and the second call compiles nothing."""
    opt = complete(case)
    params, final, fn = target(jnp.dtype(dtype))
    step = jax.jit(functools.partial(move, opt, case.of(fn)))
    state = optax.tree.map_params(opt, lambda leaf: leaf, opt.init(params))
    for _ in range(num_steps):
        params, state = step(params, state)
    assert step._cache_size() == 1
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(final), strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-2, atol=3e-2)


@each
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("target", [parabola, rosenbrock])
def test_optimization(case, target, dtype):
    """AliasTest; optax takes 10,000 steps."""
    assert_reaches(case, target, dtype, 300)


@each
@pytest.mark.parametrize("target", [matrix_parabola, mixed_tensor_target])
def test_optimizers(case, target):
    """ContribTest; optax takes 30,000 steps."""
    assert_reaches(case, target, "float32", 100)


@each
def test_optimizers_accept_extra_args(case):
    """AliasTest and ContribTest."""
    params, _, fn = rosenbrock(jnp.dtype("float32"))
    opt = case.make()
    more = {"unexpected_extra_args_your_optimizer_doesnt_expect": 1}
    jax.eval_shape(functools.partial(move, opt, case.of(fn), **more), params, opt.init(params))


@each
def test_optimizers_can_be_wrapped_in_inject_hyperparams(case):
    """AliasTest and ContribTest: the same updates and inner state as without."""
    opt, injected = case.make(), optax.inject_hyperparams(case.factory)(**case.kwargs)
    params = [-jnp.ones((2, 3)), jnp.ones((2, 5, 2))]
    fn = case.of(lambda p: sum(jnp.sum(a) + jnp.sum(a**2) for a in p))
    updates, state = jax.jit(functools.partial(ask, opt, fn))(params, opt.init(params))
    again, wrapped = jax.jit(functools.partial(ask, injected, fn))(
        params, jax.jit(injected.init)(params)
    )
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(updates), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3)
    for a, b in zip(jax.tree.leaves(wrapped.inner_state), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)


@each
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_preserve_dtype(case, dtype):
    """AliasTest and ContribTest."""
    params = jnp.array([1.0, 2.0], dtype)
    opt, fn = case.make(), case.of(lambda x: jnp.sum(x**2))
    updates, _ = jax.eval_shape(functools.partial(ask, opt, fn), params, opt.init(params))
    assert updates.dtype == params.dtype


@each
@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
)
def test_state_shape_dtype_shard_stability(case, dtype):
    """AliasTest and ContribTest: inside `lax.cond`, with the value in another dtype."""
    with jax.enable_x64(dtype in ("float64", "complex128")):
        opt = case.make()
        params, _, fn = parabola(jnp.dtype(dtype))
        fn = case.of(fn)

        def step(params, state):
            value, grad = jax.value_and_grad(fn)(params)
            grad = jnp.conj(grad)
            value = value.astype("bfloat16" if dtype == "float16" else "float16")
            given = {"value": value, "grad": grad, "value_fn": fn}
            updates, state = jax.lax.cond(
                jax.random.bernoulli(jax.random.key(0)),
                lambda: opt.update(grad, state, params, **given),
                lambda: (params, state),
            )
            return optax.apply_updates(params, updates), state

        state = opt.init(params)
        moved, after = jax.eval_shape(step, params, state)
        assert moved.dtype == dtype
        kinds = lambda tree: [(a.shape, a.dtype, a.weak_type) for a in jax.tree.leaves(tree)]
        assert kinds(after) == kinds(state)


@each
@pytest.mark.standard_promotion("MultiSteps is optax's")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_gradient_accumulation(case, dtype):
    """AliasTest and ContribTest: zeros until the last mini-step."""
    opt = optax.MultiSteps(case.make(), every_k_schedule=4)
    params, fn = jnp.array([1.0, 2.0], dtype), case.of(lambda x: jnp.sum(x**2))
    updates, _ = jax.jit(functools.partial(ask, opt, fn))(params, opt.init(params))
    assert_same(updates, jnp.zeros_like(params))


@each_factory
def test_optimizers_accept_learning_rate_schedule_if_type_annotated_as_such(case):
    """ContribTest: a constant schedule is the number."""
    params, _, fn = parabola(jnp.dtype("float32"))
    ends = []
    for rate in (optax.constant_schedule(0.1), 0.1):
        opt = case.make(learning_rate=rate)
        step = jax.jit(functools.partial(move, opt, case.of(fn)))
        there, state = params, opt.init(params)
        for _ in range(10):
            there, state = step(there, state)
        ends.append(there)
    np.testing.assert_allclose(*ends, rtol=1e-6)
    assert jnp.abs(ends[0] - params).max() > 1


# ShardingTest


@squares
def quartic(params):
    wide = params.astype("float32")
    return wide - 1, wide**2


@pytest.fixture
def sharded():
    """f16 params (2, 8, 4), split along axis 1 of an explicit mesh of eight devices."""
    if jax.device_count() < 8:
        pytest.skip("needs eight devices")
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        sharding = jax.sharding.NamedSharding(mesh, jax.P(None, "x"))
        yield jnp.zeros((2, 8, 4), "float16", out_sharding=sharding)


def types_of(tree):
    return [str(jax.typeof(leaf)) for leaf in jax.tree.leaves(tree)]


@each
def test_init_with_abstract_input(case):
    """ShardingTest."""
    state = case.make().init(jax.ShapeDtypeStruct((2, 4, 8), jnp.float32))
    assert types(state) == types(case.make().init(jnp.zeros((2, 4, 8))))


@each
def test_state_sharding_type_init_match_update(case, sharded):
    """ShardingTest, traced: optax leaves out the line searches."""
    opt = case.make()
    state = opt.init(sharded)
    program = jax.make_jaxpr(functools.partial(ask, opt, case.of(quartic)))(sharded, state)
    updates, *after = map(str, program.out_avals)
    assert updates == str(jax.typeof(sharded))
    assert after == types_of(state)


@two
def test_state_sharding_type_init_match_update_when_run(make, sharded):
    """ShardingTest, eagerly as optax runs it, to a lower value."""
    opt = make()
    state = opt.init(sharded)
    updates, after = ask(opt, quartic, sharded, state)
    assert types_of(after) == types_of(state)
    assert updates.sharding == sharded.sharding
    assert quartic(sharded + updates) < quartic(sharded)


@each
def test_state_sharding_type_preserved_with_jit(case, sharded):
    """ShardingTest."""
    opt = case.make()
    state = opt.init(sharded)
    assert types_of(jax.jit(opt.init)(sharded)) == types_of(state)
    program = jax.make_jaxpr(jax.jit(functools.partial(ask, opt, case.of(quartic))))(sharded, state)
    assert list(map(str, program.out_avals)) == [str(jax.typeof(sharded)), *types_of(state)]


# The wrappers


def linear_or_nan(params, x):
    return jnp.sum((params - 1) ** 2) * x


@two
def test_apply_if_finite(make):
    """ConditionalityTest. After the allowed errors the wrapper lets NaN in: ours gives zeros."""
    opt = optax.apply_if_finite(make(), 2)

    @jax.jit
    def step(params, state, x):
        fn = functools.partial(linear_or_nan, x=x)
        return move(opt, fn, params, state)

    params = jnp.zeros(2)
    state, count = opt.init(params), 0
    for x in (1.0, np.nan, np.nan, 1.0, np.nan, np.nan, np.nan):
        before = params
        params, state = step(params, state, jnp.float32(x))
        count = 0 if np.isfinite(x) else count + 1
        assert bool(state.last_finite) == np.isfinite(x)
        assert state.notfinite_count == count
        if np.isnan(x):
            assert_same(params, before)
    assert state.total_notfinite == 5
    assert jnp.isfinite(params).all()
    params, state = step(params, state, jnp.float32(1))
    np.testing.assert_allclose(params, 1, atol=1e-3)


@two
@pytest.mark.parametrize("wrap", [optax.conditionally_transform, optax.conditionally_mask])
def test_stateful_inner(make, wrap):
    """ConditionallyTransformTest, ConditionallyMaskTest: the state rests while it is skipped."""
    opt, (params, _, fn) = wrap(make(), lambda step: step < 2), rosenbrock(jnp.dtype("float32"))
    ask_once, state = jax.jit(functools.partial(ask, opt, fn)), opt.init(params)
    for i in range(4):
        before = state.inner_state
        updates, state = ask_once(params, state)
        if i < 2:
            assert state.inner_state.count == before.count + 1
        else:
            assert_same(state.inner_state, before)
            skipped = jax.grad(fn)(params) if wrap is optax.conditionally_transform else 0
            np.testing.assert_array_equal(updates, skipped * jnp.ones(2))
    assert ask_once._cache_size() == 1


@two
def test_stateless_inner_with_extra_args(make):
    """ConditionallyMaskTest: the condition reads a keyword that is also data of `value_fn`."""
    opt = optax.conditionally_mask(make(), lambda step, x, **_: x > 0.1, forward_extra_args=True)
    params = jnp.zeros(2)

    @jax.jit
    def step(state, x):
        grad = jax.grad(linear_or_nan)(params, x)
        return opt.update(grad, state, params, value_fn=linear_or_nan, x=x)

    updates, state = step(opt.init(params), jnp.float32(0.2))
    assert jnp.all(updates > 0)
    updates, after = step(state, jnp.float32(0.0))
    assert_same(updates, jnp.zeros(2))
    assert_same(after.inner_state, state.inner_state)


NESTED = {"a": 1.0, "b": {"f": 2.0}, "c": {"d": 3.0, "e": ([4.0, 5.0], 6.0)}}


def nested():
    return jax.tree.map(lambda a: jnp.full(2, a, jnp.float32), NESTED)


def coupled(params):
    """Every leaf pulls at every other."""
    leaves = jnp.stack(jax.tree.leaves(params))
    return jnp.sum((leaves - 1) ** 2) + jnp.sum(leaves.sum(axis=0) ** 2)


def descends(updates, params, chosen):
    """Chosen leaves move; the others return the gradient. The value falls by the chosen alone."""
    grad = jax.grad(coupled)(params)
    moved = {}
    for (path, step), slope in zip(
        jax.tree_util.tree_leaves_with_path(updates), jax.tree.leaves(grad), strict=True
    ):
        name = "".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path)
        moved[name] = not np.array_equal(step, slope)
    held = jax.tree_util.tree_map_with_path(
        lambda path, step: (
            step
            if moved["".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path)]
            else jnp.zeros_like(step)
        ),
        updates,
    )
    assert {name for name, flag in moved.items() if flag} == chosen
    assert coupled(optax.apply_updates(params, held)) < coupled(params)


@two
@pytest.mark.parametrize("use_fn", [False, True])
def test_prefix_mask(make, use_fn):
    """MaskedTest, for `hesskit.masked`; also with a mask made by a function of a leaf."""
    mask = {"a": True, "b": False, "c": {"d": False, "e": True}}
    if use_fn:
        mask = lambda path, leaf: path == "a" or path.startswith("c/e")
    opt, params = hesskit.masked(make(), mask), nested()
    updates, state = jax.jit(functools.partial(ask, opt, coupled))(
        params, jax.jit(opt.init)(params)
    )
    assert types(state) == types(opt.init(params))
    descends(updates, params, {"a", "ce00", "ce01", "ce1"})


@two
def test_nested_mask(make):
    """MaskedTest: the leaves that both masks name."""
    inner = hesskit.masked(make(), {"a": True, "b": False, "c": {"d": False, "e": True}})
    params = nested()
    opt = hesskit.masked(inner, ["b", "c/*"])
    updates, _ = jax.jit(functools.partial(ask, opt, coupled))(params, opt.init(params))
    descends(updates, params, {"ce00", "ce01", "ce1"})


@two
def test_masked_state_structure(make):
    """MaskedTest: None, where optax has MaskedNode."""
    state = hesskit.masked(make(), "c/e").init(nested())
    assert state.inner_state.grad["a"] is None
    assert state.inner_state.grad["b"] == {"f": None}
    assert len(jax.tree.leaves(state.inner_state.grad)) == 3


@two
@pytest.mark.parametrize("name", ["masked", "freeze"])
def test_tree_map_params(make, name):
    """MaskedTest: as on a state that is not masked."""
    opt, params = getattr(hesskit, name)(make(), "c/e"), nested()
    state = opt.init(params)
    after = optax.tree.map_params(opt, lambda leaf: leaf + 1, state)
    assert types(after) == types(state)
    assert_same(after.inner_state.grad, jax.tree.map(jnp.ones_like, state.inner_state.grad))
    assert_same(after.inner_state.count, state.inner_state.count)


@two
@pytest.mark.parametrize("name", ["masked", "freeze"])
def test_update_requires_params(make, name):
    """MaskedTest."""
    opt, params = getattr(hesskit, name)(make(), "a"), nested()
    with pytest.raises(ValueError, match="requires the current value of parameters"):
        opt.update(params, opt.init(params), value_fn=coupled)


@two
def test_tree_mismatch_fails(make):
    """MaskedTest: a mask with a leaf too many, or too few."""
    mask = {"a": True, "b": {"f": False}, "c": True, "extra": True}
    for wrong in (mask, {"a": True, "b": False}):
        with pytest.raises(ValueError, match="mask"):
            hesskit.masked(make(), wrong).init(nested())


@two
@pytest.mark.standard_promotion("sgd is optax's")
@pytest.mark.parametrize("use_fn", [True, False])
def test_partition(make, use_fn):
    """PartitionTest, for `hesskit.partition`: labels as a tree or from a function."""
    labels = {"a": "sgd", "b": "ours", "c": {"d": "ours", "e": "sgd"}}
    each = {"sgd": optax.sgd(1e-3, momentum=0.9), "ours": make()}
    opt = hesskit.partition(each, (lambda _: labels) if use_fn else labels)
    params, step = nested(), jax.jit(functools.partial(move, opt, coupled))
    state, before = opt.init(params), coupled(params)
    for _ in range(3):
        params, state = step(params, state)
    assert coupled(params) < 0.5 * before
    assert step._cache_size() == 1
    assert_same(optax.tree.map_params(opt, lambda leaf: leaf, state), state)


@two
def test_extra_args(make):
    """PartitionTest: a required keyword of a sibling is asked for and forwarded."""

    def update(updates, state, params=None, *, arg, **_):
        assert arg == 1
        return updates, state

    other = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    opt, params = hesskit.partition({"a": other, "b": make()}, ("a", "b")), (nested(), nested())
    fn, state = lambda p: coupled(p[0]) + coupled(p[1]), opt.init(params)
    trace = lambda **more: jax.eval_shape(functools.partial(ask, opt, fn, **more), params, state)
    with pytest.raises(TypeError, match="arg"):
        trace()
    trace(arg=1, ignored_kwarg="hi")


@two
@pytest.mark.parametrize("use_fn", [True, False])
def test_labels_mismatch(make, use_fn):
    """PartitionTest."""
    labels = {"a": 3, "b": 1, "c": 0}
    opt = hesskit.partition(
        {0: optax.sgd(1.0), 1: make()}, (lambda _: labels) if use_fn else labels
    )
    with pytest.raises(ValueError, match=r"param_labels has 3; the transforms are for 0, 1"):
        opt.init(nested())


@two
def test_extra_args_positional_params(make):
    """ExtraArgsTest: params by position and by name."""
    opt, params = optax.chain(optax.identity(), make()), start()
    grad, state = jax.grad(bowl)(params), opt.init(start())
    one = jax.eval_shape(lambda g: opt.update(g, state, params, value_fn=bowl, unknown="hi"), grad)
    two = jax.eval_shape(lambda g: opt.update(g, state, params=params, value_fn=bowl), grad)
    assert one == two


# MultiSteps


@two
@pytest.mark.standard_promotion("MultiSteps is optax's")
def test_multi_steps(make):
    """AccumulationTest: params move, and the value falls, at every fourth step only."""
    wrapped = optax.MultiSteps(make(), 4)
    opt, params = wrapped.gradient_transformation(), start()
    step, state = jax.jit(functools.partial(move, opt, bowl)), wrapped.init(start())
    for i in range(12):
        before = params
        params, state = step(params, state)
        if i % 4 < 3:
            assert_same(params, before)
            assert not wrapped.has_updated(state)
        else:
            assert wrapped.has_updated(state)
            accepted = bool(hesskit.last_info(state).accepted)
            assert (bowl(params) < bowl(before)) == accepted
    assert bowl(params) < 0.5 * bowl(start())
    assert state.inner_opt_state.count == 3


@two
@pytest.mark.standard_promotion("MultiSteps is optax's")
def test_multi_steps_every_k_schedule(make):
    """AccumulationTest: one mini-step for two updates, then three."""
    wrapped = optax.MultiSteps(make(), lambda step: jnp.where(step < 2, 1, 3))
    opt, params = wrapped.gradient_transformation(), start()
    step, state = jax.jit(functools.partial(move, opt, bowl)), wrapped.init(start())
    updated = []
    for _ in range(8):
        params, state = step(params, state)
        updated.append(bool(wrapped.has_updated(state)))
    assert updated == [True, True, False, False, True, False, False, True]


@two
@pytest.mark.standard_promotion("MultiSteps is optax's")
def test_multi_steps_scan_dtype_stability(make):
    """AccumulationTest: bfloat16 params, float32 sums, as a carry of scan."""
    opt = optax.MultiSteps(make(), 2, accumulator_dtype=jnp.float32)
    params = {"a": jnp.zeros((), "bfloat16")}
    fn = lambda p: (p["a"] - 1) ** 2
    body = lambda state, _: ask(opt, fn, params, state)[::-1]
    state, _ = jax.eval_shape(lambda s: jax.lax.scan(body, s, length=4), opt.init(params))
    assert state.acc_grads["a"].dtype == jnp.float32


@two
@pytest.mark.standard_promotion("MultiSteps is optax's")
def test_multi_steps_skip_not_finite(make):
    """AccumulationTest: a mini-step with NaN does not count."""
    wrapped = optax.MultiSteps(make(), 2, should_skip_update_fn=optax.skip_not_finite)
    opt, params = wrapped.gradient_transformation(), jnp.zeros(2)

    @jax.jit
    def step(params, state, x):
        return move(opt, functools.partial(linear_or_nan, x=x), params, state)

    state, seen = opt.init(params), []
    for x in (1.0, np.nan, np.inf, 1.0):
        params, state = step(params, state, jnp.float32(x))
        seen.append(int(state.mini_step))
    assert seen == [1, 1, 1, 0]
    assert jnp.isfinite(params).all()
    assert jnp.all(params > 0)


# inject_hyperparams, tree.get, and the rest


@each_factory
@pytest.mark.parametrize(("hyper", "dtype"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_hyperparam_dtypes(case, hyper, dtype):
    """InjectHyperparamsTest: the hyperparameter keeps its dtype, the updates that of params."""
    make = optax.inject_hyperparams(case.factory, hyperparam_dtype=jnp.dtype(hyper))
    opt, params = make(learning_rate=0.5, **case.kwargs), jnp.ones(3, dtype)
    state = opt.init(params)
    fn = case.of(lambda x: jnp.sum(x**2))
    updates, after = jax.eval_shape(functools.partial(ask, opt, fn), params, state)
    for each in (state, after):
        assert each.hyperparams["learning_rate"].dtype == hyper
    assert updates.dtype == dtype


@two
def test_tree_get_and_tree_set(make):
    """StateUtilsTest: by name, in a chain; with a filter where two have the name."""
    opt, params = optax.chain(optax.clip_by_global_norm(1e6), make()), start()
    state = opt.init(params)
    assert optax.tree.get(state, "count") == 0
    assert optax.tree.get(state, "learning") is None
    info = optax.tree.get(state, "info")
    assert info.status == 0
    changed = optax.tree.set(state, count=jnp.array(3, jnp.int32))
    assert types(changed) == types(state)
    assert optax.tree.get(changed, "count") == 3
    injected = optax.inject_hyperparams(make)(learning_rate=0.5).init(params)
    assert (
        optax.tree.get(
            injected,
            "learning_rate",
            filtering=lambda path, _: any(
                getattr(key, "name", "") == "hyperparams" for key in path
            ),
        )
        == 0.5
    )


@two
@pytest.mark.standard_promotion("apply_updates is optax's")
def test_apply_updates_mixed_precision(make):
    """update_test: float32 gradients of bfloat16 params."""
    params = ({"a": jnp.ones((3, 2), "bfloat16")}, jnp.ones(1, "bfloat16"))
    fn = lambda p: jnp.sum(p[0]["a"].astype("float32") ** 2) + jnp.sum(p[1].astype("float32") ** 4)
    opt = make()

    @jax.jit
    def step(params, state):
        grad = jax.tree.map(lambda a: a.astype("float32"), jax.grad(fn)(params))
        updates, state = opt.update(grad, state, params, grad=grad, value_fn=fn)
        return optax.apply_updates(params, updates), state

    after, _ = step(params, opt.init(params))
    assert types(after) == types(params)
    assert fn(after) < fn(params)


@two
@pytest.mark.standard_promotion("the monitors are optax's")
def test_snapshot_and_monitor(make):
    """MonitoringTest: they see our updates and nothing else changes."""
    decay = 0.9
    watch = {
        "norm": optax.tree.norm,
        "norm_ema": optax.measure_with_ema(optax.tree.norm, decay, debias=True),
    }
    plain = make()
    opt = optax.chain(plain, optax.snapshot("shot", optax.tree.norm), optax.monitor(watch))
    params, state, bare = start(), opt.init(start()), plain.init(start())
    watched, alone = (jax.jit(functools.partial(ask, one, bowl)) for one in (opt, plain))
    average = 0.0
    for step in range(1, 4):
        updates, state = watched(params, state)
        expected, bare = alone(params, bare)
        for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
        norm = optax.tree.norm(updates)
        average = decay * average + (1 - decay) * norm
        for name in ("shot", "norm"):
            np.testing.assert_allclose(optax.tree.get(state, name), norm, rtol=1e-6)
        ema = optax.tree.get(state, "norm_ema")
        np.testing.assert_allclose(ema, average / (1 - decay**step), rtol=1e-4)
        params = optax.apply_updates(params, updates)


@two
@pytest.mark.standard_promotion("sam is optax's")
@pytest.mark.parametrize("opaque_mode", [False, True])
def test_sam(make, opaque_mode):
    """SAMTest.test_optimization. sam forwards no keywords, so `value_fn` is bound before."""
    params, final, fn = parabola(jnp.dtype("float32"))
    inner = make(learning_rate=0.5)
    bound = optax.GradientTransformation(inner.init, functools.partial(inner.update, value_fn=fn))
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(1e-5))
    opt = optax.contrib.sam(bound, adversary, sync_period=2, opaque_mode=opaque_mode)
    more = {"grad_fn": lambda p, _: jax.grad(fn)(p)} if opaque_mode else {}

    @jax.jit
    def step(params, state):
        updates, state = opt.update(jax.grad(fn)(params), state, params, **more)
        return optax.apply_updates(params, updates), state

    state = optax.tree.map_params(opt, lambda leaf: leaf, opt.init(params))
    for _ in range(100):
        params, state = step(params, state)
    np.testing.assert_allclose(params, final, rtol=3e-2, atol=3e-2)


@two
@pytest.mark.standard_promotion("schedule_free is optax's")
def test_buffer_donation(make):
    """_schedule_free_test."""
    opt = optax.contrib.schedule_free(make(learning_rate=0.5), learning_rate=0.5)
    params, _, fn = parabola(jnp.dtype("float32"))
    step = jax.jit(functools.partial(move, opt, fn), donate_argnums=(0, 1))
    state = opt.init(params)
    moved, _ = step(params, state)
    assert params.is_deleted()
    assert jnp.isfinite(moved).all()
