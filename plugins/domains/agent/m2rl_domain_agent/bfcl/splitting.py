"""Cutting a literal of Java or JavaScript into its parts, and the numbers that both write alike.

The rules for values are upstream's type converters', oddities included: what is no literal of the wanted type stays the
text that it is. Unlike theirs, whose expressions are not anchored, a literal must be the whole text, and commas and
brackets inside quotes or deeper brackets separate nothing. Time is linear in the length of the text, which is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = ["DEEPEST", "INTEGER", "LONGEST", "SCIENTIFIC", "parts", "read"]

LONGEST, DEEPEST = 20_000, 32
"""Characters, and brackets within brackets, of a literal; text beyond is none."""
INTEGER = re.compile(r"-?[0-9]{1,4000}")
SCIENTIFIC = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,9})?")


def read(body: str, text: str, element: Callable[[str], Any]) -> Any:
    """The elements of a list, or the text where the brackets in it do not match."""
    found = parts(body, ",")
    return text if found is None else [element(part) for part in found]


def parts(body: str, separator: str, most: int = -1) -> list[str] | None:
    """The stripped parts of ``body`` between top-level separators, without an empty last one.

    Returns ``None`` where brackets or quotes do not match.
    """
    found, start, open_, quote = list[str](), 0, list[str](), ""
    for at, sign in enumerate(body):
        if quote:
            quote = "" if sign == quote and body[at - 1] != "\\" else quote
        elif sign in "\"'" and (at == 0 or not body[at - 1].isalnum()):  # an apostrophe opens nothing
            quote = sign
        elif sign in "([{":
            open_.append({"(": ")", "[": "]", "{": "}"}[sign])
        elif sign in ")]}":
            if not open_ or open_.pop() != sign:
                return None
        elif sign == separator and not open_ and most:
            found.append(body[start:at])
            start, most = at + 1, most - 1
    if open_ or quote:
        return None
    last = body[start:].strip()
    return [*map(str.strip, found), *([last] if last else [])]
