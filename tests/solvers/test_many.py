"""`minimize_many` against one problem at a time: the same answers and statuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core.status import Status

NUM, LANES = 64, 8


def quartic(p, scale, target):
    """Convex: a quadratic of condition `scale` and a quartic about `target`."""
    r = jnp.stack([p["x"] - target, jnp.sqrt(scale) * (p["y"] - 0.5 * p["x"])])
    return 0.5 * jnp.sum(r**2) + 0.1 * jnp.sum(r**4)


def residual(p, scale, target):
    return jnp.stack([p["x"] - target, jnp.sqrt(scale) * (p["y"] - 0.5 * p["x"]), p["x"] * p["y"]])


LOSS = hesskit.least_squares_loss(residual)
STRUCTURED = [hesskit.gauss_newton(), hesskit.levenberg_marquardt(), hesskit.hessian_free()]
QUICK = [hesskit.trust_region()]
OTHERS = [
    hesskit.lbfgs(),
    hesskit.newton(),
    hesskit.damped_newton(),
    hesskit.saddle_free_newton(),
    hesskit.cubic_newton(),
    hesskit.newton_cg(),
    hesskit.ssbroyden(),
    *STRUCTURED,
]
"""The other transforms with a machine: two compilations each."""


def problems():
    rng = np.random.default_rng(0)
    params = {"x": 3 * rng.normal(size=NUM), "y": 3 * rng.normal(size=NUM)}
    params["x"][5] = np.nan
    return params, (10 ** rng.uniform(0, 3, NUM), rng.normal(size=NUM))


def alone(fn, params, args, optimizer):
    """The answers of `minimize`, one problem at a time."""
    start, fn_args = jax.tree.map(jnp.asarray, (params, args))
    found = [
        hesskit.minimize(
            fn,
            jax.tree.map(lambda a, i=i: a[i], start),
            optimizer,
            args=jax.tree.map(lambda a, i=i: a[i], fn_args),
        )
        for i in range(NUM)
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *[r.params for r in found]), np.array(
        [int(r.status) for r in found]
    )


@pytest.mark.parametrize(
    "optimizer",
    [*QUICK, *(pytest.param(other, marks=pytest.mark.slow) for other in OTHERS)],
    ids=lambda optimizer: optimizer.name,
)
def test_many_are_as_one_by_one(optimizer, float64):
    fn = LOSS if optimizer in STRUCTURED else quartic
    params, args = problems()
    many = hesskit.minimize_many(fn, params, optimizer, args=args, lanes=LANES)
    expected, status = alone(fn, params, args, optimizer)
    np.testing.assert_array_equal(many.status, status)
    sound = np.arange(NUM) != 5
    for name in ("x", "y"):
        np.testing.assert_allclose(
            many.params[name][sound], expected[name][sound], rtol=2.2e-14, atol=2.2e-14
        )
    assert status[5] == Status.NONFINITE_START
    assert many.num_success == NUM - 1
    assert many.failed.tolist() == [5]


def test_data_that_are_no_numbers():
    with pytest.raises(TypeError, match=r"^args\[0\] has dtype object; data must be arrays"):
        hesskit.minimize_many(quartic, {"x": jnp.zeros(3)}, args=(np.array([None] * 3),))
    with pytest.raises(TypeError, match=r"^args\['mode'\] is str 'mean'; data must be arrays"):
        hesskit.minimize_many(quartic, {"x": jnp.zeros(3)}, args={"mode": "mean"})


def parabola(p, shift, scale):
    return scale * jnp.sum((p["x"] - shift) ** 2)


@pytest.mark.slow
def test_shared_and_batched_data_under_jit():
    shift = jnp.arange(20.0)
    start = {"x": jnp.zeros(3)}
    many = jax.jit(
        lambda shift: hesskit.minimize_many(
            parabola,
            start,
            args={"shift": shift, "scale": 2.0},
            in_axes=(None, {"shift": 0, "scale": None}),
            lanes=8,
        )
    )(shift)
    np.testing.assert_allclose(many.params["x"], np.repeat(shift[:, None], 3, 1), rtol=1e-6)
    assert str(many) == "trust_region: 20 of 20 succeeded: 20 GRADIENT_TOL"
    assert many[7].num_steps == many.num_steps[7]
    assert len(many) == 20


@pytest.mark.slow
def test_other_data_compile_nothing_and_starts_are_looked_at():
    counted = []

    def fn(p, shift):
        counted.append(0)
        return parabola(p, shift, 2.0)

    start = {"x": jnp.zeros((6, 2))}
    box = {"x": (-1.0, 3.5)}
    first = hesskit.minimize_many(fn, start, args=(jnp.arange(6.0),), bounds=box, lanes=4)
    np.testing.assert_allclose(first.params["x"][:, 0], [0, 1, 2, 3, 3.5, 3.5], atol=1e-6)
    traces = len(counted)
    hesskit.minimize_many(fn, start, args=(2 * jnp.arange(6.0),), bounds=box, lanes=4)
    assert len(counted) == traces
    far = {"x": start["x"].at[4, 1].set(9.0)}
    with pytest.raises(ValueError, match=r"problem 4: start x\[1\] = 9 is outside"):
        hesskit.minimize_many(fn, far, args=(jnp.arange(6.0),), bounds=box, lanes=4)


@pytest.mark.slow
def test_answers_are_differentiable_in_their_data(float64):
    """Of ridge regressions, in both modes, and in what the objective closes over."""
    keys = jax.random.split(jax.random.key(0))
    x, ys = jax.random.normal(keys[0], (20, 3)), jax.random.normal(keys[1], (4, 20))
    strengths = jnp.linspace(-1, 1, 4)

    def ridge(w, strength, y):
        return jnp.mean((x @ w - y) ** 2) + jnp.exp(strength) * jnp.sum(w**2)

    def many(strengths, ys):
        data = {"args": (strengths, ys), "in_axes": (None, 0), "lanes": 2}
        return hesskit.minimize_many(ridge, jnp.zeros(3), **data).params

    def exact(strength, y):
        return jnp.linalg.solve(x.T @ x / 20 + jnp.exp(strength) * jnp.eye(3), x.T @ y / 20)

    expected = jax.vmap(jax.jacfwd(exact, (0, 1)))(strengths, ys)
    found = jax.jacrev(many, (0, 1))(strengths, ys)
    for i in range(4):
        np.testing.assert_allclose(found[0][i, :, i], expected[0][i], atol=1e-12)
        np.testing.assert_allclose(found[1][i, :, i], expected[1][i], atol=1e-12)
    assert not found[0][0, :, 1:].any()

    def closing(strength):
        fn = lambda w, y: ridge(w, strength, y)
        return hesskit.minimize_many(fn, jnp.zeros(3), args=(ys,), in_axes=(None, 0)).params

    expected = jax.vmap(jax.jacfwd(exact), (None, 0))(0.3, ys)
    np.testing.assert_allclose(jax.jacfwd(closing)(0.3), expected, atol=1e-12)
