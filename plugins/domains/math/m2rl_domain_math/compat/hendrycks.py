r"""What both evaluators inherit from the answer normalisation of the MATH data set (Hendrycks et al., 2021)."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["full_fractions", "replaced", "sided", "slashed"]

_BARE = re.compile(r"\\frac(?!\{)(.)(.)", re.DOTALL)
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
LONGEST_NAME = 2
"""Characters before the ``=`` that is taken off."""


def replaced(text: str, table: Iterable[tuple[str, str]]) -> str:
    """``text`` with every literal replacement of ``table``, in order."""
    for old, new in table:
        text = text.replace(old, new)
    return text


def full_fractions(text: str) -> str:
    r"""``\frac12`` as ``\frac{1}{2}``, ``\frac1{23}`` as ``\frac{1}{23}``."""

    def full(found: re.Match[str]) -> str:
        above, below = found.groups()
        return rf"\frac{{{above}}}" + ("{" if below == "{" else f"{{{below}}}")

    return _BARE.sub(full, text)


def slashed(text: str, also: str | None = None) -> str:
    r"""``3/4``, if that is all, as ``\frac{3}{4}``; a side that holds ``also`` need not be an integer."""
    above, slash, below = text.partition("/")
    sides = (above, below)
    if not slash or not all(_INTEGER.fullmatch(side) or (also and also in side) for side in sides) or "/" in below:
        return text
    return rf"\frac{{{above}}}{{{below}}}"


def sided(text: str) -> str:
    """``text`` without a short left side of its only equals sign, as in ``k=5``."""
    name, equals, value = text.partition("=")
    return value if equals and "=" not in value and len(name) <= LONGEST_NAME else text
