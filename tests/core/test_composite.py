"""Composites are functions like any other, keep their structure, and split data in one way."""

import functools
import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit
from hesskit.core import closed_form, objective, tree
from hesskit.core.composite import Autodiff, Composite, composite
from hesskit.core.restrict import restrict
from hesskit.core.structured import Structured
from hesskit.linalg import whitened
from tests.core.dense import check_outer, columns, filled, matrices

RNG = np.random.default_rng(0)
X, T = RNG.normal(size=(5, 2)), RNG.normal(size=(5,))
P = {"w": jnp.array([1.0, -0.5]), "b": jnp.array(0.3)}


def model(p, x):
    return jnp.tanh(x @ p["w"] + p["b"])


def quartic(y, target):
    return jnp.sum((y - target) ** 4)


def logcosh(outputs):
    """Convex, of a tree, with couplings."""
    y, z = outputs["y"], outputs["z"]
    return jnp.logaddexp(jnp.sum(y), jnp.sum(z**2)) + jnp.sum(jnp.cosh(y))


def data(dtype="float32"):
    return jnp.asarray(X, dtype), jnp.asarray(T, dtype)


def test_the_value_is_that_of_the_functions_one_in_the_other():
    x, t = data()
    loss = composite(quartic, model)
    value = quartic(model(P, x), t)
    assert loss(P, x, t) == value
    assert loss(P, x, target=t) == value
    assert loss(P, target=t, x=x) == value
    assert jax.jit(loss)(P, x, t) == value
    ours, theirs = jax.grad(loss)(P, x, t), jax.grad(lambda p: quartic(model(p, x), t))(P)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), ours, theirs)


def test_autodiff_has_the_hessian_and_a_factor(dtype):
    outputs = {"y": jnp.array([0.3, -0.2], dtype), "z": jnp.array([[0.5, 1.0]], dtype)}
    found = check_outer(filled(Autodiff(logcosh)), outputs)
    assert found.residual is None


def test_the_factor_of_a_loss_that_is_not_convex_leaves_negative_curvature_out(float64):
    outputs = jnp.array([1.0, 2.0, 3.0])
    found = matrices(filled(Autodiff(lambda r: r[0] ** 2 - r[1] ** 2 + r[0] * r[2])), outputs)
    w, q = np.linalg.eigh(found.truth)
    assert w[0] < 0
    np.testing.assert_allclose(found.hessian, found.truth, atol=1e-14)
    expected = (q * np.maximum(w, 0)) @ q.T
    np.testing.assert_allclose(found.factor @ found.factor.T, expected, atol=1e-14)


def dense_truth(loss, inner, p) -> np.ndarray:
    """J'HJ from jax.jacobian and jax.hessian."""
    at = lambda flat: inner(tree.unravel(flat, p))
    jacobian = jax.jacobian(at)(tree.ravel(p))
    return jacobian.T @ jax.hessian(loss)(inner(p)) @ jacobian


@pytest.mark.slow
def test_data_filled_in_gives_a_structured_objective(float64):
    x, t = data("float64")
    p = jax.tree.map(lambda a: a.astype("float64"), P)
    whole = composite(quartic, model).structure((x,), {"target": t}, "minimize")
    assert isinstance(whole, Structured)
    assert whole(p) == (quartic(model(p, x), t), None)
    found = whitened.evaluate(whole.without_aux(), p)
    truth = dense_truth(lambda y: quartic(y, t), lambda p: model(p, x), p)
    np.testing.assert_allclose(columns(found.product, p), truth, atol=1e-13)


@pytest.mark.parametrize(
    ("inner", "outer", "names"),
    [
        (lambda p, x: x, lambda y, t: y, "p x t"),
        (lambda p, x, t: x, lambda y, t: y, "p x t"),  # a name of both is one
        (lambda p: p, lambda y, t: y, "p t"),
        (lambda p, x, y, scale=1.0: x, lambda y: y, "p x y scale=1.0"),
        (lambda p, x, train=False: x, lambda y, t: y, "p x t *, train=False"),
        (lambda p, x: x, lambda y, t, s=1.0: y, "p x t s=1.0"),
        (lambda p, *, x: x, lambda y, t: y, "p t *, x"),
        (lambda p, *x: p, lambda y: y, "p *x"),
    ],
)
def test_the_signature_tells_where_data_goes(inner, outer, names: str):
    signature = inspect.signature(composite(outer, inner))
    assert str(signature) == f"({names.replace(' ', ', ').replace('*,,', '*,')})"


def test_what_is_optional_in_inner_goes_by_name_if_outer_takes_data():
    inner = lambda p, x, train=False: model(p, x) * (2 if train else 1)
    x, t = data()
    loss = composite(quartic, inner)
    assert loss(P, x, t) == quartic(model(P, x), t)
    assert loss(P, x, t, train=True) == quartic(2 * model(P, x), t)
    alone = composite(jnp.sum, inner)  # jnp.sum takes optional data itself
    assert alone(P, x, train=True) == jnp.sum(2 * model(P, x))


