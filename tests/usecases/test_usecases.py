"""The training scripts run, learn, continue from a checkpoint, and mistakes are named.

They need the extra `examples`; on a Python for which one of its packages has no release they skip.
"""

import functools
import importlib
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest

import hesskit
import hesskit.plots
from benchmarks._pinn_problems import burgers
from tests.solvers.test_minimize import compilations

pytestmark = [
    pytest.mark.standard_promotion("flax and equinox are not ours"),
    pytest.mark.slow,  # whole runs
]

# A value, and the value that comes with a linearization, are two programs of one function.
ROUNDING = 4 * float(np.finfo(np.float32).eps)

ROOT = Path(__file__).resolve().parents[2]

EACH = pytest.mark.parametrize("make", [hesskit.newton_cg, hesskit.lbfgs])


def script(name):
    """A script of this folder; skips where what it imports is missing."""
    for package in ("sklearn", "orbax.checkpoint", name.split("_")[1]):
        pytest.importorskip(package, reason=f"{name} needs {package}: pip install .[examples]")
    return importlib.import_module(f"tests.usecases.{name}")


@functools.cache
def numbers(name):
    return script(name).main()


@pytest.mark.parametrize(("name", "least"), [("train_flax_nnx", 0.95), ("train_equinox", 0.95)])
def test_it_learns(name, least):
    """A tenth of the loss at the start; logistic regression reaches 0.96 on these digits."""
    found = numbers(name)
    assert np.mean(found.values[-3:]) < 0.1 * found.values[0]
    assert found.accuracy > least


@pytest.mark.parametrize("name", ["train_flax_nnx", "train_equinox"])
def test_it_continues_from_a_checkpoint_bit_for_bit(name):
    assert numbers(name).same_after_restore


def test_kfac_finds_the_layers_of_flax():
    kinds = list(numbers("train_flax_nnx").blocks.values())
    assert sorted(kinds) == ["diagonal", "diagonal", "joined", "joined", "kronecker", "kronecker"]


def test_lbfgs_keeps_most_steps_on_batches():
    assert numbers("train_equinox").accepted > 0.9


# flax.nnx


@functools.cache
def digits():
    """100 digits, and a network with Dropout and BatchNorm."""
    example = script("train_flax_nnx")
    (x, y), _ = example.load_data()
    return example, example.Net(example.nnx.Rngs(0)), {"x": x[:100], "targets": y[:100]}


def split(pure):
    example, model, _ = digits()
    graph, params, rest = example.nnx.split(model, example.nnx.Param, ...)
    as_pure = example.nnx.as_pure
    return graph, as_pure(params), as_pure(rest) if pure else rest


def test_a_pure_loss_repeats_exactly():
    example, _, data = digits()
    graph, params, rest = split(pure=True)
    loss = example.make_loss(graph, rest)
    (value, _), grad = jax.value_and_grad(loss, has_aux=True)(params, **data)
    assert abs(value - loss(params, **data)[0]) <= ROUNDING * value
    opt = hesskit.newton_cg(has_aux=True)
    given = {"value": value, "grad": grad, "value_fn": loss}
    _, state = opt.update(grad, opt.init(params), params, **given, **data)
    assert state.info.value_mismatch <= ROUNDING * value
    assert state.info.accepted


@pytest.mark.parametrize("pure", [True, False])
def test_without_as_pure_nnx_value_and_grad_changes_what_value_fn_sees(pure):
    """The trap: it advances the random stream and the statistics that `rest` shares with it."""
    example, _, data = digits()
    nnx = example.nnx
    model = example.Net(nnx.Rngs(0))

    def of_model(model, x, targets):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), targets).mean()

    graph, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = nnx.as_pure(params), nnx.as_pure(rest) if pure else rest

    def loss(params, x, targets):
        return of_model(nnx.merge(graph, params, rest, copy=True), x, targets)

    value, grad = nnx.value_and_grad(of_model)(model, **data)
    grad, opt = nnx.as_pure(grad), hesskit.newton_cg()
    given = {"value": value, "grad": grad, "value_fn": loss}
    _, state = opt.update(grad, opt.init(params), params, **given, **data)
    mismatch = float(state.info.value_mismatch)
    assert mismatch < 1e-6 if pure else mismatch > 1e-3


