"""What is shown while a run goes on: each running lane once a step, in order, one bar for all."""

import io
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hesskit
from hesskit.core.status import Status
from hesskit.solvers import progress
from hesskit.solvers.progress import Progress


def loop(limit: jax.Array, callback, *, bar: bool) -> jax.Array:
    """Counts to `limit`, showing each count; what `minimize` does, without the mathematics."""

    def body(carry):
        step, status = carry
        now = Progress(
            num_steps=step + 1,
            value=1 / (step + 2).astype("float32"),
            grad_norm=jnp.exp2(-step.astype("float32")),
            step_norm=jnp.ones(()),
            accepted=jnp.array(True),
            status=jnp.where(step + 1 >= limit, Status.MAX_STEPS, 0).astype(jnp.int32),
            params={"w": jnp.ones(2) * step.astype("float32")},
        )
        stop = progress.show(now, limit, callback, bar=bar, running=status == 0)
        after = jnp.where(stop & (now.status == 0), Status.USER_STOP, now.status)
        return step + 1, after.astype(jnp.int32)

    start = jnp.int32(-1), jnp.int32(0)
    return jax.lax.while_loop(lambda carry: carry[1] == 0, body, start)


@pytest.fixture
def stream(monkeypatch):
    """The text of the bar, and no state of an earlier one."""
    pytest.importorskip("tqdm")
    text = io.StringIO()
    real = progress._tqdm.tqdm
    made = SimpleNamespace(
        tqdm=lambda **kwargs: real(**kwargs, file=text, mininterval=0, ascii=True, ncols=120)
    )
    monkeypatch.setattr(progress, "_tqdm", made)
    monkeypatch.setattr(progress._BAR, "_bar", None)
    return text


def test_the_callback_sees_every_step_in_order_and_stops():
    seen = []

    def watch(now):
        seen.append(now)
        return now.num_steps == 3

    step, status = jax.jit(lambda n: loop(n, watch, bar=False))(10)
    assert (step, status) == (3, Status.USER_STOP)
    assert [int(now.num_steps) for now in seen] == [0, 1, 2, 3]
    np.testing.assert_array_equal(seen[2].params["w"], [1.0, 1.0])
    assert seen[1].value.dtype == "float32"


def test_a_callback_without_an_answer_goes_on():
    assert loop(jnp.int32(2), lambda now: None, bar=False)[1] == Status.MAX_STEPS


def test_lanes_are_heard_while_they_run():
    seen = []

    def watch(now):
        seen.append(int(now.num_steps))
        return now.num_steps >= 3

    run = jax.jit(jax.vmap(jax.vmap(lambda n: loop(n, watch, bar=False)[1])))
    status = run(jnp.array([[1, 9], [2, 9]], "int32"))
    assert status.tolist() == [
        [Status.MAX_STEPS, Status.USER_STOP],
        [Status.MAX_STEPS, Status.USER_STOP],
    ]
    assert seen == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3]


def test_the_bar_shows_steps_value_and_gradient(stream):
    jax.jit(lambda n: loop(n, None, bar=True))(4)
    text = stream.getvalue()
    assert "0/4" in text
    assert "4/4" in text
    assert "value 0.2, |grad| 1.2e-01" in text
    assert progress._BAR._bar is None  # closed


def test_the_bar_closes_where_the_callback_stops(stream):
    jax.jit(lambda n: loop(n, lambda now: now.num_steps >= 1, bar=True))(4)
    assert "1/4" in stream.getvalue()
    assert progress._BAR._bar is None


def test_one_bar_for_all_lanes(stream):
    jax.jit(jax.vmap(lambda n: loop(n, None, bar=True)))(jnp.array([1, 3], "int32"))
    text = stream.getvalue()
    assert text.count("\n") == 1  # written by the closing of a bar
    assert "2 of 2 run" in text
    assert "1 of 2 run" in text
    assert progress._BAR._bar is None


def test_minimize_shows_it(stream):
    result = hesskit.minimize(lambda p: jnp.sum(p**4), jnp.ones(2), progress=True, max_steps=5)
    assert f"value {float(result.value):.6g}" in stream.getvalue()


def test_without_tqdm_a_sentence(monkeypatch):
    monkeypatch.setattr(progress, "_tqdm", None)
    with pytest.raises(ImportError, match=r"progress=True needs tqdm: pip install 'hesskit\["):
        hesskit.minimize(jnp.sum, jnp.ones(2), progress=True)
    progress.check(False)


def test_nothing_is_in_the_program_unless_asked_for():
    run = lambda p, **kwargs: hesskit.minimize(lambda q: jnp.sum(q**4), p, **kwargs).value
    assert "callback" not in str(jax.make_jaxpr(run)(jnp.ones(2)))
    watched = jax.make_jaxpr(lambda p: run(p, callback=lambda now: None))(jnp.ones(2))
    assert str(watched).count("pure_callback[") == 1


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt()])
def test_what_a_callback_raises_arrives_as_itself(error):
    def stumble(now):
        if now.num_steps == 2:
            raise error

    runs = [
        lambda: hesskit.minimize(lambda x: jnp.sum((x - 1) ** 4), jnp.zeros(2), callback=stumble),
        lambda: hesskit.curve_fit(
            lambda x, a: jnp.exp(a * x),
            jnp.arange(4.0),
            jnp.exp(0.3 * jnp.arange(4.0)),
            jnp.zeros(()),
            callback=stumble,
        ),
    ]
    for run in runs:
        with pytest.raises(type(error)) as raised:
            run()
        assert raised.value is error
    seen = []
    hesskit.minimize(lambda x: jnp.sum(x**2), jnp.ones(2), callback=seen.append)
    assert len(seen) > 1
