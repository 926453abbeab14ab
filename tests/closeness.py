"""Equal up to rounding, numbers inside sentences included: processors and batches differ."""

from __future__ import annotations

import math
import re
from typing import Any

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def close(one: Any, other: Any, rel_tol: float = 1e-5, abs_tol: float = 1e-6) -> bool:
    """Whether two JSON values are the same; numbers up to a tolerance.

    A number with decimals inside a text may besides differ by one in its last digit, to which it
    was rounded.
    """
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            close(one[k], other[k], rel_tol, abs_tol) for k in one
        )
    if isinstance(one, (list, tuple)):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(close(*pair, rel_tol, abs_tol) for pair in pairs)
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=rel_tol, abs_tol=abs_tol)
    if isinstance(one, str) and isinstance(other, str) and one != other:
        return _NUMBER.split(one) == _NUMBER.split(other) and all(
            _close_digits(a, b, rel_tol, abs_tol)
            for a, b in zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
        )
    return bool(one == other)


def _close_digits(one: str, other: str, rel_tol: float, abs_tol: float) -> bool:
    if one == other:
        return True
    if not ("." in one and "." in other):
        return False
    unit = max(10.0 ** -_decimals(one), 10.0 ** -_decimals(other))
    room = max(abs_tol, rel_tol * abs(float(one)), 1.001 * unit)
    return abs(float(one) - float(other)) <= room


def _decimals(number: str) -> int:
    digits, _, exponent = number.partition("e")
    return len(digits.partition(".")[2]) - int(exponent or 0)