def notes(error):
    return "\n".join(getattr(error, "__notes__", ()))


@EACH
def test_a_loss_that_closes_over_the_model(make):
    """With BatchNorm flax raises, and the note says what to write."""
    _, model, data = digits()
    _, params, _ = split(pure=True)
    opt = make()

    def closed(params, x, targets):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), targets).mean()

    with pytest.raises(Exception, match="Cannot mutate BatchStat") as caught:
        opt.update(params, opt.init(params), params, value_fn=closed, **data)
    said = notes(caught.value)
    assert f"value_fn was called by hesskit.{make.__name__}.update with params" in said
    assert "'kernel': float32[64, 32]" in said
    assert "nnx.merge(graph, params, rest, copy=True)" in said


def test_a_loss_that_ignores_params(capsys):
    """Without state nothing raises: `check_value_fn` says it."""
    example, _, data = digits()
    model = example.Net(example.nnx.Rngs(0))
    model.eval()
    _, params, _ = split(pure=True)

    def closed(params, x, targets):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), targets).mean()

    found = hesskit.check_value_fn(closed, params, **data)
    assert not found.depends_on_params
    assert "value_fn does not depend on params: its gradient is zero on every leaf. Did it" in (
        capsys.readouterr().out
    )


# equinox


def parts():
    example = script("train_equinox")
    model = example.Net(jax.random.key(0))
    params, static = example.eqx.partition(model, example.eqx.is_inexact_array)
    (x, y), _ = example.load_data()
    data = {"x": x[:20], "y": y[:20], "key": jax.random.key(1)}
    return example, model, params, example.make_loss(static), data


@EACH
def test_the_whole_model_as_params(make):
    """a) Its leaves that are no float arrays are named."""
    _, model, params, loss, data = parts()
    opt = make()
    with pytest.raises(TypeError, match=r"params.dropout.inference is bool; Derivatives need"):
        opt.init(model)
    with pytest.raises(TypeError, match=r"params.dropout.inference is bool; Derivatives need"):
        opt.update(params, opt.init(params), model, value_fn=loss, **data)


@EACH
def test_a_loss_without_combine(make):
    """b) The exception is the model's own; the note says what is missing."""
    _, _, params, _, data = parts()
    opt = make()

    def bare(params, x, y, key):
        logits = jax.vmap(params)(x, jax.random.split(key, len(x)))
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    for fn in (bare, hesskit.microbatched(bare, 4) + hesskit.l2(1.0)):
        with pytest.raises(TypeError, match="NoneType") as caught:
            opt.update(params, opt.init(params), params, value_fn=fn, **data)
        said = notes(caught.value)
        assert f"value_fn was called by hesskit.{make.__name__}.update with params Net(" in said
        assert "weight=float32[32, 64]" in said
        assert "rebuild the model inside value_fn with eqx.combine(params, static)" in said


@EACH
def test_data_under_another_name(make):
    """c) X= for x=, although unknown names are ignored."""
    _, _, params, loss, data = parts()
    opt = make()
    data["X"] = data.pop("x")
    said = (
        f"value_fn(params, x, y, key) needs `x`; {make.__name__}.update received "
        "`y`, `key`, `X`. Did you mean x=?"
    )
    with pytest.raises(TypeError, match=re.escape(said)):
        opt.update(params, opt.init(params), params, value_fn=loss, **data)


def test_newton_cg_in_the_same_loop():
    """With Dropout; each batch a few times, so that a rejected step is tried again, shorter."""
    found = script("train_equinox").main(hesskit.newton_cg(max_products=10), num_epochs=2)
    assert found.values[-1] < 0.3 * found.values[0]
    assert found.same_after_restore
    assert 0.5 < found.accepted <= 1


