"""Numbers of a configuration that are out of their range, as problems in one line each.

Each comparison is put so that NaN fails it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

_LARGEST_INT = 2**63 - 1  # what numpy and Arrow count with
LARGEST_SEED = 2**64 - 1  # what rensa takes


def below_minimum(
    section: Any, prefix: str, largest: int = _LARGEST_INT, **minimums: int
) -> Iterator[str]:
    """A problem for each field of `section` that is less than its minimum, or over `largest`.

    A field of None is none: its value is chosen later.
    """
    for key, minimum in minimums.items():
        value = getattr(section, key)
        if value is None:
            continue
        if not value >= minimum:
            yield f"{prefix}{key}: {value}, must be at least {minimum}"
        elif value > largest:
            yield f"{prefix}{key}: {value}, must be at most {largest}"


def no_fraction(section: Any, prefix: str, *keys: str) -> Iterator[str]:
    """A problem for each of these fields that is not in [0, 1)."""
    for key in keys:
        if not 0 <= (value := getattr(section, key)) < 1:
            yield f"{prefix}{key}: {value}, must be a share in [0, 1)"


def no_limit(value: float, key: str) -> Iterator[str]:
    """A problem where the value of `key` is no share in [0, 1]."""
    if not 0 <= value <= 1:
        yield f"{key}: {value}, must be a share in [0, 1]"


def not_finite(value: Any, key: str) -> Iterator[str]:
    """A problem for each NaN or infinity in a value and in the lists and mappings that it holds."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{key}: {value}, must be a finite number"
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from not_finite(each, f"{key}.{name}")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from not_finite(each, f"{key}[{index}]")
