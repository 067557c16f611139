"""How `init` and `update` are called, and how data reaches `value_fn`."""

import functools
import re

import jax
import jax.numpy as jnp
import optax
import pytest

import hesskit
from tests.contracts.registry import ALL, CALLING, DEFAULTS, PARTS
from tests.contracts.support import bowl, start
from tests.marks import slow_but

each = pytest.mark.parametrize("case", ALL)
each_default = pytest.mark.parametrize("case", DEFAULTS)


def trace(opt, fn, params=None, **data):
    """One update, traced only; what is static stays out of the trace."""
    params = start() if params is None else params
    state = opt.init(params)
    return jax.eval_shape(lambda p, s: opt.update(p, s, p, value_fn=fn, **data), params, state)


@each
def test_is_an_optax_transformation(case):
    opt = case.make()
    assert isinstance(opt, optax.GradientTransformationExtraArgs)
    init, update = opt
    assert (init, update) == (opt.init, opt.update)
    assert len(opt) == 2


@each
def test_the_same_arguments_give_the_same_object(case):
    assert case.make() is case.make()


@pytest.mark.parametrize("case", CALLING)
def test_other_arguments_give_another_object(case):
    assert case.make() is not case.make(has_aux=True)


@each
def test_ignores_unknown_keywords(case):
    trace(case.make(), case.of(bowl), obj_fn=bowl, loss_scale=3.0, step_name="first")


@pytest.mark.parametrize("case", CALLING)
def test_value_fn_is_required(case):
    opt, params = case.make(), start()
    state, said = opt.init(params), rf"^{case.factory.__name__}\.update\(\) needs value_fn="
    with pytest.raises(TypeError, match=said):
        opt.update(params, state, params)
    with pytest.raises(TypeError, match=said + r".* \(got loss_fn; pass it as value_fn=\)$"):
        opt.update(params, state, params, loss_fn=case.of(bowl))


@each
def test_params_are_required(case):
    opt, params = case.make(), start()
    said = "update needs the current params.*requires the current value of parameters"
    with pytest.raises(ValueError, match=said):
        opt.update(params, opt.init(params), value_fn=case.of(bowl))


@each
def test_updates_are_like_params(case):
    updates, _ = trace(case.make(), case.of(bowl))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), updates) == jax.tree.map(
        lambda a: (a.shape, a.dtype), start()
    )


@each_default
def test_only_learning_rate_is_positional(case):
    """`lbfgs` takes two more, as optax's."""
    with pytest.raises(TypeError, match="positional"):
        case.factory(None, None, *[True] * 2 * (case.name == "lbfgs"))
    with pytest.raises(TypeError, match="unexpected keyword"):
        case.factory(beta=1.0)
    with pytest.raises(TypeError, match="learning_rate must be a number"):
        case.factory("fast")
    with pytest.raises(ValueError, match=r"learning_rate must lie in \[0, inf\), got nan"):
        case.factory(float("nan"))


@pytest.mark.parametrize(
    "name", slow_but(PARTS, "scale_by_trust_region", "scale_by_lbfgs", "scale_by_sophia")
)
def test_scale_by_is_the_step_uphill(name):
    part, whole = (param.values[0] for param in PARTS[name])
    params, grad = start(), jax.grad(bowl)(start())
    up, down = part.make(), whole.make(learning_rate=0.25)
    fn = part.of(bowl)
    both = [jax.jit(functools.partial(opt.update, value_fn=fn)) for opt in (up, down)]
    (uphill, _), (step, _) = (
        update(grad, opt.init(params), params) for update, opt in zip(both, (up, down), strict=True)
    )
    for a, b in zip(jax.tree.leaves(uphill), jax.tree.leaves(step), strict=True):
        assert jnp.array_equal(-0.25 * a, b)


# How data travels is one piece of code for all transforms: one of them stands for all.


