"""Every way to stop has a code, a sentence, and advice."""

import pytest

from hesskit.core.status import SENTENCES, TOLERANCES, Status, sentence


def test_codes_are_stable_and_every_one_has_a_sentence():
    assert Status.RUNNING == 0
    assert [int(code) for code in Status] == list(range(13))
    assert set(SENTENCES) == set(Status)
    assert set(TOLERANCES) < set(Status)


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_sentences_are_filled_in(status: Status, dtype: str):
    text = sentence(status, value=-1.5e-7, grad_norm=0.031, num_steps=30, dtype=dtype)
    assert "{" not in text
    assert len(text) > 20


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            Status.MAX_STEPS,
            "stopped after max_steps=30 as asked; gradient norm 3.1e-02. Continue with "
            "state=result.state.",
        ),
        (Status.UNBOUNDED, "if this is a log-density, minimize its negative"),
        (Status.ROUNDOFF_LIMITED, "reached the rounding floor of float32 at value 1.2e-07"),
        (Status.ROUNDOFF_LIMITED, "more digits need float64"),
        (Status.SADDLE, "gradient is zero but the Hessian has a negative eigenvalue"),
        (Status.USER_STOP, "stopped by the callback after 30 steps"),
    ],
)
def test_the_words_of_the_contract(status: Status, words: str):
    assert words in sentence(status, value=1.2e-7, grad_norm=0.031, num_steps=30)


def test_float64_users_are_not_sent_to_float64():
    text = sentence(
        Status.ROUNDOFF_LIMITED, value=1.0, grad_norm=1e-12, num_steps=3, dtype="float64"
    )
    assert "need float64" not in text


def test_a_rest_without_a_unit_does_not_call_a_large_gradient_zero():
    said = {"value": 1.0, "grad_norm": 3.2e2, "num_steps": 3}
    text = sentence(Status.GRADIENT_TOL, **said, relative=True)
    assert "orthogonal to the Jacobian (gradient norm 3.2e+02, in its unit)" in text
    assert "is zero to gtol" in sentence(Status.GRADIENT_TOL, **said)
    for status in set(Status) - {Status.GRADIENT_TOL}:
        assert sentence(status, **said, relative=True) == sentence(status, **said)