def test_a_name_of_both_is_one_by_position_too():
    inner = lambda p, mask, x: model(p, x) * mask
    outer = lambda y, mask, t: jnp.sum(mask * (y - t) ** 2)
    x, t = data()
    mask = jnp.array([1.0, 0, 1, 0, 1])
    loss = composite(outer, inner)
    assert str(inspect.signature(loss)) == "(p, mask, x, t)"
    value = outer(model(P, x) * mask, mask, t)
    assert loss(P, mask, x, t) == loss(P, mask, x, t=t) == loss(P, mask=mask, x=x, t=t) == value
    with pytest.raises(TypeError, match="takes 2 after params and the loss 1 after"):
        loss(P, mask, x, t, t)


def test_functions_without_a_signature():
    class Opaque:
        __signature__ = "none"

        def __call__(self, params, *args, **data):
            return sum((jnp.sum(item) for item in (*args, *data.values())), start=params)

    opaque = Opaque()
    with pytest.raises(TypeError):
        inspect.signature(opaque)
    assert composite(lambda y: y**2, opaque)(jnp.array(1.0), jnp.array(2.0)) == 9
    assert composite(opaque, lambda p, x: p * x)(jnp.array(1.0), jnp.array(2.0)) == 2
    with pytest.raises(TypeError, match="inner takes any number of arguments"):
        composite(lambda y, t: y, opaque)


def test_aux_of_the_model_comes_back():
    inner = lambda p, x: (model(p, x), {"norm": jnp.sum(p["w"] ** 2)})
    x, t = data()
    loss = composite(quartic, inner, has_aux=True)
    value, aux = loss(P, x, t)
    assert (value, aux) == (quartic(model(P, x), t), {"norm": jnp.array(1.25)})
    (again, _), grad = jax.value_and_grad(loss, has_aux=True)(P, x, t)
    assert again == value
    assert grad["b"].shape == ()


def test_a_complex_output_is_its_two_parts(float64):
    z = jnp.array([1 + 2j, -0.5j])
    outer = lambda parts: jnp.sum(parts[0] ** 2 + 3 * parts[1] ** 2)
    loss = composite(outer, lambda z: z * jnp.array(2j))
    np.testing.assert_allclose(loss(z), 4 * (4 + 0.25) + 12 * 1, rtol=1e-12)
    v = np.array([0.3 - 1j, 2 + 0j])
    product = hesskit.gauss_newton_operator(loss, z)(v)
    np.testing.assert_allclose(product, 24 * v.real + 8j * v.imag, rtol=1e-12)


def test_equal_parts_are_one_objective():
    assert composite(quartic, model) == composite(quartic, model)
    assert hash(composite(quartic, model)) == hash(composite(quartic, model))
    assert composite(quartic, model) != composite(quartic, model, has_aux=True)
    assert composite(quartic, model) != composite(logcosh, model)
    loss = pickle.loads(pickle.dumps(composite(quartic, model)))
    assert loss == composite(quartic, model)
    assert isinstance(loss, Composite)


def test_examples_mapped_by_hesskit():
    one = lambda p, x: jnp.tanh(x @ p["w"] + p["b"])
    x, t = data()
    mapped = hesskit.per_example(one)
    squares = hesskit.least_squares_loss(lambda p, x, t: mapped(p, x) - t)
    plain = hesskit.least_squares_loss(lambda p, x, t: model(p, x) - t)
    np.testing.assert_allclose(squares(P, x, t), plain(P, x, t), rtol=1e-6)
    whole = composite(lambda y: jnp.sum(y**2), mapped)
    np.testing.assert_allclose(whole(P, x), jnp.sum(model(P, x) ** 2), rtol=1e-6)


# Wrappers: a transform that takes one dense Gauss-Newton step of what it is given.


def _step(updates, state, params, *, value_fn, **named):
    fn = objective.bind(value_fn, data=named, caller="step.update")
    assert isinstance(fn, Structured)
    at = whitened.evaluate(fn, params)
    np.testing.assert_allclose(tree.ravel(updates), tree.ravel(at.grad), rtol=1e-5, atol=1e-6)
    rows = at.rows()
    return tree.unravel(-jnp.linalg.pinv(rows.matrix) @ rows.residual, params), state


STEP = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), _step)
LINEAR = hesskit.least_squares_loss(lambda p, x, t: x @ p["w"] + p["b"] - t)


def part(keys: str, rest) -> dict:
    """The least-squares answer for some of w_0, w_1, b, with the others at `rest`."""
    matrix = np.concatenate([X, np.ones((5, 1))], axis=1)
    at = np.array([*np.asarray(rest["w"]), float(rest["b"])])
    free = np.array(["w" in keys, "w" in keys, "b" in keys])
    at[free] = np.linalg.lstsq(matrix[:, free], T - matrix[:, ~free] @ at[~free], rcond=None)[0]
    return {"w": at[:2], "b": at[2]}


