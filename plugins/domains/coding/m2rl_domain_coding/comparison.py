"""Whether what a program printed or returned is what a test expects: decided here, never where the program runs."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["same_text", "same_value"]

_BLANK = " \t\r\n\f\v"


def same_text(expected: str, printed: str) -> bool:
    """Whether both are the same text but for whitespace around it and at the ends of lines. Numbers are text, too."""
    return _lines(expected) == _lines(printed)


def _lines(text: str) -> list[str]:
    return [line.rstrip(_BLANK) for line in text.strip(_BLANK).split("\n")]


def same_value(expected: Any, returned: str) -> bool:
    """Whether the JSON text ``returned`` is the value ``expected``.

    Numbers are equal where their values are exactly, ``2`` and ``2.0``; a boolean is no number, and NaN equals nothing.
    """
    try:
        return _same(expected, json.loads(returned))
    except (ValueError, RecursionError):
        return False


def _same(expected: Any, value: Any) -> bool:
    if isinstance(expected, list):
        return isinstance(value, list) and len(expected) == len(value) and all(map(_same, expected, value))
    if isinstance(expected, dict):
        is_like = isinstance(value, dict) and expected.keys() == value.keys()
        return is_like and all(_same(below, value[key]) for key, below in expected.items())
    return _kind(expected) == _kind(value) and bool(expected == value)


def _kind(value: object) -> str:
    """JSON's, which has one kind of number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if is_number else type(value).__name__
