"""What functions take: names, places, joint signatures."""

import functools
import inspect

import pytest

from hesskit.core import signature

NONE = type("NoSignature", (), {"__signature__": "none", "__call__": lambda self, p: p})()


def fn(params, x, /, y, z=1.0, *, scale, mode="train"):
    return params, x, y, z, scale, mode


def test_names_by_position_and_by_name():
    assert signature.positional(fn) == ("x", "y", "z")
    assert signature.positional(fn, optional=False) == ("x", "y")
    assert signature.names(fn) == {"y", "z", "scale", "mode"}
    assert signature.positional(lambda p, *rest: p) is None
    assert signature.positional(lambda p: p) == ()


def test_a_callable_without_a_signature():
    assert signature.of(NONE) is signature.parameters(NONE) is signature.positional(NONE) is None
    assert signature.names(NONE) == set()
    assert signature.select(NONE, {"x": 1}, "fn") == ({"x": 1}, [])
    assert signature.takes_data(NONE) is True
    assert signature.joint(NONE, fn) is signature.joint(fn, NONE) is None
    assert signature.first_only(None) is None


@pytest.mark.parametrize(
    ("of", "data", "taken", "missing"),
    [
        (fn, {"y": 1, "other": 2}, {"y": 1}, ["x", "scale"]),
        (lambda p, **data: p, {"y": 1, "other": 2}, {"y": 1, "other": 2}, []),
        (lambda p, *rest: p, {"rest": 1}, {}, []),
        (functools.partial(lambda p, x, y: p, y=1), {}, {}, ["x"]),
    ],
)
def test_data_by_name(of, data, taken, missing):
    assert signature.select(of, data, "fn") == (taken, missing)


def test_a_function_of_nothing():
    with pytest.raises(TypeError, match="value_fn must take params as its first argument"):
        signature.select(lambda: 1, {}, "value_fn")


@pytest.mark.parametrize(
    ("of", "kind"),
    [
        (lambda p: p, False),
        (lambda p, x: p, True),
        (lambda p, x=1: p, True),
        (lambda p, *, x: p, True),
        (lambda p, *, x=1, y=2: p, None),
        (lambda p, *rest: p, True),
        (lambda *rest: rest, None),
    ],
)
def test_who_takes_data(of, kind):
    assert signature.takes_data(of) is kind


def test_the_joint_signature_has_each_name_once():
    joint = signature.joint(lambda p, x, t, train=False: p, lambda y, t, s, w=1: y)
    assert str(joint) == "(p, x, t, s, w=1, *, train=False)"
    assert str(signature.first_only(joint)) == "(p)"


def test_a_wrapper_shows_what_it_wraps():
    wrapper = functools.partial(fn)
    signature.adopt(wrapper, signature.of(lambda p, q: p))
    assert str(inspect.signature(wrapper)) == "(p, q)"
    signature.adopt(wrapper, None)
    assert str(inspect.signature(wrapper)) == "(p, q)"
