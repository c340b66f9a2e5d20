"""Long decimals: the only ones that may stand for a number that they do not equal."""

from __future__ import annotations

import re
from fractions import Fraction

__all__ = ["is_long", "is_rounded", "terminates"]

ENOUGH = 15
"""Significant digits: all that a double-precision number has."""

_DECIMAL = re.compile(r"[+-]?[0-9]*\.[0-9]+")


def is_long(text: str) -> bool:
    """Whether ``text`` is a decimal with a point and at least ``ENOUGH`` significant digits."""
    return bool(_DECIMAL.fullmatch(text)) and len(text.lstrip("+-0.").replace(".", "")) >= ENOUGH


def is_rounded(decimal: str, exact: Fraction) -> bool:
    """Whether ``decimal`` is long, and ``exact`` correctly rounded."""
    return is_long(decimal) and round(exact, len(decimal.partition(".")[2])) == Fraction(decimal)


def terminates(exact: Fraction) -> bool:
    """Whether a decimal equals ``exact``."""
    return pow(10, exact.denominator.bit_length(), exact.denominator) == 0
