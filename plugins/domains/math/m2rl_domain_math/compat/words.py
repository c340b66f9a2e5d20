"""Numbers in English words."""

from __future__ import annotations

__all__ = ["number"]

_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {word: value for value, word in enumerate(_SMALL)} | {word: 10 * n for n, word in enumerate(_TENS, start=2)}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}


def number(text: str) -> int | None:
    """The number that ``text`` is from its first word to its last, such as ``two hundred and five``; else ``None``."""
    total = group = 0
    words = text.lower().replace("-", " ").split()
    for at, word in enumerate(words):
        if word in _VALUES:
            group += _VALUES[word]
        elif word == "hundred":
            group = max(group, 1) * 100
        elif word in _SCALES:
            total, group = total + max(group, 1) * _SCALES[word], 0
        elif word != "and" or at in (0, len(words) - 1):
            return None
    return total + group if words else None
