"""Numbers with errors, written to the digits that the error leaves."""

import math

SIGNIFICANT = 2
"""Digits of an error; those of the value end where they end (Particle Data Group)."""


def rounded(value: float, error: float) -> tuple[str, str]:
    """`value` and `error` as text, the value to the last digit of its error.

    Args:
      value: a number.
      error: its standard error; where 0 or not finite the value has 7 digits and the error none.

    Returns:
      Two strings.

    Example:
      >>> rounded(10.02131, 0.0712)
      ('10.021', '0.071')
      >>> rounded(6.02214e23, 1.3e19)
      ('6.02214e+23', '1.3e+19')
      >>> rounded(1.5, float("nan"))
      ('1.5', '')
    """
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return f"{value:.7g}", ""
    last = math.floor(math.log10(error)) - SIGNIFICANT + 1
    if round(error, -last) >= 10.0 ** (last + SIGNIFICANT):  # 0.0996 is 0.10
        last += 1
    top = math.floor(math.log10(max(abs(value), error)))
    if top - last > 15:  # beyond what a float64 holds
        return f"{value:.16g}", f"{error:.{SIGNIFICANT}g}"
    if -5 <= top < 7 and last <= 4:
        places = max(-last, 0)
        small = error < 1e-5
        text = f"{error:.{SIGNIFICANT - 1}e}" if small else f"{round(error, -last):.{places}f}"
        return f"{round(value, -last):.{places}f}", text
    return f"{value:.{top - last}e}", f"{error:.{SIGNIFICANT - 1}e}"
