"""K-FAC in a user's loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(40, 5)), jnp.float32)
USER = pytest.mark.standard_promotion("a bias broadcasts in the model, which is a user's")


def model(p, x):
    h = jnp.tanh(x @ p["w"] + p["b"])
    return jnp.tanh(h @ p["v"] + p["c"]) @ p["u"]


def start(seed=0):
    shapes = {"w": (5, 8), "b": (8,), "v": (8, 4), "c": (4,), "u": (4, 3)}
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    named = zip(sorted(shapes), keys, strict=True)
    return {n: jax.random.normal(k, shapes[n]) / shapes[n][0] ** 0.5 for n, k in named}


LOSS = hesskit.composite(hesskit.losses.squared_error(), model)
T = model(start(1), X)


def steps(opt, num, params, loss, args):
    """The last params and state, and values on the way."""

    def step(carry, _):
        params, state = carry
        value, grad = jax.value_and_grad(loss)(params, *args)
        updates, state = opt.update(
            grad, state, params, value=value, grad=grad, value_fn=loss, args=args
        )
        return (optax.apply_updates(params, updates), state), value

    opt = optax.with_extra_args_support(opt)
    return jax.lax.scan(step, (params, opt.init(params)), None, length=num)


def run(opt, num, loss=LOSS, params=None, args=(X, T)):
    """Values on the way, the last params and state."""
    params = start() if params is None else params
    last, values = jax.jit(lambda p: steps(opt, num, p, loss, args))(params)
    return np.asarray(values), *last


@USER
def test_it_trains_a_net_fivefold_faster_than_adam_and_never_climbs():
    values, _, state = run(hesskit.kfac(), 60)
    assert np.all(np.diff(values) <= 1e-6 * values[:-1])
    adam = jax.jit(lambda rate: steps(optax.adam(rate), 60, start(), LOSS, (X, T))[1][-1])
    assert values[-1] < min(adam(rate) for rate in (1e-2, 3e-2, 1e-1)) / 5
    info = hesskit.last_info(state)
    assert info.status == 0
    assert info.num_values == 2
    assert info.value_mismatch < 1e-6


@USER
def test_weight_decay_is_a_penalty_in_the_objective():
    """The steps are those on the sum, although value and gradient come without it."""
    loss = hesskit.composite(hesskit.losses.squared_error(), lambda p, x: jnp.tanh(x @ p["w"]))
    more = {"params": {"w": start()["w"]}, "args": (X, jnp.ones((40, 8)))}
    ours = run(hesskit.kfac(weight_decay=0.1), 4, loss=loss, **more)[1]
    summed = run(hesskit.kfac(), 4, loss=loss + hesskit.l2(0.1), **more)[1]
    np.testing.assert_allclose(ours["w"], summed["w"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@USER
def test_with_a_rate_it_learns_from_batches_within_its_norm_constraint():
    opt = hesskit.kfac(1.0, norm_constraint=1e-2, damping=1e-2)
    data = jax.random.normal(jax.random.key(5), (40, 20, 5))

    @jax.jit
    def train(params):
        def step(carry, x):
            params, state = carry
            value, grad = jax.value_and_grad(LOSS)(params, x, model(start(1), x))
            updates, state = opt.update(
                grad, state, params, value_fn=LOSS, args=(x, model(start(1), x))
            )
            bound = -jnp.sum(jnp.stack([jnp.vdot(updates[k], grad[k]) for k in grad]))
            return (optax.apply_updates(params, updates), state), (value, bound * state.info.length)

        return jax.lax.scan(step, (params, opt.init(params)), data)[1]

    values, sizes = train(start())
    assert np.all(sizes <= 1.01e-2)
    assert np.any(sizes > 0.99e-2)
    assert np.mean(values[-5:]) < 0.3 * values[0]


@USER
def test_at_rest_the_damping_stays_and_new_targets_are_learned():
    opt = hesskit.kfac()
    loss = hesskit.composite(hesskit.losses.squared_error(), lambda p, x: x @ p)
    exact = X @ jnp.ones((5, 3))

    @jax.jit
    def go(params, state, targets):
        def step(carry, _):
            params, state = carry
            grad = jax.grad(loss)(params, X, targets)
            updates, state = opt.update(grad, state, params, value_fn=loss, args=(X, targets))
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), None, length=150)[0]

    params, state = go(jnp.zeros((5, 3)), opt.init(jnp.zeros((5, 3))), exact)
    assert loss(params, X, exact) < 1e-8
    assert hesskit.last_info(state).damping < 1
    params, state = go(params, state, -exact)
    assert loss(params, X, -exact) < 1e-6


@USER
@pytest.mark.parametrize(
    "layer",
    [
        lambda p, x: x @ jnp.where(p > 0, p, 0.1 * p),
        lambda p, x: jax.lax.fori_loop(0, 2, lambda i, h: jnp.tanh(h @ p), x),
    ],
    ids=["where", "fori_loop"],
)
def test_models_with_booleans_and_counters_train(layer):
    loss = hesskit.composite(hesskit.losses.squared_error(), layer)
    more = {"params": jnp.eye(5) / 2, "args": (X, jnp.tanh(X))}
    values = run(hesskit.kfac(), 10, loss=loss, **more)[0]
    assert values[-1] < values[0] / 2


@USER
def test_a_rule_of_the_users_own_is_kept():
    """A product whose derivative is said to be a tenth: gradients are those of `jax.grad`."""

    @jax.custom_vjp
    def product(w, x):
        return x @ w

    product.defvjp(lambda w, x: (x @ w, (w, x)), lambda r, g: (r[1].T @ g / 10, g @ r[0].T / 10))
    loss = hesskit.composite(hesskit.losses.squared_error(), lambda p, x: product(p, x))
    params, args = jnp.ones((5, 3)), (X, jnp.zeros((40, 3)))
    grad = jax.grad(loss)(params, *args)
    opt = hesskit.kfac()
    _, state = opt.update(grad, opt.init(params), params, value_fn=loss, args=args)
    np.testing.assert_allclose(hesskit.last_info(state).grad_norm, jnp.linalg.norm(grad), rtol=1e-5)


@pytest.mark.slow
def test_momentum_does_not_hide_a_direction_from_the_norm_constraint():
    """Each direction within it, a sum of them with weights 1, 1/2, ... is within four times it."""
    loss = hesskit.composite(hesskit.losses.squared_error(), lambda p, x: x @ p)
    more = {"loss": loss, "params": jnp.zeros((5, 3)), "args": (X, X @ jnp.ones((5, 3)))}
    opt = hesskit.kfac(10.0, momentum=0.5, norm_constraint=1e-3, damping=1e-2)
    path = [more["params"], *(run(opt, num, **more)[1] for num in (1, 2, 3, 8, 9))]
    bends = [float(jnp.sum((X @ (path[k + 1] - path[k])) ** 2)) / 40 for k in (0, 1, 2, 4)]
    assert max(bends) < 4 * 1e-3 * 1.5  # 1.5 for factors of few samples


def test_what_means_nothing_without_a_rate_is_refused():
    for given in ({"momentum": 0.9}, {"norm_constraint": 1e-3}, {"damping": lambda count: 1.0}):
        with pytest.raises(ValueError, match="only with a learning_rate"):
            hesskit.kfac(**given)
    opt = hesskit.kfac(weight_decay=0.1)
    with pytest.raises(ValueError, match="updates must have the structure of params"):
        opt.update({"a": X}, opt.init(X), X, value_fn=LOSS)


@USER
def test_half_precision_in_a_checkpointed_model_has_factors_in_single():
    half = jnp.bfloat16

    def mixed(p, x):
        p = jax.tree.map(lambda a: a.astype(half), p)
        block = jax.checkpoint(lambda p, x: jnp.tanh(x @ p["w"] + p["b"]))
        h = jnp.tanh(block(p, x.astype(half)) @ p["v"] + p["c"])
        return (h @ p["u"]).astype(jnp.float32)

    loss = hesskit.composite(hesskit.losses.squared_error(), mixed)
    table = hesskit.kronecker_table(loss, start(), args=(X, T))
    assert [row.kind for row in table.rows] == ["joined", "joined", *3 * ["kronecker"]]
    opt = hesskit.kfac(0.1, momentum=0.9, damping=1e-2, norm_constraint=1e-2)
    values, _, state = run(opt, 40, loss=loss)
    assert values[-1] < 0.2 * values[0]
    assert {leaf.dtype for leaf in jax.tree.leaves(state.model.means)} == {jnp.dtype("float32")}


@pytest.mark.slow
@USER
@pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices")
def test_data_on_four_devices_give_the_same_steps_by_one_sum_of_factors():
    """Factors are summed in one go, and the inverses of each length gathered."""
    _, alone, _ = run(hesskit.kfac(), 6)
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        everywhere, spread = (jax.NamedSharding(mesh, jax.P(*spec)) for spec in ((), ("data",)))
        params = jax.device_put(start(), everywhere)
        args = jax.device_put((X, T), spread)
        opt = hesskit.kfac(inverses="distributed")
        whole = jax.jit(lambda p, a: steps(opt, 6, p, LOSS, a)[0][0])
        compiled = whole.lower(params, args).compile()
        found = compiled(params, args)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    text = compiled.as_text()
    sums = [line for line in text.splitlines() if " all-reduce(" in line]
    assert sum("f32[8,8]" in line for line in sums) == 1  # with those of all other lengths
    assert text.count(" all-gather(") == len({3, 4, 6, 8, 9})


def test_a_bias_of_two_axes_is_joined_where_eigenvalues_are_corrected(float64):
    params = {"w": jnp.asarray(RNG.normal(size=(3, 2))), "b": jnp.zeros((1, 2))}
    args = jnp.asarray(RNG.normal(size=(9, 3))), jnp.asarray(RNG.normal(size=(9, 2)))
    loss = hesskit.composite(
        hesskit.losses.squared_error(), lambda p, x: x @ p["w"] + jnp.broadcast_to(p["b"], (9, 2))
    )
    grad = jax.grad(loss)(params, *args)
    matrix = np.asarray(hesskit.gauss_newton_operator(loss, params, args=args).dense())
    opt = hesskit.kfac(1.0, damping=0.3, eigenvalue_correction=True, estimator="exact")
    step = jax.jit(lambda g, s: opt.update(g, s, params, value_fn=loss, args=args))
    updates, state = step(grad, opt.init(params))
    wanted = -np.linalg.solve(matrix + 0.3 * np.eye(8), jax.flatten_util.ravel_pytree(grad)[0])
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(updates)[0], wanted, rtol=1e-9)
    step(grad, state)


@USER
def test_a_sample_of_the_curvature_that_is_not_finite_does_not_count():
    """Value and gradient are finite, and what the random vector meets is not."""

    @jax.custom_jvp
    def wild(z):
        return z

    wild.defjvp(lambda z, dz: (z[0], jnp.where(z[0] > 1e9, jnp.nan, 1.0) * dz[0]))
    args = jnp.ones((4, 5), jnp.float32), jnp.full((4, 3), 1e10, jnp.float32)
    loss = hesskit.composite(
        hesskit.losses.squared_error(reduction="sum"), lambda p, x: wild(x @ p["w"])
    )
    params = {"w": jnp.full((5, 3), 1e9, jnp.float32)}
    opt = hesskit.kfac(0.1)
    zero = jax.tree.map(jnp.zeros_like, params)
    _, state = jax.jit(
        lambda s: opt.update(
            zero, s, params, value=jnp.ones(()), grad=zero, value_fn=loss, args=args
        )
    )(opt.init(params))
    assert state.model.num == 0
    assert all(jnp.all(leaf == 0) for leaf in jax.tree.leaves(state.model.means))


@pytest.mark.slow
@USER
def test_parts_of_a_batch_on_an_explicit_mesh():
    """Examples lie on devices, parts are one after another."""
    _, alone, _ = run(hesskit.kfac(), 3, hesskit.microbatched(LOSS, 2))
    kind = (jax.sharding.AxisType.Explicit,)
    mesh = jax.make_mesh((4,), ("data",), axis_types=kind, devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        params = jax.device_put(start(), jax.NamedSharding(mesh, jax.P()))
        args = jax.device_put((X, T), jax.NamedSharding(mesh, jax.P("data")))
        _, found, _ = run(hesskit.kfac(), 3, hesskit.microbatched(LOSS, 2), params, args)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@USER
@pytest.mark.parametrize("key", [0, 1, 2])
def test_a_vector_of_weights_has_the_exact_diagonal(key):
    """Weights of one output, a vector: every example has its own slope, no draw of their sum."""
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.normal(size=(50, 4)) * [0.1, 1.0, 3.0, 10.0], jnp.float32)
    loss = hesskit.least_squares_loss(lambda p, x, t: x @ p["w"] + p["b"] - t)
    params = {"w": jnp.zeros(4), "b": jnp.zeros(())}
    opt = hesskit.kfac(learning_rate=0.5, damping=1e-3, key=key)
    args = x, x @ jnp.array([10.0, -2.0, 1.0, 0.3]) + 1
    (_, state), values = steps(opt, 40, params, loss, args)
    wanted = jnp.sum(x * x, axis=0)
    np.testing.assert_allclose(state.model.means[0]["w"], wanted, rtol=1e-5)
    assert np.all(np.diff(values) <= 0)
    assert values[-1] < 1e-3 * values[0]


@USER
@pytest.mark.parametrize("key", range(6))
def test_a_leaf_that_enters_elsewhere_is_drawn_often_enough(key):
    """One draw of its slope may be next to nothing, and the first step then a leap."""
    x = jnp.asarray(np.random.default_rng(4).normal(size=(80, 6)), jnp.float32)
    loss = hesskit.least_squares_loss(lambda p, x, t: x @ jnp.exp(p["w"]) - t)
    opt = hesskit.kfac(learning_rate=0.5, damping=1e-3, key=key)
    t = x @ jnp.exp(jnp.array([0.5, -0.5, 0.2, 1.0, -1.0, 0.0]))
    _, values = steps(opt, 30, {"w": jnp.zeros(6)}, loss, (x, t))
    assert np.all(values < 1.5 * values[0])
    assert values[-1] < 0.01 * values[0]
