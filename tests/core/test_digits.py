"""A value ends where its error ends."""

import numpy as np
import pytest

from hesskit.core.digits import rounded


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (10.02131, 0.0712, ("10.021", "0.071")),
        (1.0, 0.0996, ("1.00", "0.10")),
        (-3.14159, 0.00026, ("-3.14159", "0.00026")),
        (123456.0, 2345.0, ("123500", "2300")),
        (0.0, 0.25, ("0.00", "0.25")),
        (0.3, 4.0, ("0.3", "4.0")),
        (6.02214e23, 1.3e19, ("6.02214e+23", "1.3e+19")),
        (2.5e-9, 1e-10, ("2.50e-09", "1.0e-10")),
        (1.5, float("nan"), ("1.5", "")),
        (1.5, 0.0, ("1.5", "")),
        (float("nan"), 1.0, ("nan", "")),
        (1.2345678901, 1.2e-9, ("1.2345678901", "1.2e-09")),
    ],
)
def test_rounded(value: float, error: float, expected: tuple[str, str]):
    assert rounded(value, error) == expected


def test_never_further_off_than_a_tenth_of_the_error():
    rng = np.random.default_rng(0)
    for _ in range(300):
        value = float(rng.normal() * 10 ** rng.uniform(-12, 12))
        error = abs(value) * float(10 ** rng.uniform(-12, 3))
        text, size = rounded(value, error)
        assert abs(float(text) - value) <= 0.06 * error
        assert abs(float(size) / error - 1) <= 0.06
