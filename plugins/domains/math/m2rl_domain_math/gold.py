"""The right answer as text, out of what rows hold."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal

from m2rl_core.answers import enclosed
from m2rl_core.errors import DataError

__all__ = ["answer"]

_BOXED = re.compile(r"\$*\\boxed\s*\{(?P<inside>.*)\}\$*", re.DOTALL)
_VACUOUS = re.compile(r"(?:\\[a-z]+\s*\{\s*\}|\\(?:boxed|text)(?![A-Za-z])|[\s$()\[\]{}.,;])*")


def answer(place: str, given: object) -> str:
    """The gold answer: text, perhaps in a box or, as Skywork rows have it, in a JSON list of one; or a number.

    Raises:
        DataError: there is none, there are several, or nothing is in it, which would reward an empty answer.
    """
    text = _unboxed(_only(place, _written(given)))
    if _VACUOUS.fullmatch(text):
        raise DataError(f"{place} has no gold answer", found=repr(given))
    return text


def _written(given: object) -> str:
    """Text as it is and a number in digits, never as ``1e-05``; nothing for anything else."""
    if isinstance(given, float) and math.isfinite(given):
        return format(Decimal(repr(given)), "f")
    return str(given).strip() if isinstance(given, str | int) and not isinstance(given, bool) else ""


def _only(place: str, text: str) -> str:
    """The one answer out of a JSON list of strings.

    Raises:
        DataError: the list is empty or holds several.
    """
    if not text.startswith('["'):
        return text
    try:
        listed = json.loads(text)
    except ValueError:
        return text
    if len(listed) != 1 or not isinstance(listed[0], str) or not listed[0].strip():
        raise DataError(f"{place} has not exactly one gold answer", found=text)
    return listed[0].strip()


def _unboxed(text: str) -> str:
    boxed = _BOXED.fullmatch(text)
    return boxed["inside"].strip() if boxed and enclosed(f"{{{boxed['inside']}}}") else text