def scaled(params, x, *, y=1.0):
    return bowl(params) * x * y


OPT = hesskit.newton_cg()


@pytest.mark.parametrize(
    "fn",
    [
        lambda params, x: bowl(params) * x,
        functools.partial(scaled, y=2.0),
        jax.jit(scaled),
        scaled,
        type("Loss", (), {"__call__": lambda self, params, x: bowl(params) * x})(),
    ],
    ids=["lambda", "partial", "jit", "function", "object"],
)
def test_any_callable_is_a_value_fn(fn):
    trace(OPT, fn, x=2.0, unknown=1.0)


@pytest.mark.parametrize(
    "given",
    [
        {"x": 2.0},
        {"args": (2.0,)},
        {"args": {"x": 2.0}},
        {"args": (2.0,), "y": 3.0},
        {"args": {"x": 2.0}, "y": 3.0},
    ],
    ids=str,
)
def test_data_by_name_or_args(given):
    seen = {}

    def fn(params, x, y=1.0):
        seen.update(x=x, y=y)
        return bowl(params) * x * y

    trace(OPT, fn, **given)
    assert seen == {"x": 2.0, "y": given.get("y", 1.0)}


def test_a_var_keyword_value_fn_gets_all_data():
    seen = {}

    def fn(params, **data):
        seen.update(data)
        return bowl(params)

    trace(OPT, fn, value=1.0, grad=start(), x=1.0, y=2.0)
    assert seen == {"x": 1.0, "y": 2.0}


@pytest.mark.parametrize("name", ["updates", "state", "params"])
def test_names_of_update_are_reserved(name):
    params = start()
    said = f"the data name `{name}` belongs to update(); pass args={{'{name}': ...}}"
    with pytest.raises(TypeError, match=re.escape(said)):
        OPT.update(params, OPT.init(params), params, value_fn=bowl, **{name: 1.0})


@pytest.mark.parametrize("name", ["state", "value", "args"])
def test_a_value_fn_that_needs_a_reserved_name(name):
    fn = eval(f"lambda p, {name}: bowl(p) * {name}", {"bowl": bowl})
    said = f"the data name `{name}` belongs to update(); pass args={{'{name}': ...}}"
    with pytest.raises(TypeError, match=re.escape(said)):
        trace(OPT, fn)
    trace(OPT, fn, args={name: 2.0})


@pytest.mark.parametrize("case", CALLING)
def test_a_missing_value_fn_is_named(case):
    opt, params = case.make(), jnp.ones(2)
    with pytest.raises(TypeError, match=rf"^{case.factory.__name__}\.update\(\) .*value_fn"):
        opt.update(params, opt.init(params), params)


def test_missing_data_is_named():
    def value_fn(params, x, y):
        return bowl(params) * x * y

    said = r"value_fn\(params, x, y\) needs `x`; .*update received `X`, `y`. Did you mean x=\?"
    with pytest.raises(TypeError, match=said):
        trace(OPT, value_fn, X=1.0, y=1.0)
    said = r"value_fn takes all params as one argument; it requires params, x and y"
    with pytest.raises(TypeError, match=said):
        trace(OPT, value_fn)


def test_an_exception_of_the_user_keeps_its_type_and_gains_one_note():
    def fn(params):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        trace(OPT, fn)
    (note,) = (note for note in caught.value.__notes__ if "hesskit" in note)  # JAX adds its own
    assert "float32[2]" in note


def test_has_aux_is_dropped():
    opt = hesskit.newton_cg(has_aux=True)
    fn = lambda params: (bowl(params), {"more": jnp.ones(7)})
    _, state = trace(opt, fn)
    assert all(leaf.shape != (7,) for leaf in jax.tree.leaves(state))
    with pytest.raises(TypeError, match=r"must return \(value, aux\)"):
        trace(opt, bowl)
    with pytest.raises(TypeError, match="has_aux=True"):
        trace(OPT, fn)
