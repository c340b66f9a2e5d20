"""The range that an inequality leaves for the name in it."""

from __future__ import annotations

import re
from typing import NamedTuple

from m2rl_domain_math.shapes import Shape, is_name

__all__ = ["interval"]


class _End(NamedTuple):
    """An end of an interval and the bracket there."""

    value: str
    bracket: str


_ABSOLUTE = re.compile(r"\|[^|]+\|")
_OPPOSITE = {"(": ")", "[": "]", ")": "(", "]": "["}


def interval(relation: Shape) -> Shape | None:
    r"""The interval of ``1 < x`` or ``1 < x \leq 2``, the two of ``1 < |x| < 2`` or ``x \neq 1``; else ``None``."""
    links = relation.links
    if not 1 <= len(links) <= 2:
        return None
    if "\\neq" in relation.marks:
        return _without(*relation.parts)
    name = relation.parts[1] if len(links) == 2 or is_name(relation.parts[1]) else relation.parts[0]
    lows = [_End(less, "(" if sign == "<" else "[") for less, sign, more in links if more == name]
    highs = [_End(more, ")" if sign == "<" else "]") for less, sign, more in links if less == name]
    if not is_name(name) or max(len(lows), len(highs)) > 1:  # both ends of "1 < x > 0" are low
        return None
    [low] = lows or [_End("-\\infty", "(")]
    [high] = highs or [_End("\\infty", ")")]
    return _mirrored(low, high) if _ABSOLUTE.fullmatch(name) else _between(low, high)


def _between(low: _End, high: _End) -> Shape:
    marks = low.bracket + high.bracket
    return Shape("tuple" if marks == "()" else "interval", (low.value, high.value), marks)


def _mirrored(low: _End, high: _End) -> Shape:
    """What bounds of an absolute value leave for the number itself."""
    if low.value == "-\\infty":
        return _between(_negative(high), high)
    return _two((_negative(high), _negative(low)), (low, high))


def _without(name: str, value: str, *more: str) -> Shape | None:
    """All but one value."""
    if more or not is_name(name) or _ABSOLUTE.fullmatch(name):
        return None
    return _two((_End("-\\infty", "("), _End(value, ")")), (_End(value, "("), _End("\\infty", ")")))


def _two(*intervals: tuple[_End, _End]) -> Shape:
    return Shape("union", tuple(f"{low.bracket}{low.value},{high.value}{high.bracket}" for low, high in intervals))


def _negative(end: _End) -> _End:
    value = "-\\infty" if end.value == "\\infty" else f"-({end.value})"
    return _End(value, _OPPOSITE[end.bracket])