def test_microbatched_is_the_mean_over_the_parts():
    example, _, params, _, data = parts()
    _, static = example.eqx.partition(example.Net(jax.random.key(0)), example.eqx.is_inexact_array)

    def loss(params, x, y):
        logits = jax.vmap(lambda x: example.eqx.combine(params, static)(x, None, inference=True))(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    x, y = data["x"], data["y"]
    whole, split_up = (
        jax.value_and_grad(fn)(params, x, y) for fn in (loss, hesskit.microbatched(loss, 4))
    )
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(split_up), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# curve_fit


def test_a_fit_with_errors(tmp_path):
    """In a process of its own, since the script turns x64 on; the truth is mu = 0.42."""
    path = ROOT / "tests" / "usecases" / "fit_with_errors.py"
    done = subprocess.run(
        [sys.executable, path, tmp_path], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    mu, error = re.search(r"peak/mu +(\S+) +(\S+)", done.stdout).groups()
    assert abs(float(mu) - 0.42) < 4 * float(error)
    assert "fixed" in done.stdout
    assert "p = " in done.stdout
    assert "Laplace" in done.stdout
    assert {p.name for p in tmp_path.iterdir()} == {"fit.png", "corner.png", "correlation.png"}


# a posterior and the gradient of its evidence


@functools.cache
def posterior():
    with jax.enable_x64(True):
        example = importlib.import_module("tests.usecases.laplace_and_implicit")
        return example, example.main()


def test_a_prior_tuned_by_its_evidence(float64):
    """Relabeled data mirror the fit; at the best precision the evidence is level and highest."""
    _, found = posterior()
    for error in found.errors.values():
        np.testing.assert_allclose(error, found.errors["laplace"], rtol=0.25)
    np.testing.assert_allclose(found.many_errors["w"][0], found.errors["laplace"][1:], rtol=1e-6)
    assert found.best.success
    at = found.best.params + jnp.array([-1e-3, 0.0, 1e-3])
    left, best, right = jax.jit(jax.vmap(found.neg_evidence))(at)
    assert left > best < right
    assert abs(right - left) < 1e-3 * (left + right - 2 * best)


def test_likely_mistakes_with_a_posterior(float64):
    """a) The log posterior, to be maximized; b) a start for a peak; c) a mean over data."""
    example, found = posterior()
    args = (jnp.array(0.0), found.x, found.y)

    def log_post(*given):
        return -example.neg_log_post(*given)

    run = hesskit.minimize(log_post, example.START, args=args)
    assert "if this is a log-density, minimize its negative" in run.message
    with pytest.raises(ValueError, match="laplace expects the negative log posterior"):
        hesskit.laplace(log_post, example.START, args=args)
    with pytest.warns(UserWarning, match="not stationary, .* run minimize first"):
        hesskit.laplace(example.neg_log_post, example.START, args=args)
    first, _ = hesskit.laplace.__doc__.split("\n", 1)
    assert first.endswith("of a sum over data, not of a mean.")
    assert "num_data=N" in hesskit.laplace.__doc__


# a physics-informed network


@functools.cache
def pinn():
    return importlib.import_module("tests.usecases.pinn")


@functools.cache
def trained(folder):
    counted = compilations()
    tiny = {"width": 8, "depth": 2, "num": 400, "steps": (500, 100, 10), "chunks": 4}
    return pinn().main(folder, **tiny, watch=lambda: len(counted))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return tmp_path_factory.mktemp("pinn")


def test_a_pinn_learns(pictures):
    """0 has error 1, Adam's 500 steps reach 0.57; the truth is Cole's and Hopf's formula."""
    found, problem = trained(pictures), burgers()
    grid = jnp.asarray(problem.grid, jnp.float32)
    error = jax.vmap(pinn().u, (None, 0))(found.params, grid) - problem.exact
    assert np.linalg.norm(error) < 0.4 * np.linalg.norm(problem.exact)
    assert found.values[-1] < 0.1 * found.values[0]
    assert {path.name for path in pictures.iterdir()} == {"pinn.png"}


def test_chunks_on_new_points_with_new_weights_compile_nothing(pictures):
    """The first starts, the second continues, and those are the programs that there are."""
    compiled = trained(pictures).compiled
    assert compiled[0] > 0
    assert compiled[1:] == [compiled[1]] * 3


def test_the_plain_loss_of_a_pinn_is_told_what_is_missing():
    example = pinn()
    params, pts = example.init(jax.random.key(0), 4, 1), example.sample(jax.random.key(1), 8)

    def plain(params, pts):
        squares = {k: jnp.mean(r**2) for k, r in example.residual(params, pts).items()}
        return sum(example.WEIGHTS[k] * square for k, square in squares.items())

    np.testing.assert_allclose(plain(params, pts), example.loss(params, pts), rtol=1e-6)
    said = r"levenberg_marquardt needs the residuals, .* loss = hesskit\.least_squares_loss\("
    with pytest.raises(TypeError, match=said):
        hesskit.minimize(plain, params, hesskit.levenberg_marquardt(), args=(pts,))


# a text on the Hessian


def test_learning_the_hessian(tmp_path, float64, capsys):
    """The numbers of the text: nine points, 6.499 at (0.5, 0.5), a remainder of third order."""
    found = importlib.import_module("tests.usecases.learn_the_hessian").main(tmp_path)
    assert sorted(found.kinds) == ["MAXIMUM"] + 4 * ["MINIMUM"] + 4 * ["SADDLE"]
    assert found.kappa == pytest.approx(6.499, abs=1e-3)
    assert found.order == pytest.approx(3, abs=0.05)
    assert "stopped after max_steps=30 as asked" in found.gd
    assert "gradient is zero but the Hessian has" in found.at_saddle
    assert "negative eigenvalue" in found.at_saddle
    assert {p.name for p in tmp_path.iterdir()} == {"quadratic.png", "surface.png", "net.png"}
    said = capsys.readouterr().out
    for words in ("NOT_CRITICAL", "maximum at 0, 0", "the matrix is indefinite", "10 probes"):
        assert words in said


def test_the_likely_mistakes_of_a_reader():
    example = importlib.import_module("tests.usecases.learn_the_hessian")
    two = lambda x, y: x**2 - y**2
    said = re.escape(
        "value_fn takes all params as one argument; it requires x and y. Write "
        "lambda p: f(p[0], p[1]) with params jnp.array([0., 0.])."
    )
    for ask in (hesskit.classify_critical_point, hesskit.hessian, hesskit.minimize):
        with pytest.raises(TypeError, match=said):
            ask(two, jnp.zeros(2))
    with pytest.raises(TypeError, match=re.escape("needs the point: hessian(f, x). (jax.hessian")):
        hesskit.hessian(example.quartic)(jnp.zeros(2))
    with pytest.raises(TypeError, match=r"params is int32; write 0\.0\. Derivatives need floats"):
        hesskit.classify_critical_point(example.quartic, jnp.array([0, 0]))
    with pytest.raises(ValueError, match=r"use fig\.add_subplot\(projection='3d'\)"):
        hesskit.plots.surface(example.quartic, plt.subplots()[1])
    run = hesskit.minimize(example.rosenbrock, jnp.zeros(2), hesskit.newton(), max_steps=3)
    with pytest.raises(ValueError, match="r1 has no path: rerun with history='params'"):
        hesskit.plots.contours(example.rosenbrock, paths={"Newton": run})
    plt.close("all")
    params = {"inner": jnp.ones((3, 2)), "outer": jnp.ones(2)}
    batches = ((jnp.ones((4, 3)), jnp.ones(4)) for _ in range(2))
    with pytest.raises((TypeError, ValueError), match="batches is a generator"):
        hesskit.spectral_density(example.net_loss, params, batches=batches)
