"""Marks that several test files share."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(names: Iterable[str], *quick: str) -> list[Any]:
    """The cases of a test that takes seconds each: all but those named are slow."""
    return [pytest.param(n, id=n, marks=[] if n in quick else pytest.mark.slow) for n in names]