@pytest.mark.parametrize("keys", ["w", "b"])
@pytest.mark.parametrize("wrapper", ["masked", "freeze", "partition"])
def test_wrappers_keep_the_structure(wrapper: str, keys: str, float64):
    x, t = data("float64")
    p = jax.tree.map(lambda a: a.astype("float64"), P)
    other = "b" if keys == "w" else "w"
    opt = {
        "masked": lambda: hesskit.masked(STEP, keys),
        "freeze": lambda: hesskit.freeze(STEP, other),
        "partition": lambda: hesskit.partition(
            {"moves": STEP, "rests": optax.set_to_zero()}, {keys: "moves", other: "rests"}
        ),
    }[wrapper]()
    grad = jax.grad(LINEAR)(p, x, t)
    updates, _ = opt.update(grad, opt.init(p), p, value_fn=LINEAR, x=x, t=t)
    if wrapper == "masked":  # passes the other gradient on
        np.testing.assert_array_equal(updates[other], grad[other])
        updates = {**updates, other: jnp.zeros_like(p[other])}
    for name, expected in part(keys, p).items():
        np.testing.assert_allclose(p[name] + updates[name], expected, rtol=1e-10)


def test_a_restricted_objective_has_the_block(float64):
    x, t = data("float64")
    p = jax.tree.map(lambda a: a.astype("float64"), P)
    held = restrict(composite(quartic, model), {"w": None, "b": p["b"]})
    assert held({"w": p["w"], "b": None}, x, t) == quartic(model(p, x), t)
    assert inspect.signature(held) == inspect.signature(composite(quartic, model))
    free = {"w": p["w"], "b": None}
    block = hesskit.gauss_newton_operator(held, free, args=(x, t)).dense()
    whole = hesskit.gauss_newton_operator(composite(quartic, model), p, args=(x, t)).dense()
    np.testing.assert_allclose(block, whole[1:, 1:], rtol=1e-12)


@pytest.mark.slow
def test_minimize_with_leaves_held_and_complex_ones(float64):
    """One run: b is fixed, w complex."""
    start = {"w": jnp.array([1 + 1j, 0.5j]), "b": jnp.array(0.3)}
    residual = lambda p, x, t: x @ p["w"] + jax.lax.complex(p["b"], 0.0) - t
    loss = hesskit.least_squares_loss(residual)
    args = (X.astype("complex128"), T + 1j)
    fit = hesskit.minimize(loss, start, hesskit.levenberg_marquardt(), args=args, fixed="b")
    assert fit.success
    assert fit.params["b"] == 0.3
    expected = np.linalg.lstsq(X, T + 1j - 0.3, rcond=None)[0]
    np.testing.assert_allclose(fit.params["w"], expected, rtol=1e-10)
    assert fit.num_steps <= 3


def call(loss, *args, **named):
    return lambda: loss(P, *args, **named)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: composite(3, model), TypeError, "outer must be a function of outputs, got int"),
        (lambda: composite(quartic, None), TypeError, "inner must be a function of params, got"),
        (
            lambda: composite(quartic, lambda p, *args: p),
            TypeError,
            "inner takes any number of arguments, so nobody knows which data is its own",
        ),
        (
            lambda: composite(hesskit.losses.squared_error, model),
            TypeError,
            "outer takes no outputs; if it makes a loss, call it: composite(squared_error(), ...)",
        ),
        (
            lambda: composite(model, closed_form.Poisson()),
            TypeError,
            "inner (second argument) must take params first, got a loss of outputs",
        ),
        (
            call(composite(quartic, model), X, T, T),
            TypeError,
            "composite got 3 positional data; inner takes 1 after params and the loss 1 after its",
        ),
        (call(composite(quartic, model), X), TypeError, "missing 1 required positional argument"),
        (call(composite(jnp.sum, lambda p: None)), TypeError, "inner returned None, expected"),
        (call(composite(jnp.sum, lambda p: [])), TypeError, "inner returned [], expected arrays"),
        (
            call(composite(jnp.sum, lambda p: {"y": jnp.arange(3)})),
            TypeError,
            "inner returned int32 at ['y']; derivatives need floats",
        ),
        (call(composite(jnp.sum, lambda p: p["b"] > 0)), TypeError, "inner returned bool;"),
        (
            call(composite(jnp.sum, lambda p: p["w"][:0])),
            ValueError,
            "inner returned float32[0]: no entries; is the data empty?",
        ),
        (
            call(composite(lambda y: y, lambda p: p["w"])),
            ValueError,
            "outer returned shape (2,), expected ()",
        ),
        (
            call(composite(jnp.sum, lambda p: p["w"], has_aux=True)),
            TypeError,
            "inner must return (outputs, aux) with has_aux=True, got float32[2]",
        ),
    ],
)
def test_words(call, error: type, words: str):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


def test_missing_data_and_errors_inside_are_told_apart():
    loss = composite(quartic, model)
    with pytest.raises(TypeError, match="needs `target`"):
        hesskit.minimize(loss, P, args={"x": jnp.asarray(X, "float32")})
    with pytest.raises(KeyError) as caught:
        composite(jnp.sum, lambda p: p["width"])(P)
    assert "inner was called by hesskit.composite with params {'b'" in caught.value.__notes__[-1]
