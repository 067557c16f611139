"""The NIST StRD sets for nonlinear regression: data, models, starts and certified answers.

Each set asks for the parameters b that minimize the residual sum of squares of y = model(b, x) + e.
The files under tests/data/nist/ are NIST's own, in the public domain; the models are written from
their headers. Certified values have 11 digits, found in 128-bit arithmetic; the deviations are
sqrt(s^2 (J'J)^-1) of each parameter, with s the residual standard deviation. Start 1 is far from
the answer and start 2 is close to it.

Source: National Institute of Standards and Technology, Statistical Reference Datasets, nonlinear
regression, https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml.
"""

import functools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Model = Callable[[Array, Array], Array]

FOLDER = Path(__file__).parent / "data" / "nist"
CERTIFIED_DIGITS = 11.0


class NistProblem(NamedTuple):
    """One set: fit `model(params, x)` to `y` from either row of `starts`."""

    name: str
    model: Model  # (n,), x -> (m,)
    x: np.ndarray  # (m,), float64; (m, 2) for Nelson's two predictors
    y: np.ndarray  # (m,), float64; for Nelson the logarithm of the response, which is what is fit
    starts: np.ndarray  # (2, n)
    certified: np.ndarray  # (n,)
    deviations: np.ndarray  # (n,), certified standard deviations of the parameters
    rss: float  # certified residual sum of squares
    dof: int  # degrees of freedom, m - n
    residual_deviation: float  # certified residual standard deviation, sqrt(rss / dof)

    def residuals(self, params: Array) -> Array:
        """model(params, x) - y, in the dtype of `params`."""
        x, y = (jnp.asarray(a, params.dtype) for a in (self.x, self.y))
        return self.model(params, x) - y


# ---- the models, from the headers of the files -----------------------------------------------


def _saturation(b, x):
    return b[0] * (1.0 - jnp.exp(-b[1] * x))


def _misra1b(b, x):
    return b[0] * (1.0 - (1.0 + b[1] * x / 2.0) ** -2)


def _misra1c(b, x):
    return b[0] * (1.0 - (1.0 + 2.0 * b[1] * x) ** -0.5)


def _misra1d(b, x):
    return b[0] * b[1] * x / (1.0 + b[1] * x)


def _chwirut(b, x):
    return jnp.exp(-b[0] * x) / (b[1] + b[2] * x)


def _lanczos(b, x):
    return b[0] * jnp.exp(-b[1] * x) + b[2] * jnp.exp(-b[3] * x) + b[4] * jnp.exp(-b[5] * x)


def _gauss(b, x):
    first = b[2] * jnp.exp(-((x - b[3]) ** 2) / b[4] ** 2)
    second = b[5] * jnp.exp(-((x - b[6]) ** 2) / b[7] ** 2)
    return b[0] * jnp.exp(-b[1] * x) + first + second


def _danwood(b, x):
    return b[0] * x ** b[1]


def _quadratic_over_quadratic(b, x):
    return (b[0] + b[1] * x + b[2] * x**2) / (1.0 + b[3] * x + b[4] * x**2)


def _cubic_over_cubic(b, x):
    above = b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3
    return above / (1.0 + b[4] * x + b[5] * x**2 + b[6] * x**3)


def _nelson(b, x):
    return b[0] - b[1] * x[:, 0] * jnp.exp(-b[2] * x[:, 1])


def _mgh09(b, x):
    return b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3])


def _mgh10(b, x):
    return b[0] * jnp.exp(b[1] / (x + b[2]))


def _mgh17(b, x):
    return b[0] + b[1] * jnp.exp(-x * b[3]) + b[2] * jnp.exp(-x * b[4])


def _roszman(b, x):
    return b[0] - b[1] * x - jnp.arctan(b[2] / (x - b[3])) / math.pi


def _wave(cosine, sine, period, x):
    angle = 2.0 * math.pi * x / period
    return cosine * jnp.cos(angle) + sine * jnp.sin(angle)


def _enso(b, x):
    year = b[0] + _wave(b[1], b[2], 12.0, x)
    return year + _wave(b[4], b[5], b[3], x) + _wave(b[7], b[8], b[6], x)


def _rat42(b, x):
    return b[0] / (1.0 + jnp.exp(b[1] - b[2] * x))


def _rat43(b, x):
    return b[0] / (1.0 + jnp.exp(b[1] - b[2] * x)) ** (1.0 / b[3])


def _eckerle(b, x):
    return b[0] / b[1] * jnp.exp(-0.5 * ((x - b[2]) / b[1]) ** 2)


def _bennett(b, x):
    return b[0] * (b[1] + x) ** (-1.0 / b[2])


MODELS: dict[str, Model] = {  # NIST's order: lower, average, higher difficulty
    "Misra1a": _saturation,
    "Chwirut2": _chwirut,
    "Chwirut1": _chwirut,
    "Lanczos3": _lanczos,
    "Gauss1": _gauss,
    "Gauss2": _gauss,
    "DanWood": _danwood,
    "Misra1b": _misra1b,
    "Kirby2": _quadratic_over_quadratic,
    "Hahn1": _cubic_over_cubic,
    "Nelson": _nelson,
    "MGH17": _mgh17,
    "Lanczos1": _lanczos,
    "Lanczos2": _lanczos,
    "Gauss3": _gauss,
    "Misra1c": _misra1c,
    "Misra1d": _misra1d,
    "Roszman1": _roszman,
    "ENSO": _enso,
    "MGH09": _mgh09,
    "Thurber": _cubic_over_cubic,
    "BoxBOD": _saturation,
    "Rat42": _rat42,
    "MGH10": _mgh10,
    "Eckerle4": _eckerle,
    "Rat43": _rat43,
    "Bennett5": _bennett,
}


# ---- the files -------------------------------------------------------------------------------


def header(text: str, label: str) -> float:
    """The number on the line `label: NUMBER` of a file."""
    found = re.search(rf"^{label}:\s*(\S+)\s*$", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"no line '{label}: NUMBER'")
    return float(found[1])


def _numbers(lines: list[str]) -> np.ndarray:
    return np.array([[float(word) for word in line.split()] for line in lines])


def parse(name: str, text: str) -> NistProblem:
    """The set called `name` from the text of its file."""
    # b1 = START1 START2 CERTIFIED DEVIATION
    rows = re.findall(r"^\s*b\d+\s*=\s*(.*)$", text, re.MULTILINE)
    start_1, start_2, certified, deviations = _numbers(rows).T
    columns = text.rindex("Data:")  # the last such line heads the columns: y, then x
    data = _numbers([line for line in text[columns:].splitlines()[1:] if line.strip()])
    y, x = data[:, 0], data[:, 1:]
    return NistProblem(
        name,
        MODELS[name],
        x[:, 0] if x.shape[1] == 1 else x,
        np.log(y) if name == "Nelson" else y,
        np.stack([start_1, start_2]),
        certified,
        deviations,
        header(text, "Residual Sum of Squares"),
        # Rat43 prints 9 where m - n is 11; its residual standard deviation is that of 11.
        y.size - certified.size,
        header(text, "Residual Standard Deviation"),
    )


@functools.cache
def problems() -> tuple[NistProblem, ...]:
    """Every set that has a file here."""
    files = {name: FOLDER / f"{name}.dat" for name in MODELS}
    return tuple(parse(name, file.read_text()) for name, file in files.items() if file.exists())


def by_name(name: str) -> NistProblem:
    """The set called `name`."""
    return next(problem for problem in problems() if problem.name == name)


def digits(found: np.ndarray, certified: np.ndarray) -> float:
    """Correct digits of the worst entry: the least -log10(|q - c| / |c|), between 0 and 11."""
    found, certified = np.asarray(found, np.float64), np.asarray(certified, np.float64)
    error = np.max(np.abs(found - certified) / np.abs(certified))
    if not np.isfinite(error):
        return 0.0
    return float(np.clip(-np.log10(max(error, 1e-300)), 0.0, CERTIFIED_DIGITS))
